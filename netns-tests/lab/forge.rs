//! Packets and frames made by hand.

use std::net::Ipv4Addr;

use super::addresses::{APP, APP_MAC, HOST, ROUTER_MAC};
use super::canary::Canary;

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

/// A datagram to the public host that carries the token, as a whole packet.
pub fn datagram(token: &Canary) -> Vec<u8> {
    ipv4_udp((APP, 4000), (HOST, 9), token)
}

/// A frame from the gateway's device to the router.
pub fn to_router(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = ROUTER_MAC.to_vec();
    bytes.extend(APP_MAC);
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend(payload);
    bytes
}
