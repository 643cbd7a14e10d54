//! Throughput over the last seconds, from byte counters read now and then.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Over how long a rate is taken: long enough to be calm, short enough to follow a person's eye.
const SPAN: Duration = Duration::from_secs(3);

/// Byte counters of the last [`SPAN`].
#[derive(Clone, Debug, Default)]
pub(super) struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Notes the counter's value at `now`.
    pub(super) fn note(&mut self, now: Instant, bytes: u64) {
        self.samples.push_back((now, bytes));
        while self
            .samples
            .get(1)
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) >= SPAN)
        {
            self.samples.pop_front();
        }
    }

    /// Bits per second over the samples; 0 before there are two of them.
    pub(super) fn bits_per_second(&self) -> f64 {
        let (Some((from, low)), Some((to, high))) = (self.samples.front(), self.samples.back())
        else {
            return 0.0;
        };
        let seconds = to.saturating_duration_since(*from).as_secs_f64();
        if seconds > 0.0 {
            high.saturating_sub(*low) as f64 * 8.0 / seconds
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_has_its_rate() {
        let start = Instant::now();
        let mut rate = Rate::default();
        assert_eq!(rate.bits_per_second(), 0.0);
        for second in 0..10 {
            rate.note(start + Duration::from_secs(second), second * 1000);
        }
        assert_eq!(rate.bits_per_second(), 8000.0);
    }

    #[test]
    fn a_stream_that_ends_is_forgotten_after_the_span() {
        let start = Instant::now();
        let mut rate = Rate::default();
        for second in 0..10 {
            rate.note(start + Duration::from_secs(second), second.min(5) * 1000);
        }
        assert_eq!(rate.bits_per_second(), 0.0);
    }
}
