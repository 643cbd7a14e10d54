//! A new configuration for a running gateway: what it can change, in one transaction.

use tracing::warn;

use super::namespace::Namespace;
use crate::config::{Config, Host};
use crate::policy::Way;
use crate::sys::link;

impl Namespace {
    /// Takes a whole new configuration, in one transaction. Returns what is in force from now on.
    ///
    /// # Errors
    ///
    /// Why it is not in force; the old one still is.
    pub(super) fn reconfigure(&mut self, config: Config) -> Result<Config, String> {
        let config = self.with_what_cannot_change(config);
        let gone = self
            .open
            .as_ref()
            .is_some_and(|open| !holds(&config, open.way));
        let open = if gone { self.open.take() } else { None };
        let old = std::mem::replace(&mut self.config, config);
        if let Err(error) = self.settle() {
            self.config = old;
            self.open = open.or_else(|| self.open.take());
            self.settle_or_block();
            return Err(error.to_string());
        }
        if let Err(error) = link::configure(&self.plan().tunnel) {
            warn!(%error, "the tunnel device keeps its former settings");
        }
        self.keep_portal();
        self.write_resolver();
        Ok(self.config.clone())
    }

    /// What a running gateway cannot change keeps its value, and is said.
    fn with_what_cannot_change(&self, mut config: Config) -> Config {
        let (old, new) = (&self.config, &mut config);
        keep(
            &mut new.tunnel.device,
            &old.tunnel.device,
            "[tunnel] device",
        );
        keep(
            &mut new.tunnel.offload,
            &old.tunnel.offload,
            "[tunnel] offload",
        );
        if self.sealed.is_none() {
            keep(&mut new.tunnel.mtu, &old.tunnel.mtu, "[tunnel] mtu");
        }
        keep(&mut new.tunnel.fwmark, &old.tunnel.fwmark, "FwMark");
        keep(&mut new.control, &old.control, "[control] socket");
        keep(&mut new.sealed, &old.sealed, "[sealed]");
        keep(&mut new.log, &old.log, "[log]");
        config
    }
}

fn keep<T: Clone + PartialEq>(new: &mut T, old: &T, key: &str) {
    if new != old {
        warn!(key, "takes effect when the gateway is started again");
        *new = old.clone();
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
