//! The ways out that are tried. Each goes to an address of its own that is set aside for documentation
//! (RFC 5737, RFC 3849; RFC 6676 for multicast), which tells its frames apart.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet};
use socket2::{Domain, Protocol, Socket, Type};

use super::Answer;
use super::place::{Exit, Place};
use crate::net::Fwmark;
use crate::sys::capture::Capture;

/// How long a connection may take to be refused.
const PATIENCE: Duration = Duration::from_millis(300);

/// What each datagram says, for whoever should see it.
const PAYLOAD: &[u8] = b"vpngw leaktest";

/// An experimental protocol (RFC 3692, section 2.1).
const EXPERIMENTAL: i32 = 253;

/// One way out.
pub(super) struct Attempt {
    /// What a person calls it.
    pub(super) name: String,
    way: Way,
    exit: Option<Exit>,
    /// The last byte of its address.
    number: u8,
}

#[derive(Clone, Copy)]
enum Way {
    /// UDP by a socket bound to the device (SO_BINDTODEVICE, free to all since Linux 5.7).
    Udp,
    /// UDP by a socket bound to the device's address.
    UdpByAddress,
    /// UDP with the mark of the gateway's own socket.
    UdpMarked,
    /// UDP to the port of DNS.
    Dns,
    /// TCP.
    Tcp,
    /// ICMP echo.
    Ping,
    /// UDP to a group on the LAN.
    Multicast,
    /// UDP over IPv6.
    Ipv6,
    /// An IP packet of a protocol nobody knows.
    RawIp,
    /// An Ethernet frame.
    RawFrame,
    /// UDP to Docker's resolver, which answers from outside the namespace.
    DockerDns,
}

/// Every attempt that makes sense here.
pub(super) fn all(place: &Place) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    let mut add = |name: String, way, exit: Option<&Exit>| {
        let number = attempts.len() as u8 + 1;
        let exit = exit.cloned();
        attempts.push(Attempt {
            name,
            way,
            exit,
            number,
        });
    };
    for exit in &place.devices {
        let by = &exit.name;
        add(format!("UDP by {by}"), Way::Udp, Some(exit));
        add(format!("TCP by {by}"), Way::Tcp, Some(exit));
        add(format!("ping by {by}"), Way::Ping, Some(exit));
        add(format!("DNS by {by}"), Way::Dns, Some(exit));
        if exit.address.is_some() {
            let name = format!("UDP from {by}'s address");
            add(name, Way::UdpByAddress, Some(exit));
            add(format!("multicast by {by}"), Way::Multicast, Some(exit));
        }
        let name = format!("UDP by {by}, marked as the gateway's");
        add(name, Way::UdpMarked, Some(exit));
        add(format!("unknown protocol by {by}"), Way::RawIp, Some(exit));
        add(
            format!("raw Ethernet frame by {by}"),
            Way::RawFrame,
            Some(exit),
        );
        add(format!("IPv6 by {by}"), Way::Ipv6, Some(exit));
    }
    add("IPv6 by any route".to_owned(), Way::Ipv6, None);
    add("DNS to a foreign resolver".to_owned(), Way::Dns, None);
    add("DNS to Docker's resolver".to_owned(), Way::DockerDns, None);
    attempts
}

impl Attempt {
    /// Whether it passes no rule of `output`.
    pub(super) fn is_raw_frame(&self) -> bool {
        match self.way {
            Way::RawFrame => true,
            Way::Udp
            | Way::UdpByAddress
            | Way::UdpMarked
            | Way::Dns
            | Way::Tcp
            | Way::Ping
            | Way::Multicast
            | Way::Ipv6
            | Way::RawIp
            | Way::DockerDns => false,
        }
    }

    /// Tries it.
    pub(super) fn run(&self) -> Answer {
        match self.socket() {
            Err(error) => Answer::Impossible(error),
            Ok(tool) => match self.send(&tool) {
                Ok(()) => Answer::Sent,
                Err(error) => Answer::Refused(error),
            },
        }
    }

    /// Whether a frame belongs to this attempt: it is to its address, or asks for it (ARP, neighbour
    /// discovery).
    pub(super) fn is_in(&self, frame: &[u8]) -> bool {
        let at =
            |offset: usize, bytes: &[u8]| frame.get(offset..offset + bytes.len()) == Some(bytes);
        let ether_type = frame.get(12..14).unwrap_or_default();
        match (self.destination(), ether_type) {
            (SocketAddr::V4(to), [0x08, 0x00]) => at(30, &to.ip().octets()),
            (SocketAddr::V4(to), [0x08, 0x06]) => at(38, &to.ip().octets()),
            (SocketAddr::V6(to), [0x86, 0xdd]) => {
                let octets = to.ip().octets();
                frame.windows(16).any(|window| window == octets)
            }
            _ => false,
        }
    }

    /// Whether no device but loopback carries it.
    pub(super) fn stays_on_loopback(&self) -> bool {
        self.destination().ip().is_loopback()
    }

    fn destination(&self) -> SocketAddr {
        let v4 = |port| (Ipv4Addr::new(192, 0, 2, self.number), port).into();
        match self.way {
            Way::Udp | Way::UdpByAddress | Way::Tcp | Way::RawFrame => v4(9),
            Way::UdpMarked => v4(51820),
            Way::Dns => v4(53),
            Way::Ping | Way::RawIp => v4(0),
            Way::Multicast => (Ipv4Addr::new(233, 252, 0, self.number), 9).into(),
            Way::Ipv6 => {
                let last = u16::from(self.number);
                (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last), 9).into()
            }
            Way::DockerDns => (Ipv4Addr::new(127, 0, 0, 11), 53).into(),
        }
    }

    /// What it takes to try: an error is a lack of this program, not a refusal on the way.
    fn socket(&self) -> io::Result<Tool> {
        if let (Way::RawFrame, Some(exit)) = (self.way, &self.exit) {
            return Capture::sender(exit.index).map(Tool::Frames);
        }
        let (kind, protocol) = match self.way {
            Way::Tcp => (Type::STREAM, Protocol::TCP),
            Way::RawIp | Way::RawFrame => (Type::RAW, Protocol::from(EXPERIMENTAL)),
            Way::Ping => {
                // Some systems let everybody ping, some nobody but root.
                let free = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4));
                let socket =
                    free.or_else(|_| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)))?;
                return Ok(Tool::Socket(socket));
            }
            Way::Udp
            | Way::UdpByAddress
            | Way::UdpMarked
            | Way::Dns
            | Way::Multicast
            | Way::Ipv6
            | Way::DockerDns => (Type::DGRAM, Protocol::UDP),
        };
        let domain = Domain::for_address(self.destination());
        let socket = Socket::new(domain, kind, Some(protocol))?;
        if let Way::UdpMarked = self.way {
            socket.set_mark(Fwmark::DEFAULT.0)?;
        }
        Ok(Tool::Socket(socket))
    }

    fn send(&self, tool: &Tool) -> io::Result<()> {
        let to = self.destination();
        let socket = match tool {
            Tool::Frames(capture) => return capture.send(&self.frame()),
            Tool::Socket(socket) => socket,
        };
        if let Some(exit) = &self.exit {
            match (self.way, exit.address) {
                (Way::UdpByAddress, Some(address)) => {
                    socket.bind(&SocketAddr::from((address, 0)).into())?;
                }
                (Way::Multicast, Some(address)) => socket.set_multicast_if_v4(&address)?,
                (Way::UdpByAddress | Way::Multicast, None)
                | (
                    Way::Udp
                    | Way::UdpMarked
                    | Way::Dns
                    | Way::Tcp
                    | Way::Ping
                    | Way::Ipv6
                    | Way::RawIp
                    | Way::RawFrame
                    | Way::DockerDns,
                    _,
                ) => socket.bind_device(Some(&exit.name.bytes()))?,
            }
        }
        match self.way {
            Way::Tcp => socket
                .connect_timeout(&to.into(), PATIENCE)
                .or_else(|error| {
                    // Nobody answers there: that is what a packet that left looks like, too.
                    if error.kind() == io::ErrorKind::TimedOut {
                        Ok(())
                    } else {
                        Err(error)
                    }
                }),
            Way::Ping => socket.send_to(&echo_request(), &to.into()).map(|_| ()),
            Way::Udp
            | Way::UdpByAddress
            | Way::UdpMarked
            | Way::Dns
            | Way::Multicast
            | Way::Ipv6
            | Way::RawIp
            | Way::RawFrame
            | Way::DockerDns => socket.send_to(PAYLOAD, &to.into()).map(|_| ()),
        }
    }

    /// An IPv4 packet in a frame to a station that does not exist (locally administered, IEEE 802).
    fn frame(&self) -> Vec<u8> {
        let source = self.exit.as_ref().and_then(|exit| exit.address);
        let SocketAddr::V4(to) = self.destination() else {
            return Vec::new();
        };
        let mut bytes = vec![0; 14 + 20 + PAYLOAD.len()];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes);
        frame.set_dst_addr(EthernetAddress([2, 0, 0, 0, 0, 1]));
        frame.set_src_addr(EthernetAddress([2, 0, 0, 0, 0, 2]));
        frame.set_ethertype(EthernetProtocol::Ipv4);
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        packet.set_version(4);
        packet.set_header_len(20);
        packet.set_total_len(20 + PAYLOAD.len() as u16);
        packet.set_hop_limit(64);
        packet.set_next_header(IpProtocol::Unknown(EXPERIMENTAL as u8));
        packet.set_src_addr(source.unwrap_or(Ipv4Addr::UNSPECIFIED));
        packet.set_dst_addr(*to.ip());
        packet.payload_mut().copy_from_slice(PAYLOAD);
        packet.fill_checksum();
        bytes
    }
}

enum Tool {
    Socket(Socket),
    Frames(Capture),
}

/// Type 8 with its checksum (RFC 792, RFC 1071); identifier and number are zero.
fn echo_request() -> [u8; 8] {
    [8, 0, 0xf7, 0xff, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            devices: vec![Exit {
                name: "eth0".parse().unwrap(),
                index: 2,
                address: Some(Ipv4Addr::new(172, 30, 0, 2)),
            }],
            tunnel: None,
        }
    }

    #[test]
    fn each_attempt_has_an_address_of_its_own() {
        let attempts = all(&place());
        for attempt in &attempts {
            if matches!(attempt.way, Way::RawFrame) {
                let frame = attempt.frame();
                let of: Vec<_> = attempts.iter().filter(|it| it.is_in(&frame)).collect();
                assert_eq!(of.len(), 1);
                assert_eq!(of[0].name, attempt.name);
            }
            let same = |it: &&Attempt| it.destination().ip() == attempt.destination().ip();
            assert_eq!(attempts.iter().filter(same).count(), 1, "{}", attempt.name);
        }
    }

    #[test]
    fn a_frame_that_asks_for_the_address_belongs_to_the_attempt() {
        let attempts = all(&place());
        let mut arp = vec![0; 42];
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        arp[38..42].copy_from_slice(&[192, 0, 2, 1]);
        assert!(attempts[0].is_in(&arp) && !attempts[1].is_in(&arp));
        assert!(!attempts[0].is_in(&arp[..30]));
    }

    #[test]
    fn the_checksum_of_an_echo_request_is_right() {
        let sum: u32 = echo_request()
            .chunks(2)
            .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
            .sum();
        assert_eq!(sum, 0xffff);
    }
}
