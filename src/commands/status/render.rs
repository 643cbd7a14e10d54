//! The page of `vpngw status`: pure, at most 80 columns wide.

use std::collections::{BTreeMap, BTreeSet};

use crate::commands::units::{bytes, count, duration, rate};
use crate::config::{Inbound, Offload};
use crate::control::api::{
    Dns, Ipv6, KillSwitch, Lan, Leaks, Served, State, Status, Topology, Tunnel, Unheard, printable,
};
use crate::gateway::BlockReason;
use crate::net::Port;
use crate::ruleset::Lack;

/// Whether the text may hold colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Text only.
    Plain,
    /// SGR sequences (ECMA-48, 8.3.117) around words that matter.
    Coloured,
}

/// Says what the gateway is doing, for a person.
pub(super) fn render(status: &Status, style: Style) -> String {
    let mut page = Page {
        text: String::new(),
        style,
    };
    headline(&mut page, status);
    page.gap();
    connection(&mut page, status);
    page.gap();
    if status.topology == Topology::Sealed {
        page.row("topology", "sealed: programs have no uplink", Tone::Plain);
    }
    kill_switch(&mut page, &status.kill_switch, status.state);
    leaks(&mut page, status);
    page.gap();
    lan(&mut page, &status.lan, status.state);
    tunnel(&mut page, &status.tunnel, status.state);
    dns(&mut page, &status.dns);
    if status.kill_switch.armed {
        ipv6(&mut page, status.ipv6);
    }
    unheard(&mut page, &status.unheard);
    if is_amiss(status) {
        page.gap();
        let next = "`vpngw doctor` says what does not hold, why, and what to change";
        page.block("  ", 2, next, Tone::Faint);
    }
    page.text
}

/// Whether there is something that a person could change, other than the connection.
fn is_amiss(status: &Status) -> bool {
    let rules = &status.kill_switch;
    let watch = status.topology == Topology::Shared && !status.leaks.watched;
    rules.unconfirmed_seconds.is_some()
        || rules.armed
            && (!rules.raw_frames
                || !rules.lacks.is_empty()
                || watch
                || status.leaks.not_accounted.is_some()
                || status.dns.problem.is_some())
}

fn unheard(page: &mut Page, unheard: &[Unheard]) {
    for Unheard { what, why } in unheard {
        let label = match what {
            Served::Control => "control",
            Served::Wg => "wg show",
            Served::Metrics => "metrics",
        };
        let text = format!("not served, tried again each second: {why}");
        page.row(label, &text, Tone::Wait);
    }
}

/// What is shown in the place of a page when nothing answers.
pub(super) fn problem(text: &str, style: Style) -> String {
    let mut page = Page {
        text: String::new(),
        style,
    };
    page.block("", 0, text, Tone::Bad);
    page.text
}

fn headline(page: &mut Page, status: &Status) {
    let tone = match status.state {
        State::Connected if status.ready() => Tone::Good,
        State::Connected | State::Arming | State::Connecting => Tone::Wait,
        State::Blocked => Tone::Bad,
    };
    let word = page.paint(&format!("● {}", status.state), tone);
    let since = match status.since.split_once('T') {
        Some((day, time)) => format!("{day} {} UTC", time.trim_end_matches('Z')),
        None => status.since.clone(),
    };
    let when = format!("for {}, since {since}", duration(status.since_seconds));
    let when = page.paint(&printable(&when), Tone::Faint);
    page.text += &format!("{word}  {when}\n");
    if !status.reason.is_empty() {
        page.block("  ", 2, &status.reason, Tone::Plain);
    }
    if status.state == State::Blocked && status.blocked_by != Some(BlockReason::Stopping) {
        let next = "nothing but loopback passes until `vpngw connect`";
        page.block("  ", 2, next, Tone::Faint);
    }
}

fn connection(page: &mut Page, status: &Status) {
    let server = match (&status.peer, status.endpoint) {
        (Some(peer), Some(endpoint)) => format!("{peer} at {endpoint}"),
        (Some(peer), None) => format!("{peer}, address not known yet"),
        (None, Some(endpoint)) => endpoint.to_string(),
        (None, None) => "none yet".to_owned(),
    };
    page.row("server", &server, Tone::Plain);
    match status.handshake_age_seconds {
        Some(age) if age < STALE => {
            page.row("handshake", &format!("{} ago", duration(age)), Tone::Plain);
        }
        Some(age) => page.row("handshake", &format!("{} ago", duration(age)), Tone::Wait),
        None => page.row("handshake", "none", Tone::Plain),
    }
    let flow = |arrow, total, speed| format!("{arrow} {:>11}  {:>9}", rate(speed), bytes(total));
    let down = flow('↓', status.rx_bytes, status.rx_bits_per_second);
    let up = flow('↑', status.tx_bytes, status.tx_bits_per_second);
    page.row("traffic", &down, Tone::Plain);
    page.row("", &up, Tone::Plain);
}

/// Seconds after which a session is rejected (`REJECT_AFTER_TIME`, WireGuard paper, section 6.1).
const STALE: f64 = 180.0;

fn kill_switch(page: &mut Page, kill: &KillSwitch, state: State) {
    let since = format!("armed {} µs after start", count(kill.armed_in_microseconds));
    match (kill.armed, kill.raw_frames) {
        (true, _) if kill.lacks.contains(&Lack::Rules) => {
            let text = "no rules (no nf_tables): only the sealed namespace holds";
            page.row("kill switch", text, Tone::Wait);
        }
        (true, true) => page.row("kill switch", &(since + ", raw frames too"), Tone::Good),
        (true, false) => {
            let text = since + "; raw frames pass (Linux < 5.16)";
            page.row("kill switch", &text, Tone::Wait);
        }
        (false, _) if state == State::Arming => {
            page.row("kill switch", "not confirmed yet", Tone::Wait);
        }
        (false, _) => {
            let text = match kill.unconfirmed_seconds {
                Some(age) => format!("NOT CONFIRMED: the warden has been silent for {age:.0} s"),
                None => "NOT CONFIRMED".to_owned(),
            };
            page.row("kill switch", &text, Tone::Bad);
        }
    }
    for lack in &kill.lacks {
        match lack {
            // Said above.
            Lack::Rules | Lack::EgressHook => {}
            Lack::Log => page.row("", "what is stopped is not heard: no nft_log", Tone::Wait),
            Lack::Reject => {
                let text = "what is stopped is not answered: no nft_reject_inet";
                page.row("", text, Tone::Wait);
            }
        }
    }
    let total = match kill.blocked_packets {
        0 => "nothing yet".to_owned(),
        1 => "1 packet".to_owned(),
        packets => format!("{} packets", count(packets)),
    };
    page.row("stopped", &total, Tone::Plain);
    let mut reasons: Vec<_> = kill.blocked_by_reason.iter().collect();
    reasons.retain(|(_, packets)| **packets > 0);
    reasons.sort_by_key(|(_, packets)| std::cmp::Reverse(**packets));
    reasons.truncate(3);
    let width = reasons.first().map_or(0, |(_, n)| count(**n).len());
    for (reason, packets) in reasons {
        page.row(
            "",
            &format!("{:>width$} {reason}", count(*packets)),
            Tone::Faint,
        );
    }
}

fn leaks(page: &mut Page, status: &Status) {
    let Leaks {
        watched,
        detected,
        last,
        not_accounted,
        found,
        ..
    } = &status.leaks;
    let seen = format!("{} seen", count(*detected));
    match (detected, last) {
        (0, _) if !watched => {
            page.row("leaks", "not watched: CAP_NET_RAW is missing", Tone::Wait);
        }
        (0, _) if status.kill_switch.armed => page.row("leaks", "none seen", Tone::Good),
        (0, _) => page.row("leaks", "none seen", Tone::Plain),
        // Said at the top already.
        (_, Some(last)) if status.reason.contains(last) => page.row("leaks", &seen, Tone::Bad),
        (_, Some(last)) => page.row("leaks", &format!("{seen}; last: {last}"), Tone::Bad),
        (_, None) => page.row("leaks", &seen, Tone::Bad),
    }
    if let Some(why) = not_accounted {
        page.row(
            "",
            &format!("what was sent is not counted: {why}"),
            Tone::Faint,
        );
    }
    let undone = found.iter().filter(|it| !it.leaked).map(|it| it.count);
    let undone: u64 = undone.sum();
    if undone > 0 {
        let changes = format!("{} by other programs, see `vpngw leaks`", count(undone));
        page.row("undone", &changes, Tone::Wait);
    }
}

fn lan(page: &mut Page, lan: &Lan, state: State) {
    let inbound = by_port(&lan.inbound);
    let outbound = lan
        .outbound
        .iter()
        .map(|rule| (rule.to().to_string(), rule.port()));
    let inbound: Vec<_> = inbound
        .into_iter()
        .map(|(from, port)| format!("{from:<18} → {port} here"))
        .collect();
    let outbound: Vec<_> = outbound
        .map(|(to, port)| format!("{:<18} → {to} {port}", "here"))
        .collect();
    let heading = "LAN";
    if inbound.is_empty() && outbound.is_empty() {
        return page.row(heading, "no exceptions", Tone::Plain);
    }
    if state == State::Blocked {
        return page.row(heading, "exceptions closed while blocked", Tone::Plain);
    }
    let mut label = heading;
    for rules in [inbound, outbound] {
        // All that there are, or the first two and how many there are besides.
        let shown = if rules.len() > 3 { 2 } else { rules.len() };
        for rule in &rules[..shown] {
            page.row(std::mem::take(&mut label), rule, Tone::Plain);
        }
        if shown < rules.len() {
            let more = format!("and {} more: see --json", rules.len() - shown);
            page.row("", &more, Tone::Faint);
        }
    }
}

/// Who may reach which port. What `private` stands for is many networks, and one line.
fn by_port(inbound: &[Inbound]) -> Vec<(String, Port)> {
    let mut counts: BTreeMap<Port, usize> = BTreeMap::new();
    for rule in inbound {
        *counts.entry(rule.to()).or_default() += 1;
    }
    let mut said = BTreeSet::new();
    let lines = inbound.iter().map(|rule| {
        let line = match counts.get(&rule.to()) {
            Some(count) if *count > 3 => format!("{count} networks"),
            Some(_) | None => rule.from().to_string(),
        };
        (line, rule.to())
    });
    lines.filter(|line| said.insert(line.clone())).collect()
}

fn tunnel(page: &mut Page, tunnel: &Tunnel, state: State) {
    let offload = match tunnel.offload {
        Offload::Auto => "",
        Offload::Off => ", no offloads",
    };
    let addresses = list(&tunnel.address);
    let text = format!("{} {addresses}, MTU {}{offload}", tunnel.device, tunnel.mtu);
    page.row("tunnel", &text, Tone::Plain);
    if !tunnel.forward.is_empty() && state != State::Blocked {
        let ports = format!("{} (TCP and UDP)", list(&tunnel.forward));
        page.row("open ports", &ports, Tone::Plain);
    }
}

fn dns(page: &mut Page, dns: &Dns) {
    let servers = match dns.servers.as_slice() {
        [] => "no resolver: no name resolves".to_owned(),
        servers => format!("{} through the tunnel", list(servers)),
    };
    match (&dns.problem, dns.resolv_conf) {
        (None, true) => page.row("DNS", &servers, Tone::Plain),
        (None, false) => {
            let text = format!("{servers}; /etc/resolv.conf does not name it yet");
            page.row("DNS", &text, Tone::Wait);
        }
        (Some(problem), _) => page.row("DNS", &format!("{servers}; {problem}"), Tone::Wait),
    }
}

fn ipv6(page: &mut Page, ipv6: Ipv6) {
    match ipv6 {
        Ipv6::Off => page.row("IPv6", "off, and dropped", Tone::Plain),
        Ipv6::Dropped => page.row("IPv6", "dropped; could not be switched off", Tone::Plain),
        Ipv6::Unknown => page.row("IPv6", "dropped; not known whether it is off", Tone::Wait),
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(T::to_string).collect();
    items.join(", ")
}

/// How a word is meant.
#[derive(Clone, Copy)]
enum Tone {
    Plain,
    Faint,
    Good,
    Wait,
    Bad,
}

/// Columns of a page.
const WIDTH: usize = 80;

/// Columns before a value.
const VALUE: usize = 15;

struct Page {
    text: String,
    style: Style,
}

impl Page {
    fn gap(&mut self) {
        self.text.push('\n');
    }

    fn row(&mut self, label: &str, value: &str, tone: Tone) {
        let label = format!("  {label:<width$}", width = VALUE - 2);
        let label = self.paint(&label, Tone::Faint);
        self.block(&label, VALUE, value, tone);
    }

    /// Wraps text at word ends; the first line follows `lead`, the others are indented.
    fn block(&mut self, lead: &str, indent: usize, text: &str, tone: Tone) {
        let mut lead = lead.to_owned();
        for line in wrap(&printable(text), WIDTH - indent) {
            self.text += &format!("{lead}{}\n", self.paint(&line, tone));
            lead = " ".repeat(indent);
        }
    }

    fn paint(&self, text: &str, tone: Tone) -> String {
        let code = match (self.style, tone) {
            (Style::Plain, _) | (_, Tone::Plain) => return text.to_owned(),
            (Style::Coloured, Tone::Faint) => "2",
            (Style::Coloured, Tone::Good) => "32",
            (Style::Coloured, Tone::Wait) => "33",
            (Style::Coloured, Tone::Bad) => "1;31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Lines of at most `width` characters, broken at spaces where there are any. Never empty.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest: Vec<char> = text.chars().collect();
    while rest.len() > width {
        let space = rest[..=width].iter().rposition(|c| *c == ' ');
        let end = space.filter(|end| *end > 0).unwrap_or(width);
        lines.push(rest[..end].iter().collect());
        rest.drain(..end);
        if rest.first() == Some(&' ') {
            rest.remove(0);
        }
    }
    lines.push(rest.into_iter().collect());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::example;
    use insta::assert_snapshot;

    #[test]
    fn connected() {
        assert_snapshot!(render(&example::connected(), Style::Plain));
    }

    #[test]
    fn connecting() {
        assert_snapshot!(render(&example::connecting(), Style::Plain));
    }

    #[test]
    fn arming() {
        assert_snapshot!(render(&example::arming(), Style::Plain));
    }

    #[test]
    fn blocked_by_an_operator() {
        assert_snapshot!(render(&example::blocked_by_operator(), Style::Plain));
    }

    #[test]
    fn blocked_by_a_leak() {
        assert_snapshot!(render(&example::blocked_by_leak(), Style::Plain));
    }

    #[test]
    fn many_networks_of_one_port_are_one_line() {
        let networks = [
            "10.0.0.0/10",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
        ];
        let mut all: Vec<_> = networks
            .map(|from| crate::config::example::inbound(from, "tcp/8080"))
            .to_vec();
        all.push(crate::config::example::inbound("192.168.1.7/32", "udp/1"));
        let lines: Vec<_> = by_port(&all)
            .into_iter()
            .map(|(from, to)| format!("{from} {to}"))
            .collect();
        assert_eq!(lines, ["4 networks tcp/8080", "192.168.1.7/32 udp/1"]);
    }

    #[test]
    fn a_page_fits_a_small_terminal() {
        let mut crowded = example::connected();
        crowded.lan.inbound = vec![crowded.lan.inbound[0]; 9];
        crowded.lan.outbound = vec![crowded.lan.outbound[0]; 9];
        for status in example::all().into_iter().chain([crowded]) {
            let page = render(&status, Style::Plain);
            assert!(page.lines().count() <= 26, "{page}");
            for line in page.lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
            }
        }
    }

    #[test]
    fn colours_change_no_character() {
        for status in example::all() {
            let mut coloured = render(&status, Style::Coloured);
            for code in ["0", "2", "32", "33", "1;31"] {
                coloured = coloured.replace(&format!("\x1b[{code}m"), "");
            }
            assert_eq!(coloured, render(&status, Style::Plain));
        }
    }

    #[test]
    fn nothing_from_outside_controls_the_terminal() {
        let mut status = example::blocked_by_leak();
        status.reason = "\x1b]0;owned\x07\u{9b}2J".to_owned();
        status.peer = Some("a\nb\x1b[2J".to_owned());
        status.since = "\x1b[5m".to_owned();
        status.leaks.last = Some("\r\x08".to_owned());
        let reason = ("\x1b[31m".to_owned(), u64::MAX);
        status.kill_switch.blocked_by_reason = [reason].into();
        let page = render(&status, Style::Plain);
        assert!(
            !page.chars().any(|c| c.is_control() && c != '\n'),
            "{page:?}"
        );
    }

    #[test]
    fn long_text_wraps_at_spaces_and_a_long_word_is_cut() {
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("ab cd ef", 5), ["ab cd", "ef"]);
        assert_eq!(wrap("abcdefgh", 5), ["abcde", "fgh"]);
        assert_eq!(wrap("abcde fgh", 5), ["abcde", "fgh"]);
    }
}
