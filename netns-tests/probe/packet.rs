//! Packet sockets: below IP, where no `output` chain looks. Docker grants CAP_NET_RAW by default.

use crate::addresses::{APP, APP_MAC, ENDPOINT, HOST, LISTEN, ROUTER, ROUTER_MAC, TUNNEL};
use crate::canary::Canary;
use crate::forge::{datagram, initiation, ipv4_syn, ipv4_udp, to_router};
use crate::raw::{Layer, PacketSocket};
use crate::socket::{Probe, Sent, port};

/// Everything here.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "frame",
        send: |token| frame(0x0800, &datagram(token), Path::Queued),
    },
    Probe {
        name: "frame-bypass",
        send: |token| frame(0x0800, &datagram(token), Path::Direct),
    },
    Probe {
        name: "dgram",
        send: |token| payload(0x0800, &datagram(token), Path::Queued),
    },
    Probe {
        name: "dgram-bypass",
        send: |token| payload(0x0800, &datagram(token), Path::Direct),
    },
    Probe {
        name: "tcp-syn",
        send: |token| {
            let port = port(token);
            frame(0x0800, &ipv4_syn((APP, port), (HOST, 80)), Path::Direct)?;
            Ok(Some((6, port, HOST.into(), 80)))
        },
    },
    Probe {
        name: "broadcast",
        send: |token| {
            let mut bytes = to_router(0x0800, &datagram(token));
            bytes[..6].fill(0xff);
            whole(&bytes, Path::Queued)
        },
    },
    Probe {
        name: "ipv6",
        send: |token| frame(0x86dd, &ipv6(token), Path::Queued),
    },
    Probe {
        name: "ipv6-dgram-bypass",
        send: |token| payload(0x86dd, &ipv6(token), Path::Direct),
    },
    Probe {
        name: "ethertype-88b5",
        send: |token| frame(0x88b5, &padded(token), Path::Direct),
    },
    Probe {
        name: "ethertype-88cc-lldp",
        send: |token| frame(0x88cc, &padded(token), Path::Queued),
    },
    Probe {
        name: "ethertype-888e-eapol",
        send: |token| frame(0x888e, &padded(token), Path::Queued),
    },
    Probe {
        name: "ethertype-8864-pppoe",
        send: |token| {
            let mut session = vec![0x11, 0, 0, 1, 0, 46, 0, 0x21];
            session.extend(datagram(token));
            frame(0x8864, &session, Path::Direct)
        },
    },
    Probe {
        name: "ethertype-8847-mpls",
        send: |token| {
            let mut labelled = vec![0, 1, 1, 64];
            labelled.extend(datagram(token));
            frame(0x8847, &labelled, Path::Queued)
        },
    },
    Probe {
        name: "ethertype-dgram-88b6",
        send: |token| payload(0x88b6, &padded(token), Path::Direct),
    },
    Probe {
        name: "length-802-3",
        send: |token| frame(60, &padded(token), Path::Queued),
    },
    Probe {
        name: "vlan",
        send: |token| frame(0x8100, &tagged(&[0, 5], token), Path::Queued),
    },
    Probe {
        name: "vlan-bypass",
        send: |token| frame(0x8100, &tagged(&[0, 5], token), Path::Direct),
    },
    Probe {
        name: "vlan-priority-only",
        send: |token| frame(0x8100, &tagged(&[0xe0, 0], token), Path::Queued),
    },
    Probe {
        name: "vlan-double",
        send: |token| {
            let inner = tagged(&[0, 6], token);
            frame(
                0x88a8,
                &[&[0, 5, 0x81, 0], &inner[..]].concat(),
                Path::Direct,
            )
        },
    },
    Probe {
        name: "arp-tunnel-address",
        send: |token| frame(0x0806, &arp(TUNNEL, ROUTER, token), Path::Queued),
    },
    Probe {
        name: "arp-tunnel-address-bypass",
        send: |token| frame(0x0806, &arp(TUNNEL, ROUTER, token), Path::Direct),
    },
    Probe {
        name: "another-mac",
        send: |token| {
            let mut bytes = to_router(0x0800, &datagram(token));
            bytes[11] = 0x99;
            whole(&bytes, Path::Queued)
        },
    },
    Probe {
        name: "ipv6-called-arp",
        send: |token| {
            let mut bytes = to_router(0x86dd, &ipv6(token));
            // Where ARP has the address of its sender.
            bytes[28..32].copy_from_slice(&APP.octets());
            called(0x0806, &bytes)
        },
    },
    Probe {
        name: "ipv4-called-ipv6",
        send: |token| called(0x86dd, &to_router(0x0800, &datagram(token))),
    },
    Probe {
        name: "endpoint-flow",
        send: |token| {
            let packet = ipv4_udp((APP, LISTEN), (ENDPOINT, 51820), token);
            frame(0x0800, &packet, Path::Direct)
        },
    },
    Probe {
        name: "endpoint-flow-another-port",
        send: |token| {
            let packet = ipv4_udp((APP, 4000), (ENDPOINT, 51820), &initiation(token));
            frame(0x0800, &packet, Path::Direct)
        },
    },
];

/// Whether the queueing discipline sees the frame (packet(7), PACKET_QDISC_BYPASS).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// It does.
    Queued,
    /// It does not.
    Direct,
}

fn frame(ethertype: u16, payload: &[u8], path: Path) -> Sent {
    whole(&to_router(ethertype, payload), path)
}

/// Sends a frame as it is.
pub fn whole(bytes: &[u8], path: Path) -> Sent {
    let socket = PacketSocket::open("eth0", Layer::Frame, 0)?;
    if path == Path::Direct {
        socket.bypass_qdisc()?;
    }
    socket.send(bytes)?;
    Ok(None)
}

fn payload(ethertype: u16, payload: &[u8], path: Path) -> Sent {
    let socket = PacketSocket::open("eth0", Layer::Payload, 0)?;
    if path == Path::Direct {
        socket.bypass_qdisc()?;
    }
    socket.send_to(payload, ethertype, ROUTER_MAC)?;
    Ok(None)
}

/// A frame whose sender says that it is of another protocol than its header does.
fn called(ethertype: u16, bytes: &[u8]) -> Sent {
    let socket = PacketSocket::open("eth0", Layer::Frame, 0)?;
    socket.send_to(bytes, ethertype, ROUTER_MAC)?;
    Ok(None)
}

/// An IPv4 packet behind the rest of an 802.1Q tag.
fn tagged(tag: &[u8; 2], token: &Canary) -> Vec<u8> {
    [&tag[..], &[8, 0], &datagram(token)].concat()
}

/// A question who has `target` (RFC 826), with the token behind it.
pub fn arp(from: std::net::Ipv4Addr, target: std::net::Ipv4Addr, token: &Canary) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 1];
    bytes.extend(APP_MAC);
    bytes.extend(from.octets());
    bytes.extend([0; 6]);
    bytes.extend(target.octets());
    bytes.extend(token);
    bytes
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
