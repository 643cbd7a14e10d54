//! What is wrong with a configuration, all of it at once, each with its line and what would be right.

use std::fmt;

use super::place::{At, Place, Source};

/// One thing that is wrong, or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub right: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Where nothing was given there is no place to name.
        if *self.place.source() != Source::Default {
            write!(f, "{}: ", self.place)?;
        }
        // A variable is its own key.
        let variable = Source::Variable(self.place.key().to_owned());
        if !self.place.key().is_empty() && *self.place.source() != variable {
            write!(f, "{}: ", self.place.key())?;
        }
        writeln!(f, "{}", self.wrong)?;
        f.write_str(&self.place.snippet())?;
        if self.right.is_empty() {
            return Ok(());
        }
        writeln!(f, "  = {}", self.right)
    }
}

/// Everything that is wrong with a configuration. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<Diagnostic>);

impl Errors {
    /// What is noted as errors.
    pub(super) fn of(mut notes: Notes) -> Self {
        Self(notes.drain().0)
    }

    /// Each of them, in the order of the sources and of their lines.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.0
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            let gap = if index > 0 { "\n" } else { "" };
            write!(f, "{gap}{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// What is wrong with a value and what would be right, before it is known where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) wrong: String,
    pub(super) right: String,
}

impl Problem {
    pub(super) fn new(wrong: impl Into<String>, right: impl Into<String>) -> Self {
        Self {
            wrong: wrong.into(),
            right: right.into(),
        }
    }

    fn at(self, place: &Place) -> Diagnostic {
        Diagnostic {
            place: place.clone(),
            wrong: self.wrong,
            right: self.right,
        }
    }
}

/// What was noticed so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    notices: Vec<Diagnostic>,
}

impl Notes {
    pub(super) fn error(&mut self, place: &Place, problem: Problem) {
        self.errors.push(problem.at(place));
    }

    pub(super) fn warn(&mut self, place: &Place, problem: Problem) {
        self.warnings.push(problem.at(place));
    }

    /// What was decided for the operator, and is no reason to change anything.
    pub(super) fn notice(&mut self, place: &Place, problem: Problem) {
        self.notices.push(problem.at(place));
    }

    /// Keeps the value with its place, or notes the problem.
    pub(super) fn keep<T>(&mut self, place: &Place, parsed: Result<T, Problem>) -> Option<At<T>> {
        match parsed {
            Ok(value) => Some(At {
                value,
                place: place.clone(),
            }),
            Err(problem) => {
                self.error(place, problem);
                None
            }
        }
    }

    /// The warnings and the notices, or the errors if there is one.
    pub(super) fn finish(mut self) -> Result<(Vec<Diagnostic>, Vec<Diagnostic>), Errors> {
        let notices = std::mem::take(&mut self.notices);
        let (errors, warnings) = self.drain();
        if errors.is_empty() {
            Ok((warnings, notices))
        } else {
            Err(Errors(errors))
        }
    }

    /// Errors and warnings, each sorted.
    pub(super) fn drain(&mut self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        for list in [&mut self.errors, &mut self.warnings] {
            list.sort_by(|a, b| a.place.order().cmp(&b.place.order()));
        }
        (
            std::mem::take(&mut self.errors),
            std::mem::take(&mut self.warnings),
        )
    }
}
