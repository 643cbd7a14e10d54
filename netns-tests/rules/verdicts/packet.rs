//! One packet in bytes.

use std::net::{IpAddr, Ipv4Addr};

use vpngw::net::{Fwmark, Transport};
use vpngw::policy::{Direction, Flow, Protocol};

use super::random::{TUNNEL, UPLINK, device_named};
use crate::lab::forge::{checksum, ipv4_udp};

/// One packet, and what is known about it.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub flow: Flow,
    /// Whether it says that it is part of a larger one.
    pub fragment: bool,
}

/// The packet that opens the connection which this one answers.
pub(super) fn opener(packet: &Packet) -> Packet {
    let flow = packet.flow.clone();
    let protocol = match flow.protocol {
        Protocol::Tcp {
            source,
            destination,
        } => ports(Transport::Tcp, destination, source),
        Protocol::Udp {
            source,
            destination,
            ..
        } => ports(Transport::Udp, destination, source),
        other @ (Protocol::Icmp | Protocol::TooBig { .. } | Protocol::Other(_)) => other,
    };
    Packet {
        flow: Flow {
            direction: if flow.direction == Direction::Out {
                Direction::In
            } else {
                Direction::Out
            },
            source: flow.destination,
            destination: flow.source,
            protocol,
            mark: Fwmark(0),
            reply: false,
            ..flow
        },
        fragment: false,
    }
}

pub(super) fn ports(transport: Transport, source: u16, destination: u16) -> Protocol {
    match transport {
        Transport::Tcp => Protocol::Tcp {
            source,
            destination,
        },
        Transport::Udp => Protocol::Udp {
            source,
            destination,
            wireguard: false,
        },
    }
}

pub(super) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp { .. } => 6,
        Protocol::Udp { .. } => 17,
        Protocol::Icmp | Protocol::TooBig { .. } => 1,
        Protocol::Other(number) => number,
    }
}

impl Packet {
    /// The packet in bytes (RFC 791, RFC 768, RFC 9293, RFC 792).
    pub(super) fn bytes(&self) -> Vec<u8> {
        let (IpAddr::V4(source), IpAddr::V4(destination)) =
            (self.flow.source, self.flow.destination)
        else {
            panic!("IPv4 only");
        };
        let mut payload = Vec::new();
        let sum_at = match self.flow.protocol {
            Protocol::Tcp {
                source,
                destination,
            } => {
                let flags = if self.flow.reply { 0x12 } else { 0x02 };
                payload.extend([source.to_be_bytes(), destination.to_be_bytes()].concat());
                payload.extend([0, 0, 0, 9, 0, 0, 0, if self.flow.reply { 10 } else { 0 }]);
                payload.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
                Some(16)
            }
            Protocol::Udp {
                source,
                destination,
                wireguard,
            } => {
                payload.extend([source.to_be_bytes(), destination.to_be_bytes()].concat());
                payload.extend([0, 8 + 32, 0, 0]);
                payload.extend(if wireguard { [4, 0, 0, 0] } else { *b"GET " });
                payload.resize(8 + 32, 0x77);
                Some(6)
            }
            Protocol::Icmp => {
                payload.extend([if self.flow.reply { 0 } else { 8 }, 0, 0, 0, 0, 1, 0, 1]);
                let sum = checksum(&payload);
                payload[2..4].copy_from_slice(&sum.to_be_bytes());
                None
            }
            Protocol::TooBig {
                source_port,
                remote,
            } => {
                payload.extend([3, 4, 0, 0, 0, 0, 5, 0]);
                let sent = (destination, source_port);
                payload.extend(ipv4_udp(sent, (*remote.ip(), remote.port()), &[]));
                let sum = checksum(&payload);
                payload[2..4].copy_from_slice(&sum.to_be_bytes());
                None
            }
            Protocol::Other(_) => {
                payload.extend([0x77; 16]);
                None
            }
        };
        let kind = number(self.flow.protocol);
        if let Some(at) = sum_at {
            let mut pseudo = [source.octets(), destination.octets()].concat();
            pseudo.extend([0, kind, 0, payload.len() as u8]);
            pseudo.extend(&payload);
            let sum = checksum(&pseudo);
            payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        let length = (20 + payload.len()) as u16;
        let mut bytes = vec![0x45, 0];
        bytes.extend(length.to_be_bytes());
        bytes.extend([
            0x12,
            0x34,
            if self.fragment { 0x20 } else { 0 },
            0,
            64,
            kind,
            0,
            0,
        ]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        let sum = checksum(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// In a frame to the router.
    pub(super) fn frame(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend(self.bytes());
        frame
    }
}

/// Frames that no policy can permit: cut packets, IPv6, tags, ARP in the tunnel's name.
pub(super) fn odd_frame(kind: usize) -> Vec<u8> {
    let flow = Flow {
        direction: Direction::Out,
        device: device_named("eth0"),
        source: UPLINK.into(),
        destination: Ipv4Addr::new(198, 51, 100, 10).into(),
        protocol: ports(Transport::Udp, 40000, 51820),
        mark: Fwmark(0),
        reply: false,
    };
    let mut cut = Packet {
        flow: flow.clone(),
        fragment: true,
    }
    .frame();
    let mut whole = Packet {
        flow,
        fragment: false,
    }
    .frame();
    match kind {
        0 => cut,
        1 => {
            // The last part: an offset, and nothing of the header above.
            cut[20..22].copy_from_slice(&[0, 185]);
            cut
        }
        2 => {
            whole[12..14].copy_from_slice(&[0x86, 0xdd]);
            whole
        }
        3 => {
            let tail = whole.split_off(12);
            [whole, vec![0x81, 0, 0, 5], tail].concat()
        }
        4 => {
            let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2];
            arp.extend(TUNNEL.octets());
            arp.extend([0, 0, 0, 0, 0, 0, 172, 30, 0, 1]);
            whole.truncate(12);
            [whole, vec![8, 6], arp].concat()
        }
        _ => {
            whole[12..14].copy_from_slice(&[0x88, 0xb5]);
            whole
        }
    }
}
