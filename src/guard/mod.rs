//! The kill switch's decisions: events in, things to do out. No I/O, no clock, no logging.
//!
//! ```text
//!            what is wished                       what is seen                what was granted
//!   configuration, operator's latch    uplink, leaks, what the kernel holds   one way, to the engine
//!                        └───────────────────┬───────────────┘───────────────────────┘
//!                                      one order: policy and plan
//!                     ┌──────────────────────┴───────────────────────┐
//!                 confirmed: whoever waits is answered           refused: the way back, else deny-all,
//!                                                                else every link goes down
//! ```
//!
//! The warden performs what is returned, in order, and reports each outcome as the next event. An order carries a
//! number: only the outcome of the newest one counts, since that one holds everything that was decided before it.

mod command;
mod compose;
mod event;
mod failure;
mod grant;
mod leak;
mod offer;
mod reload;

use std::net::Ipv4Addr;
use std::time::Instant;

pub use event::{Answer, Do, Enforced, Event, News, Note, Order, Refusal, Reload, Seen};
pub use leak::Leak;
pub use offer::Offer;

use crate::config::Config;
use crate::gateway::BlockReason;
use crate::net::{Fwmark, IfName, Uplink};
use crate::policy::Policy;
use failure::Stage;
use grant::Grant;
use leak::Leaking;
use reload::Trial;

/// The state machine.
#[derive(Clone, Debug)]
pub struct Guard {
    /// What is in force of the configuration, or is being put in force.
    config: Config,
    /// The sealed topology: what the operator wrote for the warden, and what the engine asked for.
    sealed: Option<Sealed>,
    mark: Fwmark,
    /// The resolver that `resolv.conf` named before the gateway came.
    former_resolver: Option<Ipv4Addr>,
    seen: Seen,
    /// The one way across the uplink that is open.
    grant: Option<Grant>,
    /// Why everything is blocked. Only an operator takes it away.
    latch: Option<BlockReason>,
    kernel: Kernel,
    /// A change that the kernel may refuse, and the way back.
    trial: Option<Trial>,
    /// Who is answered when the newest order is confirmed.
    waiting: Vec<event::Waiting>,
    leaking: Leaking,
    /// Links that the gateway itself set down. They come up again after an operator's `connect` is in force.
    fallen: Vec<IfName>,
}

/// What a sealed namespace has besides.
#[derive(Clone, Debug)]
struct Sealed {
    own: Config,
    offer: Option<Offer>,
}

/// What is known of the kernel.
#[derive(Clone, Debug, Default)]
struct Kernel {
    /// Number of the newest order.
    number: u64,
    /// The policy of the newest order.
    ordered: Policy,
    /// The policy that the kernel confirmed; `None` while it is not known which rules it holds.
    in_force: Option<Policy>,
    /// Whether the newest order was confirmed.
    settled: bool,
    /// Whether routes and rules of the newest order are all in place.
    routes_wanting: bool,
    stage: Stage,
}

/// How the namespaces are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// The uplink is in the programs' namespace.
    Shared,
    /// It is not.
    Sealed,
}

/// What the guard starts from. Deny-all is in the kernel by then.
#[derive(Clone, Debug)]
pub struct Start {
    /// The configuration; without a tunnel in the sealed topology.
    pub config: Config,
    /// How the namespaces are laid out.
    pub topology: Topology,
    /// The resolver that `resolv.conf` named.
    pub former_resolver: Option<Ipv4Addr>,
    /// The links that are there already.
    pub seen: Seen,
}

impl Guard {
    /// A guard that has ordered nothing yet.
    pub fn new(start: Start) -> Self {
        let config = start.config;
        let sealed = match start.topology {
            Topology::Shared => None,
            Topology::Sealed => Some(Sealed {
                own: config.clone(),
                offer: None,
            }),
        };
        Self {
            mark: config.tunnel.fwmark.map_or(Fwmark::DEFAULT, Fwmark),
            config,
            sealed,
            former_resolver: start.former_resolver,
            seen: start.seen,
            grant: None,
            latch: None,
            kernel: Kernel::default(),
            trial: None,
            waiting: Vec::new(),
            leaking: Leaking::default(),
            fallen: Vec::new(),
        }
    }

    /// Takes one event that happened at `now`; returns what to do about it, in order.
    #[must_use = "what is not done leaves the kernel behind the decision"]
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Do> {
        match event {
            Event::Look => self.enforce(),
            Event::Tick => self.tick(),
            Event::Observed(seen) => self.observed(seen),
            Event::Unobserved(why) => self.unobserved(why),
            Event::Resolver(resolver) => {
                self.former_resolver = resolver.or(self.former_resolver);
                vec![]
            }
            Event::RulesDiffer(what) => self.rules_differ(what),
            Event::RulesUnread(why) => self.rules_unread(why),
            Event::Enforced(enforced) => self.enforced(enforced),
            Event::Refused { number, refusal } => self.refused(number, refusal),
            Event::LinksDown(devices) => self.links_down(devices),
            Event::Leaked(leaks) => self.leaked(leaks, now),
            Event::Moved(device) => self.moved(&device, now),
            Event::Asked { id, permit, port } => self.asked(id, permit, port),
            Event::EngineCame => self.engine_came(),
            Event::EngineGone => self.engine_gone(),
            Event::Operator { id, command } => self.operator(id, command),
            Event::Offered(offer) => self.offered(*offer),
            Event::Reloaded(config) => self.reloaded(*config),
            Event::Stopping => self.stopping(),
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether this is the sealed topology.
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// The mark of our sockets.
    pub fn mark(&self) -> Fwmark {
        self.mark
    }

    /// The uplink as it was seen last.
    pub fn uplink(&self) -> Option<&Uplink> {
        self.seen.uplink.as_ref()
    }

    /// Devices beside the uplink that LAN exceptions are on.
    pub fn beside(&self) -> impl Iterator<Item = &IfName> {
        self.kernel.ordered.beside.iter().map(|lan| &lan.device)
    }

    /// Why everything is blocked, if it is.
    pub fn blocked(&self) -> Option<&BlockReason> {
        self.latch.as_ref()
    }

    /// Where the one way leads that is open, if one is.
    pub fn remote(&self) -> Option<std::net::SocketAddrV4> {
        self.grant.map(|grant| grant.way.remote())
    }

    /// Whether the kernel is known to hold the rules that were ordered last.
    pub fn is_armed(&self) -> bool {
        self.kernel.in_force.is_some() && self.kernel.stage != Stage::LinksDown
    }

    /// Devices that leaked in spite of the rules: they stay down until an operator connects.
    pub fn held_down(&self) -> &[IfName] {
        self.leaking.down()
    }

    /// Something may be left to do.
    fn tick(&mut self) -> Vec<Do> {
        if self.is_armed() && !self.kernel.routes_wanting {
            vec![]
        } else {
            self.enforce()
        }
    }

    fn observed(&mut self, seen: Seen) -> Vec<Do> {
        // Whatever appears in a sealed namespace, it is no uplink, and no exception works on it.
        let seen = if self.is_sealed() {
            Seen::default()
        } else {
            seen
        };
        let before = std::mem::replace(&mut self.seen, seen);
        if before.uplink == self.seen.uplink {
            return self.enforce();
        }
        // The way names the device and the address that were.
        self.close();
        let uplink = self.seen.uplink.clone();
        let mut doing = vec![Do::Note(Note::Uplink(uplink))];
        doing.extend(self.enforce());
        doing.push(Do::Tell(News::UplinkChanged));
        doing
    }

    fn unobserved(&mut self, why: String) -> Vec<Do> {
        let mut doing = vec![Do::Note(Note::Unobserved(why))];
        doing.extend(self.enforce());
        self.kernel.routes_wanting = true;
        doing
    }

    /// The gateway ends: everything is blocked, and stays so.
    fn stopping(&mut self) -> Vec<Do> {
        self.latch(BlockReason::Stopping);
        self.enforce()
    }

    /// Blocks, for this reason unless there was a leak: that one is what an operator has to hear of.
    fn latch(&mut self, reason: BlockReason) {
        if !matches!(self.latch, Some(BlockReason::Leak(_))) {
            self.latch = Some(reason);
        }
        self.close();
    }

    /// Takes back what was granted, for good: no way back leads to it.
    fn close(&mut self) {
        self.grant = None;
        if let Some(trial) = &mut self.trial {
            trial.forget_grant();
        }
    }
}

#[cfg(test)]
mod tests;
