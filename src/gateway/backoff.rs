//! How long one server is given before the next one is tried.

use std::time::Duration;

/// The first window: a server that gives no handshake in 15 s is passed over. Three handshake
/// initiations fit in it (REKEY_TIMEOUT is 5 s, WireGuard paper, section 6.1).
pub const FIRST: Duration = Duration::from_secs(15);

/// The longest window, jitter included.
pub const LONGEST: Duration = Duration::from_secs(60);

/// The shortest pause after something that fails at once: a refused permission, an unknown name.
const PAUSE: Duration = Duration::from_secs(1);

/// The window of an attempt, after `round` rounds in which every server was tried in vain:
/// 15 s, 30 s, then 60 s, each stretched by up to a fifth, never over [`LONGEST`].
pub(super) fn window(round: u32, jitter: Jitter) -> Duration {
    spread(FIRST.saturating_mul(doubled(round)), jitter)
}

/// The pause before the next attempt, after `tries` attempts that failed at once: 1 s, 2 s, 4 s and
/// so on, stretched and capped in the same way.
pub(super) fn pause(tries: u32, jitter: Jitter) -> Duration {
    spread(PAUSE.saturating_mul(doubled(tries)), jitter)
}

fn doubled(times: u32) -> u32 {
    1 << times.min(10)
}

fn spread(duration: Duration, jitter: Jitter) -> Duration {
    (duration + duration.mul_f64(jitter.0 / 5.0)).min(LONGEST)
}

/// A number in 0..1 that spreads attempts of many gateways over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Jitter(f64);

/// A source of jitter, seeded from outside: xorshift64 (Marsaglia, 2003). Not for secrets.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// Starts from any seed.
    pub(super) fn new(seed: u64) -> Self {
        // Zero is the one state that xorshift never leaves.
        Self(seed.max(1))
    }

    /// The next number.
    pub(super) fn roll(&mut self) -> Jitter {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Jitter((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn windows_double_up_to_a_minute() {
        let none = Jitter(0.0);
        let seconds: Vec<_> = (0..5).map(|round| window(round, none).as_secs()).collect();
        assert_eq!(seconds, [15, 30, 60, 60, 60]);
        let seconds: Vec<_> = (0..8).map(|tries| pause(tries, none).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    proptest! {
        #[test]
        fn jitter_only_stretches_and_never_past_a_minute(round: u32, seed: u64) {
            let plain = window(round, Jitter(0.0));
            let spread = window(round, Dice::new(seed).roll());
            prop_assert!(plain <= spread && spread <= LONGEST);
        }

        #[test]
        fn dice_stay_within_zero_and_one(seed: u64) {
            let mut dice = Dice::new(seed);
            for _ in 0..100 {
                let Jitter(number) = dice.roll();
                prop_assert!((0.0..1.0).contains(&number));
            }
        }
    }
}
