//! The vocabulary of the state machine: what happens, and what is done about it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

use crate::config::{Endpoint, Peer};
use crate::policy::Permit;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The warden has confirmed the ruleset and handed over the TUN device.
    Attached {
        /// Why the warden holds everything blocked, if it does.
        blocked: Option<BlockReason>,
    },
    /// The warden applied what we asked for, in one transaction.
    Granted(Permit),
    /// The warden refused, or the kernel did.
    Refused {
        /// What was asked for.
        permit: Permit,
        /// One line for the operator.
        why: String,
    },
    /// The name of the endpoint has these addresses, in the order to try them.
    Resolved(Vec<Ipv4Addr>),
    /// The name of the endpoint did not resolve.
    Unresolved(String),
    /// A handshake completed.
    Handshake,
    /// Handshakes have had no answer for 15 s.
    Silent,
    /// The server answers handshakes, and nothing comes back from beyond it.
    NothingReturns,
    /// After that something came back.
    Returns,
    /// A whole new configuration, already valid.
    Reconfigured(Vec<Peer>),
    /// The uplink went away, came back, or changed its address: ask for the permission again.
    UplinkChanged,
    /// The warden blocked everything by itself: a leak, or a ruleset it could not restore.
    Blocked(BlockReason),
    /// The time of [`deadline`](super::Gateway::deadline) has come.
    Timeout,
    /// The operator said so.
    Command(Command),
}

/// What an operator may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Leave `blocked`; while connecting, try again at once.
    Connect,
    /// Block until told otherwise.
    Disconnect,
}

/// What to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the warden; [`Event::Granted`] or [`Event::Refused`] answers.
    Ask(Permit),
    /// Resolve the name over the granted socket; [`Event::Resolved`] or [`Event::Unresolved`] answers.
    Resolve(Endpoint),
    /// Open the tunnel to this peer over the granted socket, replacing what was open.
    Open {
        /// Index into the configured peers.
        peer: usize,
        /// Where it is.
        address: SocketAddrV4,
        /// Whether to find out at once if anything comes back: from the server before nothing did.
        prove: bool,
    },
    /// Close the tunnel; inner packets are dropped from now on.
    Close,
}

/// Why everything but loopback is blocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockReason {
    /// `vpngw disconnect`.
    Operator,
    /// A frame left that the policy did not permit.
    Leak(String),
    /// The kernel would not take a ruleset; the one before it, or nothing, is in force.
    Ruleset(String),
    /// The gateway is stopping.
    Stopping,
}

impl fmt::Display for BlockReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("disconnected by the operator"),
            Self::Leak(what) => write!(f, "leak: {what}"),
            Self::Ruleset(why) => write!(f, "the kernel refused the ruleset: {why}"),
            Self::Stopping => f.write_str("the gateway is stopping"),
        }
    }
}
