//! A packet as far as the policy looks at it.

use std::net::{IpAddr, SocketAddrV4};

use crate::net::{Fwmark, IfName, Transport};

/// A packet, and what the kernel knows about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Which way it goes.
    pub direction: Direction,
    /// The device it leaves by; for [`Direction::In`] and [`Direction::Forward`] the one it came by.
    pub device: Device,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// What the IP packet carries.
    pub protocol: Protocol,
    /// Mark of the socket it was sent from; 0 is none.
    pub mark: Fwmark,
    /// Whether connection tracking knows it as an answer: it goes against the direction in which its
    /// connection was opened, and the ports are those of that connection.
    pub reply: bool,
}

/// Which way a packet goes, seen from the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Sent by a program here.
    Out,
    /// Addressed to a program here.
    In,
    /// Neither from here nor to here.
    Forward,
}

/// A network device: name and kind. A name alone proves nothing, since anybody with CAP_NET_ADMIN can
/// call a veth `tun0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: IfName,
    /// Its kind.
    pub kind: DeviceKind,
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// The loopback device `lo`.
    Loopback,
    /// A TUN or TAP device (`rtnl_link_ops.kind` is `tun`, drivers/net/tun.c).
    Tun,
    /// Anything else: Ethernet, veth, bridge, WireGuard.
    Other,
}

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// UDP.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Whether the payload begins like a WireGuard message: type 1 to 4 and three zero bytes
        /// (WireGuard white paper, section 5.4).
        wireguard: bool,
    },
    /// ICMP, but for what follows.
    Icmp,
    /// ICMP "fragmentation needed" (RFC 792, RFC 1191 section 4): a router could not pass on a UDP datagram from
    /// this port of ours.
    TooBig {
        /// Source port of the datagram it quotes.
        source_port: u16,
        /// Where that datagram was sent.
        remote: SocketAddrV4,
    },
    /// Any other, by its number (IANA protocol numbers).
    Other(u8),
}

impl Protocol {
    /// Transport, source port and destination port, if it has ports.
    pub fn ports(self) -> Option<(Transport, u16, u16)> {
        match self {
            Self::Tcp {
                source,
                destination,
            } => Some((Transport::Tcp, source, destination)),
            Self::Udp {
                source,
                destination,
                ..
            } => Some((Transport::Udp, source, destination)),
            Self::Icmp | Self::TooBig { .. } | Self::Other(_) => None,
        }
    }

    /// Whether it is UDP whose payload begins like a WireGuard message.
    pub fn wireguard(self) -> bool {
        matches!(
            self,
            Self::Udp {
                wireguard: true,
                ..
            }
        )
    }
}
