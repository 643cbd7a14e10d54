//! From all that is known to one order: the whole policy and the whole plan.

use super::event::{Do, Order};
use super::{Guard, Stage};
use crate::net::beside::Shares;
use crate::plan::Plan;
use crate::policy::{Hole, Holes, Policy, PolicyError, Way};

impl Guard {
    /// Orders what follows from all that is known.
    pub(super) fn enforce(&mut self) -> Vec<Do> {
        match (self.wished(), &self.latch) {
            (Ok(policy), None) => vec![self.order(policy)],
            // What is tried while all is blocked must be possible afterwards.
            (Err(error), _) if self.latch.is_none() || self.trial.is_some() => {
                self.impossible(error.to_string())
            }
            (Ok(_) | Err(_), _) => vec![self.order(Policy::default())],
        }
    }

    fn order(&mut self, policy: Policy) -> Do {
        let kernel = &mut self.kernel;
        kernel.number += 1;
        kernel.ordered = policy.clone();
        kernel.settled = false;
        kernel.stage = match (&self.latch, kernel.stage) {
            (_, Stage::LinksDown) => Stage::LinksDown,
            (Some(_), _) => Stage::DenyAll,
            (None, _) => Stage::Wished,
        };
        let number = kernel.number;
        let plan = self.plan();
        Do::Enforce(Box::new(Order {
            number,
            policy,
            plan,
        }))
    }

    /// What may flow when nothing is blocked.
    fn wished(&self) -> Result<Policy, PolicyError> {
        if self.sealed.is_some() {
            return Policy::sealed(&self.config);
        }
        let policy = match &self.seen.uplink {
            Some(uplink) => Policy::of(&self.config, uplink, self.holes())?,
            None => Policy::without_uplink(&self.config),
        };
        Ok(policy.shared_out(&self.shares()))
    }

    /// On which device each LAN exception works.
    fn shares(&self) -> Shares {
        self.config.shares(self.uplink(), &self.seen.links)
    }

    fn holes(&self) -> Holes {
        let hole = self.hole();
        match self.grant.map(|grant| grant.way) {
            None => Holes::default(),
            Some(Way::Endpoint(_)) => Holes {
                endpoint: hole,
                resolver: None,
            },
            Some(Way::Resolver(_)) => Holes {
                endpoint: None,
                resolver: hole,
            },
        }
    }

    fn hole(&self) -> Option<Hole> {
        let grant = self.grant?;
        Some(Hole {
            mark: self.mark,
            source_port: grant.port,
            remote: grant.way.remote(),
        })
    }

    /// What the kernel shall look like, the firewall aside. The MTU of the tunnel is the warden's to find out.
    pub fn plan(&self) -> Plan {
        let hole = self.hole();
        let plan = Plan::of(&self.config, self.uplink(), self.mark, hole.as_ref());
        plan.shared_out(&self.shares())
    }
}
