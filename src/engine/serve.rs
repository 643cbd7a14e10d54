//! Starts the servers of the engine. Each asks the main loop for what it serves, so a loop that hangs
//! is never reported as healthy.

use std::net::SocketAddr;
use std::os::unix::net::UnixListener;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::control::server::{self, Request};
use crate::metrics::{self, Question};

/// Questions that may wait; a server answers "busy" past that.
const WAITING: usize = 16;

/// What the servers ask of the main loop.
pub(super) struct Questions {
    pub(super) control: mpsc::Receiver<Request>,
    pub(super) metrics: mpsc::Receiver<Question>,
}

/// What answers operators, and the metrics listener: at most one, moved when its address changes.
pub(super) struct Servers {
    control: mpsc::Sender<Request>,
    metrics: mpsc::Sender<Question>,
    address: Option<SocketAddr>,
    task: Option<JoinHandle<()>>,
}

impl Servers {
    /// Nothing is served yet.
    pub(super) fn new() -> (Self, Questions) {
        let (ask, asked) = mpsc::channel(WAITING);
        let (scrape, scraped) = mpsc::channel(WAITING);
        let servers = Self {
            control: ask,
            metrics: scrape,
            address: None,
            task: None,
        };
        (
            servers,
            Questions {
                control: asked,
                metrics: scraped,
            },
        )
    }

    /// Answers operators on this listener.
    pub(super) fn control_on(&self, listener: UnixListener) {
        let ask = self.control.clone();
        tokio::spawn(async move {
            if let Err(error) = server::serve(listener, ask).await {
                warn!(%error, "the control socket cannot be served");
            }
        });
    }

    /// Serves metrics at this address and no other.
    pub(super) fn metrics_at(&mut self, address: Option<SocketAddr>) {
        if self.address == address {
            return;
        }
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.address = address;
        self.task = address.map(|address| {
            let questions = self.metrics.clone();
            tokio::spawn(async move {
                match metrics::bind(address).await {
                    Ok(listener) => {
                        info!(%address, "metrics");
                        metrics::serve(listener, questions).await;
                    }
                    Err(error) => warn!(%error, "no metrics"),
                }
            })
        });
    }
}
