//! From the TUN device to the UDP socket.

use std::io;
use std::time::Instant;

use super::admit::admit;
use super::counters::{Counters, DropReason};
use super::ecn::Ecn;
use super::header::{LONGEST_PACKET, VIRTIO, Virtio, addresses};
use super::run::Link;
use super::session::{OVERHEAD, PADDING, SMALLEST_BUFFER, Sealed};
use super::split::Segments;
use super::tun::Tun;
use crate::policy::IntoTunnel;

/// Packets a turn reads at most while nobody is there to send them to.
const TURN: usize = 64;

/// The outward half of the loop.
pub(super) struct Outward {
    buffer: Box<[u8]>,
    mtu: usize,
    policy: IntoTunnel,
}

impl Outward {
    pub(super) fn new(mtu: u16, policy: IntoTunnel) -> Self {
        Self {
            buffer: vec![0; VIRTIO + LONGEST_PACKET].into(),
            mtu: mtu.into(),
            policy,
        }
    }

    /// What may enter the tunnel from now on.
    pub(super) fn permit(&mut self, policy: IntoTunnel) {
        self.policy = policy;
    }

    /// Packets are padded to no more than this many bytes from now on.
    pub(super) fn pad_to(&mut self, mtu: u16) {
        self.mtu = mtu.into();
    }

    /// Sends what the TUN device has queued, up to one full send. False means that it has no more.
    ///
    /// # Errors
    /// The TUN device is gone.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        tun: &Tun,
        link: Option<&mut Link>,
        counters: &Counters,
    ) -> io::Result<bool> {
        let Some(link) = link else {
            return self.discard(tun, counters);
        };
        let mut more = true;
        while !link.sender.is_full() {
            let Some(len) = tun.read(&mut self.buffer)? else {
                more = false;
                break;
            };
            self.seal(now, len, link, counters);
        }
        link.sender.flush();
        Ok(more)
    }

    fn discard(&mut self, tun: &Tun, counters: &Counters) -> io::Result<bool> {
        for _ in 0..TURN {
            if tun.read(&mut self.buffer)?.is_none() {
                return Ok(false);
            }
            counters.dropped(DropReason::Disconnected, 1);
        }
        Ok(true)
    }

    fn seal(&mut self, now: Instant, len: usize, link: &mut Link, counters: &Counters) {
        let Some((header, buffer)) = self.buffer.split_first_chunk_mut::<VIRTIO>() else {
            return;
        };
        let Some(len) = len.checked_sub(VIRTIO) else {
            return counters.dropped(DropReason::Malformed, 1);
        };
        let Some((_, destination)) = addresses(&buffer[..len]) else {
            return counters.dropped(DropReason::NotIpv4, 1);
        };
        if !link.allowed.contains(destination) {
            return counters.dropped(DropReason::DestinationNotAllowed, 1);
        }
        let ecn = Ecn::of(buffer[1]);
        let segments =
            Virtio::decode(header).and_then(|virtio| Segments::new(virtio, &mut buffer[..len]));
        let Ok(mut segments) = segments else {
            return counters.dropped(DropReason::Malformed, 1);
        };
        // Not earlier: a sender of raw frames decides where a checksum is written.
        if let Err(reason) = admit(&self.policy, &buffer[..len]) {
            return counters.dropped(reason, 1);
        }
        while let Some(packet) = segments.next(&mut buffer[..len]) {
            let size = packet.len();
            let room = (size + PADDING + OVERHEAD).max(SMALLEST_BUFFER);
            let slot = link.sender.slot(room);
            match link.session.seal(now, &buffer[packet], self.mtu, slot) {
                Sealed::Send(message) => {
                    link.sender.commit(message, ecn);
                    counters.tx_packets.add(1);
                    counters.tx_bytes.add(size as u64);
                }
                Sealed::Ask(message) => link.sender.commit(message, Ecn::NotEct),
                // Counted when they leave, or when they are given up.
                Sealed::Queued => {}
                Sealed::Exhausted => counters.dropped(DropReason::Exhausted, 1),
            }
        }
    }
}
