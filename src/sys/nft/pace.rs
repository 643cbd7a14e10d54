//! How often counters are worth reading. Pure.

use std::time::{Duration, Instant};

/// What part of the time reading them may take: one in so many.
const SHARE: u32 = 20;

/// The kernel prints rules in pieces, and begins each by walking over those of the pieces before
/// (`__nf_tables_dump_rules`, net/netfilter/nf_tables_api.c), so the time grows with the square of their number. Whoever
/// guards must not spend its time on that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    last: Option<(Instant, Duration)>,
}

impl Pace {
    /// Whether they may be read now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.last
            .is_none_or(|(ended, took)| now.saturating_duration_since(ended) >= took * SHARE)
    }

    /// They were read.
    pub fn note(&mut self, began: Instant, ended: Instant) {
        self.last = Some((ended, ended.saturating_duration_since(began)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_done_seldom() {
        let begin = Instant::now();
        let after = |ms| begin + Duration::from_millis(ms);
        let mut pace = Pace::default();
        assert!(pace.is_due(begin));
        pace.note(begin, after(1));
        assert!(pace.is_due(after(1000)), "a few rules each second");
        pace.note(begin, after(400));
        assert!(!pace.is_due(after(8000)));
        assert!(pace.is_due(after(8400)));
    }
}
