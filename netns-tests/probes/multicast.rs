//! What tells the LAN about a torrent client, and what asks the LAN for favours.

use std::io;
use std::net::Ipv4Addr;

use socket2::Socket;

use super::{Probe, send, syn, tcp, udp};
use crate::lab::{APP, EVIL, LAN, METADATA, ROUTER, at};

/// Everything here.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "SSDP (UPnP)",
        send: |token| send(&udp()?, token, at(SSDP, 1900)),
    },
    Probe {
        name: "SSDP on the uplink",
        send: |token| send(&on_uplink()?, token, at(SSDP, 1900)),
    },
    Probe {
        name: "local service discovery",
        send: |token| send(&on_uplink()?, token, at(LSD, 6771)),
    },
    Probe {
        name: "multicast DNS",
        send: |token| send(&on_uplink()?, token, at(MDNS, 5353)),
    },
    Probe {
        name: "LLMNR",
        send: |token| send(&on_uplink()?, token, at(LLMNR, 5355)),
    },
    Probe {
        name: "broadcast",
        send: |token| send(&broadcasting()?, token, at(Ipv4Addr::BROADCAST, 9)),
    },
    Probe {
        name: "NetBIOS by broadcast on the subnet",
        send: |token| {
            send(
                &broadcasting()?,
                token,
                at(Ipv4Addr::new(172, 30, 0, 255), 137),
            )
        },
    },
    Probe {
        name: "NAT-PMP to the router",
        send: |token| send(&udp()?, token, at(ROUTER, 5351)),
    },
    Probe {
        name: "UPnP control at the router",
        send: |_| syn(&tcp()?, at(ROUTER, 5000)),
    },
    Probe {
        name: "web interface of the router",
        send: |_| syn(&tcp()?, at(ROUTER, 80)),
    },
    Probe {
        name: "UDP to a LAN host",
        send: |token| send(&udp()?, token, at(LAN, 9)),
    },
    Probe {
        name: "TCP to another container",
        send: |_| syn(&tcp()?, at(EVIL, 80)),
    },
    Probe {
        name: "metadata service, TCP",
        send: |_| syn(&tcp()?, at(METADATA, 80)),
    },
    Probe {
        name: "metadata service, UDP",
        send: |token| send(&udp()?, token, at(METADATA, 80)),
    },
];

const SSDP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
/// libtorrent, src/lsd.cpp.
const LSD: Ipv4Addr = Ipv4Addr::new(239, 192, 152, 143);
const MDNS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const LLMNR: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 252);

fn on_uplink() -> io::Result<Socket> {
    let socket = udp()?;
    socket.set_multicast_if_v4(&APP)?;
    Ok(socket)
}

fn broadcasting() -> io::Result<Socket> {
    let socket = udp()?;
    socket.set_broadcast(true)?;
    socket.bind_device(Some(b"eth0"))?;
    Ok(socket)
}
