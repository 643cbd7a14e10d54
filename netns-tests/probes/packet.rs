//! Packet sockets: below IP, where no `output` chain looks. Docker grants CAP_NET_RAW by default.

use std::io;

use super::{Probe, ipv4_udp};
use crate::lab::canary::Canary;
use crate::lab::classify::Flow;
use crate::lab::raw::{Layer, PacketSocket};
use crate::lab::{APP, APP_MAC, HOST, LISTEN, ROUTER, ROUTER_MAC};

/// Everything here.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "AF_PACKET, an IPv4 frame",
        send: |token| frame(0x0800, &datagram(token), Path::Queued),
    },
    Probe {
        name: "AF_PACKET with PACKET_QDISC_BYPASS, an IPv4 frame",
        send: |token| frame(0x0800, &datagram(token), Path::Direct),
    },
    Probe {
        name: "AF_PACKET without a link-layer header",
        send: |token| payload(0x0800, &datagram(token), Path::Queued),
    },
    Probe {
        name: "AF_PACKET without a link-layer header, with PACKET_QDISC_BYPASS",
        send: |token| payload(0x0800, &datagram(token), Path::Direct),
    },
    Probe {
        name: "AF_PACKET, an IPv6 frame",
        send: |token| frame(0x86dd, &ipv6(token), Path::Queued),
    },
    Probe {
        name: "AF_PACKET, ethertype 0x88b5 (experiments)",
        send: |token| frame(0x88b5, &padded(token), Path::Direct),
    },
    Probe {
        name: "AF_PACKET, ethertype 0x88cc (LLDP)",
        send: |token| frame(0x88cc, &padded(token), Path::Queued),
    },
    Probe {
        name: "AF_PACKET, a VLAN-tagged IPv4 frame",
        send: |token| {
            let mut tagged = vec![0, 5, 8, 0];
            tagged.extend(datagram(token));
            frame(0x8100, &tagged, Path::Queued)
        },
    },
    Probe {
        name: "AF_PACKET, a doubly tagged IPv4 frame",
        send: |token| {
            let mut tagged = vec![0, 5, 0x81, 0, 0, 6, 8, 0];
            tagged.extend(datagram(token));
            frame(0x88a8, &tagged, Path::Direct)
        },
    },
    Probe {
        name: "AF_PACKET, ARP that gives away the tunnel's address",
        send: |token| {
            let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
            arp.extend(APP_MAC);
            arp.extend(crate::lab::TUNNEL.octets());
            arp.extend([0; 6]);
            arp.extend(ROUTER.octets());
            arp.extend(token);
            frame(0x0806, &arp, Path::Queued)
        },
    },
    Probe {
        name: "AF_PACKET, from another link-layer address",
        send: |token| {
            let mut bytes = ROUTER_MAC.to_vec();
            bytes.extend([2, 0, 0, 0, 0, 0x99, 8, 0]);
            bytes.extend(datagram(token));
            let socket = PacketSocket::open("eth0", Layer::Frame, 0)?;
            socket.send(&bytes)?;
            Ok(None)
        },
    },
    Probe {
        name: "AF_PACKET, IPv4 under an 802.3 length",
        send: |token| frame(60, &padded(token), Path::Queued),
    },
    Probe {
        name: "AF_PACKET, an IPv6 frame that its sender calls ARP",
        send: |token| {
            let mut bytes = frame_to_router(0x86dd, &ipv6(token));
            // Where ARP has the address of its sender.
            bytes[28..32].copy_from_slice(&APP.octets());
            let socket = PacketSocket::open("eth0", Layer::Frame, 0)?;
            socket.send_to(&bytes, 0x0806, ROUTER_MAC)?;
            Ok(None)
        },
    },
    Probe {
        name: "AF_PACKET, the endpoint's flow with other bytes in it",
        send: |token| {
            let to = ("198.51.100.10".parse().map_err(io::Error::other)?, 51820);
            frame(0x0800, &ipv4_udp((APP, LISTEN), to, token), Path::Direct)
        },
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    /// Through the queueing discipline.
    Queued,
    /// Past it.
    Direct,
}

fn frame(ethertype: u16, payload: &[u8], path: Path) -> io::Result<Option<Flow>> {
    let socket = PacketSocket::open("eth0", Layer::Frame, 0)?;
    if path == Path::Direct {
        socket.bypass_qdisc()?;
    }
    socket.send(&frame_to_router(ethertype, payload))?;
    Ok(None)
}

fn frame_to_router(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = ROUTER_MAC.to_vec();
    bytes.extend(APP_MAC);
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn payload(ethertype: u16, payload: &[u8], path: Path) -> io::Result<Option<Flow>> {
    let socket = PacketSocket::open("eth0", Layer::Payload, 0)?;
    if path == Path::Direct {
        socket.bypass_qdisc()?;
    }
    socket.send_to(payload, ethertype, ROUTER_MAC)?;
    Ok(None)
}

pub fn datagram(token: &Canary) -> Vec<u8> {
    ipv4_udp((APP, 4000), (HOST, 9), token)
}

fn ipv6(token: &Canary) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0, 0, 16, 59, 64];
    bytes.extend([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    bytes.extend([0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    bytes.extend(token);
    bytes
}

fn padded(token: &Canary) -> Vec<u8> {
    let mut bytes = token.to_vec();
    bytes.resize(60, 0);
    bytes
}
