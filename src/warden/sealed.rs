//! What the warden of a sealed namespace knows besides: its own configuration, and what its engine offered.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use tracing::{info, warn};

use super::agree::{agree, narrowed};
use super::namespace::{Namespace, StartError};
use super::portal::{self, Portal};
use crate::config::Config;
use crate::link::{Health, Offer};
use crate::net::IfName;
use crate::sys::link;

/// The sealed part of a namespace.
pub(super) struct Sealed {
    /// The operator's configuration as the warden reads it, without a tunnel.
    own: Config,
    /// What the last engine said that was taken.
    offer: Option<Offer>,
    portal: Portal,
    /// What the engine said of its health, last.
    health: Option<Health>,
    /// Bytes that fit the engine's path to the endpoint, once it has found out.
    pub(super) path: Option<u32>,
}

impl Sealed {
    pub(super) fn new(own: Config) -> Self {
        Self {
            own,
            offer: None,
            portal: Portal::default(),
            health: None,
            path: None,
        }
    }
}

/// A sealed namespace has no device that leads anywhere.
pub(super) fn check_devices(own: &IfName) -> Result<(), StartError> {
    // Those that the kernel puts into every namespace (`fb_tunnels_only_for_init_net`) are down.
    let leads = |device: &link::Device| device.up && !device.loopback && device.name != *own;
    match link::devices()?.into_iter().find(leads) {
        Some(device) => Err(StartError::NotSealed(device.name)),
        None => Ok(()),
    }
}

impl Namespace {
    /// Takes what an engine's configuration says of this namespace, in one transaction.
    ///
    /// # Errors
    ///
    /// One line for the operator; nothing has changed.
    pub(super) fn take_offer(&mut self, offer: Offer) -> Result<(), String> {
        let sealed = self.sealed.as_ref().ok_or("this namespace is not sealed")?;
        let config = agree(&sealed.own, &offer)?;
        if config != self.config {
            self.reconfigure(config)?;
        }
        if let Some(sealed) = &mut self.sealed {
            sealed.offer = Some(offer);
            // What the engine before found out was about its way.
            sealed.path = None;
        }
        self.keep_mtu();
        Ok(())
    }

    /// Takes the operator's new configuration. Returns whether the engine still fits it: otherwise the
    /// namespace holds only what both permit.
    ///
    /// # Errors
    ///
    /// Why it is not in force; the old one still is.
    pub(super) fn take_own(&mut self, own: Config) -> Result<bool, String> {
        let sealed = self.sealed.as_ref().ok_or("this namespace is not sealed")?;
        let (config, fits) = match &sealed.offer {
            None => (own.clone(), true),
            Some(offer) => match agree(&own, offer) {
                Ok(config) => (config, true),
                Err(why) => {
                    warn!(why, "the engine's configuration does not fit the new one");
                    (agree(&own, &narrowed(&own, offer))?, false)
                }
            },
        };
        self.reconfigure(config)?;
        if let Some(sealed) = &mut self.sealed {
            sealed.own = own;
        }
        Ok(fits)
    }

    /// The next connection of a joined program to a LAN host. Pending for ever in the shared topology.
    pub(super) async fn accepted(&self) -> (SocketAddrV4, OwnedFd) {
        match &self.sealed {
            Some(sealed) if self.blocked.is_none() => sealed.portal.accepted().await,
            Some(_) | None => std::future::pending().await,
        }
    }

    /// A connection to a joined program, for a LAN client.
    pub(super) fn connect(&self, port: u16, client: Ipv4Addr) -> Result<OwnedFd, String> {
        match (&self.sealed, &self.blocked) {
            (Some(_), None) => portal::connect(&self.config.lan, port, client),
            (Some(_), Some(reason)) => Err(reason.to_string()),
            (None, _) => Err("this namespace is not sealed".to_owned()),
        }
    }

    /// Makes the LAN exceptions of a sealed namespace be as configured.
    pub(super) fn keep_portal(&mut self) {
        if let Some(sealed) = &mut self.sealed {
            sealed.portal.follow(&self.config.lan);
        }
    }

    /// Whether an exception is still to be opened.
    pub(super) fn is_portal_wanting(&self) -> bool {
        let sealed = self.sealed.as_ref();
        sealed.is_some_and(|sealed| sealed.portal.is_wanting())
    }

    /// Remembers what the engine says of its health; `None` when it is gone.
    pub(super) fn note_health(&mut self, health: Option<Health>) {
        if let Some(sealed) = &mut self.sealed {
            sealed.health = health;
        }
    }

    /// What a health check beside the warden is told.
    pub(super) fn health(&self) -> Health {
        let said = self
            .sealed
            .as_ref()
            .and_then(|sealed| sealed.health.clone());
        let not = |line: String| Health { ready: false, line };
        match (&self.blocked, said) {
            (Some(reason), _) => not(format!("blocked: {reason}")),
            (None, Some(health)) => health,
            (None, None) => not("waiting for the engine".to_owned()),
        }
    }

    /// Says where the warden stands before an engine has come.
    pub(super) fn announce(&self) {
        if let Some(sealed) = &self.sealed {
            let (socket, user) = (&sealed.own.sealed.socket, sealed.own.sealed.engine_user);
            info!(socket = %socket.display(), user, "sealed: no uplink; waiting for the engine");
        }
    }
}
