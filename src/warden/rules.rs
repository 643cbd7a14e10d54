//! The rules in the kernel: what was loaded, whether it is still there, and what it has counted.

use std::collections::BTreeMap;

use super::counters::Counters;
use crate::link::Count;
use crate::net::IfName;
use crate::policy::{Policy, Reason};
use crate::ruleset::{Hook, Kernel, Ruleset};
use crate::sys::nft::{self, ApplyError, Armed, CheckError, Counter, Totals};

/// How often rules are composed anew because a device came or went meanwhile.
const PASSES: u32 = 3;

/// The rules, and what the process holds them by.
pub(super) struct Rules {
    armed: Armed,
    kernel: Kernel,
    /// What the kernel holds as far as we know.
    in_force: Option<Ruleset>,
    /// The policy that it was composed of, with `devices`; `None` if it was of something else.
    composed_of: Option<Policy>,
    /// Devices other than loopback and the tunnel, as of the rules that were composed last.
    devices: Vec<IfName>,
    blocked: Counters<(String, String)>,
    passed: Counters<String>,
}

/// Rules that are to be loaded.
pub(super) struct Draft {
    ruleset: Ruleset,
    policy: Option<Policy>,
    devices: Vec<IfName>,
}

/// Whether the kernel holds what was loaded.
pub(super) enum Verified {
    /// It does, or nothing was loaded yet.
    Same,
    /// It does not; the first difference.
    Differs(String),
    /// It could not be told.
    Unread(String),
}

impl Rules {
    /// Deny-all is in force, with all that this kernel has.
    pub(super) fn new(armed: Armed) -> Self {
        Self {
            devices: armed.devices.clone(),
            kernel: armed.kernel(),
            armed,
            in_force: None,
            composed_of: None,
            blocked: Counters::default(),
            passed: Counters::default(),
        }
    }

    /// What this kernel has.
    pub(super) fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Devices other than loopback and the tunnel.
    pub(super) fn devices(&self) -> &[IfName] {
        &self.devices
    }

    /// The rules of a policy for the devices that are there now; `None` if they are in force already.
    pub(super) fn draft(&mut self, policy: &Policy) -> std::io::Result<Option<Draft>> {
        let devices = nft::devices()?;
        // With thousands of exceptions composing takes long, and most looks find nothing new.
        let same = self.composed_of.as_ref() == Some(policy) && self.devices == devices;
        if same && self.in_force.is_some() {
            return Ok(None);
        }
        let ruleset = Ruleset::of(policy, &devices, self.kernel);
        let draft = Draft {
            ruleset,
            policy: Some(policy.clone()),
            devices,
        };
        if self.in_force.as_ref() == Some(&draft.ruleset) {
            self.remember(draft);
            return Ok(None);
        }
        Ok(Some(draft))
    }

    /// Loads a draft in one transaction. Counts before it are kept.
    pub(super) fn load(&mut self, draft: Draft) -> Result<(), ApplyError> {
        if let Err(error) = self.armed.apply(&draft.ruleset) {
            // Which rules are in force cannot be told: those that are wanted next are loaded, whichever
            // they are.
            if !error.changed_nothing() {
                self.in_force = None;
            }
            return Err(error);
        }
        self.loaded(draft);
        Ok(())
    }

    /// Loads as much of deny-all as the kernel takes: it refused the whole. Returns the devices that the second layer does
    /// not hold.
    pub(super) fn close(&mut self) -> Result<Vec<IfName>, ApplyError> {
        let devices = nft::devices().map_err(ApplyError::from)?;
        let closed = self.armed.close(&devices, self.kernel)?;
        self.loaded(Draft {
            ruleset: closed.ruleset,
            policy: None,
            devices,
        });
        Ok(closed.uncovered)
    }

    /// New rules are in force: their counters begin at zero.
    fn loaded(&mut self, now: Draft) {
        self.blocked.turn();
        self.passed.turn();
        self.remember(now);
    }

    fn remember(&mut self, now: Draft) {
        self.devices = now.devices;
        self.composed_of = now.policy;
        self.in_force = Some(now.ruleset);
    }

    /// Whether another pass may do better: a device that the rules name is gone.
    pub(super) fn is_worth_another(error: &ApplyError, pass: u32) -> bool {
        error.device_gone() && pass + 1 < PASSES
    }

    /// Whether the kernel still holds what was loaded. If not, nothing counts as loaded any more.
    pub(super) fn verify(&mut self) -> Verified {
        let Some(ruleset) = &self.in_force else {
            return Verified::Same;
        };
        let outcome = match self.armed.check(ruleset) {
            Ok(()) => return Verified::Same,
            Err(CheckError::Differs(what)) => Verified::Differs(what),
            Err(CheckError::Netlink(error)) => Verified::Unread(error.to_string()),
        };
        self.in_force = None;
        outcome
    }

    /// Reads the counters. Returns the frames that the rules in force have let leave.
    pub(super) fn count(&mut self) -> std::io::Result<u64> {
        let counters = self.armed.counters()?;
        let Totals { blocked, passed } = Totals::of(&counters);
        self.blocked.read(by_words(blocked));
        self.passed.read(by_word(passed));
        Ok(left(&counters))
    }

    /// Packets stopped since the start, by reason and protocol.
    pub(super) fn blocked(&self) -> BTreeMap<(String, String), Count> {
        self.blocked.total()
    }

    /// Packets let through since the start, by reason.
    pub(super) fn passed(&self) -> BTreeMap<String, Count> {
        self.passed.total()
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
