//! The table of `vpngw leaktest`: pure.

use super::place::Place;
use super::{Line, Outcome, Report};
use crate::commands::exit::Code;

impl Report {
    /// Puts the lines together.
    pub(super) fn of(place: &Place, watched: bool, attempts: Vec<Line>) -> Self {
        let any = |outcome| attempts.iter().any(|line| line.outcome == outcome);
        let verdict = if any(Outcome::Leaked) {
            Outcome::Leaked
        } else if any(Outcome::Unknown) {
            Outcome::Unknown
        } else if any(Outcome::NotTried) {
            Outcome::NotTried
        } else {
            Outcome::Held
        };
        let names = place.devices.iter().map(|it| it.name.to_string());
        Self {
            verdict,
            devices: names.collect(),
            watched,
            attempts,
        }
    }

    /// What the shell is told.
    pub(super) fn code(&self) -> Code {
        match self.verdict {
            Outcome::Held | Outcome::Impossible => Code::Ok,
            Outcome::Unknown | Outcome::NotTried => Code::NotConnected,
            Outcome::Leaked => Code::Leak,
        }
    }

    /// The page for a person.
    pub(super) fn page(&self, place: &Place) -> String {
        let mut page = String::new();
        let mut devices: Vec<_> = place
            .devices
            .iter()
            .map(|it| match it.address {
                Some(address) => format!("{} ({address})", it.name),
                None => it.name.to_string(),
            })
            .collect();
        if devices.is_empty() {
            devices.push("none".to_owned());
        }
        page += &format!("devices to leave by: {}\n", devices.join(", "));
        page += &match &place.tunnel {
            Some((name, Some(address))) => format!("tunnel: {name} ({address})\n\n"),
            Some((name, None)) => format!("tunnel: {name}, without an address\n\n"),
            None => "tunnel: none here\n\n".to_owned(),
        };
        let lines = self.attempts.iter();
        let width = lines.map(|line| line.what.chars().count()).max();
        let width = width.unwrap_or_default();
        for Line { what, outcome, why } in &self.attempts {
            let word = match outcome {
                Outcome::Held => "held",
                Outcome::Impossible => "not here",
                Outcome::Unknown => "UNKNOWN",
                Outcome::NotTried => "NOT TRIED",
                Outcome::Leaked => "LEAKED",
            };
            page += &format!("{word:<9} {what:<width$}  {why}\n");
        }
        page + "\n" + &self.summary() + "\n"
    }

    fn summary(&self) -> String {
        let count = |outcome| {
            self.attempts
                .iter()
                .filter(|it| it.outcome == outcome)
                .count()
        };
        let (held, leaked) = (count(Outcome::Held), count(Outcome::Leaked));
        let (impossible, unknown) = (count(Outcome::Impossible), count(Outcome::Unknown));
        let mut text = match self.verdict {
            Outcome::Held | Outcome::Impossible => format!("HELD: {held} attempts, none left."),
            Outcome::Unknown => format!("UNKNOWN: of {unknown} attempts nobody could tell."),
            Outcome::NotTried => format!("NOT ALL TRIED: {held} attempts held, none of them left."),
            Outcome::Leaked => format!("LEAKED: {leaked} attempts left outside the tunnel."),
        };
        if impossible > 0 {
            text += &format!(" {impossible} take a capability that is missing here.");
        }
        text + match (self.watched, self.devices.is_empty()) {
            (_, true) => "",
            (true, false) => " Every frame that left was looked at.",
            (false, false) => " Frames could not be watched (CAP_NET_RAW).",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::leaktest::place::Exit;

    fn report(outcomes: &[Outcome]) -> Report {
        let line = |outcome: &Outcome| Line {
            what: format!("way {outcome:?}"),
            outcome: *outcome,
            why: "because".to_owned(),
        };
        Report::of(&place(), true, outcomes.iter().map(line).collect())
    }

    fn place() -> Place {
        Place {
            devices: vec![Exit {
                name: "eth0".parse().unwrap(),
                index: 2,
                address: Some([172, 30, 0, 2].into()),
            }],
            tunnel: Some(("tun0".parse().unwrap(), Some([10, 64, 0, 2].into()))),
        }
    }

    #[test]
    fn the_worst_outcome_is_the_verdict() {
        use Outcome::{Held, Impossible, Leaked, NotTried, Unknown};
        assert_eq!(report(&[Held, Impossible]).code(), Code::Ok);
        assert_eq!(report(&[Held, Unknown]).code(), Code::NotConnected);
        assert_eq!(report(&[Held, NotTried]).code(), Code::NotConnected);
        assert_eq!(report(&[Unknown, Leaked, Held]).code(), Code::Leak);
    }

    #[test]
    fn a_person_reads_what_was_tried_and_how_it_ended() {
        let report = report(&[Outcome::Held, Outcome::Impossible]);
        insta::assert_snapshot!(report.page(&place()), @r"
        devices to leave by: eth0 (172.30.0.2)
        tunnel: tun0 (10.64.0.2)

        held      way Held        because
        not here  way Impossible  because

        HELD: 1 attempts, none left. 1 take a capability that is missing here. Every frame that left was looked at.
        ");
    }
}
