//! Packets for tests, and a plain reading of their checksums.

use super::header::Protocol;

/// A TCP or UDP packet to be built.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) protocol: Protocol,
    /// Tells flows apart: the last byte of the source address, and the source port.
    pub(super) flow: u8,
    pub(super) tos: u8,
    pub(super) id: u16,
    pub(super) df: bool,
    pub(super) sequence: u32,
    pub(super) flags: u8,
    pub(super) options: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Packet {
    pub(super) fn tcp(sequence: u32, payload: usize) -> Self {
        Self {
            protocol: Protocol::Tcp,
            flow: 1,
            tos: 0,
            id: 7,
            df: true,
            sequence,
            flags: 0x10,
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            payload: (0..payload).map(|n| (n % 251) as u8).collect(),
        }
    }

    pub(super) fn udp(id: u16, payload: usize) -> Self {
        Self {
            protocol: Protocol::Udp,
            id,
            options: Vec::new(),
            ..Self::tcp(0, payload)
        }
    }

    /// The packet, with right lengths and checksums.
    pub(super) fn build(&self) -> Vec<u8> {
        let port = 1000 + u16::from(self.flow);
        let mut transport = port.to_be_bytes().to_vec();
        transport.extend(443_u16.to_be_bytes());
        match self.protocol {
            Protocol::Tcp => {
                transport.extend(self.sequence.to_be_bytes());
                transport.extend([0, 0, 0, 9]);
                let words = 5 + self.options.len() / 4;
                transport.extend([(words as u8) << 4, self.flags, 1, 0, 0, 0, 0, 0]);
                transport.extend(&self.options);
            }
            Protocol::Udp => {
                let len = 8 + self.payload.len() as u16;
                transport.extend(len.to_be_bytes());
                transport.extend([0, 0]);
            }
        }
        transport.extend(&self.payload);
        let total = 20 + transport.len() as u16;
        let mut packet = vec![0x45, self.tos];
        packet.extend(total.to_be_bytes());
        packet.extend(self.id.to_be_bytes());
        packet.extend([
            if self.df { 0x40 } else { 0 },
            0,
            64,
            self.protocol.number(),
        ]);
        packet.extend([0, 0, 10, 0, 0, self.flow, 10, 0, 0, 200]);
        let sum = checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(transport);
        let at = 20 + self.protocol.checksum_offset();
        let sum = transport_checksum(&packet);
        let sum = if self.protocol == Protocol::Udp && sum == 0 {
            0xffff
        } else {
            sum
        };
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        packet
    }
}

/// RFC 1071, section 4.1, word by word.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// The checksum of the transport header and all behind it; 0 when it is right already.
pub(super) fn transport_checksum(packet: &[u8]) -> u16 {
    let ipv4 = usize::from(packet[0] & 0x0f) * 4;
    let mut bytes = packet[12..20].to_vec();
    bytes.extend([0, packet[9]]);
    bytes.extend(((packet.len() - ipv4) as u16).to_be_bytes());
    bytes.extend(&packet[ipv4..]);
    checksum(&bytes)
}

/// Whether both checksums are right.
pub(super) fn is_intact(packet: &[u8]) -> bool {
    let ipv4 = usize::from(packet[0] & 0x0f) * 4;
    checksum(&packet[..ipv4]) == 0 && transport_checksum(packet) == 0
}
