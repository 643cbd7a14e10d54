//! What the engine asks for, and what it gets: one way across the uplink at a time.

use super::Guard;
use super::event::{Answer, Do, Waiting};
use crate::policy::{Permit, Way, way};

/// The one way across the uplink that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) way: Way,
    /// Source port of the socket that goes it.
    pub(super) port: u16,
}

impl Guard {
    /// Grants what the configuration holds, in one order that also closes what was open before.
    pub(super) fn asked(&mut self, id: u64, permit: Permit, port: Result<u16, String>) -> Vec<Do> {
        let grant = match self.may(&permit, port) {
            Ok(grant) => grant,
            Err(why) => return vec![Do::Answer(Answer::Refused { id, permit, why })],
        };
        // A question that was not answered yet is overtaken by this one.
        self.begin();
        self.grant = grant;
        self.waiting.push(Waiting::Grant { id, permit, grant });
        self.enforce()
    }

    fn may(&self, permit: &Permit, port: Result<u16, String>) -> Result<Option<Grant>, String> {
        if let Some(reason) = &self.latch {
            return Err(reason.to_string());
        }
        // What an engine before was granted may still be open.
        let early = |waiting: &Waiting| matches!(waiting, Waiting::Welcome);
        if self.waiting.iter().any(early) {
            return Err("this engine is not welcome yet".to_owned());
        }
        let resolver = self.config.resolver.or(self.former_resolver);
        let Some(way) = way::check(&self.config, resolver, permit)? else {
            return Ok(None);
        };
        if self.uplink().is_none() {
            return Err("there is no uplink".to_owned());
        }
        let port = port?;
        Ok(Some(Grant { way, port }))
    }

    /// Whatever was granted to an engine before is over when the next one begins.
    pub(super) fn engine_came(&mut self) -> Vec<Do> {
        self.close();
        self.forget_engine();
        self.waiting.push(Waiting::Welcome);
        self.enforce()
    }

    pub(super) fn engine_gone(&mut self) -> Vec<Do> {
        self.forget_engine();
        if self.grant.is_none() {
            return vec![];
        }
        self.close();
        self.enforce()
    }

    /// Nobody hears the answers that an engine waited for, an operator's among them: he asked by way of it.
    fn forget_engine(&mut self) {
        self.waiting.retain(|waiting| match waiting {
            Waiting::Grant { .. }
            | Waiting::Operator { .. }
            | Waiting::Welcome
            | Waiting::Offer => false,
            Waiting::Reload(_) => true,
        });
    }
}
