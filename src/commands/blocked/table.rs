//! The table of `vpngw blocked`: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::commands::units::{count, duration};
use crate::config::Inbound;
use crate::control::api::{Line, Report, printable};

/// Names of users by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Users(BTreeMap<u32, String>);

impl Users {
    /// Reads the text of `/etc/passwd` (passwd(5)). A line that cannot be read names nobody.
    pub(super) fn parse(text: &str) -> Self {
        let mut names = BTreeMap::new();
        for line in text.lines() {
            let mut fields = line.split(':');
            let (name, uid) = (fields.next(), fields.nth(1).map(str::parse));
            if let (Some(name), Some(Ok(uid))) = (name, uid) {
                // Of several names for one number the first is the usual one.
                names.entry(uid).or_insert_with(|| printable(name));
            }
        }
        Self(names)
    }

    fn name(&self, uid: Option<u32>) -> String {
        match uid {
            None => "the kernel".to_owned(),
            Some(uid) => match self.0.get(&uid) {
                Some(name) => name.clone(),
                None => format!("uid {uid}"),
            },
        }
    }
}

/// What was stopped, for a person.
pub(super) fn table(report: &Report, users: &Users) -> String {
    let mut text = String::new();
    if let Some(problem) = &report.problem {
        text += &format!(
            "What is stopped is counted, but not looked at: {}.\n",
            printable(problem)
        );
    }
    if report.lines.is_empty() {
        if report.problem.is_none() {
            text += "Nothing was stopped since the gateway started.\n";
        }
    } else {
        text += &aligned(&rows(&report.lines, users));
    }
    text += &notes(report);
    text
}

/// The word of [`Reason::Inbound`](crate::policy::Reason::Inbound).
const INBOUND: &str = "inbound";

/// Clients whose line is printed.
const ADVICE: usize = 3;

const HEAD: [&str; 5] = ["LAST SEEN", "PACKETS", "WHO", "WHAT", "WHY"];

fn rows(lines: &[Line], users: &Users) -> Vec<[String; 5]> {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(lines.iter().map(|line| {
        [
            ago(line.last_seconds_ago),
            count(line.packets),
            who(line, users),
            what(line),
            reason(line),
        ]
    }));
    rows
}

fn who(line: &Line, users: &Users) -> String {
    if line.own {
        "vpngw".to_owned()
    } else if line.reason == INBOUND {
        "a client".to_owned()
    } else {
        users.name(line.uid)
    }
}

/// Columns two spaces apart; the number of packets is set to the right.
fn aligned(rows: &[[String; 5]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let [a, b, c, d] = [0, 1, 2, 3].map(|column| width(column).unwrap_or_default());
    let line = |[when, packets, who, what, why]: &[String; 5]| {
        format!("{when:<a$}  {packets:>b$}  {who:<c$}  {what:<d$}  {why}\n")
    };
    rows.iter().map(line).collect()
}

fn ago(seconds: f64) -> String {
    if seconds < 1.0 {
        "now".to_owned()
    } else {
        format!("{} ago", duration(seconds))
    }
}

/// `udp 203.0.113.9:53`, or `udp to 4,213 others`.
fn what(line: &Line) -> String {
    let protocol = protocol(&line.protocol);
    if line.reason == INBOUND {
        return came(line, &protocol);
    }
    match (line.other_destinations, line.destination, line.port) {
        (Some(others), _, _) => {
            let over = if line.more { "over " } else { "" };
            let s = if others == 1 && !line.more { "" } else { "s" };
            format!("{protocol} to {over}{} other{s}", count(others))
        }
        (None, Some(IpAddr::V6(ip)), Some(port)) => format!("{protocol} [{ip}]:{port}"),
        (None, Some(ip), Some(port)) => format!("{protocol} {ip}:{port}"),
        (None, Some(ip), None) => format!("{protocol} {ip}"),
        (None, None, _) => protocol,
    }
}

/// `172.30.0.50 to tcp/8080`, or `tcp of 12 others`.
fn came(line: &Line, protocol: &str) -> String {
    match (line.other_destinations, line.from, line.port) {
        (Some(others), _, _) => {
            let over = if line.more { "over " } else { "" };
            format!("{protocol} of {over}{} others", count(others))
        }
        (None, Some(client), Some(port)) => format!("{client} to {protocol}/{port}"),
        (None, _, _) => format!("{protocol} to here"),
    }
}

/// `ether-88b5` and `ip-47` as words.
fn protocol(word: &str) -> String {
    match word.split_once('-') {
        Some(("ether", kind)) => format!("frame of EtherType 0x{}", printable(kind)),
        Some(("ip", number)) => format!("IP protocol {}", printable(number)),
        Some(_) | None => printable(word),
    }
}

/// Why it was stopped; or, of what the gateway tries itself, why it was sent.
fn reason(line: &Line) -> String {
    if line.own {
        "its own check".to_owned()
    } else {
        why(&line.reason)
    }
}

/// The rule's word, as a person would say it; short, so that a line fits 80 columns. `vpngw explain` has more.
fn why(reason: &str) -> String {
    let words = match reason {
        "ipv6" => "IPv6 is off",
        "docker-resolver" => "Docker's resolver",
        "multicast" => "multicast, broadcast",
        "metadata" => "cloud metadata",
        "dns" => "not the tunnel's DNS",
        "private" => "private address",
        "port-mapping" => "opens a router's port",
        INBOUND => "no [lan] inbound",
        "raw" => "raw frame",
        "other" => "nothing permits it",
        // Of a newer gateway.
        other => return printable(other),
    };
    words.to_owned()
}

/// How the clients that were refused last would be let in.
fn advice(report: &Report) -> String {
    let rules = report.lines.iter().filter_map(|line| {
        let Some(IpAddr::V4(client)) = line.from else {
            return None;
        };
        let port = format!("{}/{}", line.protocol, line.port?);
        Inbound::new(client.into(), port.parse().ok()?).ok()
    });
    let rules: Vec<_> = rules.take(ADVICE).collect();
    if rules.is_empty() {
        return String::new();
    }
    let mut text = "To let a client in, add its line to vpngw.toml below [lan], or set the variable; sealed, at \
        both services:\n"
        .to_owned();
    for rule in rules {
        text += &format!("  {}\n  {}\n", rule.line(), rule.variable());
    }
    text
}

fn notes(report: &Report) -> String {
    let mut text = advice(report);
    let notes = [
        (
            report.omitted,
            "more packets are not listed: too many lines",
        ),
        (report.lost, "more packets came too fast to be looked at"),
    ];
    for (number, what) in notes {
        if number > 0 {
            text += &format!("{} {what}; the metrics count them.\n", count(number));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::example;

    fn users() -> Users {
        Users::parse("root:x:0:0:root:/root:/bin/sh\nbroken\ntorrent:x:1000:1000::/:/bin/false\n")
    }

    #[test]
    fn a_person_reads_who_tried_what_and_why_it_was_stopped() {
        insta::assert_snapshot!(table(&example::stopped(), &users()), @r#"
        LAST SEEN       PACKETS  WHO         WHAT                       WHY
        now                   2  torrent     udp 203.0.113.9:6881       nothing permits it
        40 min ago        9,731  torrent     udp to 4,213 others        nothing permits it
        1 s ago               4  torrent     tcp 198.51.100.77:22       nothing permits it
        3 s ago              12  uid 1001    udp 8.8.8.8:53             not the tunnel's DNS
        5 s ago              20  vpngw       udp 192.0.2.1:9            its own check
        7 s ago              30  the kernel  icmpv6 ff02::2             IPv6 is off
        7 s ago              31  torrent     tcp [2001:db8::9]:443      IPv6 is off
        10 s ago             40  a client    172.30.0.50 to tcp/8080    no [lan] inbound
        1 min 40 s ago      400  root        frame of EtherType 0x88b5  raw frame
        To let a client in, add its line to vpngw.toml below [lan], or set the variable; sealed, at both services:
          inbound = [{ from = "172.30.0.50/32", to = "tcp/8080" }]
          VPNGW_LAN_INBOUND=172.30.0.50/32=tcp/8080
        1,208 more packets came too fast to be looked at; the metrics count them.
        "#);
    }

    #[test]
    fn nothing_and_could_not_tell_are_two_things() {
        let nothing = table(&Report::default(), &users());
        assert!(nothing.starts_with("Nothing"), "{nothing}");
        let blind = Report {
            problem: Some("a module is missing\x1b[2J".to_owned()),
            ..Report::default()
        };
        let blind = table(&blind, &users());
        assert!(
            !blind.contains("Nothing") && blind.contains("module"),
            "{blind}"
        );
        assert!(!blind.contains('\x1b'));
    }

    #[test]
    fn a_user_has_a_name_a_number_or_is_the_kernel() {
        let users = users();
        let names = [Some(1000), Some(1001), None].map(|uid| users.name(uid));
        assert_eq!(names, ["torrent", "uid 1001", "the kernel"]);
    }
}
