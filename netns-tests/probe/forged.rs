//! What only a program with CAP_NET_RAW can do: packets that look like those that the rules permit.

use crate::addresses::{APP, ENDPOINT, LAN, LISTEN, ROUTER, ROUTER_MAC};
use crate::canary::Canary;
use crate::forge::{checksum, initiation, ipv4_udp, to_router};
use crate::packet::arp;
use crate::raw::{Layer, PacketSocket};
use crate::socket::{Probe, Sent, at, raw, send, to_device};

/// Everything here.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "arp-for-lan-host",
        send: |token| marked(&to_router(0x0806, &arp(APP, LAN, token))),
    },
    Probe {
        name: "arp-for-router-with-more-behind",
        send: |token| marked(&to_router(0x0806, &arp(APP, ROUTER, token))),
    },
    Probe {
        name: "wireguard-frame",
        send: |token| marked(&to_router(0x0800, &wireguard(token))),
    },
    Probe {
        name: "wireguard-header",
        send: |token| {
            let socket = to_device(raw(255)?)?;
            socket.set_mark(vpngw::net::Fwmark::DEFAULT.0)?;
            send(&socket, &wireguard(token), at(ENDPOINT, 0))
        },
    },
    Probe {
        name: "wireguard-frame-with-options",
        send: |token| marked(&to_router(0x0800, &with_options(&wireguard(token)))),
    },
    Probe {
        name: "wireguard-called-arp",
        send: |token| {
            let bytes = to_router(0x0806, &wireguard(token));
            let socket = PacketSocket::open("eth0", Layer::Frame, 0)?;
            socket.socket().set_mark(vpngw::net::Fwmark::DEFAULT.0)?;
            socket.send_to(&bytes, 0x0800, ROUTER_MAC)?;
            Ok(None)
        },
    },
];

fn wireguard(token: &Canary) -> Vec<u8> {
    ipv4_udp((APP, LISTEN), (ENDPOINT, 51820), &initiation(token))
}

/// A frame with the gateway's mark.
fn marked(bytes: &[u8]) -> Sent {
    let socket = PacketSocket::open("eth0", Layer::Frame, 0)?;
    socket.socket().set_mark(vpngw::net::Fwmark::DEFAULT.0)?;
    socket.send(bytes)?;
    Ok(None)
}

/// The packet with four octets "no operation" after its header (RFC 791).
fn with_options(packet: &[u8]) -> Vec<u8> {
    let (header, rest) = packet.split_at(20);
    let mut bytes = header.to_vec();
    bytes.extend([1, 1, 1, 0]);
    bytes[0] = 0x46;
    bytes[2..4].copy_from_slice(&(packet.len() as u16 + 4).to_be_bytes());
    bytes[10..12].fill(0);
    let sum = checksum(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(rest);
    bytes
}
