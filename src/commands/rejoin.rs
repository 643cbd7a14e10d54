//! `vpngw rejoin`: beside a gateway of the shared topology in Docker, starts containers again that lost their
//! network because the gateway's container was started again. Nothing else needs it, and no other command talks
//! to Docker.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::exit::{Code, Failure};
use super::{block_on, log, until_told};
use crate::config::{Log, LogFormat, LogLevel};
use crate::control::api::printable;

mod decide;
mod docker;

use decide::{Action, Done, decide};
use docker::{Daemon, LookError};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(5);

/// Whom to watch, and where Docker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The gateway's container, or its service of a compose file.
    pub gateway: String,
    /// Docker's socket.
    pub docker: PathBuf,
}

/// Watches until TERM or INT.
///
/// # Errors
/// There is no Docker at the socket.
pub fn run(wanted: &Wanted) -> Result<Code, Failure> {
    // It has no configuration of its own.
    log::start(Log {
        level: LogLevel::Info,
        format: LogFormat::Text,
    });
    block_on(async {
        match until_told(watch(wanted)).await? {
            None => Ok(Code::Ok),
            Some(Err(failure)) => Err(failure),
        }
    })
}

async fn watch(wanted: &Wanted) -> Result<Infallible, Failure> {
    let socket = &wanted.docker;
    let daemon = Daemon::connect(socket).await.with_context(|| {
        let path = socket.display();
        format!(
            "no Docker answers at {path}: mount its socket there (`volumes: [\"{path}:{path}\"]`)"
        )
    });
    let daemon = daemon.map_err(Failure::usage)?;
    info!(gateway = wanted.gateway, "watching");
    let (mut done, mut trouble) = (Done::default(), None);
    let mut next = interval(EVERY);
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        next.tick().await;
        let came = round(&daemon, &wanted.gateway, &mut done).await;
        // What lasts is said once.
        let now = came
            .err()
            .map(|error| format!("{:#}", anyhow::Error::from(error)));
        if let Some(error) = now.as_ref().filter(|_| now != trouble) {
            warn!(error = printable(error), "nobody is watched");
        }
        trouble = now;
    }
}

/// Looks once, and does what is to be done.
async fn round(daemon: &Daemon, gateway: &str, done: &mut Done) -> Result<(), LookError> {
    let look = daemon.look(gateway).await?;
    for action in decide(&look.gateway, &look.dependants, done) {
        carry_out(daemon, action).await;
    }
    Ok(())
}

async fn carry_out(daemon: &Daemon, action: Action) {
    match action {
        Action::Restart { id, name } => match daemon.restart(&id).await {
            Ok(()) => info!(
                container = printable(&name),
                "was stranded, and is restarted"
            ),
            Err(error) => {
                let error = printable(&error.to_string());
                warn!(
                    container = printable(&name),
                    error, "is stranded, and cannot be restarted"
                );
            }
        },
        Action::Tell { name, cure } => warn!(
            container = printable(&name),
            cure = printable(&cure),
            "is stranded: the container that it joined is gone, and a restart would not find another one"
        ),
    }
}
