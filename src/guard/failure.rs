//! What follows from an order's outcome. What the kernel refuses leads back, and never on: to what was in force
//! before, else to deny-all, else to no link at all.

use super::event::{Do, Enforced, News, Note, Refusal, Waiting};
use super::{Guard, IfName};
use crate::gateway::BlockReason;

/// How far things have come to the worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// What is wished was ordered.
    #[default]
    Wished,
    /// Deny-all was ordered.
    DenyAll,
    /// Deny-all was refused too: every link is down.
    LinksDown,
}

impl Guard {
    /// The newest order is in force: whoever waited for it is answered.
    pub(super) fn enforced(&mut self, enforced: Enforced) -> Vec<Do> {
        let Enforced {
            number,
            routes,
            bare,
        } = enforced;
        if number != self.kernel.number {
            return vec![];
        }
        let kernel = &mut self.kernel;
        kernel.in_force = Some(kernel.ordered.clone());
        kernel.settled = true;
        kernel.routes_wanting = routes.is_some();
        if kernel.stage == Stage::LinksDown {
            kernel.stage = Stage::DenyAll;
        }
        let mut doing = Vec::new();
        if let Some(why) = routes {
            doing.push(Do::Note(Note::Routes(why.clone())));
            // The rules hold, but what was tried leads nowhere.
            if self.trial.is_some() {
                doing.extend(self.go_back(&why));
                return doing;
            }
        }
        doing.extend(self.commit());
        doing.extend(self.hold_links(bare));
        doing.extend(self.answer());
        doing
    }

    /// What was tried is in force.
    fn commit(&mut self) -> Vec<Do> {
        let Some(trial) = self.trial.take() else {
            return vec![];
        };
        if trial.is_of(&self.config) {
            return vec![];
        }
        let mut doing = vec![Do::Adopt];
        if self.sealed.is_none() {
            doing.push(Do::Tell(News::Reconfigured));
        }
        doing
    }

    /// Sets down what no rule of the second layer holds, and up again what the gateway itself set down, once
    /// nothing is blocked any more.
    fn hold_links(&mut self, bare: Vec<IfName>) -> Vec<Do> {
        let mut doing: Vec<_> = bare.iter().cloned().map(Do::SetDown).collect();
        if self.latch.is_none() {
            let fallen = std::mem::take(&mut self.fallen);
            let rise = fallen.into_iter().filter(|device| !bare.contains(device));
            doing.extend(rise.map(Do::SetUp));
        }
        for device in bare {
            if !self.fallen.contains(&device) {
                self.fallen.push(device);
            }
        }
        doing
    }

    pub(super) fn refused(&mut self, number: u64, refusal: Refusal) -> Vec<Do> {
        if number != self.kernel.number {
            return vec![];
        }
        let why = refusal.to_string();
        match refusal {
            Refusal::Refused(_) => {}
            Refusal::Unknown(_) => self.kernel.in_force = None,
        }
        if self.trial.is_some() {
            return self.go_back(&why);
        }
        match self.kernel.stage {
            Stage::Wished => self.fail(why),
            Stage::DenyAll => {
                self.kernel.stage = Stage::LinksDown;
                let mut doing = vec![Do::Note(Note::DenyAllFailed(why.clone())), Do::LinksDown];
                doing.extend(self.disappoint(&format!(
                    "the kernel took no rules, so every link was set down: {why}"
                )));
                doing
            }
            // It is tried again each second; until then nothing carries a packet.
            Stage::LinksDown => self.disappoint(&why),
        }
    }

    /// No order follows from what is known: as if the kernel had refused it.
    pub(super) fn impossible(&mut self, why: String) -> Vec<Do> {
        if self.trial.is_some() {
            self.go_back(&why)
        } else {
            self.fail(why)
        }
    }

    /// What was tried is not in force: everything is as it was before, for certain.
    fn go_back(&mut self, why: &str) -> Vec<Do> {
        let Some(trial) = self.trial.take() else {
            return vec![];
        };
        trial.restore(self);
        let waiting = std::mem::take(&mut self.waiting);
        let (tried, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(Waiting::is_trial);
        self.waiting = tried;
        let mut doing = self.disappoint(why);
        self.waiting = others;
        doing.extend(self.enforce());
        doing
    }

    /// What must be in force is not: everything is blocked until an operator connects.
    fn fail(&mut self, why: String) -> Vec<Do> {
        let reason = || BlockReason::Ruleset(why.clone());
        let reason = self.latch.get_or_insert_with(reason).clone();
        self.close();
        let mut doing = vec![Do::Note(Note::Failed(why))];
        // With the latch the policy is deny-all, so that always follows from what is known.
        doing.extend(self.enforce());
        doing.push(Do::Tell(News::Blocked(reason)));
        doing
    }

    /// Somebody changed our rules.
    pub(super) fn rules_differ(&mut self, what: String) -> Vec<Do> {
        self.kernel.in_force = None;
        vec![Do::Note(Note::RulesUndone(what))]
    }

    pub(super) fn rules_unread(&mut self, why: String) -> Vec<Do> {
        self.kernel.in_force = None;
        vec![Do::Note(Note::RulesUnread(why))]
    }

    /// These were up before the gateway set every link down.
    pub(super) fn links_down(&mut self, devices: Vec<IfName>) -> Vec<Do> {
        for device in devices {
            if !self.fallen.contains(&device) {
                self.fallen.push(device);
            }
        }
        vec![]
    }
}

impl Waiting {
    /// Whether it waits for something that may be taken back.
    fn is_trial(&self) -> bool {
        match self {
            Self::Grant { .. } | Self::Offer | Self::Reload(_) => true,
            Self::Operator { .. } | Self::Welcome => false,
        }
    }
}
