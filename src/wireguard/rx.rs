//! From the UDP socket to the TUN device.

use std::time::Instant;

use super::coalesce::Coalescer;
use super::counters::{Counters, DropReason};
use super::ecn::{self, Ecn};
use super::flow::Joins;
use super::header::{LONGEST_PACKET, VIRTIO, Virtio, addresses};
use super::peer::Allowed;
use super::question::Question;
use super::run::Link;
use super::session::{OVERHEAD, Opened, PADDING, SMALLEST_BUFFER};
use super::split::Segments;
use super::tun::Tun;

/// Bytes of the longest message that can wait for a session.
const LONGEST_MESSAGE: usize = LONGEST_PACKET + PADDING + OVERHEAD;

/// The inward half of the loop.
pub(super) struct Inward {
    coalescer: Coalescer,
}

impl Inward {
    pub(super) fn new(tun: &Tun) -> Self {
        Self {
            coalescer: Coalescer::new(Joins {
                tcp: tun.features.tcp,
                udp: tun.features.udp,
            }),
        }
    }

    /// Delivers what the socket has queued, up to one full call. False means that it has no more.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        tun: &Tun,
        link: &mut Link,
        counters: &Counters,
    ) -> bool {
        let Some(messages) = link.receiver.receive() else {
            return false;
        };
        let mut refused = false;
        let mut write = |packet: &mut [u8]| refused |= !deliver(tun, packet, counters);
        for message in messages {
            if message.from != link.remote {
                counters.dropped(DropReason::NotTheEndpoint, 1);
                continue;
            }
            for datagram in message.data.chunks(message.segment) {
                let size = datagram.len().max(SMALLEST_BUFFER);
                let slot = self.coalescer.slot(size, &mut write);
                let opened = link.session.open(now, datagram, slot);
                if let Opened::Packet(len) = opened {
                    match admit(&mut slot[..len], message.ecn, &link.allowed) {
                        // The answer to our own question.
                        Ok(()) if answered(link.question.as_mut(), &slot[..len]) => {}
                        Ok(()) => {
                            counters.rx_packets.add(1);
                            counters.rx_bytes.add(len as u64);
                            self.coalescer.accept(len, &mut write);
                            continue;
                        }
                        Err(reason) => counters.dropped(reason, 1),
                    }
                } else if let Opened::Reply(len) = opened {
                    link.sender.queue(&slot[..len]);
                } else if opened == Opened::Rejected {
                    counters.dropped(DropReason::Rejected, 1);
                }
                self.coalescer.reject();
            }
        }
        self.coalescer.flush(&mut write);
        if refused {
            self.coalescer.give_up();
        }
        send_queued(now, link, counters);
        !link.receiver.is_drained()
    }
}

/// Sends what waited for a session.
fn send_queued(now: Instant, link: &mut Link, counters: &Counters) {
    loop {
        let slot = link.sender.slot(LONGEST_MESSAGE);
        let Some(size) = link.session.next_queued(now, slot) else {
            break;
        };
        counters.tx_packets.add(1);
        // With its padding: up to 15 bytes too many.
        counters.tx_bytes.add((size - OVERHEAD) as u64);
        link.sender.commit(size, Ecn::NotEct);
    }
    link.sender.flush();
}

fn answered(question: Option<&mut Question>, packet: &[u8]) -> bool {
    question.is_some_and(|question| question.is_answered_by(packet))
}

/// Whether the peer may send this inner packet, which learns what routers said of congestion.
fn admit(packet: &mut [u8], outer: Ecn, allowed: &Allowed) -> Result<(), DropReason> {
    let (source, _) = addresses(packet).ok_or(DropReason::NotIpv4)?;
    if !allowed.contains(source) {
        Err(DropReason::SourceNotAllowed)
    } else if !ecn::pass_on(outer, packet) {
        Err(DropReason::Congestion)
    } else {
        Ok(())
    }
}

/// Writes one packet or superpacket. False means that the kernel does not take superpackets after all:
/// some versions refuse one whose last segment is shorter (Linux 6.6.44 and others).
fn deliver(tun: &Tun, packet: &mut [u8], counters: &Counters) -> bool {
    let Err(error) = tun.write(packet) else {
        return true;
    };
    let Some((header, packet)) = packet.split_first_chunk_mut::<VIRTIO>() else {
        return true;
    };
    let virtio = Virtio::decode(header);
    let joined = matches!(virtio, Ok(virtio) if virtio.segments.is_some());
    let refused = matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO));
    if !joined || !refused {
        counters.dropped(DropReason::Deliver, 1);
        return true;
    }
    counters.offload_fallbacks.add(1);
    let segments = virtio.and_then(|virtio| Segments::new(virtio, packet));
    let Ok(mut segments) = segments else {
        counters.dropped(DropReason::Malformed, 1);
        return false;
    };
    while let Some(segment) = segments.next(packet) {
        if tun.write_plain(&packet[segment]).is_err() {
            counters.dropped(DropReason::Deliver, 1);
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    use super::super::packets::Packet;
    use super::super::tun::Features;
    use super::*;

    /// A device that takes packets, and what they arrive at.
    fn tun(refuses: Option<libc::c_int>) -> (Tun, UnixDatagram) {
        let (near, far) = UnixDatagram::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let features = Features {
            vnet_hdr: true,
            tcp: true,
            udp: true,
        };
        let fd = OwnedFd::from(near);
        (Tun::stand_in(fd, features, refuses), far)
    }

    fn joined(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut written = Vec::new();
        let mut write = |packet: &mut [u8]| written.push(packet.to_vec());
        let mut coalescer = Coalescer::new(Joins {
            tcp: true,
            udp: true,
        });
        for packet in packets {
            let slot = coalescer.slot(packet.len() + OVERHEAD, &mut write);
            slot[..packet.len()].copy_from_slice(packet);
            coalescer.accept(packet.len(), &mut write);
        }
        coalescer.flush(&mut write);
        written
    }

    #[test]
    fn a_superpacket_the_kernel_will_not_take_is_delivered_packet_by_packet() {
        let numbered = |n: u16| Packet {
            id: n,
            ..Packet::tcp(u32::from(n) * 100, 100)
        };
        let packets: Vec<_> = (0..9).map(|n| numbered(n).build()).collect();
        let [mut superpacket] = joined(&packets).try_into().unwrap();
        for errno in [libc::EINVAL, libc::EIO] {
            let (device, far) = tun(Some(errno));
            let counters = Counters::default();
            assert!(!deliver(&device, &mut superpacket.clone(), &counters));
            let mut buffer = [0; 2000];
            for packet in &packets {
                let len = far.recv(&mut buffer).unwrap();
                assert_eq!(buffer[..VIRTIO], [0; VIRTIO]);
                assert_eq!(buffer[VIRTIO..len], packet[..]);
            }
            assert!(far.recv(&mut buffer).is_err());
            assert_eq!(counters.snapshot().offload_fallbacks, 1);
            assert!(counters.snapshot().dropped().all(|(_, count)| count == 0));
        }
        // One that takes it gets it whole.
        let (device, far) = tun(None);
        let counters = Counters::default();
        assert!(deliver(&device, &mut superpacket, &counters));
        assert_eq!(far.recv(&mut [0; 2000]).unwrap(), superpacket.len());
        assert_eq!(counters.snapshot().offload_fallbacks, 0);
    }

    #[test]
    fn what_is_refused_for_another_reason_is_lost_and_counted() {
        let packets = [Packet::tcp(0, 100).build(), Packet::tcp(100, 100).build()];
        let [mut superpacket] = joined(&packets).try_into().unwrap();
        let (device, far) = tun(Some(libc::ENOBUFS));
        let counters = Counters::default();
        assert!(deliver(&device, &mut superpacket, &counters));
        assert!(far.recv(&mut [0; 2000]).is_err());
        let dropped = counters.snapshot().dropped().find(|(_, count)| *count > 0);
        assert_eq!(dropped, Some((DropReason::Deliver, 1)));
        assert_eq!(counters.snapshot().offload_fallbacks, 0);
    }
}
