//! Clients from outside that no LAN exception lets in, kept so that a person finds the one that he misses. Pure;
//! time is an argument.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::packet::{Protocol, Target};
use super::stopped::{Group, Report, Stopped};
use crate::net::lan::{Inbound, clients};
use crate::net::{Port, Transport};
use crate::policy::Reason;

/// Clients that the log may name in a second: whoever sends from many addresses must not fill it.
const MOST_SAID: u32 = 10;

/// Clients that were refused, by address and port.
#[derive(Clone, Debug, Default)]
pub struct Refused {
    kept: Stopped,
    /// The second in which the log said something last, and how much.
    said: (u64, u32),
}

impl Refused {
    /// Notes one. Returns what the log is to say of it: nothing if it has said so, or has said enough.
    pub fn note(&mut self, client: Ipv4Addr, port: Port, now: Duration) -> Option<String> {
        // A datagram from the Internet may be a late answer of a server that is in use no longer.
        if port.transport == Transport::Udp && clients(client.into()).is_err() {
            return None;
        }
        let group = Group {
            reason: Reason::Inbound,
            protocol: match port.transport {
                Transport::Tcp => Protocol::Tcp,
                Transport::Udp => Protocol::Udp,
            },
            uid: None,
            own: false,
        };
        let from = Target {
            address: Some(client.into()),
            port: Some(port.number),
        };
        let new = self.kept.note(group, from, now);
        (new && self.may_say(now)).then(|| advice(client, port))
    }

    /// What a person is told.
    pub fn report(&self, now: Duration) -> Report {
        self.kept.report(now)
    }

    fn may_say(&mut self, now: Duration) -> bool {
        let (second, said) = self.said;
        let said = if second == now.as_secs() { said + 1 } else { 1 };
        self.said = (now.as_secs(), said);
        said <= MOST_SAID
    }
}

/// The line that would let a client in, in both forms in which it can be written; or why there is none.
pub fn advice(client: Ipv4Addr, port: Port) -> String {
    match Inbound::new(client.into(), port) {
        Ok(rule) => format!(
            "to let it in: [lan] {}, or {}",
            rule.line(),
            rule.variable()
        ),
        Err(why) => format!("no exception can let it in: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Duration = Duration::from_secs(7);

    fn port(text: &str) -> Port {
        text.parse().unwrap()
    }

    #[test]
    fn the_log_says_once_which_line_would_let_a_client_in() {
        let (mut refused, client) = (Refused::default(), Ipv4Addr::new(172, 30, 0, 50));
        let said = refused.note(client, port("tcp/8080"), AT);
        insta::assert_snapshot!(
            said.unwrap(),
            @r#"to let it in: [lan] inbound = [{ from = "172.30.0.50/32", to = "tcp/8080" }], or VPNGW_LAN_INBOUND=172.30.0.50/32=tcp/8080"#
        );
        assert_eq!(refused.note(client, port("tcp/8080"), AT), None);
        let line = &refused.report(AT).lines[0];
        assert_eq!((line.from, line.destination), (Some(client.into()), None));
        assert_eq!((line.port, line.packets), (Some(8080), 2));
        assert_eq!(line.reason, "inbound");
    }

    #[test]
    fn a_host_of_the_internet_has_no_line_and_its_datagrams_are_no_news() {
        let (mut refused, client) = (Refused::default(), Ipv4Addr::new(203, 0, 113, 7));
        assert_eq!(refused.note(client, port("udp/40000"), AT), None);
        assert_eq!(refused.report(AT).lines.len(), 0);
        let said = refused.note(client, port("tcp/22"), AT);
        insta::assert_snapshot!(said.unwrap(), @"no exception can let it in: `203.0.113.7` is not on a private network");
    }

    #[test]
    fn whoever_sends_from_many_addresses_does_not_fill_the_log() {
        let mut refused = Refused::default();
        let mut say = |second| {
            let all = (0..1000_u32).map(|n| Ipv4Addr::from(0xac1e_0000 + n));
            let now = Duration::from_secs(second);
            let said = all.filter_map(|client| refused.note(client, port("tcp/22"), now));
            said.count()
        };
        assert_eq!((say(1), say(2)), (10, 10));
        let report = refused.report(AT);
        let all: u64 = report.lines.iter().map(|line| line.packets).sum();
        assert_eq!(all + report.omitted, 2000);
    }
}
