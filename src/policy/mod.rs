//! What may flow. The default permits loopback only; every field that is filled in is one more
//! permission, and there is no field that would permit IPv6.

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

use crate::config::{Inbound, Outbound};
use crate::net::{Fwmark, IfName};

mod flow;
mod into_tunnel;
mod of;
pub mod verdict;
pub mod way;

pub use flow::{Device, DeviceKind, Direction, Flow, Protocol};
pub use into_tunnel::{IntoTunnel, NotIntoTunnel};
pub use of::{Holes, PolicyError, Unfit};
pub use verdict::{Reason, Verdict, verdict};
pub use way::Way;

/// What may flow. `Default` permits loopback only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What the uplink may carry; `None` is nothing, not even ARP.
    pub uplink: Option<UplinkPolicy>,
    /// What devices beside the uplink may carry: LAN exceptions for their own networks, and ARP.
    pub beside: Vec<LanPolicy>,
    /// What the tunnel device may carry; `None` is nothing.
    pub tunnel: Option<TunnelPolicy>,
}

/// What the uplink may carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkPolicy {
    /// The device.
    pub device: IfName,
    /// The source address of every frame, ARP included.
    pub address: Ipv4Addr,
    /// The VPN server in use.
    pub endpoint: Option<Hole>,
    /// The resolver asked for the endpoint's address; open only while it is asked.
    pub resolver: Option<Hole>,
    /// LAN clients and the ports they may reach.
    pub inbound: Vec<Inbound>,
    /// LAN hosts and the ports a joined program may reach.
    pub outbound: Vec<Outbound>,
}

/// What a device beside the uplink may carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanPolicy {
    /// The device.
    pub device: IfName,
    /// The source address of every frame, ARP included.
    pub address: Ipv4Addr,
    /// LAN clients and the ports they may reach.
    pub inbound: Vec<Inbound>,
    /// LAN hosts and the ports a joined program may reach.
    pub outbound: Vec<Outbound>,
}

/// The LAN exceptions of one device, the uplink or one beside it.
#[derive(Clone, Copy, Debug)]
pub struct OnLan<'a> {
    /// The device.
    pub device: &'a IfName,
    /// Our address on it.
    pub address: Ipv4Addr,
    /// LAN clients and the ports they may reach.
    pub inbound: &'a [Inbound],
    /// LAN hosts and the ports a joined program may reach.
    pub outbound: &'a [Outbound],
}

impl Policy {
    /// Every device that LAN exceptions are on, the uplink first.
    pub fn lans(&self) -> impl Iterator<Item = OnLan<'_>> {
        let beside = self.beside.iter().map(|lan| OnLan {
            device: &lan.device,
            address: lan.address,
            inbound: &lan.inbound,
            outbound: &lan.outbound,
        });
        self.uplink.iter().map(UplinkPolicy::lan).chain(beside)
    }

    /// The LAN exceptions of this device.
    pub fn lan_on(&self, device: &IfName) -> Option<OnLan<'_>> {
        self.lans().find(|lan| lan.device == device)
    }
}

impl UplinkPolicy {
    fn lan(&self) -> OnLan<'_> {
        OnLan {
            device: &self.device,
            address: self.address,
            inbound: &self.inbound,
            outbound: &self.outbound,
        }
    }
}

/// One UDP flow of our own across the uplink. All of it must match: mark, both ports, the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// Mark of our socket.
    pub mark: Fwmark,
    /// Source port of our socket.
    pub source_port: u16,
    /// The one host and port it reaches.
    pub remote: SocketAddrV4,
}

/// What the tunnel device may carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelPolicy {
    /// The device; rules match its kind (`tun`) as well as its name.
    pub device: IfName,
    /// Our addresses with the prefixes they came with; the only sources.
    pub addresses: Vec<Ipv4Network>,
    /// The only hosts reached on port 53 and 853.
    pub dns: Vec<Ipv4Addr>,
    /// Private destinations besides the prefixes of `addresses` and `dns`.
    pub private: Vec<Ipv4Network>,
    /// Ports that accept connections and datagrams from the tunnel.
    pub forward: Vec<u16>,
}

/// What the engine asks the warden to permit on the uplink. The warden intersects it with its own
/// configuration, so asking can never widen what the operator wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permit {
    /// Neither endpoint nor resolver; tunnel and LAN exceptions stay as configured.
    Idle,
    /// The resolver of the uplink, to look up the name of this peer's endpoint.
    Resolver {
        /// Index into the configured peers.
        peer: usize,
    },
    /// The endpoint of this peer, at this address.
    Endpoint {
        /// Index into the configured peers.
        peer: usize,
        /// The configured address, or what its name resolved to.
        address: SocketAddrV4,
    },
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;
