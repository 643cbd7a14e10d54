//! Makes rules and routes be in force: composed whole from what is known, never patched.

use std::collections::BTreeMap;

use tokio::time::Instant;
use tracing::{error, warn};

use super::namespace::Namespace;
use crate::gateway::BlockReason;
use crate::link::Count;
use crate::plan::Plan;
use crate::policy::{Hole, Holes, Policy, PolicyError, Reason, Way};
use crate::ruleset::{Hook, Ruleset};
use crate::sys::link;
use crate::sys::nft::{self, ApplyError, CheckError, Counter, Totals};
use crate::sys::route::{self, RouteError};

/// How often rules are composed anew because a device came or went meanwhile.
const PASSES: u32 = 3;

/// What is known is not in force.
#[derive(Debug, thiserror::Error)]
pub enum Unsettled {
    /// No rules follow from what is known. The ones before are in force.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The kernel refused the rules. The ones before are in force.
    #[error("{}", chain(.0))]
    Rules(#[from] ApplyError),
    /// The devices cannot be listed. The rules before are in force.
    #[error("the devices cannot be listed: {0}")]
    Devices(#[from] std::io::Error),
    /// The rules are in force, the routes are not.
    #[error("{}", chain(.0))]
    Routes(#[from] RouteError),
}

impl Namespace {
    /// Composes rules and routes from all that is known and makes them be in force: rules first, as one
    /// transaction, because they hold whatever the routes say.
    pub(super) fn settle(&mut self) -> Result<(), Unsettled> {
        let policy = self.policy()?;
        let mut passes = PASSES;
        loop {
            passes -= 1;
            let devices = nft::devices()?;
            let ruleset = Ruleset::of(&policy, &devices, self.kernel);
            self.facts.devices = devices;
            match self.replace(ruleset) {
                Ok(()) => break,
                Err(error) if error.device_gone() && passes > 0 => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.sensor
            .follow(&self.facts.devices, &policy, Instant::now());
        self.routes_wanting = true;
        let removed = route::apply(&self.plan())?;
        self.routes_wanting = false;
        for what in removed {
            // At the start these are the uplink's own.
            if self.routes_settled {
                warn!(
                    what,
                    "a route or rule of another program led past the tunnel"
                );
                self.undone("route", &what);
            }
        }
        self.routes_settled = true;
        Ok(())
    }

    /// [`Namespace::settle`], and whatever it takes to be closed when that fails.
    pub(super) fn settle_or_block(&mut self) {
        match self.settle() {
            Ok(()) => {}
            // The rules hold. Routes are tried again; until then packets go nowhere.
            Err(Unsettled::Routes(error)) => {
                warn!(error = chain(&error), "routes are not as planned")
            }
            Err(Unsettled::Policy(error)) => self.fail(error.to_string()),
            Err(Unsettled::Devices(error)) => self.fail(error.to_string()),
            Err(Unsettled::Rules(error)) => self.fail(chain(&error)),
        }
    }

    /// Whether the kernel still holds our rules. Someone else's change is undone by the next
    /// [`Namespace::settle`], and said.
    pub(super) fn verify(&mut self) {
        let Some(ruleset) = &self.in_force else {
            return;
        };
        match self.armed.check(ruleset) {
            Ok(()) => {}
            Err(CheckError::Differs(what)) => {
                warn!(
                    what,
                    "another program changed our rules; they are loaded again"
                );
                self.undone("rules", &what);
                self.in_force = None;
            }
            Err(CheckError::Netlink(error)) => {
                warn!(%error, "our rules cannot be read back; they are loaded again");
                self.in_force = None;
            }
        }
    }

    /// Adds what the rules in force have counted to what those before them had.
    pub(super) fn count(&mut self) {
        let sent = self.traffic();
        let counters = match nft::counters() {
            Ok(counters) => counters,
            Err(error) => {
                warn!(%error, "packet counters cannot be read");
                return;
            }
        };
        self.account(sent, left(&counters), Instant::now());
        let Totals { blocked, passed } = Totals::of(&counters);
        self.blocked_counts.read(by_words(blocked));
        self.passed_counts.read(by_word(passed));
    }

    /// What the kernel shall look like, the firewall aside.
    pub(super) fn plan(&self) -> Plan {
        let mut plan = Plan::of(
            &self.config,
            self.uplink.as_ref(),
            self.mark,
            self.hole().as_ref(),
        );
        plan.tunnel.mtu = self.mtu;
        plan
    }

    fn replace(&mut self, ruleset: Ruleset) -> Result<(), ApplyError> {
        if self.in_force.as_ref() == Some(&ruleset) {
            return Ok(());
        }
        self.count();
        if let Err(error) = self.armed.apply(&ruleset) {
            // Which rules are in force cannot be told: those that are wanted next are loaded, whichever
            // they are.
            if !error.changed_nothing() {
                self.in_force = None;
            }
            return Err(error);
        }
        self.blocked_counts.turn();
        self.passed_counts.turn();
        self.account_anew(Instant::now());
        self.in_force = Some(ruleset);
        self.facts.armed = true;
        Ok(())
    }

    /// Rules could not be put in force: deny-all instead, and if not even that, no link at all.
    pub(super) fn fail(&mut self, why: String) {
        error!(
            why,
            "the rules could not be put in force; everything is blocked"
        );
        let reason = self.blocked.get_or_insert(BlockReason::Ruleset(why));
        self.untold = Some(reason.clone());
        self.open = None;
        match self.settle() {
            Ok(()) | Err(Unsettled::Routes(_)) => {}
            Err(error @ (Unsettled::Policy(_) | Unsettled::Rules(_) | Unsettled::Devices(_))) => {
                error!(%error, "deny-all could not be put in force; every link is set down");
                self.facts.armed = false;
                if let Err(error) = link::all_down() {
                    error!(%error, "a link could not be set down");
                }
            }
        }
    }

    fn policy(&self) -> Result<Policy, PolicyError> {
        if self.blocked.is_some() {
            return Ok(Policy::default());
        }
        if self.sealed.is_some() {
            return Policy::sealed(&self.config);
        }
        let Some(uplink) = &self.uplink else {
            return Ok(Policy::without_uplink(&self.config));
        };
        let (way, hole) = (self.open.as_ref().map(|open| open.way), self.hole());
        let holes = match way {
            None => Holes::default(),
            Some(Way::Endpoint(_)) => Holes {
                endpoint: hole,
                resolver: None,
            },
            Some(Way::Resolver(_)) => Holes {
                endpoint: None,
                resolver: hole,
            },
        };
        Policy::of(&self.config, uplink, holes)
    }

    fn hole(&self) -> Option<Hole> {
        let open = self.open.as_ref()?;
        Some(Hole {
            mark: self.mark,
            source_port: open.port,
            remote: open.way.remote(),
        })
    }
}

/// Frames that the rules in force have let leave.
fn left(counters: &[Counter]) -> u64 {
    let left = counters
        .iter()
        .filter(|it| it.hook == Hook::Egress && it.accept);
    left.map(|it| it.packets).sum()
}

fn by_words(
    counts: BTreeMap<(Reason, &'static str), (u64, u64)>,
) -> BTreeMap<(String, String), Count> {
    let words = |((reason, protocol), (packets, bytes)): ((Reason, &str), _)| {
        let key = (reason.to_string(), protocol.to_owned());
        (key, Count { packets, bytes })
    };
    counts.into_iter().map(words).collect()
}

fn by_word(counts: BTreeMap<Reason, (u64, u64)>) -> BTreeMap<String, Count> {
    let word =
        |(reason, (packets, bytes)): (Reason, _)| (reason.to_string(), Count { packets, bytes });
    counts.into_iter().map(word).collect()
}

/// An error with all its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
