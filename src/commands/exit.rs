//! Every exit code of the program, in one place.

use std::process::{ExitCode, Termination};

use crate::control::api::{State, Status};
use crate::gateway::BlockReason;

/// What the program tells the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Connected; or the command did what it says.
    Ok = 0,
    /// Not connected, or no gateway is running.
    NotConnected = 1,
    /// The command line or the configuration is wrong; clap uses the same number.
    Usage = 2,
    /// Blocked, because something left outside the tunnel.
    Leak = 3,
    /// Blocked for another reason.
    Blocked = 4,
}

impl From<&Status> for Code {
    fn from(status: &Status) -> Self {
        match status.state {
            State::Connected if status.ready() => Self::Ok,
            State::Connected | State::Arming | State::Connecting => Self::NotConnected,
            State::Blocked => match status.blocked_by {
                Some(BlockReason::Leak(_)) => Self::Leak,
                Some(BlockReason::Operator | BlockReason::Ruleset(_) | BlockReason::Stopping)
                | None => Self::Blocked,
            },
        }
    }
}

impl Termination for Code {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

/// Why a command ends early, and the code for it.
#[derive(Debug)]
pub struct Failure {
    /// What the shell is told.
    pub code: Code,
    /// What the person is told.
    pub error: anyhow::Error,
}

impl Failure {
    /// The command line or the configuration is wrong.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self {
            code: Code::Usage,
            error: error.into(),
        }
    }
}

/// Whatever else stops a command leaves no connected gateway behind that it could vouch for.
impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            code: Code::NotConnected,
            error: error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::example;

    #[test]
    fn the_numbers_are_promised() {
        let codes = [
            Code::Ok,
            Code::NotConnected,
            Code::Usage,
            Code::Leak,
            Code::Blocked,
        ];
        assert_eq!(codes.map(|code| code as u8), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn connected_is_the_only_success() {
        assert_eq!(Code::from(&example::connected()), Code::Ok);
        assert_eq!(Code::from(&example::connecting()), Code::NotConnected);
        assert_eq!(Code::from(&example::arming()), Code::NotConnected);
    }

    #[test]
    fn connected_without_confirmed_rules_is_no_success() {
        let mut status = example::connected();
        status.kill_switch.armed = false;
        assert_eq!(Code::from(&status), Code::NotConnected);
    }

    #[test]
    fn a_leak_is_told_apart_from_other_blocks() {
        assert_eq!(Code::from(&example::blocked_by_leak()), Code::Leak);
        let mut status = example::blocked_by_operator();
        for reason in [
            Some(BlockReason::Operator),
            Some(BlockReason::Ruleset(String::new())),
            Some(BlockReason::Stopping),
            None,
        ] {
            status.blocked_by = reason;
            assert_eq!(Code::from(&status), Code::Blocked);
        }
    }

    #[test]
    fn a_failure_is_not_connected_unless_it_is_usage() {
        let error = || std::io::Error::other("no");
        assert_eq!(Failure::from(error()).code, Code::NotConnected);
        assert_eq!(Failure::usage(error()).code, Code::Usage);
    }
}
