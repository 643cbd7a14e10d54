//! What the kill switch stopped, kept so that a person can read it: grouped, and bounded whatever is sent.
//! Pure; time is an argument.
//!
//! A torrent client tries thousands of destinations by UDP. Of each reason, protocol and user
//! eight destinations are kept, those tried most and the latest one; all others of it are one line.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::packet::{Protocol, Target};
use crate::policy::Reason;

pub use super::report::{Line, MOST_LINES, Report};

/// Destinations shown of each reason, protocol and user.
const ROWS: usize = 8;

/// Reasons, protocols and users told apart. Of more the one that was silent longest is forgotten.
const MOST_GROUPS: usize = 128;

/// Other destinations that are remembered to be counted once, of all groups together. A `Target` has 22
/// bytes and a tree is half full at worst, so this is 1 MiB, and all the rest 120 KiB.
const MOST_TARGETS: usize = 20_000;

/// Who sent what, and why it was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// Why.
    pub reason: Reason,
    /// What.
    pub protocol: Protocol,
    /// The user, where the kernel knows: not for what it sends by itself.
    pub uid: Option<u32>,
    /// Whether the gateway itself sent it, to prove that it is stopped.
    pub own: bool,
}

/// What was stopped.
#[derive(Clone, Debug, Default)]
pub struct Stopped {
    groups: BTreeMap<Group, Crowd>,
    /// Packets of groups that were forgotten.
    forgotten: u64,
    /// Destinations in all [`Others`].
    remembered: usize,
}

#[derive(Clone, Debug, Default)]
struct Crowd {
    rows: Vec<(Target, Seen)>,
    others: Option<Others>,
}

#[derive(Clone, Debug)]
struct Others {
    seen: Seen,
    targets: BTreeSet<Target>,
    /// Whether there was no room for one.
    more: bool,
}

/// How often, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    count: u64,
    first: Duration,
    last: Duration,
}

impl Stopped {
    /// Notes one packet. Returns whether its destination was not in sight.
    pub fn note(&mut self, group: Group, to: Target, now: Duration) -> bool {
        if !self.groups.contains_key(&group) && self.groups.len() >= MOST_GROUPS {
            self.forget_one();
        }
        let crowd = self.groups.entry(group).or_default();
        if let Some((_, seen)) = crowd.rows.iter_mut().find(|(target, _)| *target == to) {
            seen.again(now);
            return false;
        }
        if crowd.rows.len() >= ROWS
            && let Some(least) = crowd.least()
        {
            let row = crowd.rows.swap_remove(least);
            self.remembered += usize::from(crowd.join(row, self.remembered < MOST_TARGETS));
        }
        let back = crowd.others.as_mut().is_some_and(|o| o.targets.remove(&to));
        self.remembered -= usize::from(back);
        crowd.rows.push((to, Seen::once(now)));
        true
    }

    /// What a person is told.
    pub fn report(&self, now: Duration) -> Report {
        let mut crowds: Vec<_> = self.groups.iter().collect();
        crowds.sort_by_key(|(_, crowd)| std::cmp::Reverse(crowd.last()));
        let lines = crowds
            .into_iter()
            .flat_map(|(group, crowd)| crowd.lines(group, now));
        let mut lines: Vec<_> = lines.collect();
        let hidden = lines.split_off(lines.len().min(MOST_LINES));
        Report {
            omitted: self.forgotten + hidden.iter().map(|line| line.packets).sum::<u64>(),
            lines,
            ..Report::default()
        }
    }

    fn forget_one(&mut self) {
        let oldest = self.groups.iter().min_by_key(|(_, crowd)| crowd.last());
        let Some(crowd) = oldest
            .map(|(group, _)| *group)
            .and_then(|g| self.groups.remove(&g))
        else {
            return;
        };
        self.forgotten += crowd.seen().map(|seen| seen.count).sum::<u64>();
        self.remembered -= crowd.others.map_or(0, |others| others.targets.len());
    }
}

impl Crowd {
    /// The row to give up: tried least, and of those the one that was silent longest.
    fn least(&self) -> Option<usize> {
        let rows = self.rows.iter().enumerate();
        let least = rows.min_by_key(|(_, (_, seen))| (seen.count, seen.last));
        least.map(|(index, _)| index)
    }

    /// Makes a row one of the others; says whether its destination is remembered.
    fn join(&mut self, (target, seen): (Target, Seen), room: bool) -> bool {
        let others = self.others.get_or_insert_with(|| Others {
            seen: Seen { count: 0, ..seen },
            targets: BTreeSet::new(),
            more: false,
        });
        others.seen.add(seen);
        if room {
            others.targets.insert(target)
        } else {
            others.more = true;
            false
        }
    }

    fn seen(&self) -> impl Iterator<Item = Seen> {
        let rows = self.rows.iter().map(|(_, seen)| *seen);
        rows.chain(self.others.as_ref().map(|others| others.seen))
    }

    fn last(&self) -> Option<Duration> {
        self.seen().map(|seen| seen.last).max()
    }

    fn lines(&self, group: &Group, now: Duration) -> Vec<Line> {
        let mut rows = self.rows.clone();
        rows.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.last));
        let rows = rows.into_iter();
        let mut lines: Vec<_> = rows.map(|(to, seen)| line(group, to, seen, now)).collect();
        lines.extend(self.others.as_ref().map(|others| Line {
            other_destinations: Some(others.targets.len() as u64),
            more: others.more,
            ..line(group, Target::default(), others.seen, now)
        }));
        lines
    }
}

impl Seen {
    fn once(now: Duration) -> Self {
        Self {
            count: 1,
            first: now,
            last: now,
        }
    }

    fn again(&mut self, now: Duration) {
        self.count += 1;
        self.last = now;
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

fn line(group: &Group, to: Target, seen: Seen, now: Duration) -> Line {
    let ago = |then: Duration| now.saturating_sub(then).as_secs_f64();
    let inbound = group.reason == Reason::Inbound;
    Line {
        reason: group.reason.to_string(),
        protocol: group.protocol.to_string(),
        destination: to.address.filter(|_| !inbound),
        from: to.address.filter(|_| inbound),
        port: to.port,
        uid: group.uid,
        packets: seen.count,
        first_seconds_ago: ago(seen.first),
        last_seconds_ago: ago(seen.last),
        other_destinations: None,
        more: false,
        own: group.own,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    const UDP: Group = group(Protocol::Udp, Some(1000));

    const fn group(protocol: Protocol, uid: Option<u32>) -> Group {
        Group {
            reason: Reason::Other,
            protocol,
            uid,
            own: false,
        }
    }

    fn to(host: u32, port: u16) -> Target {
        Target {
            address: Some(IpAddr::from(host.to_be_bytes())),
            port: Some(port),
        }
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn packets_of_one_kind_are_one_line() {
        let mut stopped = Stopped::default();
        for second in [3, 5, 9] {
            stopped.note(UDP, to(7, 53), at(second));
        }
        stopped.note(group(Protocol::Tcp, None), to(7, 53), at(4));
        let report = stopped.report(at(10));
        assert_eq!(report.lines.len(), 2);
        let first = &report.lines[0];
        assert_eq!((first.packets, first.protocol.as_str()), (3, "udp"));
        assert_eq!(
            (first.first_seconds_ago, first.last_seconds_ago),
            (7.0, 1.0)
        );
        assert_eq!(
            (first.destination, first.port),
            (to(7, 53).address, Some(53))
        );
        assert_eq!(report.lines[1].uid, None);
    }

    #[test]
    fn what_the_gateway_tries_itself_is_a_line_of_its_own() {
        let (mut stopped, own) = (Stopped::default(), Group { own: true, ..UDP });
        for group in [UDP, own, own] {
            stopped.note(group, to(7, 9), at(1));
        }
        let lines = stopped.report(at(2)).lines;
        let mut counts: Vec<_> = lines.iter().map(|line| (line.own, line.packets)).collect();
        counts.sort_unstable();
        assert_eq!(counts, [(false, 1), (true, 2)]);
    }

    #[test]
    fn thousands_of_destinations_do_not_bury_the_one_that_matters() {
        let mut stopped = Stopped::default();
        stopped.note(group(Protocol::Tcp, Some(1000)), to(9, 22), at(0));
        for host in 0..4221 {
            stopped.note(UDP, to(host, 6881), at(1));
        }
        let report = stopped.report(at(2));
        assert_eq!(report.lines.len(), ROWS + 2);
        let others = report.lines[ROWS].other_destinations;
        assert_eq!((others, report.lines[ROWS].packets), (Some(4213), 4213));
        assert_eq!(report.lines[ROWS + 1].port, Some(22));
        assert_eq!((report.omitted, report.lines[ROWS].more), (0, false));
    }

    #[test]
    fn a_destination_that_is_tried_again_and_again_stays_in_sight() {
        let mut stopped = Stopped::default();
        for host in 0..5000 {
            stopped.note(UDP, to(host, 6881), at(1));
            if host % 2 == 0 {
                stopped.note(UDP, to(u32::MAX, 443), at(1));
            }
        }
        let lines = stopped.report(at(2)).lines;
        assert!(
            lines
                .iter()
                .any(|line| line.port == Some(443) && line.packets == 2500)
        );
    }

    #[test]
    fn memory_is_bounded_under_a_flood_of_random_destinations() {
        let mut stopped = Stopped::default();
        for host in 0..200_000_u32 {
            let uid = host % 300;
            let spread = host.wrapping_mul(2_654_435_761);
            stopped.note(
                group(Protocol::Udp, Some(uid)),
                to(spread, 1),
                at(host.into()),
            );
        }
        let kept = |s: &Stopped| -> usize {
            let others = s.groups.values().filter_map(|crowd| crowd.others.as_ref());
            others.map(|others| others.targets.len()).sum()
        };
        assert!(stopped.groups.len() <= MOST_GROUPS);
        assert_eq!(kept(&stopped), stopped.remembered);
        let mut one = Stopped::default();
        for host in 0..50_000 {
            one.note(UDP, to(host, 1), at(0));
        }
        assert_eq!((kept(&one), one.remembered), (MOST_TARGETS, MOST_TARGETS));
        let others = one.report(at(0)).lines.pop().unwrap();
        assert_eq!(
            (others.other_destinations, others.more),
            (Some(20_000), true)
        );
        assert_eq!(others.packets, 50_000 - ROWS as u64);
    }

    #[test]
    fn the_memory_that_is_promised_is_that_of_the_types() {
        // Half full nodes of a tree with a header of 12 bytes for 11 entries.
        let tree = MOST_TARGETS * 2 * (size_of::<Target>() + 2);
        assert!(tree <= 1 << 20, "{tree}");
        let rows = MOST_GROUPS * ROWS * size_of::<(Target, Seen)>();
        let groups = MOST_GROUPS * 2 * size_of::<(Group, Crowd)>();
        assert!(rows + groups <= 120 << 10, "{rows} {groups}");
    }

    #[test]
    fn the_schema_has_the_names_that_scripts_rely_on() {
        let mut stopped = Stopped::default();
        for port in 0..9 {
            stopped.note(UDP, to(7, port), at(3));
        }
        let json = serde_json::to_value(stopped.report(at(5))).unwrap();
        let first = serde_json::json!({
            "reason": "other", "protocol": "udp", "destination": "0.0.0.7", "from": null, "port": 8, "uid": 1000,
            "packets": 1, "first_seconds_ago": 2.0, "last_seconds_ago": 2.0,
            "other_destinations": null, "more": false, "own": false,
        });
        let lines = json["lines"].as_array().unwrap();
        assert!(lines.contains(&first), "{json:#}");
        assert_eq!(lines[ROWS]["other_destinations"], 1);
        assert_eq!(lines[ROWS]["destination"], serde_json::Value::Null);
        assert_eq!(
            (json["omitted"].as_u64(), json["lost"].as_u64()),
            (Some(0), Some(0))
        );
        assert_eq!(json["problem"], serde_json::Value::Null);
    }

    #[test]
    fn the_longest_report_fits_a_message_between_the_halves() {
        let line = Line {
            reason: "docker-resolver".to_owned(),
            protocol: "ether-88b5".to_owned(),
            destination: Some("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap()),
            from: None,
            port: Some(u16::MAX),
            uid: Some(u32::MAX),
            packets: u64::MAX,
            first_seconds_ago: 1.0 / 3.0 * 1e8,
            last_seconds_ago: 1.0 / 3.0 * 1e8,
            other_destinations: Some(u64::MAX),
            more: false,
            own: false,
        };
        let report = Report {
            problem: None,
            omitted: u64::MAX,
            lost: u64::MAX,
            lines: vec![line; MOST_LINES],
        };
        let bytes = serde_json::to_vec(&report).unwrap();
        assert!(bytes.len() < 60_000, "{}", bytes.len());
    }

    proptest! {
        #[test]
        fn every_packet_is_in_one_line(
            packets in prop::collection::vec((0..4_u32, 0..40_u32, 0..200_u32), 0..600)
        ) {
            let mut stopped = Stopped::default();
            for (number, (uid, host, spread)) in packets.iter().enumerate() {
                let uid = if *spread == 0 { number as u32 } else { *uid };
                stopped.note(group(Protocol::Udp, Some(uid)), to(*host, 1), at(number as u64));
            }
            let report = stopped.report(at(1000));
            let shown: u64 = report.lines.iter().map(|line| line.packets).sum();
            prop_assert_eq!(shown + report.omitted, packets.len() as u64);
        }
    }
}
