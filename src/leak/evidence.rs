//! What the sensors saw, kept for `vpngw leaks`: bounded, and alike findings counted, not listed. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

/// Findings that are kept: with [`LONGEST`] and [`HEAD`], under 32 KiB as JSON.
const KEPT: usize = 48;

/// Of these, the first ones stay: how it began matters most.
const FIRST: usize = 16;

/// Characters of a description that are kept.
const LONGEST: usize = 160;

/// Bytes of a frame that are kept: Ethernet, IPv4 and TCP headers, and the first of the payload.
const HEAD: usize = 64;

/// Kinds that are counted by name. There are fewer; a bound keeps it so.
const KINDS: usize = 64;

/// What saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sensor {
    /// Looks at each frame that leaves.
    Frame,
    /// Compares what devices sent with what the rules let leave.
    Accounting,
    /// Hears what others change in the namespace.
    Watcher,
    /// Tries a way out that must be closed.
    Probe,
}

impl Sensor {
    /// The word in metrics and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Accounting => "accounting",
            Self::Watcher => "watcher",
            Self::Probe => "probe",
        }
    }
}

impl fmt::Display for Sensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Milliseconds since 1970 (Unix time) of the first.
    pub first: u64,
    /// The same of the last.
    pub last: u64,
    /// What saw it.
    pub sensor: Sensor,
    /// What it was, in one word: `udp`, `uncounted`, `rules`.
    pub kind: String,
    /// Whether something left. Otherwise somebody changed what guards the way out, and it was undone.
    pub leaked: bool,
    /// How many: frames, or changes.
    pub count: u64,
    /// In words: what, from where to where, by which device.
    pub what: String,
    /// The first bytes of the frame, in hexadecimal digits; empty if there is none.
    pub bytes: String,
}

/// How many findings of one kind there were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What saw them.
    pub sensor: Sensor,
    /// What they were, in one word.
    pub kind: String,
    /// Whether something left.
    pub leaked: bool,
    /// How many since the start.
    pub count: u64,
}

/// The first and the last findings, and how many there were of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    last: VecDeque<Evidence>,
    counts: BTreeMap<(Sensor, String, bool), u64>,
}

impl Evidence {
    /// A finding of this moment, in milliseconds since 1970.
    pub fn new(now: u64, sensor: Sensor, kind: &str, what: &str) -> Self {
        Self {
            first: now,
            last: now,
            sensor,
            kind: kind.to_owned(),
            leaked: true,
            count: 1,
            what: what.chars().take(LONGEST).collect(),
            bytes: String::new(),
        }
    }

    /// The same, with the frame it is about.
    pub fn with_frame(self, frame: &[u8]) -> Self {
        let head = frame.iter().take(HEAD);
        Self {
            bytes: head.map(|byte| format!("{byte:02x}")).collect(),
            ..self
        }
    }

    /// The same, of as many.
    pub fn times(self, count: u64) -> Self {
        Self { count, ..self }
    }

    /// A change of somebody else's that was undone: nothing left that it speaks of.
    pub fn undone(now: u64, kind: &str, what: &str) -> Self {
        Self {
            leaked: false,
            ..Self::new(now, Sensor::Watcher, kind, what)
        }
    }

    fn alike(&self, other: &Self) -> bool {
        let of = |it: &Self| (it.sensor, it.leaked);
        of(self) == of(other) && self.kind == other.kind && self.what == other.what
    }
}

impl Findings {
    /// Takes a finding. With one like it that is kept, only the count and the time change.
    pub fn add(&mut self, found: Evidence) {
        let key = (found.sensor, found.kind.clone(), found.leaked);
        if self.counts.contains_key(&key) || self.counts.len() < KINDS {
            let count = self.counts.entry(key).or_default();
            *count = count.saturating_add(found.count);
        }
        if let Some(kept) = self.last.iter_mut().find(|kept| kept.alike(&found)) {
            kept.last = found.last;
            kept.count = kept.count.saturating_add(found.count);
            return;
        }
        self.last.push_back(found);
        if self.last.len() > KEPT {
            self.last.remove(FIRST);
        }
    }

    /// The first ones and the last ones, in the order in which they began.
    pub fn last(&self) -> Vec<Evidence> {
        self.last.iter().cloned().collect()
    }

    /// How many of each kind since the start.
    pub fn counts(&self) -> Vec<Found> {
        let found = |((sensor, kind, leaked), count): (&(Sensor, String, bool), &u64)| Found {
            sensor: *sensor,
            kind: kind.clone(),
            leaked: *leaked,
            count: *count,
        };
        self.counts.iter().map(found).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(now: u64, what: &str) -> Evidence {
        Evidence::new(now, Sensor::Frame, "udp", what).with_frame(&[0xab; 100])
    }

    #[test]
    fn alike_findings_are_one_line() {
        let mut findings = Findings::default();
        for now in [5, 6] {
            findings.add(frame(now, "udp a > b by eth0"));
            findings.add(frame(now, "udp a > c by eth0"));
        }
        let last = findings.last();
        assert_eq!(last.len(), 2);
        assert_eq!((last[0].first, last[0].last, last[0].count), (5, 6, 2));
        assert_eq!(last[0].bytes.len(), 2 * HEAD);
        assert_eq!(findings.counts()[0].count, 4);
    }

    #[test]
    fn a_flood_of_different_findings_stays_small() {
        let mut findings = Findings::default();
        for now in 0..10_000 {
            findings.add(frame(now, &format!("{now} {}", "x".repeat(500))));
        }
        let last = findings.last();
        assert_eq!(last.len(), KEPT);
        assert!(last[0].what.starts_with("0 "));
        assert!(last[KEPT - 1].what.starts_with("9999 "));
        assert!(serde_json::to_vec(&last).unwrap().len() < 32 << 10);
        assert_eq!(findings.counts()[0].count, 10_000);
    }

    #[test]
    fn what_was_undone_is_told_apart_from_what_left() {
        let mut findings = Findings::default();
        findings.add(Evidence::undone(1, "rules", "table inet vpngw: is gone"));
        findings.add(Evidence::new(1, Sensor::Accounting, "uncounted", "eth0").times(3));
        let counts = findings.counts();
        let of = |sensor| counts.iter().find(|it| it.sensor == sensor).unwrap();
        assert_eq!(
            (of(Sensor::Watcher).leaked, of(Sensor::Watcher).count),
            (false, 1)
        );
        assert_eq!(
            (of(Sensor::Accounting).leaked, of(Sensor::Accounting).count),
            (true, 3)
        );
    }
}
