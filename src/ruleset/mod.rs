//! The policy in nftables terms: a small typed rule language with two renderings. `Display` is the
//! text that `nft list ruleset` (1.0.6) prints, [`Ruleset::encode`] the netlink batch that loads it.

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnetwork::Ipv4Network;

use crate::net::{Fwmark, IfName, Transport};
use crate::policy::Reason;

pub mod attribute;
mod encode;
mod eval;
mod expression;
mod frames;
mod kernel;
mod rules;
pub mod stored;
mod text;

pub use encode::{Batch, Hold, OWNED, Part, clear};
pub use eval::Decision;
pub use kernel::{Kernel, Lack};

/// The name of each of our tables.
pub const TABLE: &str = "vpngw";

/// Group of the packets that `output` refused (NFLOG).
pub const LOG_OUTPUT: u16 = 5;

/// Group of the frames that `egress` dropped (NFLOG).
pub const LOG_EGRESS: u16 = 6;

/// Group of both, for `vpngw capture`. The kernel gives a group to one socket only, and the first two are
/// the gateway's. Where nobody listens a copy is not made (`nfulnl_log_packet`,
/// net/netfilter/nfnetlink_log.c).
pub const LOG_CAPTURE: u16 = 7;

/// Group of what `prerouting` and `input` refused of the uplink's connections and datagrams (NFLOG). Apart from the
/// others, so that a host on the LAN that sends many hides nothing of what programs here tried. No copy is made
/// for `vpngw capture`, which sees what arrives anyway.
pub const LOG_INPUT: u16 = 8;

/// Bytes of a packet that are logged: IPv4 header with options, TCP header, some payload.
pub const LOG_BYTES: u32 = 128;

/// The protocols that are counted apart where a rule is for all of them, with the word of each in nft
/// text (IANA protocol numbers).
pub const PROTOCOLS: [(u8, &str); 3] = [(6, "tcp"), (17, "udp"), (1, "icmp")];

/// All our tables: the whole of what is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// One for each family.
    pub tables: Vec<Table>,
}

/// One table, named [`TABLE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its chains.
    pub chains: Vec<Chain>,
}

/// Address family of a table (`NFPROTO_*`, linux/netfilter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// Frames on a device.
    Netdev,
    /// Address resolution.
    Arp,
}

/// A base chain of type `filter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The hook it hangs on.
    pub hook: Hook,
    /// Which of the chains on this hook it is, from 0: a chain takes so many devices only.
    pub number: usize,
    /// Whether a packet that no rule decides passes.
    pub accept: bool,
    /// For [`Hook::Egress`]: the devices. Sorted, and empty for all other hooks.
    pub devices: Vec<IfName>,
    /// In the order they are tried.
    pub rules: Vec<Rule>,
}

/// Where a chain hangs, and at which priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Before routing, at priority `raw`.
    Prerouting,
    /// To a program here.
    Input,
    /// Neither from here nor to here.
    Forward,
    /// From a program here, before connection tracking: at priority `raw`.
    OutputRaw,
    /// From a program here.
    Output,
    /// Frames about to be handed to a device, whoever made them.
    Egress,
}

/// One rule: all of its matches, then its statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// All must hold.
    pub matches: Vec<Match>,
    /// Whether packets and bytes are counted.
    pub counted: bool,
    /// Group that gets a copy (NFLOG), with the reason as prefix; of all but [`LOG_INPUT`] [`LOG_CAPTURE`] gets
    /// another one.
    pub log: Option<u16>,
    /// Connection tracking does not see the packet (`notrack`).
    pub untracked: bool,
    /// What becomes of the packet.
    pub end: End,
    /// Its comment.
    pub reason: Reason,
}

/// What becomes of a packet that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It passes this hook.
    Accept,
    /// It vanishes; its sender, if it is a program here, gets EPERM.
    Drop,
    /// It vanishes, and an ICMP error (type 3, code 13: RFC 1812 section 5.2.7.1) goes back by `lo`.
    RejectProhibited,
    /// It vanishes, and a TCP reset goes back by `lo`: `connect` fails at once.
    RejectReset,
}

/// What a rule looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// `iifname "eth0"`
    In(IfName),
    /// `iifname != "eth0"`
    NotIn(IfName),
    /// `oifname "eth0"`
    Out(IfName),
    /// `oifname != "eth0"`
    NotOut(IfName),
    /// `meta iifkind "tun"`
    InKindTun,
    /// `meta oifkind "tun"`
    OutKindTun,
    /// `meta nfproto ipv4`
    Ipv4,
    /// `meta nfproto ipv6`
    Ipv6,
    /// `meta mark 0x00001234`
    Mark(Fwmark),
    /// `ip saddr 192.168.1.0/24`
    Source(Ipv4Network),
    /// `ip daddr 192.168.1.0/24`
    Destination(Ipv4Network),
    /// `ip frag-off & 16383 != 0`: part of a packet that was cut, the first part included (RFC 791
    /// section 3.1).
    Fragment,
    /// `ip hdrlength 5`: no IP options (RFC 791 section 3.1). No permitted flow needs them, and with them
    /// ports stand elsewhere than a reader of fixed offsets looks.
    NoOptions,
    /// `meta l4proto icmp`, by the protocol's number; see [`PROTOCOLS`].
    Carries(u8),
    /// `tcp flags syn / syn,ack`: opens a connection.
    Opening,
    /// `tcp sport 8080`
    SourcePort(Transport, u16),
    /// `tcp dport 8080`
    DestinationPort(Transport, u16),
    /// `@th,64,8 1-4 @th,72,24 0`: the payload begins like a WireGuard message. Stands after a match on
    /// a UDP port.
    WireGuard,
    /// `icmp type destination-unreachable icmp code frag-needed`, about a UDP datagram of ours: `@th,136,8 0x11
    /// @th,192,32 0xc633640a @th,224,16 0x9c40 @th,240,16 0xca6c`, which are protocol, destination and ports of
    /// the packet it quotes behind the 8 bytes of its own header (RFC 792). We send no IPv4 options, so the
    /// quoted header has 20 bytes.
    TooBig {
        /// Source port of the datagram.
        source_port: u16,
        /// Where it was sent.
        remote: SocketAddrV4,
    },
    /// `ct state new`
    New,
    /// `ct direction reply`
    Reply,
    /// `ct original proto-dst 8080`
    OriginalDestinationPort(u16),
    /// `ct state established`
    Established,
    /// `ct state established,related`
    EstablishedOrRelated,
    /// `fib saddr . iif oif missing`: answers would leave by another device.
    NoWayBack,
    /// `@ll,96,16 0x800`: the frame itself says that it is IPv4, and has no VLAN tag. What `ip` looks at is
    /// what the sender calls it, and a packet socket may call any frame so (`packet_snd`,
    /// net/packet/af_packet.c).
    Ipv4Frame,
    /// `@ll,96,16 0x806`: the frame itself says that it is ARP.
    ArpFrame,
    /// `meta length 42`: bytes of the whole frame.
    Length(u32),
    /// `arp saddr ip 172.30.0.2`
    ArpSource(Ipv4Addr),
    /// `arp daddr ip 172.30.0.2`
    ArpDestination(Ipv4Addr),
}

impl Ruleset {
    /// All rules with the family and hook they stand in, in order.
    pub fn rules(&self) -> impl Iterator<Item = (Family, Hook, &Rule)> {
        self.tables.iter().flat_map(|table| {
            let chains = table.chains.iter();
            chains.flat_map(|c| c.rules.iter().map(|r| (table.family, c.hook, r)))
        })
    }
}

impl Family {
    /// All of them, in the order they are loaded.
    pub const ALL: [Self; 3] = [Self::Inet, Self::Netdev, Self::Arp];

    /// The word in nft text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Netdev => "netdev",
            Self::Arp => "arp",
        }
    }

    /// The number in netlink messages (`NFPROTO_*`, linux/netfilter.h).
    pub fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Arp => 3,
            Self::Netdev => 5,
        }
    }
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Prerouting,
        Self::Input,
        Self::Forward,
        Self::OutputRaw,
        Self::Output,
        Self::Egress,
    ];

    /// The word in nft text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::OutputRaw | Self::Output => "output",
            Self::Egress => "egress",
        }
    }

    /// The name of the first chain on it.
    pub fn chain(self) -> &'static str {
        match self {
            Self::OutputRaw => "output_raw",
            Self::Prerouting | Self::Input | Self::Forward | Self::Output | Self::Egress => {
                self.as_str()
            }
        }
    }

    /// The hook of a chain of ours by its name.
    pub fn of_chain(name: &str) -> Option<Self> {
        let name = name.trim_end_matches(|c: char| c.is_ascii_digit());
        Self::ALL.into_iter().find(|hook| hook.chain() == name)
    }

    /// Whether it comes before connection tracking. A chain there takes packets out of it and drops what
    /// cannot be true; the others decide.
    pub fn is_early(self) -> bool {
        match self {
            Self::Prerouting | Self::OutputRaw => true,
            Self::Input | Self::Forward | Self::Output | Self::Egress => false,
        }
    }
}

impl Chain {
    /// Its name: that of the hook, and from the second one on a number behind it.
    pub fn name(&self) -> String {
        match self.number {
            0 => self.hook.chain().to_owned(),
            more => format!("{}{}", self.hook.chain(), more + 1),
        }
    }
}

#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod tests;
