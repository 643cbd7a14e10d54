//! Stamps of handshakes. A server takes no initiation whose stamp is not later than the last it took, so they must rise
//! even where the clock is set back (WireGuard paper, section 5.1).

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Seconds that a stamp counts from: TAI64 begins at 2^62, and the kernel adds ten (`tai64n_now`,
/// drivers/net/wireguard/noise.c). A server compares with what it got last, whatever program has sent that.
const EPOCH: u64 = (1 << 62) + 10;

/// Nanoseconds that a stamp is coarse by, as the kernel's: the server is not to learn our clock to the nanosecond.
const STEP: u32 = 1 << 24;

/// A time as TAI64N (<https://cr.yp.to/libtai/tai64.html>). What is later is greater. `Default` is before all.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Stamp(pub [u8; 12]);

impl Stamp {
    /// The stamp of an initiation at this time by the wall clock, after one with the stamp `last`. It is later than that.
    pub fn after(last: Self, clock: SystemTime) -> Self {
        let since = since_1970(clock);
        let mut stamp = [0; 12];
        stamp[..8].copy_from_slice(&since.as_secs().saturating_add(EPOCH).to_be_bytes());
        stamp[8..].copy_from_slice(&(since.subsec_nanos() & !(STEP - 1)).to_be_bytes());
        Self(stamp).max(last.next())
    }

    /// How much later it is than this time by the wall clock; zero if it is not.
    pub fn ahead_of(self, clock: SystemTime) -> Duration {
        let (mut secs, mut nanos) = ([0; 8], [0; 4]);
        secs.copy_from_slice(&self.0[..8]);
        nanos.copy_from_slice(&self.0[8..]);
        let secs = u64::from_be_bytes(secs).saturating_sub(EPOCH);
        // More nanoseconds than a second has are left by `next`, and carried here.
        Duration::new(secs, u32::from_be_bytes(nanos)).saturating_sub(since_1970(clock))
    }

    /// What follows as a number follows as a stamp, for a server compares bytes (section 5.4.2).
    fn next(self) -> Self {
        let mut number = [0; 16];
        number[4..].copy_from_slice(&self.0);
        let number = u128::from_be_bytes(number) + u128::from(STEP);
        // After the last one there is none; it stays.
        let number = number.min((1 << 96) - 1).to_be_bytes();
        let mut next = [0; 12];
        next.copy_from_slice(&number[4..]);
        Self(next)
    }
}

fn since_1970(clock: SystemTime) -> Duration {
    clock
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// The newest stamp that each peer was sent. None goes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamps<Key>(Vec<(Key, Stamp)>);

impl<Key> Default for Stamps<Key> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<Key: Copy + PartialEq> Stamps<Key> {
    /// Peers that are remembered at most: all of them travel in one message, beside the configuration.
    pub const MOST: usize = 64;

    /// The newest stamp of a peer; before all others if it was never sent one.
    pub fn of(&self, peer: Key) -> Stamp {
        let known = self.0.iter().find(|(key, _)| *key == peer);
        known.map_or_else(Stamp::default, |(_, stamp)| *stamp)
    }

    /// Takes note of a stamp that a peer was sent. The peer with the oldest one is forgotten if there are too many.
    pub fn note(&mut self, peer: Key, stamp: Stamp) {
        let stamp = stamp.max(self.of(peer));
        self.0.retain(|(key, _)| *key != peer);
        self.0.push((peer, stamp));
        if self.0.len() > Self::MOST {
            let stamps = self.0.iter().map(|(_, stamp)| *stamp);
            let oldest = stamps.min().unwrap_or_default();
            let at = self.0.iter().position(|(_, stamp)| *stamp == oldest);
            at.map(|at| self.0.remove(at));
        }
    }

    /// Takes note of all that `other` knows.
    pub fn merge(&mut self, other: &Self) {
        for (peer, stamp) in &other.0 {
            self.note(*peer, *stamp);
        }
    }

    /// What `other` does not know.
    pub fn newer_than<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (Key, Stamp)> + 'a {
        let newer = |(peer, stamp): &&(Key, Stamp)| *stamp > other.of(*peer);
        self.0.iter().filter(newer).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_stamp_never_goes_back_when_the_clock_does() {
        let mut last = Stamp::after(Stamp::default(), at(1_800_000_000));
        let first = last;
        for _ in 0..200 {
            let next = Stamp::after(last, at(1_799_992_800));
            assert!(next > last, "{next:?} {last:?}");
            last = next;
        }
        assert_eq!(last.ahead_of(at(1_799_992_800)).as_secs(), 7203);
        assert_eq!(first.ahead_of(at(1_799_992_800)).as_secs(), 7200);
        // Once the clock has caught up, it counts again.
        let later = Stamp::after(last, at(1_800_000_100));
        assert_eq!(later, Stamp::after(Stamp::default(), at(1_800_000_100)));
        assert_eq!(later.ahead_of(at(1_800_000_100)), Duration::ZERO);
    }

    #[test]
    fn a_stamp_grows_even_when_the_clock_does_not() {
        let now = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 999_999_999);
        let first = Stamp::after(Stamp::default(), now);
        // The kernel's base, and no more of the clock than it tells.
        assert_eq!(first.0[..8], ((1 << 62) + 1_700_000_010_u64).to_be_bytes());
        assert_eq!(first.0[8..], 0x3b00_0000_u32.to_be_bytes());
        assert!(Stamp::after(first, now) > first);
        let mut full = first;
        full.0[8..].fill(0xff);
        assert!(Stamp::after(full, now) > full);
    }

    #[test]
    fn the_last_of_all_stamps_is_followed_by_itself() {
        let last = Stamp([0xff; 12]);
        assert_eq!(Stamp::after(last, at(0)), last);
        assert!(last.ahead_of(at(0)) > Duration::from_secs(1 << 40));
    }

    #[test]
    fn a_peers_newest_stamp_is_kept() {
        let mut stamps = Stamps::default();
        let (old, new) = (Stamp([1; 12]), Stamp([2; 12]));
        assert_eq!(stamps.of('a'), Stamp::default());
        stamps.note('a', new);
        stamps.note('a', old);
        stamps.note('b', old);
        assert_eq!((stamps.of('a'), stamps.of('b')), (new, old));
        let mut other = Stamps::default();
        other.note('a', old);
        let newer: Vec<_> = stamps.newer_than(&other).collect();
        assert_eq!(newer, [('a', new), ('b', old)]);
        other.merge(&stamps);
        assert_eq!(other.newer_than(&stamps).count(), 0);
        assert_eq!(stamps.newer_than(&other).count(), 0);
    }

    #[test]
    fn of_too_many_peers_the_oldest_stamps_are_forgotten() {
        let mut stamps = Stamps::default();
        let most = Stamps::<u32>::MOST as u32;
        for peer in 0..2 * most {
            let mut stamp = Stamp::default();
            stamp.0[8..].copy_from_slice(&(peer + 1).to_be_bytes());
            stamps.note(peer, stamp);
        }
        let known = |peer: &u32| stamps.of(*peer) > Stamp::default();
        let kept: Vec<_> = (0..2 * most).filter(known).collect();
        assert_eq!(kept, (most..2 * most).collect::<Vec<_>>());
    }
}
