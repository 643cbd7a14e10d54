//! Carries packet counters over the replacement of the rules they stand in. Pure.

use std::collections::BTreeMap;

use crate::link::Count;

/// Counts since start, by what they are told apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counters<K> {
    /// Counts of rules that were replaced.
    past: BTreeMap<K, Count>,
    /// Counts of the rules in force, as last read.
    present: BTreeMap<K, Count>,
}

impl<K: Ord> Default for Counters<K> {
    fn default() -> Self {
        Self {
            past: BTreeMap::new(),
            present: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Counters<K> {
    /// Notes what the rules in force count now.
    pub(super) fn read(&mut self, counts: BTreeMap<K, Count>) {
        self.present = counts;
    }

    /// The rules in force were replaced: their counters start from zero again.
    pub(super) fn turn(&mut self) {
        for (reason, count) in std::mem::take(&mut self.present) {
            add(&mut self.past, reason, count);
        }
    }

    /// Counts since start.
    pub(super) fn total(&self) -> BTreeMap<K, Count> {
        let mut total = self.past.clone();
        for (reason, count) in &self.present {
            add(&mut total, reason.clone(), *count);
        }
        total
    }
}

fn add<K: Ord>(to: &mut BTreeMap<K, Count>, reason: K, count: Count) {
    let sum = to.entry(reason).or_default();
    sum.packets += count.packets;
    sum.bytes += count.bytes;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(packets: u64) -> BTreeMap<String, Count> {
        [(
            "dns".to_owned(),
            Count {
                packets,
                bytes: packets * 10,
            },
        )]
        .into()
    }

    #[test]
    fn a_count_never_falls_when_rules_are_replaced() {
        let mut counters = Counters::default();
        counters.read(counts(3));
        counters.read(counts(5));
        assert_eq!(counters.total(), counts(5));
        counters.turn();
        assert_eq!(counters.total(), counts(5));
        counters.read(counts(2));
        assert_eq!(counters.total(), counts(7));
    }
}
