//! What one captured frame is: WireGuard, ARP, or something that should not be there.
//!
//! Pure: bytes in, a [`Frame`] out. Nothing here trusts the bytes; a frame that cannot be read is
//! [`Frame::Other`], never WireGuard.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};

use smoltcp::wire::{
    ArpOperation, ArpPacket, EthernetFrame, EthernetProtocol, Ipv4Packet, Ipv6Packet, UdpPacket,
};

/// One Ethernet frame, classified. Addresses and ports as the headers state them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A UDP datagram that has the form of a WireGuard message (not necessarily to the endpoint).
    WireGuard {
        /// Which of the four messages.
        message: Message,
        /// Bytes of the UDP payload; of all segments where the kernel has yet to split it.
        bytes: usize,
        /// Sender.
        from: SocketAddrV4,
        /// Receiver.
        to: SocketAddrV4,
    },
    /// ARP for IPv4.
    Arp {
        /// Whether it asks (otherwise it answers).
        request: bool,
        /// The sender's protocol address.
        from: Ipv4Addr,
        /// The address asked for or answered to.
        to: Ipv4Addr,
    },
    /// Any IPv6 packet.
    Ipv6 {
        /// Sender.
        from: Ipv6Addr,
        /// Receiver.
        to: Ipv6Addr,
    },
    /// UDP or TCP to port 53 or 853.
    Dns {
        /// Sender.
        from: SocketAddrV4,
        /// Receiver.
        to: SocketAddrV4,
    },
    /// TCP.
    Tcp {
        /// Sender.
        from: SocketAddrV4,
        /// Receiver.
        to: SocketAddrV4,
    },
    /// UDP that is none of the above.
    Udp {
        /// Sender.
        from: SocketAddrV4,
        /// Receiver.
        to: SocketAddrV4,
    },
    /// ICMP.
    Icmp {
        /// Sender.
        from: Ipv4Addr,
        /// Receiver.
        to: Ipv4Addr,
    },
    /// A fragment of an IPv4 packet, first or later: its ports say nothing reliable.
    Fragment {
        /// Sender.
        from: Ipv4Addr,
        /// Receiver.
        to: Ipv4Addr,
    },
    /// IPv4 with another protocol number.
    Ipv4 {
        /// The protocol number (IANA protocol numbers).
        protocol: u8,
        /// Sender.
        from: Ipv4Addr,
        /// Receiver.
        to: Ipv4Addr,
    },
    /// Anything else, by its EtherType; 0 when there is not even one.
    Other {
        /// EtherType (IEEE 802 numbers).
        ether_type: u16,
    },
}

/// The WireGuard messages (WireGuard paper, section 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// Type 1, 148 bytes.
    Initiation,
    /// Type 2, 92 bytes.
    Response,
    /// Type 3, 64 bytes.
    Cookie,
    /// Type 4 with nothing inside, 32 bytes.
    Keepalive,
    /// Type 4, more than 32 bytes.
    Data,
}

impl Message {
    /// The message a UDP payload of `bytes` bytes is, judging by its first four and its length.
    fn parse(payload: &[u8], bytes: usize) -> Option<Self> {
        let head = payload.get(..4)?;
        match (head, bytes) {
            ([1, 0, 0, 0], 148) => Some(Self::Initiation),
            ([2, 0, 0, 0], 92) => Some(Self::Response),
            ([3, 0, 0, 0], 64) => Some(Self::Cookie),
            ([4, 0, 0, 0], 32) => Some(Self::Keepalive),
            ([4, 0, 0, 0], 33..) => Some(Self::Data),
            _ => None,
        }
    }
}

impl Frame {
    /// Classifies an Ethernet frame. The end of it may be missing (a capture with a snap length);
    /// lengths are taken from the headers.
    pub fn parse(bytes: &[u8]) -> Self {
        let Ok(ethernet) = EthernetFrame::new_checked(bytes) else {
            return Self::Other { ether_type: 0 };
        };
        let ether_type = ethernet.ethertype();
        let parsed = match ether_type {
            EthernetProtocol::Ipv4 => ipv4(ethernet.payload()),
            EthernetProtocol::Ipv6 => ipv6(ethernet.payload()),
            EthernetProtocol::Arp => arp(ethernet.payload()),
            EthernetProtocol::Unknown(_) => None,
        };
        let ether_type = ether_type.into();
        parsed.unwrap_or(Self::Other { ether_type })
    }

    /// Where it was going, if the frame says so.
    pub fn destination(&self) -> Option<(IpAddr, Option<u16>)> {
        match *self {
            Self::WireGuard { to, .. }
            | Self::Dns { to, .. }
            | Self::Tcp { to, .. }
            | Self::Udp { to, .. } => Some((IpAddr::V4(*to.ip()), Some(to.port()))),
            Self::Icmp { to, .. } | Self::Fragment { to, .. } | Self::Ipv4 { to, .. } => {
                Some((IpAddr::V4(to), None))
            }
            Self::Ipv6 { to, .. } => Some((IpAddr::V6(to), None)),
            Self::Arp { .. } | Self::Other { .. } => None,
        }
    }

    /// One word for the kind, as metrics and summaries use it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::WireGuard { .. } => "wireguard",
            Self::Arp { .. } => "arp",
            Self::Ipv6 { .. } => "ipv6",
            Self::Dns { .. } => "dns",
            Self::Tcp { .. } => "tcp",
            Self::Udp { .. } => "udp",
            Self::Icmp { .. } => "icmp",
            Self::Fragment { .. } => "fragment",
            Self::Ipv4 { .. } => "ipv4",
            Self::Other { .. } => "other",
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::WireGuard {
                bytes, from, to, ..
            } => {
                write!(f, "{kind} {from} > {to}, {bytes} bytes")
            }
            Self::Arp { request, from, to } => {
                let verb = if *request { "asks for" } else { "answers" };
                write!(f, "{kind} {from} {verb} {to}")
            }
            Self::Ipv6 { from, to } => write!(f, "{kind} {from} > {to}"),
            Self::Dns { from, to } | Self::Tcp { from, to } | Self::Udp { from, to } => {
                write!(f, "{kind} {from} > {to}")
            }
            Self::Icmp { from, to } | Self::Fragment { from, to } => {
                write!(f, "{kind} {from} > {to}")
            }
            Self::Ipv4 { protocol, from, to } => {
                write!(f, "{kind} protocol {protocol} {from} > {to}")
            }
            Self::Other { ether_type } => write!(f, "EtherType {ether_type:#06x}"),
        }
    }
}

fn arp(bytes: &[u8]) -> Option<Frame> {
    let packet = ArpPacket::new_checked(bytes).ok()?;
    // Hardware type 1, protocol IPv4, 6 and 4 bytes (RFC 826): anything else has no IPv4 addresses.
    if packet.hardware_len() != 6
        || packet.protocol_len() != 4
        || packet.protocol_type() != EthernetProtocol::Ipv4
    {
        return None;
    }
    Some(Frame::Arp {
        request: match packet.operation() {
            ArpOperation::Request => true,
            ArpOperation::Reply => false,
            ArpOperation::Unknown(_) => return None,
        },
        from: address(packet.source_protocol_addr())?,
        to: address(packet.target_protocol_addr())?,
    })
}

fn ipv6(bytes: &[u8]) -> Option<Frame> {
    // The fixed header has 40 bytes (RFC 8200).
    let header = bytes.get(..40)?;
    let packet = Ipv6Packet::new_unchecked(header);
    Some(Frame::Ipv6 {
        from: packet.src_addr(),
        to: packet.dst_addr(),
    })
}

fn ipv4(bytes: &[u8]) -> Option<Frame> {
    // At least 20 bytes of header (RFC 791); the rest of it is checked before it is read.
    bytes.get(..20)?;
    let packet = Ipv4Packet::new_unchecked(bytes);
    let header = usize::from(packet.header_len());
    if packet.version() != 4 || header < 20 {
        return None;
    }
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    if packet.more_frags() || packet.frag_offset() != 0 {
        return Some(Frame::Fragment { from, to });
    }
    let payload = bytes.get(header..).unwrap_or_default();
    Some(match u8::from(packet.next_header()) {
        1 => Frame::Icmp { from, to },
        6 => tcp(payload, from, to),
        17 => udp(payload, from, to),
        protocol => Frame::Ipv4 { protocol, from, to },
    })
}

fn udp(bytes: &[u8], from: Ipv4Addr, to: Ipv4Addr) -> Frame {
    // 8 bytes of header (RFC 768).
    if bytes.len() < 8 {
        return Frame::Ipv4 {
            protocol: 17,
            from,
            to,
        };
    }
    let packet = UdpPacket::new_unchecked(bytes);
    let from = SocketAddrV4::new(from, packet.src_port());
    let to = SocketAddrV4::new(to, packet.dst_port());
    let length = usize::from(packet.len()).saturating_sub(8);
    match Message::parse(&bytes[8..], length) {
        Some(message) => Frame::WireGuard {
            message,
            bytes: length,
            from,
            to,
        },
        None if is_dns(to.port()) => Frame::Dns { from, to },
        None => Frame::Udp { from, to },
    }
}

fn tcp(bytes: &[u8], from: Ipv4Addr, to: Ipv4Addr) -> Frame {
    let &[s0, s1, d0, d1, ..] = bytes else {
        return Frame::Ipv4 {
            protocol: 6,
            from,
            to,
        };
    };
    let from = SocketAddrV4::new(from, u16::from_be_bytes([s0, s1]));
    let to = SocketAddrV4::new(to, u16::from_be_bytes([d0, d1]));
    if is_dns(to.port()) {
        Frame::Dns { from, to }
    } else {
        Frame::Tcp { from, to }
    }
}

/// DNS (RFC 1035) and DNS over TLS or DTLS (RFC 7858).
fn is_dns(port: u16) -> bool {
    port == 53 || port == 853
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const US: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
    const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);

    #[test]
    fn the_five_messages_are_told_apart() {
        for (kind, bytes, message) in [
            (1, 148, Message::Initiation),
            (2, 92, Message::Response),
            (3, 64, Message::Cookie),
            (4, 32, Message::Keepalive),
            (4, 48, Message::Data),
        ] {
            let frame = udp_frame(51820, &payload(kind, bytes));
            let expected = Frame::WireGuard {
                message,
                bytes,
                from: SocketAddrV4::new(US, 40000),
                to: SocketAddrV4::new(SERVER, 51820),
            };
            assert_eq!(Frame::parse(&frame), expected);
        }
    }

    #[test]
    fn a_message_of_the_wrong_length_is_not_wireguard() {
        for (kind, bytes) in [
            (1, 147),
            (1, 149),
            (2, 148),
            (3, 32),
            (4, 31),
            (0, 148),
            (5, 148),
        ] {
            let frame = Frame::parse(&udp_frame(51820, &payload(kind, bytes)));
            assert!(
                matches!(frame, Frame::Udp { .. }),
                "{kind} {bytes}: {frame}"
            );
        }
    }

    #[test]
    fn a_capture_may_be_cut_short() {
        let mut frame = udp_frame(51820, &payload(4, 1432));
        frame.truncate(64);
        assert!(matches!(
            Frame::parse(&frame),
            Frame::WireGuard {
                message: Message::Data,
                bytes: 1432,
                ..
            }
        ));
    }

    #[test]
    fn a_fragment_is_never_wireguard() {
        for fragment in [[0x20, 0], [0, 5], [0x20, 5]] {
            let mut frame = udp_frame(51820, &payload(4, 64));
            frame[20..22].copy_from_slice(&fragment);
            assert_eq!(
                Frame::parse(&frame),
                Frame::Fragment {
                    from: US,
                    to: SERVER
                }
            );
        }
    }

    #[test]
    fn every_kind_is_told_apart() {
        let dns = udp_frame(53, b"query");
        let mut tcp = udp_frame(443, &[0; 12]);
        tcp[23] = 6;
        let mut icmp = tcp.clone();
        icmp[23] = 1;
        let mut gre = tcp.clone();
        gre[23] = 47;
        let mut ipv6 = vec![0; 54];
        ipv6[12..14].copy_from_slice(&[0x86, 0xdd]);
        let mut vlan = vec![0; 60];
        vlan[12..14].copy_from_slice(&[0x81, 0]);
        for (bytes, kind) in [
            (dns, "dns"),
            (udp_frame(6881, b"uTP"), "udp"),
            (tcp, "tcp"),
            (icmp, "icmp"),
            (gre, "ipv4"),
            (ipv6, "ipv6"),
            (vlan, "other"),
            (vec![0; 13], "other"),
            (Vec::new(), "other"),
        ] {
            let frame = Frame::parse(&bytes);
            assert_eq!(frame.kind(), kind);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>, kind in 0_usize..4, cut in 0_usize..80) {
            if let Some(ether_type) = bytes.get_mut(12..14) {
                ether_type.copy_from_slice(&[[8, 0], [8, 6], [0x86, 0xdd], [0, 0]][kind]);
            }
            let _ = Frame::parse(&bytes).to_string();
            let whole = udp_frame(51820, &payload(4, 48));
            let _ = Frame::parse(&whole[..cut.min(whole.len())]).to_string();
        }
    }

    fn payload(kind: u8, bytes: usize) -> Vec<u8> {
        let mut payload = vec![0; bytes];
        payload[0] = kind;
        payload
    }

    fn udp_frame(port: u16, payload: &[u8]) -> Vec<u8> {
        let udp = u16::try_from(payload.len() + 8).unwrap();
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((udp + 20).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        frame.extend(US.octets());
        frame.extend(SERVER.octets());
        frame.extend(40000_u16.to_be_bytes());
        frame.extend(port.to_be_bytes());
        frame.extend(udp.to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(payload);
        frame
    }
}
