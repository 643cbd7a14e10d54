//! The table of `vpngw doctor`: pure.

use super::{Finding, Layout, Outcome, Report};
use crate::commands::exit::Code;
use crate::control::api::printable;

impl Report {
    /// Puts the findings together.
    pub(super) fn of(topology: Layout, kernel: &str, checks: Vec<Finding>) -> Self {
        let worst = checks.iter().map(|it| it.outcome).max();
        Self {
            verdict: worst.unwrap_or(Outcome::Unknown),
            topology,
            kernel: kernel.to_owned(),
            checks,
        }
    }

    /// What the shell is told.
    pub(super) fn code(&self) -> Code {
        match self.verdict {
            Outcome::Holds | Outcome::Hint => Code::Ok,
            Outcome::Unknown | Outcome::DoesNotHold => Code::NotConnected,
        }
    }

    /// The page for a person.
    pub(super) fn page(&self) -> String {
        let topology = match self.topology {
            Layout::Shared => "shared",
            Layout::Sealed => "sealed",
            Layout::SealedEngine => "sealed, the engine's side",
            Layout::NoGateway => "none: no gateway here",
        };
        let mut page = format!("topology: {topology}\nkernel: Linux {}\n\n", self.kernel);
        let width = self.checks.iter().map(|it| it.check.len()).max();
        let width = width.unwrap_or_default();
        for finding in &self.checks {
            let (word, advice) = match finding.outcome {
                Outcome::Holds => ("holds", "better"),
                Outcome::Hint => ("hint", "better"),
                Outcome::Unknown => ("UNKNOWN", "to know"),
                Outcome::DoesNotHold => ("DOES NOT HOLD", "change"),
            };
            let (check, why) = (finding.check, printable(&finding.why));
            page += &format!("{word:<13}  {check:<width$}  {why}\n");
            if let Some(change) = &finding.change {
                let change = printable(change);
                page += &format!("{:<13}  {:<width$}  {advice}: {change}\n", "", "");
            }
        }
        page + "\n" + &self.summary() + "\n"
    }

    fn summary(&self) -> String {
        let count = |outcome| {
            self.checks
                .iter()
                .filter(|it| it.outcome == outcome)
                .count()
        };
        let (holds, hints) = (count(Outcome::Holds), count(Outcome::Hint));
        let (unknown, not) = (count(Outcome::Unknown), count(Outcome::DoesNotHold));
        let words = match self.verdict {
            Outcome::Holds | Outcome::Hint => "ALL HOLDS",
            Outcome::Unknown => "NOT ALL IS KNOWN",
            Outcome::DoesNotHold => "NOT ALL HOLDS",
        };
        format!("{words}. Holds: {holds}; does not: {not}; unknown: {unknown}; hints: {hints}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcomes: &[Outcome]) -> Report {
        let finding = |outcome: &Outcome| Finding {
            check: "check",
            outcome: *outcome,
            why: "because".to_owned(),
            change: None,
        };
        Report::of(
            Layout::Shared,
            "6.12.0",
            outcomes.iter().map(finding).collect(),
        )
    }

    #[test]
    fn only_what_holds_is_a_success() {
        use Outcome::{DoesNotHold, Hint, Holds, Unknown};
        assert_eq!(report(&[Holds, Hint]).code(), Code::Ok);
        for (outcomes, verdict) in [
            (&[Holds, Unknown][..], Unknown),
            (&[DoesNotHold, Unknown, Holds], DoesNotHold),
            (&[], Unknown),
        ] {
            let report = report(outcomes);
            assert_eq!(
                (report.verdict, report.code()),
                (verdict, Code::NotConnected)
            );
        }
    }

    #[test]
    fn a_process_cannot_control_the_terminal_by_its_name() {
        let mut report = report(&[Outcome::DoesNotHold]);
        report.checks[0].why = "\x1b]0;owned\x07\nholds".to_owned();
        assert!(!report.page().contains(['\x1b', '\x07']));
        assert!(!report.page().contains("\nholds"));
    }
}
