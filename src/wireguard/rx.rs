//! From the UDP socket to the TUN device.

use std::time::Instant;

use super::coalesce::Coalescer;
use super::counters::{Counters, DropReason};
use super::ecn::{self, Ecn};
use super::flow::Joins;
use super::header::{LONGEST_PACKET, VIRTIO, Virtio, addresses};
use super::peer::Allowed;
use super::run::Link;
use super::session::{DATA, OVERHEAD, Opened, PADDING, SMALLEST_BUFFER};
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
        true
    }
}

/// Sends what waited for a session.
fn send_queued(now: Instant, link: &mut Link, counters: &Counters) {
    loop {
        let slot = link.sender.slot(LONGEST_MESSAGE);
        let Some(size) = link.session.next_queued(now, slot) else {
            break;
        };
        if slot[0] == DATA {
            counters.tx_packets.add(1);
            // With its padding: up to 15 bytes too many.
            counters.tx_bytes.add((size - OVERHEAD) as u64);
        }
        link.sender.commit(size, Ecn::NotEct);
    }
    link.sender.flush();
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
