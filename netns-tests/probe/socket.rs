//! What a probe is, and the sockets that many of them use.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::addresses::HOST;
use crate::canary::{Canary, Flow};

/// One way out.
pub struct Probe {
    /// What it is; with its family before it, unique.
    pub name: &'static str,
    /// Sends the token.
    pub send: fn(&Canary) -> Sent,
}

/// What a probe knows of its own fate. One that cannot carry the token says which flow it is.
pub type Sent = io::Result<Option<Flow>>;

/// A socket address.
pub fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddrV4::new(address, port).into()
}

/// A UDP socket.
pub fn udp() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::DGRAM, None)
}

/// A TCP socket.
pub fn tcp() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, None)
}

/// A raw IPv4 socket of one protocol; 255 takes whole packets.
pub fn raw(protocol: i32) -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(protocol)))
}

/// The socket, bound to the uplink.
pub fn to_device(socket: Socket) -> io::Result<Socket> {
    socket.bind_device(Some(b"eth0"))?;
    Ok(socket)
}

/// Sends bytes that contain the token.
pub fn send(socket: &Socket, bytes: &[u8], to: SocketAddr) -> Sent {
    socket.send_to(bytes, &to.into())?;
    Ok(None)
}

/// Sends the token as traceroute(8) does, to be answered by the router so many hops away.
pub fn traceroute(socket: Socket, hops: u32, token: &Canary) -> Sent {
    socket.set_ttl_v4(hops)?;
    send(&socket, token, at(HOST, 33434))
}

/// Begins a TCP connection. A SYN carries no token, so the flow tells it apart.
pub fn syn(socket: &Socket, token: &Canary, to: SocketAddr) -> Sent {
    connect(socket, bound(socket, token, to)?, to)
}

/// As [`syn`], from an address.
pub fn syn_from(socket: &Socket, token: &Canary, from: IpAddr, to: SocketAddr) -> Sent {
    connect(socket, bound_to(socket, token, from, to)?, to)
}

fn connect(socket: &Socket, flow: Flow, to: SocketAddr) -> Sent {
    match socket.connect(&SockAddr::from(to)) {
        Err(why) if why.raw_os_error() != Some(libc::EINPROGRESS) => Err(why),
        _ => Ok(Some(flow)),
    }
}

/// Gives a socket that does not wait the port of the token, so that its flow is known before it sends.
pub fn bound(socket: &Socket, token: &Canary, to: SocketAddr) -> io::Result<Flow> {
    let any = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    bound_to(socket, token, any, to)
}

/// As [`bound`], to an address too.
pub fn bound_to(socket: &Socket, token: &Canary, from: IpAddr, to: SocketAddr) -> io::Result<Flow> {
    let port = port(token);
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(from, port).into())?;
    Ok((6, port, to.ip().to_canonical(), to.port()))
}

/// A source port for a probe that cannot carry its token: another one for each of 64,000 in a row.
pub fn port(token: &Canary) -> u16 {
    1024 + u16::from_be_bytes([token[8], token[9]]) % 64_000
}

/// An ICMP echo request (RFC 792) that carries the token; raw sockets of IPv4 send it as it is.
pub fn echo(kind: u8, token: &Canary) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0, 0, 1, 0, 1];
    bytes.extend(token);
    let sum = crate::forge::checksum(&bytes);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}
