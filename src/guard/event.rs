//! The vocabulary of the guard: what happens, and what is done about it.

use std::net::Ipv4Addr;

use crate::config::Config;
use crate::gateway::{BlockReason, Command};
use crate::net::beside::Link;
use crate::net::{IfName, Uplink};
use crate::plan::Plan;
use crate::policy::{Permit, Policy, Way};

use super::{Grant, Leak, Offer};

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Devices, routes or rules may have changed: what is wished is put in force again.
    Look,
    /// A second has passed.
    Tick,
    /// The uplink, and the links beside it, as they are now.
    Observed(Seen),
    /// The uplink could not be looked at; why.
    Unobserved(String),
    /// The resolver of the uplink that `resolv.conf` named before the gateway came, if it can be read.
    Resolver(Option<Ipv4Addr>),
    /// The kernel does not hold the rules that were in force; the first difference.
    RulesDiffer(String),
    /// Whether it does could not be told; why.
    RulesUnread(String),
    /// The outcome of [`Do::Enforce`]: the rules are in force.
    Enforced(Enforced),
    /// The outcome of [`Do::Enforce`]: the rules are not in force.
    Refused {
        /// Number of the order.
        number: u64,
        /// What the kernel said.
        refusal: Refusal,
    },
    /// The outcome of [`Do::LinksDown`]: the links that were up until then.
    LinksDown(Vec<IfName>),
    /// Frames left that the policy does not permit.
    Leaked(Vec<Leak>),
    /// A device that led out was moved into another network namespace, where no rule of ours holds it.
    Moved(IfName),
    /// The engine asks for a permission. [`Answer::Granted`] or [`Answer::Refused`] answers.
    Asked {
        /// Number of the question.
        id: u64,
        /// What it asks for.
        permit: Permit,
        /// Source port of the socket that it would get, or why there is none.
        port: Result<u16, String>,
    },
    /// An engine said who it is. [`Answer::Welcome`] answers once nothing of an engine before it is open.
    EngineCame,
    /// The engine is gone.
    EngineGone,
    /// An operator said so. [`Answer::Done`] or [`Answer::NotDone`] answers.
    Operator {
        /// Number of the command.
        id: u64,
        /// What he said.
        command: Command,
    },
    /// Sealed topology: what the engine's configuration says of this namespace. [`Answer::Agreed`] or
    /// [`Answer::Declined`] answers.
    Offered(Box<Offer>),
    /// A whole new configuration, valid by itself. [`Answer::Reloaded`] answers.
    Reloaded(Box<Config>),
    /// The gateway ends.
    Stopping,
}

/// The links of the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The uplink, if there is one.
    pub uplink: Option<Uplink>,
    /// Every link with an address that is up, the uplink and the tunnel among them.
    pub links: Vec<Link>,
}

/// Rules that are in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enforced {
    /// Number of the order.
    pub number: u64,
    /// Why the routes are not as planned, if they are not. Packets go nowhere until they are.
    pub routes: Option<String>,
    /// Devices that the second layer of rules does not hold. They are to be set down.
    pub bare: Vec<IfName>,
}

/// Why rules are not in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The kernel refused them. What was in force before is in force still.
    #[error("{0}")]
    Refused(String),
    /// The kernel gave no answer: it may hold either.
    #[error("{0}")]
    Unknown(String),
}

/// What to do, in order.
#[derive(Clone, Debug)]
pub enum Do {
    /// Put this in force. [`Event::Enforced`] or [`Event::Refused`] tells the outcome.
    Enforce(Box<Order>),
    /// Set every link but loopback down: not even deny-all can be loaded. [`Event::LinksDown`] tells which.
    LinksDown,
    /// Set this device down, and again whenever somebody sets it up.
    SetDown(IfName),
    /// Set this device up again.
    SetUp(IfName),
    /// Compare what the kernel holds with what was confirmed, before the next order.
    Verify,
    /// Look at what the sensors have seen until now, and forgive it: an operator lifted the block.
    Forgive,
    /// The configuration in force is another one: tunnel device, resolvers and LAN listeners follow.
    Adopt,
    /// End the engine's link: it has to come again and be agreed with anew.
    DropEngine,
    /// Answer whoever asked.
    Answer(Answer),
    /// Tell the engine.
    Tell(News),
    /// Tell the operator.
    Note(Note),
}

/// What the kernel shall hold: the whole of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its number: they rise.
    pub number: u64,
    /// What may flow.
    pub policy: Policy,
    /// Routes, policy rules, the tunnel device.
    pub plan: Plan,
}

/// The answer to one question. Each is given after the kernel confirmed what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The permission is in force.
    Granted {
        /// Number of the question.
        id: u64,
        /// What was asked for.
        permit: Permit,
        /// Where it leads; `None` closes what was open.
        way: Option<Way>,
    },
    /// It is not.
    Refused {
        /// Number of the question.
        id: u64,
        /// What was asked for.
        permit: Permit,
        /// One line for the operator.
        why: String,
    },
    /// What the operator said is in force.
    Done {
        /// Number of the command.
        id: u64,
    },
    /// It is not.
    NotDone {
        /// Number of the command.
        id: u64,
        /// One line for the operator: what was not confirmed.
        why: String,
    },
    /// The engine's configuration is in force.
    Agreed,
    /// It is not; one line for the operator.
    Declined(String),
    /// The engine may begin.
    Welcome {
        /// Why everything is blocked, if it is.
        blocked: Option<BlockReason>,
    },
    /// What became of a new configuration.
    Reloaded(Reload),
}

/// What became of a new configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// It is in force. `kept` are the keys that a running gateway cannot change.
    InForce {
        /// Keys that keep their value until the gateway is started again.
        kept: Vec<&'static str>,
    },
    /// It is the one that is in force already.
    Unchanged {
        /// As above.
        kept: Vec<&'static str>,
    },
    /// It is in force, and the engine's own configuration does not fit it.
    EngineDiffers {
        /// One line for the operator.
        why: String,
    },
    /// The old one is in force still; one line for the operator.
    Refused(String),
}

/// What the engine has to know.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// The uplink is another one: sockets granted before are worth nothing.
    UplinkChanged,
    /// Everything is blocked, and not because the operator said so.
    Blocked(BlockReason),
    /// The configuration in force is another one. [`Guard::config`](super::Guard::config) is the new one.
    Reconfigured,
}

/// What an operator has to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// The uplink is another one, or gone.
    Uplink(Option<Uplink>),
    /// The uplink could not be looked at.
    Unobserved(String),
    /// Another program changed our rules: they are loaded again.
    RulesUndone(String),
    /// Our rules cannot be read back: they are loaded again.
    RulesUnread(String),
    /// Routes are not as planned: packets go nowhere until they are.
    Routes(String),
    /// The rules could not be put in force: everything is blocked.
    Failed(String),
    /// Deny-all could not be put in force either: every link is set down.
    DenyAllFailed(String),
    /// A leak, the first one since everything was blocked.
    Leak(String),
    /// This device goes on leaking although everything is blocked.
    StillLeaking(IfName),
}

/// Who waits for the newest order to be confirmed.
#[derive(Clone, Debug)]
pub(super) enum Waiting {
    Grant {
        id: u64,
        permit: Permit,
        grant: Option<Grant>,
    },
    Operator {
        id: u64,
        command: Command,
    },
    Welcome,
    Offer,
    Reload(Reload),
}
