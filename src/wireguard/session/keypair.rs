//! The keys that one handshake has led to, and the three pairs that can be of use at once.

use std::time::{Duration, Instant};

use super::super::aead::Key;
use super::super::noise::{Keys, kind};
use super::window::Window;
use super::{HEADER, OVERHEAD, REJECT_AFTER_TIME};

const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// Keys of both directions.
pub(super) struct Keypair {
    send: Key,
    receive: Key,
    /// The index that messages to us carry, and that messages to the peer carry.
    ours: u32,
    theirs: u32,
    /// The counter of the next message.
    counter: u64,
    window: Window,
    pub(super) at: Instant,
    /// How long the machine had slept by then, which `at` does not count.
    asleep: Duration,
    pub(super) initiator: bool,
}

/// What a counter allows (section 6.2).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Within,
    Rekey,
    Reject,
}

impl Keypair {
    pub(super) fn new(
        keys: &Keys,
        ours: u32,
        now: Instant,
        asleep: Duration,
        initiator: bool,
    ) -> Self {
        Self {
            send: Key::new(&keys.send),
            receive: Key::new(&keys.receive),
            ours,
            theirs: keys.index,
            counter: 0,
            window: Window::new(),
            at: now,
            asleep,
            initiator,
        }
    }

    /// Whether it may be used: for 180 s (section 6.2).
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now < self.at + REJECT_AFTER_TIME
    }

    /// How old it is, with the time the machine slept.
    pub(super) fn age(&self, now: Instant, asleep: Duration) -> Duration {
        now.saturating_duration_since(self.at) + asleep.saturating_sub(self.asleep)
    }

    /// Whether it has sent so much that it is to be renewed.
    pub(super) fn is_used_up(&self) -> bool {
        limit(self.counter) != Limit::Within
    }

    /// Writes a data message to `dst` (section 5.4.6) with the packet and its padding of zeros, `padded` bytes
    /// together. Returns its length; `None` when it has sent as many as it may.
    pub(super) fn seal(&mut self, packet: &[u8], padded: usize, dst: &mut [u8]) -> Option<usize> {
        let counter = self.counter;
        if limit(counter) == Limit::Reject {
            return None;
        }
        // Whatever comes next, no other message has this counter.
        self.counter += 1;
        let size = padded + OVERHEAD;
        let (header, body) = dst[..size].split_at_mut(HEADER);
        header[..4].copy_from_slice(&kind::DATA);
        header[4..8].copy_from_slice(&self.theirs.to_le_bytes());
        header[8..].copy_from_slice(&counter.to_le_bytes());
        self.send.seal(counter, packet, padded, body);
        Some(size)
    }

    /// Opens the body of a data message into `dst`. Returns its length with the padding; `None` if it is
    /// not authentic, not new, or too late.
    pub(super) fn open(
        &mut self,
        now: Instant,
        counter: u64,
        body: &[u8],
        dst: &mut [u8],
    ) -> Option<usize> {
        let valid = self.is_fresh(now)
            && limit(counter) != Limit::Reject
            && self.window.may_be_new(counter);
        if !valid {
            return None;
        }
        let len = self.receive.open(counter, body, dst)?;
        self.window.mark(counter);
        Some(len)
    }
}

pub(super) fn limit(counter: u64) -> Limit {
    if counter < REKEY_AFTER_MESSAGES {
        Limit::Within
    } else if counter < REJECT_AFTER_MESSAGES {
        Limit::Rekey
    } else {
        Limit::Reject
    }
}

/// The pairs in use. Their order of succession is that of the kernel (`add_new_keypair` and
/// `wg_noise_received_with_keypair`, drivers/net/wireguard/noise.c).
#[derive(Default)]
pub(super) struct Keypairs {
    /// What we seal with.
    pub(super) current: Option<Keypair>,
    /// What may still be on its way is opened with it.
    previous: Option<Keypair>,
    /// Offered by our response, until the peer uses it.
    next: Option<Keypair>,
}

/// Where a pair stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Current,
    Previous,
    Next,
}

impl Keypairs {
    /// What may be sealed with now.
    pub(super) fn fresh(&mut self, now: Instant) -> Option<&mut Keypair> {
        let current = self.current.as_mut();
        current.filter(|keypair| keypair.is_fresh(now))
    }

    /// The peer has answered our initiation.
    pub(super) fn install(&mut self, keypair: Keypair) {
        // A pair that was offered meanwhile may be the one the peer uses.
        self.previous = self.next.take().or_else(|| self.current.take());
        self.current = Some(keypair);
    }

    /// We have answered an initiation of the peer.
    pub(super) fn offer(&mut self, keypair: Keypair) {
        self.next = Some(keypair);
        self.previous = None;
    }

    /// The peer uses the pair we offered.
    pub(super) fn confirm(&mut self) {
        if let Some(next) = self.next.take() {
            self.previous = self.current.replace(next);
        }
    }

    /// Whose index this is.
    pub(super) fn find(&mut self, index: u32) -> Option<(Place, &mut Keypair)> {
        let Self {
            current,
            previous,
            next,
        } = self;
        [
            (Place::Current, current),
            (Place::Previous, previous),
            (Place::Next, next),
        ]
        .into_iter()
        .filter_map(|(place, pair)| Some((place, pair.as_mut()?)))
        .find(|(_, pair)| pair.ours == index)
    }

    /// Wipes what may not be used any more.
    pub(super) fn expire(&mut self, now: Instant, asleep: Duration) {
        for pair in [&mut self.current, &mut self.previous, &mut self.next] {
            pair.take_if(|pair| pair.age(now, asleep) >= REJECT_AFTER_TIME);
        }
    }
}

#[cfg(test)]
impl Keypair {
    /// The next message has this counter.
    pub(super) fn count_from(&mut self, counter: u64) {
        self.counter = counter;
    }

    /// The body of a message with any counter.
    pub(super) fn seal_as(&self, counter: u64, packet: &[u8], body: &mut [u8]) {
        self.send.seal(counter, packet, packet.len(), body);
    }
}
