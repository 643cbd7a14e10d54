//! The words of the protocol between warden and engine. File descriptors travel beside a message.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::{Config, PublicKey};
use crate::gateway::{BlockReason, Command};
use crate::guard::Offer;
use crate::leak::evidence::{Evidence, Found};
use crate::leak::stopped::Report;
use crate::net::{Fwmark, IfName, Stamp, Stamps, Uplink};
use crate::policy::Permit;
use crate::ruleset::Lack;

/// Version of the protocol. Both halves must speak the same one.
pub const VERSION: u32 = 3;

/// A message of one direction.
pub trait Message: Serialize + DeserializeOwned {
    /// Most bytes of one as JSON.
    const LONGEST: usize;
    /// How one travels that does not fit a packet.
    const LONG: Long;
}

/// How a long message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Long {
    /// As a sealed file in memory beside a short one: who sends it never waits.
    File,
    /// In parts: who receives it takes no descriptors.
    Parts,
}

/// The engine trusts its warden; the bound is against mistakes. A configuration at the limits of
/// [`config`](crate::config) has about 2 MiB.
impl Message for ToEngine {
    const LONGEST: usize = 64 << 20;
    const LONG: Long = Long::File;
}

/// An engine may have been taken over. A whole offer at the limits of [`config`](crate::config) has about 2 MiB.
impl Message for ToWarden {
    const LONGEST: usize = 8 << 20;
    const LONG: Long = Long::Parts;
}

/// A listening socket that the warden hands to its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Listener {
    /// Of the control API: UNIX, stream.
    Control,
    /// Of wg(8): UNIX, stream.
    Uapi,
    /// Of the metrics: TCP.
    Metrics,
}

/// A listening socket that could not be had. It is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unheard {
    /// Which.
    pub listener: Listener,
    /// One line for the operator.
    pub why: String,
}

/// What the engine says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToWarden {
    /// First message: who is there. Its form is the same in every version.
    Attach {
        /// [`VERSION`] of the engine.
        version: u32,
        /// Release of the engine, for the log.
        release: String,
    },
    /// Sealed topology: what the engine's configuration says of the app namespace, after `Attach` and after
    /// each reload. `Welcome` or `Agreed` answers, or `Declined`.
    Offer(Box<Offer>),
    /// Sealed topology: asks for a connection to a published port of a joined program. `Connected` or
    /// `NotConnected` answers with the same number.
    Connect {
        /// Number of the question.
        id: u64,
        /// The port.
        port: u16,
        /// The LAN client that it is for: the source of the connection.
        client: Ipv4Addr,
    },
    /// What a health check is to be told, once a second. A warden that hears nothing for long takes the engine for hanging.
    Health(Health),
    /// Sealed topology, from a health check beside the warden: `Health` answers.
    AskHealth,
    /// Ask for a permission; `Granted` or `Refused` answers with the same number.
    Ask {
        /// Number of the question.
        id: u64,
        /// What is asked for.
        permit: Permit,
    },
    /// What fits the path to the endpoint. The tunnel device never gets a longer MTU than is configured.
    PathMtu {
        /// The endpoint that was granted.
        remote: SocketAddrV4,
        /// Bytes of the longest IPv4 packet that arrives there.
        mtu: u32,
    },
    /// An operator said so. `Done` or `NotDone` answers with the same number.
    Operator {
        /// Number of the command.
        id: u64,
        /// What he said.
        command: Command,
    },
    /// A handshake initiation was sent to a server. The warden keeps the newest stamp of each for the next engine: a
    /// server takes no older one.
    Stamp {
        /// The server's key.
        peer: PublicKey,
        /// The stamp.
        stamp: Stamp,
    },
    /// Somebody wants to know what was stopped; [`ToEngine::Stopped`] answers.
    Stopped,
}

/// What the warden says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToEngine {
    /// Answers `Attach`. Carries the TUN device, then one socket for each of `listeners`.
    Welcome {
        /// The whole configuration; `None` in the sealed topology, where the engine has its own.
        config: Option<Box<Config>>,
        /// Bytes of the largest inner packet.
        mtu: u16,
        /// The listening sockets that follow the TUN device, in this order.
        listeners: Vec<Listener>,
        /// Why everything is blocked, if it is.
        blocked: Option<BlockReason>,
        /// What is known of the namespace.
        facts: Box<Facts>,
        /// The newest stamps that engines before have told.
        #[serde(default)]
        stamps: Stamps<PublicKey>,
    },
    /// Why there will be no `Welcome`, or why an `Offer` after it is not in force.
    Declined(Decline),
    /// An `Offer` after the first one is in force.
    Agreed,
    /// Sealed topology. Carries a TCP socket in the app namespace whose connection to the port is under way.
    Connected {
        /// Number of the question.
        id: u64,
    },
    /// Sealed topology: there is no such connection.
    NotConnected {
        /// Number of the question.
        id: u64,
        /// One line for the operator.
        why: String,
    },
    /// Sealed topology. Carries the connection of a joined program that wants to reach this LAN host.
    Accepted {
        /// The host and port of the LAN exception.
        to: SocketAddrV4,
    },
    /// Answers `AskHealth`.
    Health(Health),
    /// The permission is in force. For `Resolver` and `Endpoint` it carries a UDP socket, marked and
    /// with its port, that the rules let reach `remote` and nothing else.
    Granted {
        /// Number of the question.
        id: u64,
        /// What was asked for.
        permit: Permit,
        /// Where the socket leads.
        remote: Option<SocketAddrV4>,
    },
    /// The permission is not in force.
    Refused {
        /// Number of the question.
        id: u64,
        /// What was asked for.
        permit: Permit,
        /// One line for the operator.
        why: String,
    },
    /// What an operator said is in force.
    Done {
        /// Number of the command.
        id: u64,
    },
    /// It is not.
    NotDone {
        /// Number of the command.
        id: u64,
        /// One line for the operator: what was not confirmed.
        why: String,
    },
    /// Carries a listening socket that was opened since `Welcome`; it takes the place of one of its kind. One for a new
    /// address comes before the configuration that names it.
    Listen(Listener),
    /// A whole new configuration, already valid.
    Reconfigure(Box<Config>),
    /// The uplink changed; sockets granted before are worth nothing now.
    UplinkChanged,
    /// The warden blocked everything.
    Blocked(BlockReason),
    /// What is known of the namespace; once a second and after each change.
    Facts(Box<Facts>),
    /// What the sensors saw last, the whole of it; after `Welcome` and whenever it changed.
    Evidence(Vec<Evidence>),
    /// What was stopped.
    Stopped(Box<Report>),
}

/// Why the warden does not take an engine, or what it offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Decline {
    /// It has one that lives.
    #[error("another engine is attached to this warden: stop that one first")]
    Busy,
    /// Another version of the protocol.
    #[error(
        "the warden speaks version {0} of their protocol, and this engine {VERSION}: run both from the same image"
    )]
    Version(u32),
    /// Another user.
    #[error(
        "the warden takes an engine of user {wanted} only, and this one is user {user}: run the engine's service as that user (`user: \"{wanted}\"`), or set [sealed] engine_user = {user} for the warden"
    )]
    User {
        /// Who asked.
        user: u32,
        /// Whom it takes.
        wanted: u32,
    },
    /// The two configurations do not agree.
    #[error("{0}")]
    Offer(String),
}

/// What a health check says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether joined programs have their network and the rules that guard it.
    pub ready: bool,
    /// One line for a person.
    pub line: String,
}

/// What the warden knows of the namespace and its rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Whether our rules are in the kernel.
    pub armed: bool,
    /// Microseconds from exec to the commit of deny-all.
    pub armed_in_microseconds: u64,
    /// Whether the kernel has the netdev egress hook (Linux 5.16), the second layer.
    pub egress_hook: bool,
    /// What the rules have to do without in this kernel.
    #[serde(default)]
    pub lacks: Vec<Lack>,
    /// The uplink, if there is one.
    pub uplink: Option<Uplink>,
    /// Bytes of the largest packet the tunnel device takes now; 0 before it is known.
    pub mtu: u16,
    /// Mark of our sockets.
    pub mark: Option<Fwmark>,
    /// Packets stopped since start, by reason.
    pub blocked: BTreeMap<String, Count>,
    /// The same, by reason and protocol. `rest` is what the rules of a reason do not tell apart.
    #[serde(default)]
    pub blocked_by_protocol: BTreeMap<String, BTreeMap<String, Count>>,
    /// Packets let through since start, by reason.
    pub passed: BTreeMap<String, Count>,
    /// Whether `/etc/resolv.conf` names the tunnel's resolvers and nothing else.
    pub resolver: ResolverFact,
    /// Whether IPv6 is off, and how.
    pub ipv6: Ipv6Fact,
    /// Devices other than loopback and the tunnel.
    pub devices: Vec<IfName>,
    /// Leaks seen since start.
    pub leaks: u64,
    /// Whether the frame sensor looks at every device: without it "no leak seen" says nothing.
    pub watched: bool,
    /// The last leak, in words.
    pub last_leak: Option<String>,
    /// How much the sensors found, by kind.
    pub found: Vec<Found>,
    /// When a probe was last refused by the rules on every device: milliseconds since 1970.
    pub proven: Option<u64>,
    /// Whether what the devices sent is held against what the rules let leave.
    pub accounting: Accounting,
    /// Listening sockets of the warden's that could not be had.
    #[serde(default)]
    pub unheard: Vec<Unheard>,
}

/// Whether what the uplink sent is held against what the rules let leave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accounting {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// Every frame.
    On,
    /// It is not, and why.
    Off(String),
}

impl Facts {
    /// Takes in what was stopped, by reason and protocol.
    pub fn note_blocked(&mut self, counts: BTreeMap<(String, String), Count>) {
        (self.blocked, self.blocked_by_protocol) = Default::default();
        for ((reason, protocol), count) in counts {
            let total = self.blocked.entry(reason.clone()).or_default();
            total.packets += count.packets;
            total.bytes += count.bytes;
            let protocols = self.blocked_by_protocol.entry(reason).or_default();
            protocols.insert(protocol, count);
        }
    }
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// State of `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolverFact {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// It names these and nothing else.
    Written(Vec<Ipv4Addr>),
    /// It could not be written; port 53 to anywhere else is refused all the same.
    Failed(String),
}

/// State of IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ipv6Fact {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// Switched off by sysctl on every device, and dropped by the rules.
    Off,
    /// The sysctl could not be written; dropped by the rules.
    Dropped,
}
