//! What the control API says: the schema of `vpngw status --json`, both sides of it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

use crate::config::{Inbound, Offload, Outbound, PublicKey};
use crate::net::IfName;

/// The state of the gateway. Fields are only ever added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Release of the engine.
    pub version: String,
    /// How the namespaces are laid out.
    pub topology: Topology,
    /// What the gateway is doing.
    pub state: State,
    /// Why, in words; empty when connected.
    pub reason: String,
    /// When this state began, RFC 3339, UTC.
    pub since: String,
    /// Seconds since this state began.
    pub since_seconds: f64,
    /// The VPN server in use.
    pub endpoint: Option<SocketAddrV4>,
    /// `# name` of the peer, or its host name.
    pub peer: Option<String>,
    /// The server's key.
    pub public_key: Option<PublicKey>,
    /// Seconds since the last handshake.
    pub handshake_age_seconds: Option<f64>,
    /// Inner bytes received since start.
    pub rx_bytes: u64,
    /// Inner bytes sent since start.
    pub tx_bytes: u64,
    /// Inner bits per second received, over the last seconds.
    pub rx_bits_per_second: f64,
    /// Inner bits per second sent, over the last seconds.
    pub tx_bits_per_second: f64,
    /// The kill switch.
    pub kill_switch: KillSwitch,
    /// Leaks.
    pub leaks: Leaks,
    /// LAN exceptions in force.
    pub lan: Lan,
    /// IPv6.
    pub ipv6: Ipv6,
    /// Name resolution.
    pub dns: Dns,
    /// The tunnel device.
    pub tunnel: Tunnel,
}

/// How the namespaces are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topology {
    /// Uplink and joined programs in one namespace.
    Shared,
}

/// What the gateway is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The kernel has not confirmed the rules.
    Arming,
    /// Rules in force, no handshake yet.
    Connecting,
    /// The server answers.
    Connected,
    /// Loopback only, until an operator says otherwise.
    Blocked,
}

/// The kill switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillSwitch {
    /// Whether the rules are in the kernel.
    pub armed: bool,
    /// Microseconds from exec to the commit of deny-all.
    pub armed_in_microseconds: u64,
    /// Whether raw frames are stopped too (netdev egress hook).
    pub raw_frames: bool,
    /// Packets stopped since start.
    pub blocked_packets: u64,
    /// The same by reason.
    pub blocked_by_reason: BTreeMap<String, u64>,
}

/// Leaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaks {
    /// Leaks seen since start.
    pub detected: u64,
    /// The last one, in words.
    pub last: Option<String>,
}

/// LAN exceptions in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lan {
    /// Who may reach which port here.
    pub inbound: Vec<Inbound>,
    /// Which host and port may be reached from here.
    pub outbound: Vec<Outbound>,
}

/// IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ipv6 {
    /// Off by sysctl, and dropped by the rules.
    Off,
    /// The sysctl could not be written; dropped by the rules.
    Dropped,
    /// Not known; the rules drop it all the same.
    Unknown,
}

/// Name resolution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Resolvers reached through the tunnel.
    pub servers: Vec<Ipv4Addr>,
    /// Whether `/etc/resolv.conf` names them and nothing else.
    pub resolv_conf: bool,
    /// What keeps it from doing so.
    pub problem: Option<String>,
}

/// The tunnel device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Its name.
    pub device: IfName,
    /// Our addresses inside the tunnel.
    pub address: Vec<Ipv4Network>,
    /// Bytes of the largest inner packet.
    pub mtu: u16,
    /// Whether segmentation offloads may be used.
    pub offload: Offload,
    /// Ports accepted from the tunnel.
    pub forward: Vec<u16>,
}
