//! Ways out that a joined program may try. Each is shown to be seen without the gateway before its
//! absence with the gateway means anything.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::lab::canary::{self, Canary};
use crate::lab::classify::Flow;
use crate::lab::sensor::Tally;
use crate::lab::{Lab, wait};

pub mod device;
pub mod dns;
pub mod endpoint;
pub mod ip;
pub mod ipv6;
pub mod multicast;
pub mod packet;

/// One way out.
pub struct Probe {
    /// What it is, for people.
    pub name: &'static str,
    /// Sends the token, in namespace `app`. A probe that cannot carry it says which flow it is.
    pub send: fn(&Canary) -> io::Result<Option<Flow>>,
}

/// Fires each probe where no gateway runs, and fails unless the sensor sees each one.
pub fn control(lab: &Lab, probes: &[Probe]) {
    for probe in probes {
        let (mut tries, mut last) = (0, None);
        wait(
            &format!("without a gateway the sensor sees: {}", probe.name),
            Duration::from_secs(20),
            || {
                let token = canary::fresh();
                let sent = lab.ns.enter("app", || (probe.send)(&token));
                tries += 1;
                // Address resolution may swallow the first packets, so it is sent anew each time.
                for _ in 0..10 {
                    if seen(lab, &token, sent.as_ref().ok().copied().flatten()) {
                        return Some(());
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                if let Err(why) = sent {
                    last = Some(why.to_string());
                }
                assert!(tries < 150, "{}: {last:?}", probe.name);
                None
            },
        );
    }
    println!(
        "control: {} probes, each seen without the gateway",
        probes.len()
    );
}

/// Fires each probe and fails if the sensor sees any, or anything else that is not permitted.
pub fn fire(lab: &Lab, probes: &[Probe]) -> Tally {
    let mut shots = Vec::new();
    for probe in probes {
        let token = canary::fresh();
        let sent = lab.ns.enter("app", || (probe.send)(&token));
        shots.push((probe.name, token, sent));
    }
    lab.sensor.drain();
    let refused = shots.iter().filter(|(_, _, sent)| sent.is_err()).count();
    println!(
        "fired: {} probes, {refused} refused by the kernel",
        shots.len()
    );
    for (name, token, sent) in &shots {
        let flow = sent.as_ref().ok().copied().flatten();
        assert!(!seen(lab, token, flow), "leaked: {name} ({sent:?})");
    }
    lab.sensor.verdict()
}

fn seen(lab: &Lab, token: &Canary, flow: Option<Flow>) -> bool {
    lab.sensor.saw(token) || flow.is_some_and(|flow| lab.sensor.saw_flow(&flow))
}

/// A UDP socket.
pub fn udp() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::DGRAM, None)
}

/// Sends the token by UDP.
pub fn send(socket: &Socket, token: &Canary, to: SocketAddr) -> io::Result<Option<Flow>> {
    socket.send_to(token, &to.into())?;
    Ok(None)
}

/// Begins a TCP connection. A SYN carries no token, so the flow tells it apart.
pub fn syn(socket: &Socket, to: SocketAddr) -> io::Result<Option<Flow>> {
    socket.set_nonblocking(true)?;
    if socket
        .local_addr()?
        .as_socket()
        .is_none_or(|a| a.port() == 0)
    {
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        socket.bind(&any.into())?;
    }
    let source = socket.local_addr()?.as_socket().map_or(0, |a| a.port());
    match socket.connect(&SockAddr::from(to)) {
        Err(why) if why.raw_os_error() != Some(libc::EINPROGRESS) => Err(why),
        _ => Ok(Some((6, source, to.ip().to_canonical(), to.port()))),
    }
}

/// A TCP socket.
pub fn tcp() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, None)
}

/// A raw IPv4 socket of one protocol.
pub fn raw(protocol: i32) -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(protocol)))
}

/// An IPv4 packet with a UDP datagram (RFC 791, RFC 768; no UDP checksum).
pub fn ipv4_udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len() as u16;
    let mut bytes = ipv4(17, from.0, to.0, len);
    bytes.extend(from.1.to_be_bytes());
    bytes.extend(to.1.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

/// An IPv4 packet with a TCP SYN (RFC 9293, section 3.1).
pub fn ipv4_syn(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Vec<u8> {
    let mut tcp = from.1.to_be_bytes().to_vec();
    tcp.extend(to.1.to_be_bytes());
    tcp.extend([0, 0, 0, 9, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let mut pseudo = from.0.octets().to_vec();
    pseudo.extend(to.0.octets());
    pseudo.extend([0, 6, 0, 20]);
    pseudo.extend(&tcp);
    tcp[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    let mut bytes = ipv4(6, from.0, to.0, 20);
    bytes.extend(tcp);
    bytes
}

/// The header of an IPv4 packet.
pub fn ipv4(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: u16) -> Vec<u8> {
    let mut bytes = vec![0x45, 0];
    bytes.extend((20 + payload).to_be_bytes());
    bytes.extend([0x12, 0x34, 0, 0, 64, protocol, 0, 0]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    let sum = checksum(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let mut sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A message with the shape of a handshake initiation that carries the token.
pub fn initiation(token: &Canary) -> Vec<u8> {
    let mut message = vec![1, 0, 0, 0];
    message.resize(100, 0x77);
    message.extend(token);
    message.resize(148, 0x77);
    message
}
