//! What becomes of a variable.

use super::variable::switch;

/// What becomes of a variable. Texts are those that people read.
pub(super) enum Fate {
    /// It sets this key of vpngw.toml, or does what this says.
    Followed(&'static str),
    /// Something of it is said where it is read; this is for the table.
    Answered(&'static str),
    /// It has nothing to do here, because of this.
    Needless(&'static str),
    /// It only changes how another one works, which is not done either.
    PartOf(&'static str),
    /// What is wrong with it, and what to do instead.
    NotDone(Idle, &'static str, &'static str),
}

/// Which values ask for nothing: gluetun's default, and what switches something off that is not here.
pub(super) enum Idle {
    /// Every word for "off", and these.
    Off(&'static [&'static str]),
    /// Every word for "on", and these.
    On(&'static [&'static str]),
}

/// A variable: its name, those that it had before, which are still read, and what becomes of it.
pub(super) struct Row {
    pub(super) names: &'static [&'static str],
    pub(super) fate: Fate,
}

pub(super) const fn row(names: &'static [&'static str], fate: Fate) -> Row {
    Row { names, fate }
}

impl Idle {
    /// Whether this value asks for nothing.
    pub(super) fn is(&self, value: &str) -> bool {
        let (word, others) = match self {
            Self::Off(others) => (false, others),
            Self::On(others) => (true, others),
        };
        switch(value) == Some(word) || others.iter().any(|other| value.eq_ignore_ascii_case(other))
    }
}
