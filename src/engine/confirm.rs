//! What is said to operators is what the warden has confirmed, and lately.

use std::collections::BTreeMap;
use std::time::Instant;

use tokio::sync::oneshot;
use tracing::{error, info};

use super::host::Host;
use super::status;
use super::uplink::Uplink;
use crate::control::api::Status;
use crate::gateway::{Command, Gateway};
use crate::link::{Health, LinkError, ToWarden};

/// Commands of operators that the warden has not confirmed yet.
#[derive(Default)]
pub(super) struct Commands {
    /// Who waits to hear that it is in force, by number.
    waiting: BTreeMap<u64, oneshot::Sender<Result<Status, String>>>,
    /// What the warden said, not yet passed on.
    confirmed: Vec<(u64, Result<(), String>)>,
    /// Number of the last one.
    last: u64,
}

impl Commands {
    /// The warden said what became of one.
    pub(super) fn became(&mut self, id: u64, outcome: Result<(), String>) {
        self.confirmed.push((id, outcome));
    }

    fn begin(&mut self, answer: Option<oneshot::Sender<Result<Status, String>>>) -> u64 {
        self.last += 1;
        // Those who waited too long have hung up, so there are never more than connections.
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        if let Some(answer) = answer {
            self.waiting.insert(self.last, answer);
        }
        self.last
    }
}

/// When the warden spoke last.
pub(super) struct Heard {
    pub(super) at: Instant,
    /// Whether the log has said that it is silent.
    silent: bool,
}

impl Heard {
    pub(super) fn at(now: Instant) -> Self {
        Self {
            at: now,
            silent: false,
        }
    }

    /// Says once when the warden falls silent, and when it speaks again.
    pub(super) fn watch(&mut self, now: Instant) {
        let silent = now.saturating_duration_since(self.at) > status::FRESH;
        match (self.silent, silent) {
            (false, true) => {
                error!("the warden is silent: whether the rules are in force is not confirmed");
            }
            (true, false) => info!("the warden speaks again"),
            (false, false) | (true, true) => {}
        }
        self.silent = silent;
    }
}

impl Host {
    /// Passes on what an operator said. He hears that it is so when the warden says that it is in force.
    pub(super) async fn command(
        &mut self,
        command: Command,
        answer: Option<oneshot::Sender<Result<Status, String>>>,
    ) -> Result<(), LinkError> {
        let id = self.commands.begin(answer);
        let operator = ToWarden::Operator { id, command };
        self.link.send(&operator, &[]).await
    }

    /// Tells operators what the warden said of their commands.
    pub(super) fn pass_on(&mut self, gateway: &Gateway, now: Instant) {
        for (id, outcome) in std::mem::take(&mut self.commands.confirmed) {
            if let Some(answer) = self.commands.waiting.remove(&id) {
                // Whoever asked may have hung up.
                let _ = answer.send(outcome.map(|()| self.status(gateway, now)));
            }
        }
    }

    /// Tells the warden what a health check beside it is to say, and opens exceptions that are not open.
    pub(super) async fn tell_health(
        &mut self,
        gateway: &Gateway,
        now: Instant,
    ) -> Result<(), LinkError> {
        if let Uplink::Own(_) = self.uplink {
            self.portal.follow(&self.config.lan);
        }
        let status = self.status(gateway, now);
        let health = Health {
            ready: status.ready(),
            line: status.summary(),
        };
        self.link.send(&ToWarden::Health(health), &[]).await
    }
}
