//! Accounting: what the devices say they sent, against what the rules say they let leave. A frame that
//! was sent and not counted went past the rules, whatever way it took: AF_XDP is seen by no hook and by no
//! packet socket, but the device counts it. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long what was counted may take to be sent: a frame is counted just before the device has it. What is
/// not sent by then was lost in between, and excuses no other frame.
const UNDER_WAY: Duration = Duration::from_millis(250);

/// Frames that may be under way when the rules are replaced under traffic, counted by those before: the ring
/// of a veth (`VETH_RING_SIZE`, drivers/net/veth.c).
pub const RING: u64 = 256;

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
    /// Counted and not yet sent, before `since` and after it.
    older: u64,
    newer: u64,
    since: Option<Instant>,
}

impl Account {
    /// The rules were replaced, and their counters begin anew. `sent` was read just after, the last reading just
    /// before. If nothing was sent in between, nothing is under way that only the rules before counted.
    pub fn turn(&mut self, sent: BTreeMap<u32, u64>, now: Instant) {
        let busy = self.last.as_ref().is_some_and(|last| last.sent != sent);
        let under_way = self.older.saturating_add(self.newer);
        self.newer = under_way.saturating_add(if busy { RING } else { 0 });
        self.older = 0;
        self.since = Some(now);
        self.last = Some(Reading { sent, counted: 0 });
    }

    /// The rules let go of a device for a moment, after they had let frames pass that it sends uncounted. To be called
    /// before the reading that may show them; it excuses as many as a busy turn of the rules, and no more however often.
    pub fn excuse(&mut self) {
        self.newer = self.newer.max(RING);
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
        let newer = self.newer.saturating_add(counted);
        let of_newer = sent.saturating_sub(self.older);
        self.older = self.older.saturating_sub(sent);
        self.newer = newer.saturating_sub(of_newer);
        if self.since.is_none_or(|since| now >= since + UNDER_WAY) {
            (self.older, self.newer) = (self.newer, 0);
            self.since = Some(now);
        }
        of_newer.saturating_sub(newer)
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
        let sent = readings[0].sent.clone();
        account.turn(sent, start);
        let seconds = (1..).map(|second| start + Duration::from_secs(second));
        let read = |(it, now): (&Reading, _)| account.read(it.clone(), now);
        readings.iter().zip(seconds).map(read).collect()
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
            reading(&[(2, 101)], 103),
        ];
        assert_eq!(uncounted(&readings), [0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn readings_in_quick_succession_take_no_frame_that_is_under_way_for_lost() {
        let (mut account, start) = (Account::default(), Instant::now());
        account.turn([(2, 0)].into(), start);
        let after = |ms| start + Duration::from_millis(ms);
        account.read(reading(&[(2, 0)], 0), after(900));
        for (at, sent, counted) in [(1000, 0, 5), (1001, 0, 6), (1002, 1, 6), (1200, 6, 6)] {
            assert_eq!(account.read(reading(&[(2, sent)], counted), after(at)), 0);
        }
        assert_eq!(account.read(reading(&[(2, 7)], 6), after(1201)), 1);
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
    fn a_rename_excuses_what_was_under_way_and_not_for_long() {
        let (mut account, start) = (Account::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        account.turn([(2, 0)].into(), start);
        assert_eq!(account.read(reading(&[(2, 9)], 9), after(1000)), 0);
        for _ in 0..9 {
            account.excuse();
        }
        assert_eq!(account.read(reading(&[(2, 12)], 9), after(2000)), 0);
        assert_eq!(account.read(reading(&[(2, 300)], 9), after(2100)), 35);
        account.excuse();
        assert_eq!(account.read(reading(&[(2, 300)], 9), after(2300)), 0);
        assert_eq!(account.read(reading(&[(2, 300)], 9), after(2600)), 0);
        assert_eq!(account.read(reading(&[(2, 301)], 9), after(2700)), 1);
    }

    #[test]
    fn replacing_the_rules_is_no_leak() {
        let (mut account, start) = (Account::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        let at = |sent| BTreeMap::from([(2, sent)]);
        account.turn(at(10), start);
        account.read(reading(&[(2, 12)], 2), after(200));
        // Nothing moves: nothing is excused.
        account.turn(at(12), after(200));
        assert_eq!(account.read(reading(&[(2, 13)], 0), after(201)), 1);
        // Under traffic some frames are, and not for long.
        account.turn(at(17), after(300));
        assert_eq!(account.read(reading(&[(2, 20)], 2), after(310)), 0);
        assert_eq!(account.read(reading(&[(2, 40)], 5), after(600)), 0);
        assert_eq!(account.read(reading(&[(2, 40)], 5), after(900)), 0);
        assert_eq!(account.read(reading(&[(2, 42)], 6), after(1000)), 1);
    }
}
