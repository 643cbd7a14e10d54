//! IPv6 in every form, and IPv4 dressed up as IPv6.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};

use crate::addresses::HOST;
use crate::canary::Canary;
use crate::device::index;
use crate::socket::{Probe, send, syn, to_device};

/// Everything here.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "udp",
        send: |token| send(&udp()?, token, at(GLOBAL, 9)),
    },
    Probe {
        name: "tcp",
        send: |token| syn(&tcp()?, token, at(GLOBAL, 80)),
    },
    Probe {
        name: "udp-to-device",
        send: |token| send(&to_device(udp()?)?, token, at(GLOBAL, 9)),
    },
    Probe {
        name: "tcp-to-device",
        send: |token| syn(&to_device(tcp()?)?, token, at(GLOBAL, 80)),
    },
    Probe {
        name: "udp-fragments",
        send: |token| {
            let mut bytes = token.to_vec();
            bytes.resize(3000, 0);
            send(&udp()?, &bytes, at(GLOBAL, 9))
        },
    },
    Probe {
        name: "udp-hop-limit-1",
        send: |token| {
            let socket = udp()?;
            socket.set_unicast_hops_v6(1)?;
            send(&socket, token, at(GLOBAL, 33434))
        },
    },
    Probe {
        name: "udp-link-local",
        send: |token| send(&udp()?, token, scoped(LINK_LOCAL, 9)?),
    },
    Probe {
        name: "udp-all-nodes",
        send: |token| send(&udp()?, token, scoped(ALL_NODES, 9)?),
    },
    Probe {
        name: "mdns",
        send: |token| send(&udp()?, token, scoped(MDNS, 5353)?),
    },
    Probe {
        name: "lsd",
        send: |token| send(&udp()?, token, scoped(LSD, 6771)?),
    },
    Probe {
        name: "mld-join",
        send: |token| {
            let group = group(token);
            let socket = udp()?;
            socket.join_multicast_v6(&group, index()?)?;
            socket.leave_multicast_v6(&group, index()?)?;
            Ok(Some((58, 0, group.into(), 0)))
        },
    },
    Probe {
        name: "icmp-echo",
        send: |token| send(&raw(Protocol::ICMPV6)?, &echo(token), at(GLOBAL, 0)),
    },
    Probe {
        name: "icmp-echo-to-device",
        send: |token| {
            let socket = to_device(raw(Protocol::ICMPV6)?)?;
            send(&socket, &echo(token), at(GLOBAL, 0))
        },
    },
    Probe {
        name: "ping",
        send: |token| {
            let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::ICMPV6))?;
            send(&socket, &echo(token), at(GLOBAL, 0))
        },
    },
    Probe {
        name: "protocol-253",
        send: |token| send(&raw(Protocol::from(253))?, token, at(GLOBAL, 0)),
    },
    Probe {
        name: "mapped-udp",
        send: |token| {
            let socket = udp()?;
            socket.set_only_v6(false)?;
            send(&socket, token, at(HOST.to_ipv6_mapped(), 9))
        },
    },
    Probe {
        name: "mapped-udp-to-device",
        send: |token| {
            let socket = udp()?;
            socket.set_only_v6(false)?;
            send(&to_device(socket)?, token, at(HOST.to_ipv6_mapped(), 9))
        },
    },
    Probe {
        name: "mapped-tcp",
        send: |token| {
            let socket = tcp()?;
            socket.set_only_v6(false)?;
            syn(&socket, token, at(HOST.to_ipv6_mapped(), 80))
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

/// A group that nobody else joins: the last bytes of the token make it.
fn group(token: &Canary) -> Ipv6Addr {
    let [high, low] = [14, 12].map(|i| u16::from_be_bytes([token[i], token[i + 1]]));
    Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0x17, low, high)
}

fn udp() -> io::Result<Socket> {
    Socket::new(Domain::IPV6, Type::DGRAM, None)
}

fn tcp() -> io::Result<Socket> {
    Socket::new(Domain::IPV6, Type::STREAM, None)
}

fn raw(protocol: Protocol) -> io::Result<Socket> {
    Socket::new(Domain::IPV6, Type::RAW, Some(protocol))
}

/// The kernel writes the checksum (RFC 3542, section 3.1).
fn echo(token: &Canary) -> Vec<u8> {
    let mut bytes = vec![128, 0, 0, 0, 0, 1, 0, 1];
    bytes.extend(token);
    bytes
}

fn at(address: Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddrV6::new(address, port, 0, 0).into()
}

fn scoped(address: Ipv6Addr, port: u16) -> io::Result<SocketAddr> {
    Ok(SocketAddrV6::new(address, port, 0, index()?).into())
}
