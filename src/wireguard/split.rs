//! Cuts what the TUN device hands over into packets, in place.
//!
//! A superpacket is one header and many payloads. The header of a segment is written over the end of
//! the payload before it, which has been sealed by then, so that each segment is contiguous and none
//! is copied. The arithmetic is that of `tcp_gso_segment` (net/ipv4/tcp_offload.c) and
//! `__udp_gso_segment` (net/ipv4/udp_offload.c).

use std::ops::Range;

use super::checksum::Sum;
use super::header::{
    IPV4, LONGEST_HEADERS, Malformed, Protocol, TCP, TCP_CWR, TCP_FIN, TCP_PSH, UDP, Virtio,
    finish_ipv4, length, long, pseudo_header, set_word, word,
};

/// The packets in one read of the TUN device.
pub(super) enum Segments {
    /// One packet of this many bytes, until it is taken.
    One(Option<usize>),
    /// Segments of a superpacket.
    Many(Superpacket),
}

pub(super) struct Superpacket {
    header: [u8; LONGEST_HEADERS],
    /// Bytes of the IPv4 header.
    ipv4: usize,
    /// Bytes of all headers.
    headers: usize,
    protocol: Protocol,
    /// Payload bytes of each segment but the last.
    size: usize,
    /// Where the next payload begins.
    next: usize,
    /// Where the last payload ends.
    end: usize,
    index: u16,
}

impl Segments {
    /// Looks at an IPv4 packet; completes its checksum when it is a single one.
    ///
    /// # Errors
    /// The packet and its virtio header contradict each other.
    pub(super) fn new(virtio: Virtio, packet: &mut [u8]) -> Result<Self, Malformed> {
        if let Some((protocol, size)) = virtio.segments {
            return Superpacket::new(protocol, size, packet).map(Self::Many);
        }
        if let Some((start, offset)) = virtio.checksum {
            complete(packet, start.into(), offset.into())?;
        }
        Ok(Self::One(Some(packet.len())))
    }

    /// Where the next packet is, once its header is written. What was before it in `packet` is no
    /// longer needed, what is behind it is.
    pub(super) fn next(&mut self, packet: &mut [u8]) -> Option<Range<usize>> {
        match self {
            Self::One(len) => len.take().map(|len| 0..len),
            Self::Many(superpacket) => superpacket.next(packet),
        }
    }
}

impl Superpacket {
    fn new(protocol: Protocol, size: u16, packet: &[u8]) -> Result<Self, Malformed> {
        // The header length in the virtio header is a hint that forwarded packets get wrong.
        let ipv4 = length(packet[0] & 0x0f, packet.len())?;
        let rest = packet.len() - ipv4;
        let transport = match protocol {
            Protocol::Tcp if rest >= TCP => length(packet[ipv4 + 12] >> 4, rest)?,
            Protocol::Udp if rest >= UDP => UDP,
            Protocol::Tcp | Protocol::Udp => return Err(Malformed),
        };
        if size == 0 || packet[9] != protocol.number() {
            return Err(Malformed);
        }
        let headers = ipv4 + transport;
        let mut header = [0; LONGEST_HEADERS];
        header[..headers].copy_from_slice(&packet[..headers]);
        Ok(Self {
            header,
            ipv4,
            headers,
            protocol,
            size: size.into(),
            next: headers,
            end: packet.len(),
            index: 0,
        })
    }

    fn next(&mut self, packet: &mut [u8]) -> Option<Range<usize>> {
        // A superpacket without payload is one packet.
        if self.next >= self.end && self.index > 0 {
            return None;
        }
        let start = self.next - self.headers;
        let end = self.end.min(self.next + self.size);
        let segment = &mut packet[start..end];
        segment[..self.headers].copy_from_slice(&self.header[..self.headers]);
        self.finish(segment, end == self.end);
        self.next = end;
        self.index = self.index.wrapping_add(1);
        Some(start..end)
    }

    fn finish(&self, segment: &mut [u8], last: bool) {
        let total = segment.len();
        set_word(segment, 4, word(segment, 4).wrapping_add(self.index));
        finish_ipv4(segment, self.ipv4, total);
        let pseudo = pseudo_header(segment, self.protocol, total - self.ipv4);
        let transport = &mut segment[self.ipv4..];
        match self.protocol {
            Protocol::Tcp => {
                let offset = u32::from(self.index).wrapping_mul(self.size as u32);
                let sequence = long(transport, 4).wrapping_add(offset);
                transport[4..8].copy_from_slice(&sequence.to_be_bytes());
                if !last {
                    transport[13] &= !(TCP_FIN | TCP_PSH);
                }
                if self.index > 0 {
                    transport[13] &= !TCP_CWR;
                }
            }
            // A segment is part of an IPv4 packet and its length fits 16 bits.
            Protocol::Udp => set_word(transport, 4, transport.len() as u16),
        }
        let at = self.protocol.checksum_offset();
        transport[at..at + 2].fill(0);
        let sum = pseudo.bytes(transport).finish();
        transport[at..at + 2].copy_from_slice(&nonzero(sum, self.protocol));
    }
}

/// Completes a checksum whose place holds the sum of the pseudo-header.
fn complete(packet: &mut [u8], start: usize, offset: usize) -> Result<(), Malformed> {
    let at = start + offset;
    if start < IPV4 || at + 2 > packet.len() {
        return Err(Malformed);
    }
    let sum = Sum::default().bytes(&packet[start..]).finish();
    let protocol = if packet[9] == Protocol::Udp.number() {
        Protocol::Udp
    } else {
        Protocol::Tcp
    };
    packet[at..at + 2].copy_from_slice(&nonzero(sum, protocol));
    Ok(())
}

/// In UDP a checksum of zero means none, and zero is written as its complement (RFC 768).
fn nonzero(sum: [u8; 2], protocol: Protocol) -> [u8; 2] {
    match (protocol, sum) {
        (Protocol::Udp, [0, 0]) => [0xff, 0xff],
        (Protocol::Udp | Protocol::Tcp, sum) => sum,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::packets::{Packet, is_intact};
    use super::*;

    fn split(protocol: Protocol, size: u16, packet: &Packet) -> Vec<Vec<u8>> {
        let mut bytes = packet.build();
        let virtio = Virtio {
            segments: Some((protocol, size)),
            checksum: Some((20, protocol.checksum_offset() as u16)),
            header_len: 0,
        };
        let mut segments = Segments::new(virtio, &mut bytes).unwrap();
        let mut all = Vec::new();
        while let Some(range) = segments.next(&mut bytes) {
            all.push(bytes[range].to_vec());
        }
        all
    }

    proptest! {
        #[test]
        fn segments_are_the_packets_the_sender_would_have_sent(
            udp: bool, len in 1..20_000_usize, size in 1..3000_u16, sequence: u32, flags: u8, id: u16,
        ) {
            let whole = Packet { sequence, flags, id, ..if udp { Packet::udp(0, len) } else { Packet::tcp(0, len) } };
            let segments = split(whole.protocol, size, &whole);
            let count = len.div_ceil(size.into());
            prop_assert_eq!(segments.len(), count);
            for (n, segment) in segments.iter().enumerate() {
                let start = n * usize::from(size);
                let mut flags = flags;
                if n + 1 < count {
                    flags &= !(TCP_FIN | TCP_PSH);
                }
                if n > 0 {
                    flags &= !TCP_CWR;
                }
                let expected = Packet {
                    sequence: sequence.wrapping_add(start as u32),
                    id: id.wrapping_add(n as u16),
                    flags,
                    payload: whole.payload[start..len.min(start + usize::from(size))].to_vec(),
                    ..whole.clone()
                };
                prop_assert!(is_intact(segment));
                prop_assert_eq!(segment, &expected.build());
            }
        }

        #[test]
        fn no_packet_makes_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 20..200), header: [u8; 10], kind in 0..6_u8) {
            let mut header = header;
            header[1] = kind;
            if let Ok(virtio) = Virtio::decode(&header)
                && let Ok(mut segments) = Segments::new(virtio, &mut bytes)
            {
                let mut end = 0;
                while let Some(range) = segments.next(&mut bytes) {
                    prop_assert!(range.end > end && range.end <= bytes.len());
                    end = range.end;
                }
            }
        }
    }

    #[test]
    fn a_single_packet_gets_the_checksum_it_lacks() {
        for packet in [Packet::tcp(5, 333), Packet::udp(5, 333)] {
            let expected = packet.build();
            let mut bytes = expected.clone();
            let at = packet.protocol.checksum_offset();
            let sum = pseudo_header(&bytes, packet.protocol, bytes.len() - IPV4).partial();
            bytes[IPV4 + at..IPV4 + at + 2].copy_from_slice(&sum);
            let virtio = Virtio {
                checksum: Some((20, at as u16)),
                ..Virtio::PLAIN
            };
            let mut segments = Segments::new(virtio, &mut bytes).unwrap();
            assert_eq!(segments.next(&mut bytes), Some(0..expected.len()));
            assert_eq!(segments.next(&mut bytes), None);
            assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn a_superpacket_without_room_for_its_headers_is_malformed() {
        let mut bytes = Packet::udp(1, 4).build();
        for (protocol, size) in [(Protocol::Tcp, 1), (Protocol::Udp, 0)] {
            let virtio = Virtio {
                segments: Some((protocol, size)),
                ..Virtio::PLAIN
            };
            assert!(Segments::new(virtio, &mut bytes).is_err());
        }
    }
}
