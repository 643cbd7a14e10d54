//! Performs what the guard decides, in order, and tells it each outcome before the next thing is done.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::Instant;

use tracing::{debug, error, info, warn};

use super::Warden;
use super::facts::facts;
use super::start::places;
use crate::guard::{Answer, Do, Event, News, Note, Reload};
use crate::link::{Decline, ToEngine};

impl Warden {
    /// Something happened: the guard decides, and what it decides is done.
    pub(super) fn happen(&mut self, event: Event) {
        let mut todo: VecDeque<Do> = self.guard.handle(event, Instant::now()).into();
        while let Some(next) = todo.pop_front() {
            let Some(outcome) = self.perform(next) else {
                continue;
            };
            let more = self.guard.handle(outcome, Instant::now());
            for next in more.into_iter().rev() {
                todo.push_front(next);
            }
        }
    }

    fn perform(&mut self, doing: Do) -> Option<Event> {
        match doing {
            Do::Enforce(order) => {
                let number = order.number;
                return Some(match self.hands.enforce(&order, &self.guard) {
                    Ok(enforced) => Event::Enforced(enforced),
                    Err(refusal) => Event::Refused { number, refusal },
                });
            }
            Do::Verify => return self.hands.verify(),
            Do::LinksDown => return Some(Event::LinksDown(self.hands.links_down())),
            Do::SetDown(device) => self.hands.set_down(&device),
            Do::SetUp(device) => self.hands.set_up(&device),
            Do::Forgive => {
                self.hands.count(&self.guard);
                drop(self.hands.seen());
            }
            Do::Adopt => {
                self.hands.adopt(&self.guard);
                self.hands.keep(&self.guard);
                self.listen();
            }
            Do::DropEngine => self.child.kill(),
            Do::Answer(answer) => self.answer(answer),
            Do::Tell(news) => self.tell(news),
            Do::Note(note) => self.note(note),
        }
        None
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Granted { id, permit, way } => {
                let socket = self.hands.uplink.take(id);
                let remote = way.map(crate::policy::Way::remote);
                let granted = ToEngine::Granted { id, permit, remote };
                let fds: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
                self.child.send(granted, &fds);
                self.hands.tunnel.path_is(None);
                self.hands.keep(&self.guard);
            }
            Answer::Refused { id, permit, why } => {
                self.child.send(ToEngine::Refused { id, permit, why }, &[]);
            }
            Answer::Done { id } => self.child.send(ToEngine::Done { id }, &[]),
            Answer::NotDone { id, why } => self.child.send(ToEngine::NotDone { id, why }, &[]),
            Answer::Agreed => self.agreed(),
            Answer::Declined(why) => self.declined(why),
            Answer::Welcome { blocked } => self.welcome(blocked),
            Answer::Reloaded(reload) => say(reload),
        }
    }

    /// The engine's configuration is in force: one at the door comes in.
    fn agreed(&mut self) {
        let Some((link, release)) = self.knock.take() else {
            self.child.send(ToEngine::Agreed, &[]);
            return;
        };
        info!(release, "engine attached");
        self.child.adopt(link, Instant::now());
        self.happen(Event::EngineCame);
    }

    fn declined(&mut self, why: String) {
        let why = Decline::Offer(why);
        match self.knock.take() {
            Some((link, _)) => self.door.turn_away(link, why),
            None => {
                warn!(%why, "the engine's new configuration is not taken");
                self.child.send(ToEngine::Declined(why), &[]);
            }
        }
    }

    fn welcome(&mut self, blocked: Option<crate::gateway::BlockReason>) {
        // What an engine before found out was about its way.
        self.hands.tunnel.path_is(None);
        self.hands.keep(&self.guard);
        self.hands.record.tell_anew();
        let facts = Box::new(facts(&mut self.hands, &self.guard));
        let (mut listeners, mut fds) = (Vec::new(), vec![self.hands.tunnel.fd()]);
        for (kind, socket) in self.hands.listeners.held() {
            listeners.push(kind);
            fds.push(socket);
        }
        let config = self.guard.config();
        let welcome = ToEngine::Welcome {
            config: (!self.guard.is_sealed()).then(|| Box::new(config.clone())),
            mtu: config.tunnel.mtu,
            listeners,
            blocked,
            facts,
            stamps: self.stamps.clone(),
        };
        self.child.welcome(welcome, &fds);
        self.tell_facts();
    }

    /// Listens where the configuration says, and hands on what is new. In the sealed topology the engine has its own.
    pub(super) fn listen(&mut self) {
        if self.guard.is_sealed() {
            return;
        }
        let places = places(self.guard.config());
        for kind in self.hands.listeners.follow(&places) {
            if let Some(socket) = self.hands.listeners.socket(kind) {
                self.child.send(ToEngine::Listen(kind), &[socket]);
            }
        }
    }

    fn tell(&mut self, news: News) {
        let message = match news {
            News::UplinkChanged => ToEngine::UplinkChanged,
            News::Blocked(reason) => {
                self.tell_facts();
                ToEngine::Blocked(reason)
            }
            News::Reconfigured => ToEngine::Reconfigure(Box::new(self.guard.config().clone())),
        };
        self.child.send(message, &[]);
    }

    /// Tells the engine what is known.
    pub(super) fn tell_facts(&mut self) {
        let facts = facts(&mut self.hands, &self.guard);
        self.child.send(ToEngine::Facts(Box::new(facts)), &[]);
        if let Some(evidence) = self.hands.record.untold() {
            self.child.send(ToEngine::Evidence(evidence), &[]);
        }
    }

    fn note(&self, note: Note) {
        match note {
            Note::Uplink(Some(uplink)) => info!(device = %uplink.device, "uplink changed"),
            Note::Uplink(None) => warn!("the uplink is gone"),
            Note::Unobserved(error) => warn!(error, "the uplink cannot be observed"),
            Note::RulesUndone(what) => warn!(
                what,
                "another program changed our rules; they are loaded again"
            ),
            Note::RulesUnread(error) => {
                warn!(
                    error,
                    "our rules cannot be read back; they are loaded again"
                );
            }
            Note::Routes(error) => warn!(error, "routes are not as planned"),
            Note::Failed(why) => error!(
                why,
                "the rules could not be put in force; everything is blocked"
            ),
            Note::DenyAllFailed(error) => error!(
                error,
                "deny-all could not be put in force; every link is set down"
            ),
            // Which frame it was is in the status; its destination is the user's affair.
            Note::Leak(leak) => {
                error!("LEAK: a frame left that the policy does not permit; everything is blocked");
                debug!(leak, "leak");
            }
            Note::StillLeaking(device) => error!(
                %device,
                "frames go on leaving although everything is blocked; the device is set down"
            ),
        }
    }
}

/// Says what became of a new configuration.
fn say(reload: Reload) {
    let stays = |kept: Vec<&'static str>| {
        for key in kept {
            warn!(key, "takes effect when the gateway is started again");
        }
    };
    match reload {
        Reload::InForce { kept } => {
            stays(kept);
            info!("configuration reloaded");
        }
        Reload::Unchanged { kept } => {
            stays(kept);
            info!("not reloaded: nothing changed");
        }
        Reload::EngineDiffers { why } => {
            warn!(why, "the engine's configuration does not fit the new one");
            info!("configuration reloaded; the engine has to come again");
        }
        Reload::Refused(why) => {
            error!("the configuration was not reloaded, the old one stays:\n{why}");
        }
    }
}
