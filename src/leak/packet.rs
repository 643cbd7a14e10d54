//! Where a packet was going, and from whom: what a person wants to know of one that was stopped. Pure; nothing here
//! trusts the bytes.

use std::fmt;
use std::net::IpAddr;

use smoltcp::wire::{EthernetFrame, EthernetProtocol, Ipv4Packet, Ipv6Packet};

/// A packet, by protocol and destination. A part of one that was cut has no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What it carries.
    pub protocol: Protocol,
    /// Where it was going.
    pub to: Target,
    /// From which host, as it says.
    pub from: Option<IpAddr>,
}

/// A destination, as far as the headers name one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The host.
    pub address: Option<IpAddr>,
    /// The port, of TCP and UDP.
    pub port: Option<u16>,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
    /// ICMP of IPv6, neighbour discovery among it.
    Icmp6,
    /// Another protocol of IP, by its number (IANA protocol numbers).
    Ip(u8),
    /// Address resolution.
    Arp,
    /// A frame that is neither, by its EtherType; 0 when there is not even one.
    Ether(u16),
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            Self::Udp => f.write_str("udp"),
            Self::Icmp => f.write_str("icmp"),
            Self::Icmp6 => f.write_str("icmpv6"),
            Self::Ip(number) => write!(f, "ip-{number}"),
            Self::Arp => f.write_str("arp"),
            Self::Ether(number) => write!(f, "ether-{number:04x}"),
        }
    }
}

impl Packet {
    /// Reads a packet of IP, whichever version its first byte says. `None` if it is neither.
    pub fn of_ip(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => ipv4(bytes),
            6 => ipv6(bytes),
            _ => None,
        }
    }

    /// Reads an Ethernet frame. The end of it may be missing.
    pub fn of_frame(bytes: &[u8]) -> Self {
        let other = |protocol| Self {
            protocol,
            to: Target::default(),
            from: None,
        };
        let Ok(frame) = EthernetFrame::new_checked(bytes) else {
            return other(Protocol::Ether(0));
        };
        let kind = frame.ethertype();
        let packet = match kind {
            EthernetProtocol::Ipv4 => ipv4(frame.payload()),
            EthernetProtocol::Ipv6 => ipv6(frame.payload()),
            EthernetProtocol::Arp => Some(other(Protocol::Arp)),
            EthernetProtocol::Unknown(_) => None,
        };
        packet.unwrap_or_else(|| other(Protocol::Ether(kind.into())))
    }
}

fn ipv4(bytes: &[u8]) -> Option<Packet> {
    // At least 20 bytes of header (RFC 791).
    bytes.get(..20)?;
    let packet = Ipv4Packet::new_unchecked(bytes);
    let header = usize::from(packet.header_len());
    if packet.version() != 4 || header < 20 {
        return None;
    }
    let rest = bytes.get(header..).unwrap_or_default();
    let protocol = protocol(packet.next_header().into());
    // Only the first part of a packet that was cut begins with a header.
    let port = (packet.frag_offset() == 0).then(|| port(protocol, rest));
    let to = Target {
        address: Some(packet.dst_addr().into()),
        port: port.flatten(),
    };
    let from = Some(packet.src_addr().into());
    Some(Packet { protocol, to, from })
}

fn ipv6(bytes: &[u8]) -> Option<Packet> {
    // The fixed header has 40 bytes (RFC 8200). Extension headers are taken as what it carries.
    let header = bytes.get(..40)?;
    let packet = Ipv6Packet::new_unchecked(header);
    if packet.version() != 6 {
        return None;
    }
    let protocol = protocol(packet.next_header().into());
    let to = Target {
        address: Some(packet.dst_addr().into()),
        port: port(protocol, &bytes[40..]),
    };
    let from = Some(packet.src_addr().into());
    Some(Packet { protocol, to, from })
}

fn protocol(number: u8) -> Protocol {
    match number {
        1 => Protocol::Icmp,
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        58 => Protocol::Icmp6,
        number => Protocol::Ip(number),
    }
}

/// The destination port stands behind the source port (RFC 9293, RFC 768).
fn port(protocol: Protocol, header: &[u8]) -> Option<u16> {
    match protocol {
        Protocol::Tcp | Protocol::Udp => {
            let port = header.get(2..4)?;
            Some(u16::from_be_bytes([port[0], port[1]]))
        }
        Protocol::Icmp | Protocol::Icmp6 | Protocol::Ip(_) | Protocol::Arp | Protocol::Ether(_) => {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(number: u8, cut: [u8; 2], rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 0, 0, 0, cut[0], cut[1], 64, number, 0, 0];
        bytes.extend([10, 0, 0, 1, 203, 0, 113, 9]);
        bytes.extend(rest);
        bytes
    }

    fn v6(number: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 0, number, 64];
        bytes.extend([0; 16]);
        bytes.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        bytes.extend(rest);
        bytes
    }

    fn said(packet: Packet) -> String {
        let Packet { protocol, to, .. } = packet;
        let (address, port) = (to.address, to.port);
        format!("{protocol} {address:?} {port:?}")
    }

    #[test]
    fn protocol_host_and_port_are_read() {
        let ports = [0x12, 0x34, 0, 53, 0, 0, 0, 0];
        let read = |bytes: &[u8]| said(Packet::of_ip(bytes).unwrap());
        let whole = [0x40, 0];
        assert_eq!(
            read(&v4(17, whole, &ports)),
            "udp Some(203.0.113.9) Some(53)"
        );
        assert_eq!(
            read(&v4(6, whole, &ports)),
            "tcp Some(203.0.113.9) Some(53)"
        );
        assert_eq!(read(&v4(1, whole, &ports)), "icmp Some(203.0.113.9) None");
        assert_eq!(read(&v4(47, whole, &ports)), "ip-47 Some(203.0.113.9) None");
        assert_eq!(read(&v6(17, &ports)), "udp Some(2001:db8::9) Some(53)");
        assert_eq!(read(&v6(58, &ports)), "icmpv6 Some(2001:db8::9) None");
        assert_eq!(
            read(&v4(6, whole, &[])),
            "tcp Some(203.0.113.9) None",
            "cut"
        );
    }

    #[test]
    fn a_later_part_of_a_packet_has_no_port() {
        let part = v4(17, [0, 5], &[0, 1, 0, 2]);
        let packet = Packet::of_ip(&part).unwrap();
        assert_eq!((packet.protocol, packet.to.port), (Protocol::Udp, None));
    }

    #[test]
    fn frames_of_other_kinds_are_named_by_their_ethertype() {
        let frame = |kind: u16, rest: &[u8]| {
            let mut bytes = vec![0; 12];
            bytes.extend(kind.to_be_bytes());
            bytes.extend(rest);
            said(Packet::of_frame(&bytes))
        };
        assert_eq!(frame(0x0806, &[]), "arp None None");
        assert_eq!(frame(0x88b5, &[]), "ether-88b5 None None");
        assert_eq!(frame(0x0800, &[0x45]), "ether-0800 None None");
        let inner = v4(17, [0, 0], &[0, 1, 0, 9]);
        assert_eq!(frame(0x0800, &inner), "udp Some(203.0.113.9) Some(9)");
        assert_eq!(said(Packet::of_frame(&[1, 2])), "ether-0000 None None");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Packet::of_ip(&bytes);
            let _ = Packet::of_frame(&bytes);
        }
    }
}
