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
