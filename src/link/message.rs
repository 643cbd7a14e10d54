//! The words of the protocol between warden and engine. File descriptors travel beside a message.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

use crate::config::{Config, Lan};
use crate::gateway::BlockReason;
use crate::leak::evidence::{Evidence, Found};
use crate::leak::stopped::Report;
use crate::net::{Fwmark, IfName, Uplink};
use crate::policy::Permit;
use crate::ruleset::Lack;

/// Version of the protocol. Both halves must speak the same one.
pub const VERSION: u32 = 2;

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
    /// Sealed topology: what a health check is to be told.
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
    /// Block until `Unblock`, whatever is asked for meanwhile.
    Block(BlockReason),
    /// The operator lifted the block.
    Unblock,
    /// Somebody wants to know what was stopped; [`ToEngine::Stopped`] answers.
    Stopped,
}

/// What the warden says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToEngine {
    /// Answers `Attach`. Carries the TUN device, then one listener for each name in `listeners`.
    Welcome {
        /// The whole configuration; `None` in the sealed topology, where the engine has its own.
        config: Option<Box<Config>>,
        /// Bytes of the largest inner packet.
        mtu: u16,
        /// Names of the listening sockets that follow the TUN device: `control`, `uapi`.
        listeners: Vec<String>,
        /// Why everything is blocked, if it is.
        blocked: Option<BlockReason>,
        /// What is known of the namespace.
        facts: Box<Facts>,
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

/// What an engine's configuration says of the app namespace. The warden takes the tunnel's own from it, and
/// nothing that its own configuration does not permit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What the engine takes the tunnel device to be called.
    pub device: IfName,
    /// Our addresses inside the tunnel.
    pub addresses: Vec<Ipv4Network>,
    /// Bytes of the largest inner packet.
    pub mtu: u16,
    /// Resolvers reached through the tunnel.
    pub dns: Vec<Ipv4Addr>,
    /// Private destinations allowed through the tunnel.
    pub private: Vec<Ipv4Network>,
    /// LAN exceptions.
    pub lan: Lan,
    /// Ports accepted from the tunnel.
    pub forward: Vec<u16>,
}

impl Offer {
    /// What this configuration says.
    pub fn of(config: &Config) -> Self {
        Self {
            device: config.tunnel.device.clone(),
            addresses: config.tunnel.addresses.clone(),
            mtu: config.tunnel.mtu,
            dns: config.tunnel.dns.clone(),
            private: config.tunnel.private.clone(),
            lan: config.lan.clone(),
            forward: config.forward.clone(),
        }
    }
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
