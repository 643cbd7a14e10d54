//! Which counters have been seen: a sliding window over a ring of bits (RFC 6479).

/// Bits of the ring. The kernel's is as long (`COUNTER_BITS_TOTAL`, drivers/net/wireguard/noise.h).
const BITS: u64 = 8192;
const WORD: u64 = u64::BITS as u64;
const WORDS: u64 = BITS / WORD;

/// Counters behind the newest that can still be new: the word that is being filled is not to be counted on.
#[cfg(test)]
pub(super) const REACH: u64 = BITS - WORD;

/// The counters of one direction of one session.
pub(super) struct Window {
    /// The first counter that is above all seen.
    next: u64,
    words: [u64; WORDS as usize],
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            words: [0; WORDS as usize],
        }
    }

    /// Whether a message of this counter may be the first.
    pub(super) fn may_be_new(&self, counter: u64) -> bool {
        if counter >= self.next {
            return true;
        }
        let reached = (counter / WORD) + WORDS > (self.next - 1) / WORD;
        reached && self.words[word(counter)] & bit(counter) == 0
    }

    /// Marks a counter that may be new, once its message has turned out to be authentic.
    pub(super) fn mark(&mut self, counter: u64) {
        if counter >= self.next {
            self.forget_up_to(counter);
            self.next = counter + 1;
        }
        self.words[word(counter)] |= bit(counter);
    }

    /// Clears the words that come to stand for higher counters.
    fn forget_up_to(&mut self, counter: u64) {
        let first = self.next.div_ceil(WORD);
        let last = counter / WORD;
        for n in first..=last.min(first + WORDS - 1) {
            self.words[(n % WORDS) as usize] = 0;
        }
        if last > first + WORDS - 1 {
            self.words.fill(0);
        }
    }
}

fn word(counter: u64) -> usize {
    (counter / WORD % WORDS) as usize
}

fn bit(counter: u64) -> u64 {
    1 << (counter % WORD)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn take(window: &mut Window, counter: u64) -> bool {
        let new = window.may_be_new(counter);
        if new {
            window.mark(counter);
        }
        new
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_all_that_was_seen(steps in prop::collection::vec((any::<bool>(), 0..10_000_u64), 1..400)) {
            let (mut window, mut seen, mut newest) = (Window::new(), BTreeSet::new(), 0_u64);
            for (forward, distance) in steps {
                let counter = if forward { newest + distance } else { newest.saturating_sub(distance) };
                let new = take(&mut window, counter);
                if seen.contains(&counter) {
                    prop_assert!(!new, "{counter} twice");
                } else if counter >= newest.saturating_sub(REACH) {
                    prop_assert!(new, "{counter} is new, the newest is {newest}");
                }
                if new {
                    seen.insert(counter);
                    newest = newest.max(counter);
                }
            }
        }
    }

    #[test]
    fn every_counter_is_taken_once() {
        let mut window = Window::new();
        for counter in 0..3 * BITS {
            assert!(take(&mut window, counter));
            assert!(!take(&mut window, counter));
        }
        assert!(!take(&mut window, 2 * BITS - 1), "behind the window");
        let mut sparse = Window::new();
        assert!(take(&mut sparse, 2 * BITS));
        assert!(take(&mut sparse, 2 * BITS - REACH));
        assert!(
            !take(&mut sparse, BITS - 1),
            "behind the window, and its bit is clear"
        );
    }

    #[test]
    fn a_leap_leaves_nothing_of_before() {
        let mut window = Window::new();
        for counter in 0..BITS {
            take(&mut window, counter);
        }
        let far = u64::MAX - (1 << 13) - 1;
        assert!(take(&mut window, far));
        assert!(take(&mut window, far - REACH));
        assert!(!take(&mut window, far - BITS - 1));
        assert!(!take(&mut window, far));
    }
}
