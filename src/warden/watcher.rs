//! Waits for the kernel's notifications.

use std::io;

use tokio::io::unix::AsyncFd;
use tracing::{debug, warn};

use crate::net::IfName;
use crate::sys::async_fd;
use crate::sys::watch::{Change, Watch};

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// Devices, addresses, routes, rules: they change in bursts.
    Network {
        /// Devices that were taken to another network namespace.
        moved: Vec<IfName>,
        /// Whether the kernel could not tell all.
        lost: bool,
    },
    /// Someone, us included, changed the packet filter.
    Firewall,
}

/// Subscriptions to what changes in the namespace.
pub(super) struct Watcher {
    network: AsyncFd<Watch>,
    firewall: AsyncFd<Watch>,
}

impl Watcher {
    /// Subscribes. What happens from here on is heard of.
    pub(super) fn start() -> io::Result<Self> {
        Ok(Self {
            network: async_fd::watch(Watch::network()?)?,
            firewall: async_fd::watch(Watch::firewall()?)?,
        })
    }

    /// Ready when something changed. What it was is looked at afresh: a notification may be late.
    pub(super) async fn changed(&self) -> Changed {
        tokio::select! {
            changes = heard(&self.network) => {
                let moved = changes.iter().filter_map(|change| match change {
                    Change::LinkMoved { device, .. } => Some(device.clone()),
                    Change::Link(_)
                    | Change::LinkGone(_)
                    | Change::Address
                    | Change::Route
                    | Change::Rule
                    | Change::Ruleset { .. }
                    | Change::Lost => None,
                });
                Changed::Network {
                    moved: moved.collect(),
                    lost: changes.contains(&Change::Lost),
                }
            }
            _ = heard(&self.firewall) => Changed::Firewall,
        }
    }
}

async fn heard(socket: &AsyncFd<Watch>) -> Vec<Change> {
    loop {
        let Ok(mut ready) = socket.readable().await else {
            return vec![Change::Lost];
        };
        let changes = socket.get_ref().read();
        ready.clear_ready();
        match changes {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => {
                if changes.contains(&Change::Lost) {
                    warn!("kernel notifications were lost; looking at everything again");
                }
                debug!(?changes, "the kernel says");
                return changes;
            }
            Err(error) => {
                warn!(%error, "a kernel notification could not be read");
                return vec![Change::Lost];
            }
        }
    }
}
