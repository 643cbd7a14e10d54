//! `vpngw warden`: closes a namespace that has no uplink, and holds it for an engine in another one.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::exit::{Code, Failure};
use super::load;
use super::run::{Half, Place, guard};
use crate::config::Config;
use crate::sys::privilege;
use crate::warden::Engines;

/// Runs the warden of the sealed topology until TERM or INT. `socket` is where it listens for its engine, and
/// `begun` when the process started. Deny-all is in force as after [`run`](super::run::run).
///
/// # Errors
///
/// What is wrong with the configuration or the namespace, with the code for it.
pub fn run(
    config: Option<&Path>,
    socket: Option<&Path>,
    place: Place,
    begun: Instant,
) -> Result<Code, Failure> {
    let socket = socket.map(PathBuf::from);
    let half = Half {
        engines: Engines::Awaited,
        keep: privilege::SEALED_WARDEN,
        load: load::load_without_tunnel,
        with: Box::new(move |config| at(config, socket.as_deref())),
    };
    guard(config, half, place, begun)
}

/// `--socket-of-warden` wins over `[sealed] socket`.
pub(super) fn at(mut config: Config, socket: Option<&Path>) -> Config {
    if let Some(socket) = socket {
        config.sealed.socket = socket.to_owned();
    }
    config
}
