//! What the operator asked for: resolved, complete, and valid.
//!
//! As written (`file`, [`wgquick`], `env`) becomes as meant ([`Config`]) once, in [`load()`]. Past
//! that point nothing is optional "to be checked later". Pure: reading a file is a function that the
//! caller passes in.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

use crate::net::beside::{Link, Shares};
use crate::net::inside::Inside;
use crate::net::{IfName, Uplink};

mod check;
mod clients;
mod diagnostic;
#[cfg(test)]
pub(crate) mod drawn;
mod env;
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod example;
mod field;
mod file;
mod foreign;
mod gluetun;
mod inline;
mod keys;
mod lan;
mod layer;
mod load;
mod peers;
mod place;
pub mod provider;
mod resolve;
mod resolver;
mod resolvers;
pub mod search;
mod secret;
mod servers;
mod taken;
mod tunnel;
mod unreadable;
mod value;
pub mod wgquick;

pub use crate::net::lan::{Inbound, Lan, Outbound};
pub use diagnostic::{Diagnostic, Errors};
pub use env::is_read;
pub use gluetun::markdown as from_gluetun;
pub use lan::MOST_EXCEPTIONS;
pub use load::{Loaded, Origin, Sources, load, load_sealed, load_without_tunnel};
pub use place::{At, Place, Source};
pub use resolve::{SEALED_SOCKET, SOCKET};
pub use resolvers::Resolvers;
pub use secret::{PublicKey, Secret};
pub use servers::{Servers, servers};
pub use tunnel::{Interface, PeerDraft, WgQuick};
pub use unreadable::Denied;

/// How a file is read: the caller's own function, so that this module stays pure.
pub type Read<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// The whole configuration of one gateway. The warden of the sealed topology has the same without key,
/// servers, addresses and resolvers ([`load_without_tunnel`]); its engine tells it those it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Our end of the tunnel.
    pub tunnel: Tunnel,
    /// The VPN servers, in the order they are tried: alternatives, one at a time. Never empty.
    pub peers: Vec<Peer>,
    /// `[uplink] device`; `None` means that of the default route.
    pub uplink: Option<IfName>,
    /// `[uplink] resolver`: asked for the endpoint's name; `None` means the first usable nameserver
    /// of resolv.conf.
    pub resolver: Option<Ipv4Addr>,
    /// LAN exceptions.
    pub lan: Lan,
    /// `[forward] ports`: accepted on the tunnel device, TCP and UDP.
    pub forward: Vec<u16>,
    /// `[metrics] listen`; `None` means no listener.
    pub metrics: Option<SocketAddr>,
    /// `[control] socket`.
    pub control: PathBuf,
    /// `[sealed]`.
    pub sealed: Sealed,
    /// What is logged and how.
    pub log: Log,
}

impl Config {
    /// On which device each LAN exception works, of these links that are up.
    pub fn shares(&self, uplink: Option<&Uplink>, links: &[Link]) -> Shares {
        let tunnel = &self.tunnel;
        Shares::of(&self.lan, uplink, &tunnel.device, tunnel.inside(), links)
    }
}

/// Our end of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Device name; `tun0` unless configured.
    pub device: IfName,
    /// Our addresses inside the tunnel. Never empty.
    pub addresses: Vec<Ipv4Network>,
    /// Bytes of the largest inner packet; 1420 unless configured.
    pub mtu: u16,
    /// Resolvers reached through the tunnel. `None` only for the warden of the sealed topology, whose engine names them.
    pub dns: Option<Resolvers>,
    /// Private destinations allowed through the tunnel besides the prefixes of `addresses` and `dns`.
    pub private: Vec<Ipv4Network>,
    /// Whether segmentation offloads may be used.
    pub offload: Offload,
    /// Our private key.
    pub private_key: Secret,
    /// Source port of our UDP socket; `None` picks one at random.
    pub listen_port: Option<u16>,
    /// Mark of our UDP socket; `None` is [`Fwmark::DEFAULT`](crate::net::Fwmark::DEFAULT).
    pub fwmark: Option<u32>,
}

impl Tunnel {
    /// The resolvers reached through the tunnel, in the order in which they are asked.
    pub fn resolvers(&self) -> &[Ipv4Addr] {
        self.dns.as_deref().unwrap_or_default()
    }

    /// What is reached through the tunnel, and so never by the uplink.
    pub fn inside(&self) -> Inside<'_> {
        Inside {
            addresses: &self.addresses,
            dns: self.resolvers(),
            private: &self.private,
        }
    }
}

/// Whether segmentation offloads may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Offload {
    /// Used where the kernel has them, given up at run time where it gets them wrong.
    Auto,
    /// Never.
    Off,
}

/// One VPN server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// `# name` after `[Peer]`, for people.
    pub name: Option<String>,
    /// The server's key.
    pub public_key: PublicKey,
    /// A key both share, mixed into the handshake.
    pub preshared_key: Option<Secret>,
    /// Where it is reached outside the tunnel.
    pub endpoint: Endpoint,
    /// Seconds between keepalives; `None` is off.
    pub keepalive: Option<u16>,
    /// Inner addresses this peer may send from and be sent to. Never empty.
    pub allowed_ips: Vec<Ipv4Network>,
}

/// Where a VPN server is reached: an address or a name, and a UDP port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address or name.
    pub host: Host,
    /// UDP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(address) => write!(f, "{address}:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// An address, or a name to resolve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Host {
    /// Known already.
    Address(Ipv4Addr),
    /// Resolved over the uplink, through a permission of its own.
    Name(String),
}

/// `[sealed]`: how the two halves of the sealed topology find and know each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Where the warden listens for its engine.
    pub socket: PathBuf,
    /// The only user, as the warden's namespace numbers it, whose engine it takes.
    pub engine_user: u32,
    /// Whether the warden runs on a kernel without nf_tables: the namespace has no way out, and no rule is in force.
    pub without_rules: bool,
}

/// `[log]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Least severe level that is written.
    pub level: LogLevel,
    /// For people or for machines.
    pub format: LogFormat,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what stops us.
    Error,
    /// And what needs attention.
    Warn,
    /// And each state change.
    Info,
    /// And each decision; may name users' addresses.
    Debug,
    /// Everything.
    Trace,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests;
