//! What must hold of `split` and `coalesce` whatever comes in. `benches/fuzz` looks for bytes for which it does
//! not; what it found worth keeping is gone through by a test.

use super::coalesce::Coalescer;
use super::flow::Joins;
use super::header::{IPV4, LONGEST_PACKET, Protocol, VIRTIO, Virtio, word};
use super::packets::{Packet, checksum, is_intact};
use super::session::OVERHEAD;
use super::split::Segments;

/// A virtio header and a packet, as the TUN device could hand them over.
pub(super) fn split(bytes: &[u8]) {
    let Some((header, packet)) = bytes.split_first_chunk::<VIRTIO>() else {
        return;
    };
    if packet.len() < IPV4 || packet.len() > LONGEST_PACKET || packet[0] >> 4 != 4 {
        return;
    }
    let Ok(virtio) = Virtio::decode(header) else {
        return;
    };
    let mut work = packet.to_vec();
    let Ok(mut segments) = Segments::new(virtio, &mut work) else {
        return;
    };
    let (mut all, mut end) = (Vec::new(), 0);
    while let Some(range) = segments.next(&mut work) {
        assert!(range.end > end && range.end <= packet.len());
        end = range.end;
        all.push(work[range].to_vec());
    }
    assert_eq!(end, packet.len());
    let Some((protocol, size)) = virtio.segments else {
        return assert_eq!(all.len(), 1);
    };
    let headers = headers(packet, protocol);
    let mut payload: Vec<u8> = Vec::new();
    for (n, segment) in all.iter().enumerate() {
        assert!(is_intact(segment));
        assert_eq!(usize::from(word(segment, 2)), segment.len());
        assert_eq!(word(segment, 4), word(packet, 4).wrapping_add(n as u16));
        let last = n + 1 == all.len();
        let rest = packet.len() - headers - n * usize::from(size);
        assert_eq!(segment.len() - headers, rest.min(size.into()));
        assert!(last || segment.len() - headers == usize::from(size));
        payload.extend(&segment[headers..]);
    }
    assert!(payload == packet[headers..]);
}

fn headers(packet: &[u8], protocol: Protocol) -> usize {
    let ipv4 = usize::from(packet[0] & 0x0f) * 4;
    ipv4 + match protocol {
        Protocol::Tcp => usize::from(packet[ipv4 + 12] >> 4) * 4,
        Protocol::Udp => 8,
    }
}

/// A list of datagrams: packets of a few flows, packets of any bytes, and what turns out to be none. Joined, and
/// cut again, they are what they were.
pub(super) fn coalesce(bytes: &[u8]) {
    let mut input = Input(bytes);
    let joins = input.byte();
    let mut coalescer = Coalescer::new(Joins {
        tcp: joins & 1 != 0,
        udp: joins & 2 != 0,
    });
    let mut written = Vec::new();
    let mut write = |packet: &mut [u8]| written.push(packet.to_vec());
    let mut sent = Vec::new();
    let mut next = 0;
    while !input.0.is_empty() && sent.len() < 400 {
        let Some(packet) = input.packet(&mut next) else {
            coalescer.slot(200, &mut write).fill(0xdd);
            coalescer.reject();
            continue;
        };
        let slot = coalescer.slot(packet.len() + OVERHEAD, &mut write);
        slot.fill(0xee);
        slot[..packet.len()].copy_from_slice(&packet);
        coalescer.accept(packet.len(), &mut write);
        sent.push(packet);
    }
    coalescer.flush(&mut write);
    let mut arrived = Vec::new();
    for packet in &mut written {
        // Invariant: the coalescer writes a virtio header first.
        let (header, packet) = packet.split_first_chunk_mut::<VIRTIO>().unwrap();
        let mut segments = Segments::new(Virtio::decode(header).unwrap(), packet).unwrap();
        while let Some(range) = segments.next(packet) {
            arrived.push(packet[range].to_vec());
        }
    }
    assert_eq!(arrived.len(), sent.len());
    for (arrived, sent) in arrived.iter().zip(&sent) {
        assert!(same(arrived, sent), "{arrived:02x?}\n{sent:02x?}");
    }
}

/// Whether a receiver sees no difference. The identification means nothing where DF is set (RFC 6864, section 4),
/// and zero has two forms in a checksum (RFC 1071).
fn same(a: &[u8], b: &[u8]) -> bool {
    if a == b {
        return true;
    }
    let right =
        |p: &[u8]| p.len() > IPV4 + 8 && p[0] == 0x45 && checksum(&p[..IPV4]) == 0 && is_intact(p);
    let plain = |p: &[u8]| {
        let mut p = p.to_vec();
        if p[6] & 0x40 != 0 {
            p[4..6].fill(0);
        }
        p[10..12].fill(0);
        let at = IPV4 + if p[9] == 6 { 16 } else { 6 };
        p[at..at + 2].fill(0);
        p
    };
    a.len() == b.len() && right(a) && right(b) && plain(a) == plain(b)
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// The next packet; `next` is where its flow has come to. `None`: something that is no packet.
    fn packet(&mut self, next: &mut u32) -> Option<Vec<u8>> {
        let kind = self.byte();
        match kind & 7 {
            0 => return None,
            1 => {
                let len = usize::from(self.byte())
                    .max(IPV4)
                    .min(self.0.len().max(IPV4));
                let mut packet: Vec<_> = (0..len).map(|_| self.byte()).collect();
                packet[0] = 0x40 | packet[0] & 0x0f;
                return Some(packet);
            }
            _ => {}
        }
        let len = usize::from(self.word()) % 1500;
        let plain = if kind & 8 == 0 {
            Packet::tcp(*next, len)
        } else {
            Packet::udp(*next as u16, len)
        };
        *next = next.wrapping_add(if kind & 8 == 0 { len as u32 } else { 1 });
        let mut packet = Packet {
            df: kind & 16 != 0,
            flow: kind >> 5,
            ..plain
        };
        if kind & 7 == 2 {
            let change = self.byte();
            match change & 3 {
                0 => packet.flags = self.byte(),
                1 => packet.tos = self.byte(),
                2 => packet.sequence = packet.sequence.wrapping_add(self.byte().into()),
                _ => packet.options.truncate(usize::from(change >> 2 & 3) * 4),
            }
        }
        let mut packet = packet.build();
        if kind & 7 == 3 {
            let at = usize::from(self.word()) % packet.len();
            packet[at] ^= self.byte();
            packet[0] = 0x40 | packet[0] & 0x0f;
        }
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn replay(target: &str, run: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/fuzz/corpus");
        let files: Vec<_> = fs::read_dir(folder.join(target))
            .unwrap()
            .flatten()
            .collect();
        assert!(files.len() > 10, "{} files", files.len());
        for file in files {
            run(&fs::read(file.path()).unwrap());
        }
    }

    #[test]
    fn what_the_fuzzer_found_worth_keeping_is_split_right() {
        replay("split", split);
    }

    #[test]
    fn what_the_fuzzer_found_worth_keeping_is_joined_right() {
        replay("coalesce", coalesce);
    }
}
