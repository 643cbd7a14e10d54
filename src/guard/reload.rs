//! A new configuration for a running gateway: what it can change, in one order, and the way back.

use super::event::{Answer, Do, Reload, Waiting};
use super::grant::Grant;
use super::offer::{agree, narrowed};
use super::{Guard, Offer, Sealed};
use crate::config::{Config, Host};
use crate::policy::Way;

/// What was in force before something was tried that the kernel may refuse.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    config: Box<Config>,
    sealed: Option<Box<Sealed>>,
    grant: Option<Grant>,
}

impl Trial {
    /// Whether this is the configuration from before.
    pub(super) fn is_of(&self, config: &Config) -> bool {
        *self.config == *config
    }

    /// The way back leads to no grant any more.
    pub(super) fn forget_grant(&mut self) {
        self.grant = None;
    }

    pub(super) fn restore(self, guard: &mut Guard) {
        guard.config = *self.config;
        guard.sealed = self.sealed.map(|sealed| *sealed);
        guard.grant = self.grant;
    }
}

impl Guard {
    /// Remembers the way back, before a change that may be refused. A change that follows one without an answer
    /// leads back to before the first. A permission that nobody has confirmed yet is on no way back.
    pub(super) fn begin(&mut self) {
        if self.trial.is_none() {
            self.trial = Some(Trial {
                config: Box::new(self.config.clone()),
                sealed: self.sealed.clone().map(Box::new),
                grant: self.grant.filter(|_| self.kernel.settled),
            });
        }
    }

    /// The operator wrote another configuration.
    pub(super) fn reloaded(&mut self, new: Config) -> Vec<Do> {
        match self.sealed {
            None => {
                let (config, kept) = self.with_what_cannot_change(new);
                let reload = if config == self.config {
                    Reload::Unchanged { kept }
                } else {
                    Reload::InForce { kept }
                };
                self.begin();
                self.replace(config);
                self.waiting.push(Waiting::Reload(reload));
                self.enforce()
            }
            Some(_) => self.reloaded_sealed(new),
        }
    }

    /// Sealed topology: the new configuration together with what the engine asked for, if that fits.
    fn reloaded_sealed(&mut self, own: Config) -> Vec<Do> {
        let offer = self.sealed.as_ref().and_then(|sealed| sealed.offer.clone());
        let (wanted, misfit) = match together(&own, offer.as_ref()) {
            Ok(found) => found,
            Err(why) => return vec![Do::Answer(Answer::Reloaded(Reload::Refused(why)))],
        };
        let (config, kept) = self.with_what_cannot_change(wanted);
        let same = self.sealed.as_ref().is_some_and(|sealed| sealed.own == own);
        let reload = match &misfit {
            Some(why) => Reload::EngineDiffers { why: why.clone() },
            None if same && config == self.config => Reload::Unchanged { kept },
            None => Reload::InForce { kept },
        };
        self.begin();
        self.replace(config);
        self.sealed = Some(Sealed { own, offer });
        self.waiting.push(Waiting::Reload(reload));
        let mut doing = self.enforce();
        if misfit.is_some() {
            doing.push(Do::DropEngine);
        }
        doing
    }

    /// Sealed topology: the engine says which tunnel this is.
    pub(super) fn offered(&mut self, offer: Offer) -> Vec<Do> {
        let Some(sealed) = &self.sealed else {
            let why = "this namespace is not sealed".to_owned();
            return vec![Do::Answer(Answer::Declined(why))];
        };
        let own = sealed.own.clone();
        let config = match agree(&own, &offer) {
            Ok(config) => config,
            Err(why) => return vec![Do::Answer(Answer::Declined(why))],
        };
        let (config, _) = self.with_what_cannot_change(config);
        self.begin();
        self.replace(config);
        let offer = Some(offer);
        self.sealed = Some(Sealed { own, offer });
        self.waiting.push(Waiting::Offer);
        self.enforce()
    }

    /// Takes the configuration, and back what it no longer holds.
    fn replace(&mut self, config: Config) {
        if self.grant.is_some_and(|grant| !holds(&config, grant.way)) {
            self.grant = None;
        }
        self.config = config;
    }

    /// What a running gateway cannot change keeps its value; the keys that would have changed.
    fn with_what_cannot_change(&self, mut config: Config) -> (Config, Vec<&'static str>) {
        let (old, new, mut kept) = (&self.config, &mut config, Vec::new());
        let (was, is) = (&old.tunnel, &mut new.tunnel);
        keep(&mut is.device, &was.device, "[tunnel] device", &mut kept);
        keep(&mut is.offload, &was.offload, "[tunnel] offload", &mut kept);
        if self.sealed.is_none() {
            keep(&mut is.mtu, &was.mtu, "[tunnel] mtu", &mut kept);
        }
        keep(&mut is.fwmark, &was.fwmark, "FwMark", &mut kept);
        keep(
            &mut new.control,
            &old.control,
            "[control] socket",
            &mut kept,
        );
        keep(&mut new.sealed, &old.sealed, "[sealed]", &mut kept);
        keep(&mut new.log, &old.log, "[log]", &mut kept);
        (config, kept)
    }
}

fn keep<T: Clone + PartialEq>(
    new: &mut T,
    old: &T,
    key: &'static str,
    kept: &mut Vec<&'static str>,
) {
    if new != old {
        kept.push(key);
        *new = old.clone();
    }
}

/// The operator's configuration with what the engine asked for; why that does not fit, if it does not: then only
/// what both permit is in it.
fn together(own: &Config, offer: Option<&Offer>) -> Result<(Config, Option<String>), String> {
    let Some(offer) = offer else {
        return Ok((own.clone(), None));
    };
    match agree(own, offer) {
        Ok(config) => Ok((config, None)),
        Err(why) => Ok((agree(own, &narrowed(own, offer))?, Some(why))),
    }
}

/// Whether the configuration still holds the host at the end of this way.
fn holds(config: &Config, way: Way) -> bool {
    match way {
        Way::Resolver(_) => false,
        Way::Endpoint(remote) => config.peers.iter().any(|peer| {
            let endpoint = &peer.endpoint;
            let host = match endpoint.host {
                Host::Address(ip) => ip == *remote.ip(),
                Host::Name(_) => true,
            };
            host && endpoint.port == remote.port()
        }),
    }
}
