//! What a torrent client tries that must not get out, one probe each. Every probe carries the
//! canary, so the sensor recognises it wherever it turns up.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use smoltcp::wire::{Ipv4Packet, UdpPacket};
use socket2::{Domain, Protocol, Socket, Type};

use super::internet::{RESOLVER, TRACKER};
use super::stage::{ADDRESS, ENDPOINT, MAC, ROUTER, ROUTER_MAC, Stage, UPLINK};
use crate::commands::units::errno;
use crate::sys::capture::Capture;

/// How long a probe waits for an answer.
const PATIENCE: Duration = Duration::from_millis(250);
/// A host somewhere (documentation address, RFC 5737; RFC 3849 for IPv6).
const SOMEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const SOMEWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
/// Local peer discovery (BEP 14).
const DISCOVERY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 192, 152, 143), 6771);

/// Sixteen characters that occur nowhere else, followed by a dash and the number of the probe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Canary([u8; 16]);

impl Canary {
    /// The canary of this run.
    pub(super) fn new(random: u64) -> Self {
        let mut text = [0; 16];
        text.copy_from_slice(format!("{random:016x}").as_bytes());
        Self(text)
    }

    /// The number of the probe whose canary is in these bytes.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<u8> {
        let mut windows = bytes.windows(19);
        let found = windows.find(|w| w[0] == self.0[0] && w[..16] == self.0 && w[16] == b'-')?;
        std::str::from_utf8(&found[17..]).ok()?.parse().ok()
    }

    fn text(&self, probe: Probe) -> String {
        let canary = String::from_utf8_lossy(&self.0);
        format!("{canary}-{:02}", probe.number())
    }
}

/// One way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// An announce to a UDP tracker: belongs into the tunnel.
    Tracker,
    /// DNS to the router of the LAN.
    RouterDns,
    /// DNS to a public resolver that is not the tunnel's.
    PublicDns,
    /// A socket bound to the uplink device (SO_BINDTODEVICE).
    BoundDevice,
    /// A socket bound to the uplink's address.
    BoundAddress,
    /// IPv6.
    Ipv6,
    /// An Ethernet frame past every routing table and firewall chain (AF_PACKET).
    RawFrame,
    /// Multicast on the LAN (BEP 14).
    Discovery,
    /// TCP to the VPN server.
    ServerTcp,
    /// UDP to the VPN server's port, not WireGuard.
    ServerUdp,
}

/// What the program that tried got.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The kernel or a firewall said no.
    Refused(io::Error),
    /// Sent from our address in the tunnel; the time of the answer, if there was one.
    Tunnel(Option<Duration>),
    /// Sent from another address; the time of the answer, if there was one.
    Outside(Option<Duration>),
}

impl Probe {
    /// All of them that this stage can try, in the order they are shown.
    pub(super) fn all(stage: Stage) -> Vec<Self> {
        let all = [
            Self::Tracker,
            Self::PublicDns,
            Self::RouterDns,
            Self::BoundDevice,
            Self::BoundAddress,
            Self::Ipv6,
            Self::Discovery,
            Self::RawFrame,
            Self::ServerTcp,
            Self::ServerUdp,
        ];
        let possible = |probe: &Self| *probe != Self::Ipv6 || stage.ipv6;
        all.into_iter().filter(possible).collect()
    }

    /// The number its canary carries.
    pub(super) fn number(self) -> u8 {
        self as u8
    }

    /// Where to look for it when it cannot carry a canary: a TCP handshake has no payload.
    pub(super) fn bare_destination(self) -> Option<(IpAddr, u16)> {
        (self == Self::ServerTcp).then(|| (IpAddr::V4(*ENDPOINT.ip()), ENDPOINT.port()))
    }

    /// In a few words, what it tries.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Tracker => "announce to a UDP tracker",
            Self::RouterDns => "DNS to the LAN's router",
            Self::PublicDns => "DNS to 8.8.8.8",
            Self::BoundDevice => "socket bound to eth0",
            Self::BoundAddress => "socket bound to eth0's address",
            Self::Ipv6 => "UDP by IPv6",
            Self::RawFrame => "raw Ethernet frame",
            Self::Discovery => "local peer discovery",
            Self::ServerTcp => "TCP to the VPN server",
            Self::ServerUdp => "own UDP to the VPN server",
        }
    }

    /// Tries it and waits a moment for an answer. `tunnel` is our address inside the tunnel.
    pub(super) fn run(self, stage: Stage, canary: Canary, tunnel: Ipv4Addr) -> Outcome {
        let text = canary.text(self);
        let dns = question(&text);
        let tried = match self {
            Self::Tracker => datagram(TRACKER.into(), &announce(&text), tunnel, |_| Ok(())),
            Self::RouterDns => datagram((ROUTER, 53).into(), &dns, tunnel, |_| Ok(())),
            Self::PublicDns => datagram(([8, 8, 8, 8], 53).into(), &dns, tunnel, |_| Ok(())),
            Self::BoundDevice => datagram(
                (SOMEWHERE, 6881).into(),
                text.as_bytes(),
                tunnel,
                |socket| socket.bind_device(Some(UPLINK.as_bytes())),
            ),
            Self::BoundAddress => datagram(
                (SOMEWHERE, 6882).into(),
                text.as_bytes(),
                tunnel,
                |socket| socket.bind(&SocketAddr::from((ADDRESS, 0)).into()),
            ),
            Self::Ipv6 => datagram((SOMEWHERE_V6, 6881).into(), text.as_bytes(), tunnel, |_| {
                Ok(())
            }),
            Self::Discovery => datagram(
                DISCOVERY.into(),
                format!("BT-SEARCH * HTTP/1.1\r\ncookie: {text}\r\n\r\n").as_bytes(),
                tunnel,
                |socket| socket.set_multicast_if_v4(&ADDRESS),
            ),
            Self::RawFrame => raw_frame(stage.uplink, text.as_bytes()),
            Self::ServerTcp => connect(ENDPOINT, tunnel),
            Self::ServerUdp => datagram(ENDPOINT.into(), text.as_bytes(), tunnel, |_| Ok(())),
        };
        tried.unwrap_or_else(Outcome::Refused)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "refused, {}", errno(error)),
            Self::Tunnel(Some(after)) => {
                let milliseconds = after.as_secs_f64() * 1000.0;
                write!(f, "in the tunnel, answered in {milliseconds:.1} ms")
            }
            Self::Tunnel(None) => f.write_str("in the tunnel, no answer"),
            Self::Outside(Some(_)) => f.write_str("answered outside the tunnel"),
            Self::Outside(None) => f.write_str("stopped on the way, no answer"),
        }
    }
}

/// Asks the tunnel's resolver.
pub(super) fn resolve(canary: Canary, tunnel: Ipv4Addr) -> Outcome {
    let question = question(&canary.text(Probe::PublicDns));
    datagram((RESOLVER, 53).into(), &question, tunnel, |_| Ok(())).unwrap_or_else(Outcome::Refused)
}

fn datagram(
    to: SocketAddr,
    payload: &[u8],
    tunnel: Ipv4Addr,
    prepare: impl FnOnce(&Socket) -> io::Result<()>,
) -> io::Result<Outcome> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    prepare(&socket)?;
    socket.connect(&to.into())?;
    let begin = Instant::now();
    socket.send(payload)?;
    // The datagram was let through, so whatever comes now is an answer: also an ICMP message that
    // says that the port is closed.
    let answered = ready(&socket, PollFlags::IN)?.then(|| begin.elapsed());
    outcome(&socket, tunnel, answered)
}

fn connect(to: SocketAddrV4, tunnel: Ipv4Addr) -> io::Result<Outcome> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    let begin = Instant::now();
    match socket.connect(&SocketAddr::from(to).into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        Err(_) | Ok(()) => {}
    }
    let answered = ready(&socket, PollFlags::OUT)?.then(|| begin.elapsed());
    match socket.take_error()? {
        Some(error) => Err(error),
        None => outcome(&socket, tunnel, answered),
    }
}

fn outcome(socket: &Socket, tunnel: Ipv4Addr, answered: Option<Duration>) -> io::Result<Outcome> {
    let from = socket.local_addr()?.as_socket().map(|from| from.ip());
    Ok(if from == Some(IpAddr::V4(tunnel)) {
        Outcome::Tunnel(answered)
    } else {
        Outcome::Outside(answered)
    })
}

/// Whether something happens on the socket while we wait.
fn ready(socket: &Socket, flags: PollFlags) -> io::Result<bool> {
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(PATIENCE.subsec_nanos()),
    };
    let mut fds = [PollFd::new(socket, flags)];
    Ok(retry_on_intr(|| poll(&mut fds, Some(&patience)))? > 0)
}

fn raw_frame(device: u32, payload: &[u8]) -> io::Result<Outcome> {
    let (ip, udp) = (14, 34);
    let mut frame = vec![0; udp + 8 + payload.len()];
    frame[..6].copy_from_slice(&ROUTER_MAC);
    frame[6..12].copy_from_slice(&MAC);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let length = u16::try_from(frame.len()).map_err(io::Error::other)?;
    let mut packet = UdpPacket::new_unchecked(&mut frame[udp..]);
    packet.set_src_port(6883);
    packet.set_dst_port(6883);
    packet.set_len(length - 34);
    packet.payload_mut().copy_from_slice(payload);
    packet.fill_checksum(&ADDRESS.into(), &SOMEWHERE.into());
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[ip..]);
    packet.set_version(4);
    packet.set_header_len(20);
    packet.set_total_len(length - 14);
    packet.set_hop_limit(64);
    packet.set_next_header(smoltcp::wire::IpProtocol::Udp);
    packet.set_src_addr(ADDRESS);
    packet.set_dst_addr(SOMEWHERE);
    packet.fill_checksum();
    Capture::sender(device)?.send(&frame)?;
    Ok(Outcome::Outside(None))
}

/// The connect request of the UDP tracker protocol (BEP 15), with the canary behind it.
fn announce(text: &str) -> Vec<u8> {
    let mut request = vec![0, 0, 0x04, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0];
    request.extend(b"demo");
    request.extend(text.as_bytes());
    request
}

/// Asks for the A record of `<text>.example` (RFC 1035, section 4.1).
fn question(text: &str) -> Vec<u8> {
    let mut query = vec![0x76, 0x70, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [text, "example"] {
        // Our labels have 19 and 7 bytes; a label may have 63.
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_found_with_its_number() {
        let canary = Canary::new(0x0123_4567_89ab_cdef);
        let text = canary.text(Probe::RawFrame);
        assert_eq!(text, "0123456789abcdef-06");
        let frame = [b"....".as_slice(), text.as_bytes(), b"...."].concat();
        assert_eq!(canary.find(&frame), Some(6));
        assert_eq!(canary.find(&frame[5..]), None);
        assert_eq!(Canary::new(7).find(&frame), None);
    }
}
