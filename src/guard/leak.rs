//! What follows from a leak: everything is blocked, and a device that goes on leaking is set down.

use std::time::{Duration, Instant};

use super::event::{Do, News, Note};
use super::{Guard, IfName};
use crate::gateway::BlockReason;
use crate::plan::departed;

/// How long frames may go on leaving after everything was blocked because of a leak: what was under way is
/// gone by then. Whatever still leaves does so past the rules, and only a device that is down stops it.
const PATIENCE: Duration = Duration::from_millis(500);

/// A frame, or frames, that left without permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// By which device.
    pub device: IfName,
    /// In words.
    pub what: String,
}

/// A leak that everything is blocked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaking {
    since: Option<Instant>,
    down: Vec<IfName>,
}

impl Leaking {
    pub(super) fn down(&self) -> &[IfName] {
        &self.down
    }

    /// An operator lifted the block: the devices that were set down for it.
    pub(super) fn forgive(&mut self) -> Vec<IfName> {
        std::mem::take(self).down
    }
}

impl Guard {
    pub(super) fn leaked(&mut self, leaks: Vec<Leak>, now: Instant) -> Vec<Do> {
        let Some(first) = leaks.first() else {
            return vec![];
        };
        let first = first.what.clone();
        let mut doing = Vec::new();
        let late = self.leaking.since.is_some_and(|at| now > at + PATIENCE);
        for Leak { device, .. } in leaks {
            if late && !self.leaking.down.contains(&device) {
                self.leaking.down.push(device.clone());
                doing.push(Do::Note(Note::StillLeaking(device.clone())));
                doing.push(Do::SetDown(device));
            }
        }
        doing.extend(self.block_for(first, now));
        doing
    }

    /// No rule of ours holds what a device sends from another namespace.
    pub(super) fn moved(&mut self, device: &IfName, now: Instant) -> Vec<Do> {
        self.block_for(departed::words(device), now)
    }

    fn block_for(&mut self, what: String, now: Instant) -> Vec<Do> {
        let known = matches!(self.latch, Some(BlockReason::Leak(_)));
        self.leaking.since.get_or_insert(now);
        self.latch(BlockReason::Leak(what.clone()));
        // Rules that are gone are loaded again here: blocked already, they would be taken for being in force.
        let mut doing = vec![Do::Verify];
        doing.extend(self.enforce());
        // Said once a block: whoever can leak could fill the log.
        if !known {
            doing.push(Do::Note(Note::Leak(what.clone())));
            doing.push(Do::Tell(News::Blocked(BlockReason::Leak(what))));
        }
        doing
    }
}
