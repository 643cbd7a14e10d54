//! IPv6 in every form, and IPv4 dressed up as IPv6.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Probe, send, syn};
use crate::lab::HOST;

/// Everything here.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "UDP to a global IPv6 address",
        send: |token| send(&udp()?, token, at(GLOBAL, 9)),
    },
    Probe {
        name: "TCP to a global IPv6 address",
        send: |_| {
            syn(
                &Socket::new(Domain::IPV6, Type::STREAM, None)?,
                at(GLOBAL, 80),
            )
        },
    },
    Probe {
        name: "UDP to a global IPv6 address with SO_BINDTODEVICE eth0",
        send: |token| {
            let socket = udp()?;
            socket.bind_device(Some(b"eth0"))?;
            send(&socket, token, at(GLOBAL, 9))
        },
    },
    Probe {
        name: "UDP to the router's link-local IPv6 address",
        send: |token| send(&udp()?, token, scoped(LINK_LOCAL, 9)?),
    },
    Probe {
        name: "UDP to all nodes, ff02::1",
        send: |token| send(&udp()?, token, scoped(ALL_NODES, 9)?),
    },
    Probe {
        name: "IPv6 multicast DNS",
        send: |token| send(&udp()?, token, scoped(MDNS, 5353)?),
    },
    Probe {
        name: "IPv6 local service discovery of a torrent client",
        send: |token| send(&udp()?, token, scoped(LSD, 6771)?),
    },
    Probe {
        name: "ICMPv6 echo",
        send: |token| {
            let mut echo = vec![128, 0, 0, 0, 0, 1, 0, 1];
            echo.extend(token);
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
            socket.send_to(&echo, &at(GLOBAL, 0).into())?;
            Ok(None)
        },
    },
    Probe {
        name: "UDP to an IPv4 address mapped into IPv6",
        send: |token| {
            let socket = udp()?;
            socket.set_only_v6(false)?;
            socket.bind_device(Some(b"eth0"))?;
            send(&socket, token, at(HOST.to_ipv6_mapped(), 9))
        },
    },
    Probe {
        name: "TCP to an IPv4 address mapped into IPv6",
        send: |_| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
            socket.set_only_v6(false)?;
            syn(&socket, at(HOST.to_ipv6_mapped(), 80))
        },
    },
];

const GLOBAL: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const MDNS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// libtorrent, src/lsd.cpp.
const LSD: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f);
/// The router's, made from its link-layer address (RFC 4291, appendix A).
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 1);

fn udp() -> io::Result<Socket> {
    Socket::new(Domain::IPV6, Type::DGRAM, None)
}

fn at(address: Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddrV6::new(address, port, 0, 0).into()
}

fn scoped(address: Ipv6Addr, port: u16) -> io::Result<SocketAddr> {
    let index = rustix::net::netdevice::name_to_index(udp()?, "eth0")?;
    Ok(SocketAddrV6::new(address, port, 0, index).into())
}
