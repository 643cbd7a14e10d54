//! What was stopped, as a person or a program is told. Pure.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Lines of a report, which has to fit a message between the two halves (64 KiB) at 350 bytes a line.
pub const MOST_LINES: usize = 160;

/// What was stopped, as the control API says it. Fields are only ever added.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Why stopped packets are not looked at, if they are not. Then `lines` says nothing.
    pub problem: Option<String>,
    /// Packets of lines that are not here: too many lines, or forgotten since.
    pub omitted: u64,
    /// Packets that came faster than they were looked at. The metrics count them, no line does.
    pub lost: u64,
    /// Groups with the latest first, and in each its destinations in the same order.
    pub lines: Vec<Line>,
}

/// Packets stopped for one reason, of one protocol, user and destination; or the rest of their kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The word of the rule that stopped them.
    pub reason: String,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `arp`, `ip-47`, `ether-88b5`.
    pub protocol: String,
    /// Where they were going; none of what came from outside.
    pub destination: Option<IpAddr>,
    /// From whom, of what came from outside (`inbound`).
    #[serde(default)]
    pub from: Option<IpAddr>,
    /// The destination port, of TCP and UDP; the port here, of what came from outside.
    pub port: Option<u16>,
    /// Who sent them, where the kernel knows.
    pub uid: Option<u32>,
    /// How many.
    pub packets: u64,
    /// Seconds since the first one.
    pub first_seconds_ago: f64,
    /// Seconds since the last one.
    pub last_seconds_ago: f64,
    /// How many destinations this line stands for, if it is not one: all others of this reason,
    /// protocol and user. Of what came from outside: how many clients and ports.
    pub other_destinations: Option<u64>,
    /// Whether there were more than could be remembered.
    pub more: bool,
    /// Whether the gateway itself sent them: it tries a way out once a minute, to prove that it is closed.
    #[serde(default)]
    pub own: bool,
}

impl Report {
    /// Both in one. Lines of one group stay together, and the group with the latest packet comes first.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        let key = |line: &Line| {
            let (reason, protocol) = (line.reason.clone(), line.protocol.clone());
            (reason, protocol, line.uid, line.own)
        };
        let (ours, theirs) = (self.lines, other.lines);
        let all = ours.chunk_by(|a, b| key(a) == key(b));
        let all = all.chain(theirs.chunk_by(|a, b| key(a) == key(b)));
        let mut groups: Vec<_> = all.map(<[Line]>::to_vec).collect();
        // The sort is stable.
        groups.sort_by(|a, b| latest(a).total_cmp(&latest(b)));
        self.lines = groups.concat();
        let hidden = self.lines.split_off(self.lines.len().min(MOST_LINES));
        self.omitted += other.omitted + hidden.iter().map(|line| line.packets).sum::<u64>();
        self.lost += other.lost;
        self.problem = self.problem.or(other.problem);
        self
    }
}

fn latest(group: &[Line]) -> f64 {
    let ago = group.iter().map(|line| line.last_seconds_ago);
    ago.fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[(&str, f64)]) -> Report {
        let line = |(protocol, ago): &(&str, f64)| Line {
            reason: "other".to_owned(),
            protocol: (*protocol).to_owned(),
            destination: None,
            from: None,
            port: None,
            uid: None,
            packets: 1,
            first_seconds_ago: *ago,
            last_seconds_ago: *ago,
            other_destinations: None,
            more: false,
            own: false,
        };
        Report {
            lines: lines.iter().map(line).collect(),
            ..Report::default()
        }
    }

    #[test]
    fn two_reports_are_one_with_the_latest_group_first() {
        let ours = report(&[("udp", 1.0), ("udp", 9.0), ("icmp", 8.0)]);
        let joined = ours.join(report(&[("tcp", 5.0)]));
        let lines = joined.lines.iter();
        let order: Vec<_> = lines.map(|line| line.protocol.as_str()).collect();
        assert_eq!(order, ["udp", "udp", "tcp", "icmp"]);
        let long = Report {
            omitted: 1,
            ..report(&[("udp", 1.0); MOST_LINES])
        };
        let both = long.join(joined);
        assert_eq!((both.lines.len(), both.omitted), (MOST_LINES, 5));
    }
}
