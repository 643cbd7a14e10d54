//! Accounting: what the devices say they sent, against what the rules say they let leave. A frame that
//! was sent and not counted went past the rules, whatever way it took: AF_XDP is seen by no hook and by no
//! packet socket, but the device counts it. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Readings without any traffic after which what was counted and not sent is taken for lost. Frames are
/// counted just before the device has them, and a second passes between two readings.
const QUIET: u32 = 2;

/// How long after the rules were replaced frames may still be under way that the rules before counted.
const SETTLE: Duration = Duration::from_millis(100);

/// What was read at one moment: first the devices, then the rules, so that a frame under way between the
/// two is counted and not yet sent, never the other way round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Frames that each device sent or gave up since it exists, by its index.
    pub sent: BTreeMap<u32, u64>,
    /// Frames that the rules in force let leave, since they were loaded.
    pub counted: u64,
}

/// The balance over all readings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    last: Option<Reading>,
    /// Counted and not sent: under way, or lost between the rules and the device.
    ahead: u64,
    quiet: u32,
    /// Until when a reading is only a beginning: what the rules before counted last is not known.
    unsettled: Option<Instant>,
}

impl Account {
    /// The rules were replaced, and their counters begin anew. `sent` was read just after. For a tenth of a
    /// second frames that leave uncounted cannot be told from those that the rules before counted last.
    pub fn turn(&mut self, sent: BTreeMap<u32, u64>, now: Instant) {
        self.last = Some(Reading { sent, counted: 0 });
        self.ahead = 0;
        self.unsettled = Some(now + SETTLE);
    }

    /// Takes a reading. Returns the frames that were sent since the last one and not counted.
    pub fn read(&mut self, reading: Reading, now: Instant) -> u64 {
        let Some(before) = self.last.replace(reading.clone()) else {
            return 0;
        };
        // A device that is new begins at this reading; one that is gone takes its last frames along.
        let sent = reading.sent.iter().filter_map(|(index, sent)| {
            let before = before.sent.get(index)?;
            Some(sent.saturating_sub(*before))
        });
        let sent: u64 = sent.sum();
        let counted = reading.counted.saturating_sub(before.counted);
        let available = self.ahead.saturating_add(counted);
        let quiet = sent == 0 && counted == 0;
        self.quiet = if quiet {
            self.quiet.saturating_add(1)
        } else {
            0
        };
        let ahead = available.saturating_sub(sent);
        self.ahead = if self.quiet >= QUIET { 0 } else { ahead };
        let settled = self.unsettled.is_none();
        self.unsettled = self.unsettled.filter(|until| now < *until);
        if settled {
            sent.saturating_sub(available)
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(sent: &[(u32, u64)], counted: u64) -> Reading {
        Reading {
            sent: sent.iter().copied().collect(),
            counted,
        }
    }

    fn uncounted(readings: &[Reading]) -> Vec<u64> {
        let mut account = Account::default();
        let start = Instant::now();
        let now = start + Duration::from_secs(1);
        let sent = readings[0].sent.clone();
        account.turn(sent, start);
        account.read(
            Reading {
                counted: 0,
                ..readings[0].clone()
            },
            now,
        );
        let read = |it: &Reading| account.read(it.clone(), now);
        readings.iter().map(read).collect()
    }

    #[test]
    fn what_was_sent_and_not_counted_is_told_once() {
        let readings = [
            reading(&[(2, 100)], 0),
            reading(&[(2, 150)], 50),
            reading(&[(2, 153)], 51),
            reading(&[(2, 160)], 58),
        ];
        assert_eq!(uncounted(&readings), [0, 0, 2, 0]);
    }

    #[test]
    fn frames_under_way_are_no_leak_and_hide_none_for_long() {
        let readings = [
            reading(&[(2, 0)], 0),
            reading(&[(2, 90)], 100),
            reading(&[(2, 100)], 100),
            reading(&[(2, 100)], 103),
            reading(&[(2, 100)], 103),
            reading(&[(2, 100)], 103),
            reading(&[(2, 101)], 103),
        ];
        assert_eq!(uncounted(&readings), [0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn a_device_that_appears_begins_where_it_is() {
        let readings = [
            reading(&[(2, 10)], 0),
            reading(&[(2, 10), (7, 500)], 0),
            reading(&[(2, 10), (7, 501)], 0),
            reading(&[(7, 501)], 0),
        ];
        assert_eq!(uncounted(&readings), [0, 0, 1, 0]);
    }

    #[test]
    fn replacing_the_rules_is_no_leak() {
        let (mut account, start) = (Account::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        let at = |sent| BTreeMap::from([(2, sent)]);
        account.turn(at(10), start);
        account.read(reading(&[(2, 12)], 2), after(200));
        account.turn(at(17), after(300));
        // One that the rules before counted, and one under way.
        assert_eq!(account.read(reading(&[(2, 20)], 2), after(310)), 0);
        assert_eq!(account.read(reading(&[(2, 22)], 5), after(450)), 0);
        assert_eq!(account.read(reading(&[(2, 23)], 5), after(500)), 0);
        assert_eq!(account.read(reading(&[(2, 25)], 6), after(600)), 1);
    }
}
