//! What an operator says, and how he hears that it is so.

use super::Guard;
use super::event::{Answer, Do, Waiting};
use crate::gateway::{BlockReason, Command};

impl Guard {
    pub(super) fn operator(&mut self, id: u64, command: Command) -> Vec<Do> {
        self.waiting.push(Waiting::Operator { id, command });
        match command {
            Command::Disconnect => {
                self.latch(BlockReason::Operator);
                self.enforce()
            }
            Command::Connect => self.connect(),
        }
    }

    /// The only way out of a block. What the gateway set down itself comes up once the rules are confirmed.
    fn connect(&mut self) -> Vec<Do> {
        self.latch = None;
        self.fallen.extend(self.leaking.forgive());
        let mut doing = vec![Do::Forgive];
        doing.extend(self.enforce());
        doing
    }

    /// Answers all who waited for the newest order, which is in force.
    pub(super) fn answer(&mut self) -> Vec<Do> {
        let waiting = std::mem::take(&mut self.waiting);
        let answers = waiting.into_iter().map(|waiting| self.answer_to(waiting));
        answers.map(Do::Answer).collect()
    }

    fn answer_to(&self, waiting: Waiting) -> Answer {
        match waiting {
            Waiting::Grant { id, permit, grant } => match (&self.latch, self.grant == grant) {
                (None, true) => Answer::Granted {
                    id,
                    permit,
                    way: grant.map(|grant| grant.way),
                },
                (Some(reason), _) => {
                    let why = reason.to_string();
                    Answer::Refused { id, permit, why }
                }
                (None, false) => {
                    let why = "the uplink or the configuration changed meanwhile".to_owned();
                    Answer::Refused { id, permit, why }
                }
            },
            Waiting::Operator { id, command } => match (command, &self.latch) {
                (Command::Disconnect, Some(_)) | (Command::Connect, None) => Answer::Done { id },
                (Command::Disconnect, None) => {
                    let why = "a later `vpngw connect` lifted the block".to_owned();
                    Answer::NotDone { id, why }
                }
                (Command::Connect, Some(reason)) => {
                    let why = format!("everything is blocked: {reason}");
                    Answer::NotDone { id, why }
                }
            },
            Waiting::Welcome => Answer::Welcome {
                blocked: self.latch.clone(),
            },
            Waiting::Offer => Answer::Agreed,
            Waiting::Reload(reload) => Answer::Reloaded(reload),
        }
    }

    /// Answers all who waited for an order that will not be in force.
    pub(super) fn disappoint(&mut self, why: &str) -> Vec<Do> {
        let waiting = std::mem::take(&mut self.waiting);
        let refuse = |waiting| match waiting {
            Waiting::Grant { id, permit, .. } => {
                let why = why.to_owned();
                Answer::Refused { id, permit, why }
            }
            Waiting::Operator { id, .. } => {
                let why = why.to_owned();
                Answer::NotDone { id, why }
            }
            Waiting::Welcome => Answer::Welcome {
                blocked: self.latch.clone(),
            },
            Waiting::Offer => Answer::Declined(why.to_owned()),
            Waiting::Reload(_) => Answer::Reloaded(super::Reload::Refused(why.to_owned())),
        };
        waiting.into_iter().map(refuse).map(Do::Answer).collect()
    }
}
