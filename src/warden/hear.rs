//! Takes in what the engine says.

use std::os::fd::AsFd;
use std::time::Instant;

use tracing::{error, info};

use super::Warden;
use crate::guard::{Event, Offer};
use crate::link::{Decline, Link, ToEngine, ToWarden, VERSION};

impl Warden {
    pub(super) fn hear(&mut self, message: ToWarden) {
        self.child.heard();
        match message {
            ToWarden::Attach { version, release } if version == VERSION => {
                info!(release, "engine attached");
                self.happen(Event::EngineCame);
            }
            ToWarden::Attach { version, release } => {
                error!(
                    version,
                    release, "an engine of another protocol version; this warden speaks {VERSION}"
                );
                self.child.kill();
            }
            ToWarden::Offer(offer) => self.happen(Event::Offered(offer)),
            ToWarden::Connect { id, port, client } => {
                match self.hands.connect(&self.guard, port, client) {
                    Ok(stream) => {
                        let connected = ToEngine::Connected { id };
                        self.child.send(connected, &[stream.as_fd()]);
                    }
                    Err(why) => self.child.send(ToEngine::NotConnected { id, why }, &[]),
                }
                return;
            }
            ToWarden::Stamp { peer, stamp } => {
                self.stamps.note(peer, stamp);
                return;
            }
            ToWarden::Health(health) => {
                self.health = Some((health, Instant::now()));
                return;
            }
            // It asks at the door, where nobody is an engine yet.
            ToWarden::AskHealth => self.child.kill(),
            ToWarden::Ask { id, permit } => {
                let port = self.hands.uplink.prepare(id, &permit, self.guard.config());
                self.happen(Event::Asked { id, permit, port });
            }
            ToWarden::PathMtu { remote, mtu } => {
                // It may speak of a way that is closed by now. In the sealed topology every way is the engine's own.
                if self.guard.is_sealed() || self.guard.remote() == Some(remote) {
                    self.hands.tunnel.path_is(Some(mtu));
                    self.hands.keep(&self.guard);
                }
            }
            ToWarden::Operator { id, command } => {
                self.happen(Event::Operator { id, command });
                // Links that were set down come up.
                self.look();
            }
            ToWarden::Stopped => {
                let report = Box::new(self.stopped.report(tokio::time::Instant::now()));
                self.child.send(ToEngine::Stopped(report), &[]);
                return;
            }
        }
        self.tell_facts();
    }

    /// An engine came to the door. It gets the namespace if there is no other, and if its configuration fits.
    pub(super) fn knocked(&mut self, link: Link, release: String, offer: Offer) {
        if self.child.is_running() {
            self.door.turn_away(link, Decline::Busy);
            return;
        }
        self.knock = Some((link, release));
        self.happen(Event::Offered(Box::new(offer)));
    }
}
