//! Joins opened packets of one flow into superpackets, in place.
//!
//! The next datagram is opened so that its payload lands behind the last one; its header then covers
//! the end of the payload before it, which is saved first and put back afterwards. Only what the
//! kernel's own receive offload would join is joined (`tcp_gro_receive`, net/ipv4/tcp_offload.c), and
//! only packets whose checksum is right, since the kernel does not verify that of a superpacket.

use super::flow::{Flow, Joins, finish, pushed};
use super::header::{IPV4, LONGEST_HEADERS, LONGEST_PACKET, Protocol, TCP_PSH, VIRTIO, Virtio};
use super::session::OVERHEAD;

/// Segments of UDP that the kernel takes at once (`UDP_MAX_SEGMENTS`, include/linux/udp.h, before
/// Linux 6.9).
const MOST_UDP_SEGMENTS: usize = 64;

/// A superpacket that grows. Each packet is `slot`, then `accept` or `reject`.
pub(super) struct Coalescer {
    joins: Joins,
    buffer: Box<[u8]>,
    /// Where a packet that does not fit in moves to.
    spare: Box<[u8]>,
    current: Option<Current>,
    /// Where the packet being opened begins.
    slot: usize,
    /// What was at `slot` before.
    saved: [u8; LONGEST_HEADERS],
}

#[derive(Clone, Copy)]
struct Current {
    end: usize,
    segments: usize,
    /// Payload bytes of the first segment.
    size: usize,
    /// `None`: nothing can follow.
    flow: Option<Flow>,
}

impl Coalescer {
    pub(super) fn new(joins: Joins) -> Self {
        let capacity = VIRTIO + 2 * (LONGEST_PACKET + OVERHEAD);
        Self {
            joins,
            buffer: vec![0; capacity].into(),
            spare: vec![0; capacity].into(),
            current: None,
            slot: VIRTIO,
            saved: [0; LONGEST_HEADERS],
        }
    }

    /// Joins nothing from now on.
    pub(super) fn give_up(&mut self) {
        self.joins = Joins {
            tcp: false,
            udp: false,
        };
    }

    /// Where to open a datagram of `len` bytes. What cannot be followed is given to `write` first.
    pub(super) fn slot(&mut self, len: usize, write: &mut dyn FnMut(&mut [u8])) -> &mut [u8] {
        match &self.current {
            Some(Current {
                end,
                flow: Some(flow),
                ..
            }) => {
                self.slot = end - flow.headers;
                self.saved[..flow.headers].copy_from_slice(&self.buffer[self.slot..*end]);
            }
            Some(Current { flow: None, .. }) | None => {
                self.flush(write);
                self.slot = VIRTIO;
            }
        }
        &mut self.buffer[self.slot..self.slot + len]
    }

    /// The slot holds nothing of use.
    pub(super) fn reject(&mut self) {
        if let Some(Current {
            end,
            flow: Some(flow),
            ..
        }) = &self.current
        {
            self.buffer[self.slot..*end].copy_from_slice(&self.saved[..flow.headers]);
        }
    }

    /// The slot holds an IPv4 packet of `len` bytes.
    pub(super) fn accept(&mut self, len: usize, write: &mut dyn FnMut(&mut [u8])) {
        let packet = &self.buffer[self.slot..self.slot + len];
        let flow = Flow::of(packet, self.joins);
        if let Some(Current {
            end,
            segments,
            flow: Some(first),
            ..
        }) = self.current
        {
            let covered = first.headers.min(len);
            let mut header = [0; LONGEST_HEADERS];
            header[..covered].copy_from_slice(&packet[..covered]);
            self.reject();
            if let Some(flow) = flow
                && flow.fits(first, end)
                && flow.follows(first, segments, &self.buffer[VIRTIO..], &header)
            {
                self.extend(first, flow, header[IPV4 + 13]);
                return;
            }
            self.spare[VIRTIO..VIRTIO + covered].copy_from_slice(&header[..covered]);
            self.spare[VIRTIO + covered..VIRTIO + len]
                .copy_from_slice(&self.buffer[self.slot + covered..self.slot + len]);
            self.flush(write);
            std::mem::swap(&mut self.buffer, &mut self.spare);
        }
        let open = flow.filter(|flow| !pushed(flow.protocol, self.buffer[VIRTIO + IPV4 + 13]));
        self.current = Some(Current {
            end: VIRTIO + len,
            segments: 1,
            size: flow.map_or(0, |flow| flow.size),
            flow: open,
        });
    }

    /// Gives what there is to `write`: the virtio header and the packet after it.
    pub(super) fn flush(&mut self, write: &mut dyn FnMut(&mut [u8])) {
        let Some(Current {
            end,
            segments,
            size,
            flow: _,
        }) = self.current.take()
        else {
            return;
        };
        let (virtio, packet) = self.buffer[..end].split_at_mut(VIRTIO);
        let header = if segments > 1 {
            finish(packet, size)
        } else {
            Virtio::PLAIN
        };
        header.encode(virtio);
        write(&mut self.buffer[..end]);
    }

    fn extend(&mut self, first: Flow, flow: Flow, flags: u8) {
        let Some(current) = &mut self.current else {
            return;
        };
        current.end += flow.size;
        current.segments += 1;
        let pushed = pushed(flow.protocol, flags);
        if pushed {
            self.buffer[VIRTIO + IPV4 + 13] |= TCP_PSH;
        }
        let full = flow.protocol == Protocol::Udp && current.segments == MOST_UDP_SEGMENTS;
        if pushed || full || flow.size < first.size {
            current.flow = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::packets::{Packet, is_intact};
    use super::super::split::Segments;
    use super::*;

    const BOTH: Joins = Joins {
        tcp: true,
        udp: true,
    };

    /// What a datagram turns into: a packet, or something of this length that is none.
    #[derive(Clone, Debug)]
    enum Datagram {
        Packet(Vec<u8>),
        Junk(usize),
    }

    fn join(datagrams: &[Datagram], joins: Joins) -> Vec<Vec<u8>> {
        let mut written = Vec::new();
        let mut write = |packet: &mut [u8]| written.push(packet.to_vec());
        let mut coalescer = Coalescer::new(joins);
        for datagram in datagrams {
            match datagram {
                Datagram::Packet(packet) => {
                    let slot = coalescer.slot(packet.len() + OVERHEAD, &mut write);
                    slot.fill(0xee);
                    slot[..packet.len()].copy_from_slice(packet);
                    coalescer.accept(packet.len(), &mut write);
                }
                Datagram::Junk(len) => {
                    coalescer.slot(*len, &mut write).fill(0xdd);
                    coalescer.reject();
                }
            }
        }
        coalescer.flush(&mut write);
        written
    }

    fn split(written: &[u8]) -> Vec<Vec<u8>> {
        let (header, packet) = written.split_first_chunk().unwrap();
        let mut packet = packet.to_vec();
        let mut segments = Segments::new(Virtio::decode(header).unwrap(), &mut packet).unwrap();
        let mut all = Vec::new();
        while let Some(range) = segments.next(&mut packet) {
            all.push(packet[range].to_vec());
        }
        all
    }

    fn packets(packets: &[Packet]) -> Vec<Datagram> {
        let build = |packet: &Packet| Datagram::Packet(packet.build());
        packets.iter().map(build).collect()
    }

    /// Bursts of flows, with what can go wrong in the middle of one.
    fn traffic() -> impl Strategy<Value = Vec<Datagram>> {
        let burst = (
            (
                any::<bool>(),
                0..3_u8,
                any::<bool>(),
                any::<u32>(),
                any::<u16>(),
            ),
            (1..60_usize, 1..1300_usize, 0..1300_usize, any::<bool>()),
            prop::option::of((0..60_usize, 0..6_u8)),
        );
        prop::collection::vec(burst.prop_map(burst_of), 0..8).prop_map(|bursts| bursts.concat())
    }

    type Burst = (
        (bool, u8, bool, u32, u16),
        (usize, usize, usize, bool),
        Option<(usize, u8)>,
    );

    fn burst_of(
        ((udp, flow, df, sequence, id), (count, size, tail, push), odd): Burst,
    ) -> Vec<Datagram> {
        let mut all = Vec::new();
        for n in 0..count {
            let len = if n + 1 == count { tail.min(size) } else { size };
            let plain = if udp {
                Packet::udp(0, len)
            } else {
                Packet::tcp(0, len)
            };
            let mut packet = Packet {
                flow,
                df,
                id: id.wrapping_add(n as u16),
                sequence: sequence.wrapping_add((n * size) as u32),
                ..plain
            };
            if push && n + 1 == count {
                packet.flags |= TCP_PSH;
            }
            let Some((_, kind)) = odd.filter(|(at, _)| *at == n) else {
                all.push(Datagram::Packet(packet.build()));
                continue;
            };
            match kind {
                0 => all.push(Datagram::Junk(len + 148)),
                1 => packet.flags |= 0x41,
                2 => packet.sequence = packet.sequence.wrapping_add(1),
                3 if !udp => packet.options[7] += 1,
                4 if !packet.payload.is_empty() => packet.payload.truncate(len.div_ceil(2)),
                _ => {}
            }
            let mut bytes = packet.build();
            if kind == 5 {
                *bytes.last_mut().unwrap() ^= 0x40;
            }
            all.push(Datagram::Packet(bytes));
        }
        all
    }

    proptest! {
        #[test]
        fn splitting_what_was_joined_gives_back_every_packet(traffic in traffic(), tcp: bool, udp: bool) {
            let sent: Vec<_> = traffic.iter().filter_map(|datagram| match datagram {
                Datagram::Packet(packet) => Some(packet.clone()),
                Datagram::Junk(_) => None,
            }).collect();
            let written = join(&traffic, Joins { tcp, udp });
            let arrived: Vec<_> = written.iter().flat_map(|packet| split(packet)).collect();
            prop_assert!(arrived.len() == sent.len());
            let plain = |packets: &[Vec<u8>]| packets.iter().map(|packet| unnumbered(packet)).collect::<Vec<_>>();
            prop_assert_eq!(plain(&arrived), plain(&sent));
        }
    }

    /// The identification means nothing where DF is set, and may differ there.
    fn unnumbered(packet: &[u8]) -> Vec<u8> {
        let mut packet = packet.to_owned();
        if packet[6] & 0x40 != 0 {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
        packet
    }

    #[test]
    fn a_burst_of_one_flow_is_one_superpacket() {
        let tcp: Vec<_> = (0..40).map(|n| Packet::tcp(n * 1368, 1368)).collect();
        let written = join(&packets(&tcp), BOTH);
        assert_eq!(written.len(), 1);
        assert_eq!(written[0].len(), VIRTIO + 52 + 40 * 1368);
        let header = Virtio::decode(written[0].first_chunk().unwrap()).unwrap();
        assert_eq!(header.segments, Some((Protocol::Tcp, 1368)));
        assert_eq!(header.header_len, 52);

        let udp: Vec<_> = (0..40).map(|n| Packet::udp(7 + n, 1200)).collect();
        assert_eq!(join(&packets(&udp), BOTH).len(), 1);
    }

    #[test]
    fn joining_nothing_leaves_every_packet_alone() {
        let tcp: Vec<_> = (0..40).map(|n| Packet::tcp(n * 100, 100)).collect();
        let neither = Joins {
            tcp: false,
            udp: false,
        };
        let written = join(&packets(&tcp), neither);
        assert_eq!(written.len(), 40);
        assert!(written.iter().all(|packet| packet[..VIRTIO] == [0; VIRTIO]));
    }

    #[test]
    fn a_corrupt_packet_is_delivered_as_it_came() {
        let mut corrupt = Packet::tcp(100, 100).build();
        corrupt[60] ^= 1;
        let burst = [
            Datagram::Packet(Packet::tcp(0, 100).build()),
            Datagram::Packet(corrupt.clone()),
            Datagram::Packet(Packet::tcp(200, 100).build()),
        ];
        let written = join(&burst, BOTH);
        assert_eq!(written.len(), 3);
        assert_eq!(written[1][VIRTIO..], corrupt);
        assert!(!is_intact(&corrupt));
    }

    #[test]
    fn a_superpacket_is_no_longer_than_a_packet_may_be() {
        let tcp: Vec<_> = (0..200).map(|n| Packet::tcp(n * 1368, 1368)).collect();
        let written = join(&packets(&tcp), BOTH);
        assert_eq!(written.len(), 200_usize.div_ceil(47));
        let udp: Vec<_> = (0..200).map(|n| Packet::udp(7 + n, 10)).collect();
        assert_eq!(join(&packets(&udp), BOTH).len(), 200_usize.div_ceil(64));
    }
}
