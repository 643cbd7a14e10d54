//! What tells the LAN about a torrent client, and what asks the LAN for favours.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::Socket;

use crate::addresses::{APP, EVIL, LAN, METADATA, ROUTER};
use crate::canary::Canary;
use crate::raw::set_option;
use crate::socket::{Probe, Sent, at, raw, send, syn, tcp, to_device, udp};

/// Everything here.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "ssdp",
        send: |token| send(&udp()?, token, at(SSDP, 1900)),
    },
    Probe {
        name: "ssdp-on-uplink",
        send: |token| send(&on_uplink()?, token, at(SSDP, 1900)),
    },
    Probe {
        name: "lsd",
        send: |token| send(&on_uplink()?, token, at(LSD, 6771)),
    },
    Probe {
        name: "mdns",
        send: |token| send(&on_uplink()?, token, at(MDNS, 5353)),
    },
    Probe {
        name: "llmnr",
        send: |token| send(&on_uplink()?, token, at(LLMNR, 5355)),
    },
    Probe {
        name: "all-hosts-to-device",
        send: |token| send(&to_device(udp()?)?, token, at(ALL_HOSTS, 9)),
    },
    Probe {
        name: "broadcast",
        send: |token| send(&broadcasting()?, token, at(Ipv4Addr::BROADCAST, 9)),
    },
    Probe {
        name: "broadcast-routed",
        send: |token| {
            let socket = udp()?;
            socket.set_broadcast(true)?;
            send(&socket, token, at(SUBNET, 9))
        },
    },
    Probe {
        name: "netbios",
        send: |token| send(&broadcasting()?, token, at(SUBNET, 137)),
    },
    Probe {
        name: "dhcp",
        send: |token| send(&broadcasting()?, token, at(Ipv4Addr::BROADCAST, 67)),
    },
    Probe {
        name: "igmp-join",
        send: |token| {
            let group = group(token);
            // A process that joins is told of by the kernel, which waits a while (RFC 3376, section 5.1):
            // leaving again makes it speak now.
            let socket = udp()?;
            socket.join_multicast_v4(&group, &APP)?;
            socket.leave_multicast_v4(&group, &APP)?;
            Ok(Some((2, 0, group.into(), 0)))
        },
    },
    Probe {
        name: "igmp-raw",
        send: |token| igmp(&raw(2)?, token),
    },
    Probe {
        name: "igmp-raw-to-device",
        send: |token| igmp(&to_device(raw(2)?)?, token),
    },
    Probe {
        name: "nat-pmp",
        send: |token| send(&udp()?, token, at(ROUTER, 5351)),
    },
    Probe {
        name: "upnp-control",
        send: |token| syn(&tcp()?, token, at(ROUTER, 5000)),
    },
    Probe {
        name: "router-web",
        send: |token| syn(&tcp()?, token, at(ROUTER, 80)),
    },
    Probe {
        name: "lan-udp",
        send: |token| send(&udp()?, token, at(LAN, 9)),
    },
    Probe {
        name: "neighbour-tcp",
        send: |token| syn(&tcp()?, token, at(EVIL, 80)),
    },
    Probe {
        name: "metadata-tcp",
        send: |token| syn(&tcp()?, token, at(METADATA, 80)),
    },
    Probe {
        name: "metadata-udp",
        send: |token| send(&udp()?, token, at(METADATA, 80)),
    },
];

const SSDP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
/// libtorrent, src/lsd.cpp.
const LSD: Ipv4Addr = Ipv4Addr::new(239, 192, 152, 143);
const MDNS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const LLMNR: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 252);
const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// Broadcast on the uplink's network.
const SUBNET: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 255);

/// A group that nobody else joins: the last three bytes of the token make it.
fn group(token: &Canary) -> Ipv4Addr {
    Ipv4Addr::new(239, token[13], token[14], token[15])
}

/// A version 2 report (RFC 2236) that carries the token after it.
fn igmp(socket: &Socket, token: &Canary) -> Sent {
    let mut bytes = vec![0x16, 0, 0, 0];
    bytes.extend(group(token).octets());
    bytes.extend(token);
    let sum = crate::forge::checksum(&bytes);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    let interface = APP.octets();
    set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &interface)?;
    let to: SocketAddr = at(group(token), 0);
    send(socket, &bytes, to)
}

fn on_uplink() -> io::Result<Socket> {
    let socket = udp()?;
    socket.set_multicast_if_v4(&APP)?;
    Ok(socket)
}

fn broadcasting() -> io::Result<Socket> {
    let socket = udp()?;
    socket.set_broadcast(true)?;
    to_device(socket)
}
