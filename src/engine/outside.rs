//! What an engine that nobody started is told from outside: signals.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::error;

use super::EngineError;
use crate::config::Config;

/// Reads the configuration again; each line of the error is one thing that is wrong with it.
pub type Reload = Box<dyn Fn() -> Result<Config, String>>;

/// Signals and the configuration. An engine that the warden started has none: the warden speaks for it.
pub(super) struct Outside(Option<Signals>);

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    reload: Reload,
}

/// What was said.
pub(super) enum Told {
    /// There is a new configuration.
    Reload(Box<Config>),
    /// The end.
    Stop,
}

impl Outside {
    pub(super) fn none() -> Self {
        Self(None)
    }

    pub(super) fn new(reload: Reload) -> Result<Self, EngineError> {
        let on = |kind| {
            signal(kind).map_err(|source| EngineError::Io {
                what: "handle signals",
                source,
            })
        };
        Ok(Self(Some(Signals {
            hangup: on(SignalKind::hangup())?,
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            reload,
        })))
    }

    /// Ready when something is said that can be acted on. Cancelled, it is said again.
    pub(super) async fn told(&mut self) -> Told {
        let Some(signals) = &mut self.0 else {
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return Told::Stop,
                _ = signals.interrupt.recv() => return Told::Stop,
                _ = signals.hangup.recv() => match (signals.reload)() {
                    Ok(config) => return Told::Reload(Box::new(config)),
                    Err(why) => {
                        error!("the configuration was not reloaded, the old one stays:\n{why}");
                    }
                },
            }
        }
    }
}
