//! What any program can do: TCP, UDP, ICMP, and the raw protocols of IP.

use std::io;
use std::net::Ipv4Addr;

use socket2::{Domain, Protocol, Socket, Type};

use crate::addresses::{APP, BEHIND, HOST};
use crate::canary::Canary;
use crate::forge::ipv4_udp;
use crate::raw::set_option;
use crate::socket::{
    Probe, Sent, at, bound, echo, raw, send, syn, tcp, to_device, traceroute, udp,
};

/// Everything here.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "tcp",
        send: |token| syn(&tcp()?, token, at(HOST, 80)),
    },
    Probe {
        name: "tcp-fast-open",
        send: |token| fast_open(&tcp()?, token),
    },
    Probe {
        name: "tcp-fast-open-to-device",
        send: |token| fast_open(&to_device(tcp()?)?, token),
    },
    Probe {
        name: "multipath-tcp",
        send: |token| {
            let protocol = Some(Protocol::from(libc::IPPROTO_MPTCP));
            syn(
                &Socket::new(Domain::IPV4, Type::STREAM, protocol)?,
                token,
                at(HOST, 80),
            )
        },
    },
    Probe {
        name: "udp",
        send: |token| send(&udp()?, token, at(HOST, 9)),
    },
    Probe {
        name: "udp-connected",
        send: |token| {
            let socket = udp()?;
            socket.connect(&at(HOST, 9).into())?;
            socket.send(token)?;
            Ok(None)
        },
    },
    Probe {
        name: "udp-private",
        send: |token| send(&udp()?, token, at(BEHIND, 9)),
    },
    Probe {
        name: "udp-fragments",
        send: |token| send(&udp()?, &large(token), at(HOST, 9)),
    },
    Probe {
        name: "udp-fragments-to-device",
        send: |token| send(&to_device(udp()?)?, &large(token), at(HOST, 9)),
    },
    Probe {
        name: "udp-segmented",
        send: |token| segments(&udp()?, token),
    },
    Probe {
        name: "udp-segmented-to-device",
        send: |token| segments(&to_device(udp()?)?, token),
    },
    Probe {
        name: "udp-record-route",
        send: |token| {
            let socket = udp()?;
            // Record route, RFC 791: type 7, room for nine addresses, first free octet 4.
            let mut options = vec![7, 39, 4];
            options.resize(40, 0);
            set_option(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &options)?;
            send(&socket, token, at(HOST, 9))
        },
    },
    Probe {
        name: "udp-ttl-1",
        send: |token| traceroute(udp()?, 1, token),
    },
    Probe {
        name: "udp-ttl-2",
        send: |token| traceroute(udp()?, 2, token),
    },
    Probe {
        name: "udp-ttl-3",
        send: |token| traceroute(udp()?, 3, token),
    },
    Probe {
        name: "udp-ttl-4",
        send: |token| traceroute(udp()?, 4, token),
    },
    Probe {
        name: "ping",
        send: |token| send(&ping()?, &echo(8, token), at(HOST, 0)),
    },
    Probe {
        name: "ping-to-device",
        send: |token| send(&to_device(ping()?)?, &echo(8, token), at(HOST, 0)),
    },
    Probe {
        name: "icmp-echo",
        send: |token| send(&raw(1)?, &echo(8, token), at(HOST, 0)),
    },
    Probe {
        name: "icmp-timestamp",
        send: |token| send(&raw(1)?, &echo(13, token), at(HOST, 0)),
    },
    Probe {
        name: "protocol-41-6in4",
        send: |token| send(&raw(41)?, token, at(HOST, 0)),
    },
    Probe {
        name: "protocol-47-gre",
        send: |token| send(&raw(47)?, token, at(HOST, 0)),
    },
    Probe {
        name: "protocol-50-esp",
        send: |token| send(&raw(50)?, token, at(HOST, 0)),
    },
    Probe {
        name: "protocol-132-sctp",
        send: |token| send(&raw(132)?, &sctp(token), at(HOST, 0)),
    },
    Probe {
        name: "protocol-136-udp-lite",
        send: |token| send(&raw(136)?, token, at(HOST, 0)),
    },
    Probe {
        name: "protocol-253",
        send: |token| send(&raw(253)?, token, at(HOST, 0)),
    },
    Probe {
        name: "header",
        send: |token| header(ipv4_udp((APP, 4000), (HOST, 9), token)),
    },
    Probe {
        name: "header-forged-source",
        send: |token| header(ipv4_udp((STRANGER, 4000), (HOST, 9), token)),
    },
    Probe {
        name: "header-later-fragment",
        send: |token| {
            let mut packet = ipv4_udp((APP, 4000), (HOST, 9), token);
            // Offset 185 in units of eight octets (RFC 791): there are no ports in it to look at.
            packet[6..8].copy_from_slice(&185_u16.to_be_bytes());
            header(packet)
        },
    },
];

/// On the uplink's network, and nobody's.
const STRANGER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 77);

/// Larger than a frame.
fn large(token: &Canary) -> Vec<u8> {
    let mut bytes = token.to_vec();
    bytes.resize(3000, 0);
    bytes
}

/// The token in the SYN (RFC 7413), without a cookie so that the first connection does it too.
fn fast_open(socket: &Socket, token: &Canary) -> Sent {
    let to = at(HOST, 80);
    let flow = bound(socket, token, to)?;
    let on = 1_i32.to_ne_bytes();
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_NO_COOKIE, &on)?;
    match socket.send_to_with_flags(token, &to.into(), libc::MSG_FASTOPEN) {
        Err(why) if why.raw_os_error() != Some(libc::EINPROGRESS) => Err(why),
        _ => Ok(Some(flow)),
    }
}

/// Three datagrams in one call, each with the token (udp(7), UDP_SEGMENT).
fn segments(socket: &Socket, token: &Canary) -> Sent {
    let mut one = token.to_vec();
    one.resize(100, 0);
    let size = 100_i32.to_ne_bytes();
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, &size)?;
    send(socket, &one.repeat(3), at(HOST, 9))
}

/// A ping without privileges, where `ping_group_range` permits it: Docker does.
fn ping() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4))
}

/// A packet with a header of the sender's own making.
fn header(packet: Vec<u8>) -> Sent {
    send(&raw(255)?, &packet, at(HOST, 0))
}

/// An SCTP packet with one INIT chunk (RFC 9260, section 3.3.2) and the token as a parameter.
fn sctp(token: &Canary) -> Vec<u8> {
    let mut bytes = vec![0x0f, 0xa0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([1, 0, 0, 40, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    bytes.extend([0x80, 0x55, 0, 20]);
    bytes.extend(token);
    bytes
}
