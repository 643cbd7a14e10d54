//! What one captured frame is: WireGuard, ARP, or something that should not be there.
//!
//! Pure: bytes in, a [`Frame`] out. Nothing here trusts the bytes; a frame that cannot be read is
//! [`Frame::Other`], never WireGuard.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};

use smoltcp::wire::{
    ArpOperation, ArpPacket, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet,
    UdpPacket,
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

/// What a sensor takes for granted on the uplink; everything else that leaves there is a leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The VPN server.
    pub endpoint: SocketAddrV4,
    /// Our address on the uplink.
    pub address: Ipv4Addr,
    /// The router.
    pub router: Ipv4Addr,
}

impl Expected {
    /// Whether `frame`, sent by the gateway's side, is WireGuard to the endpoint or ARP between us
    /// and the router.
    pub fn holds(&self, frame: &Frame) -> bool {
        match *frame {
            Frame::WireGuard { from, to, .. } => to == self.endpoint && *from.ip() == self.address,
            Frame::Arp { from, to, .. } => from == self.address && to == self.router,
            Frame::Ipv6 { .. }
            | Frame::Dns { .. }
            | Frame::Tcp { .. }
            | Frame::Udp { .. }
            | Frame::Icmp { .. }
            | Frame::Fragment { .. }
            | Frame::Ipv4 { .. }
            | Frame::Other { .. } => false,
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
        parsed.unwrap_or(Self::Other {
            ether_type: ether_type.into(),
        })
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
    Some(match packet.next_header() {
        IpProtocol::Udp => udp(payload, from, to),
        IpProtocol::Tcp => tcp(payload, from, to),
        IpProtocol::Icmp => Frame::Icmp { from, to },
        other => Frame::Ipv4 {
            protocol: other.into(),
            from,
            to,
        },
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
