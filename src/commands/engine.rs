//! `vpngw engine`: the unprivileged half. Started by `run`, or in a namespace of its own for the warden of
//! another one.

use std::fs;
use std::os::fd::RawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::confine::{confine, sources};
use super::exit::{Code, Failure};
use super::run::RESOLV_CONF;
use super::warden::at;
use super::{block_on, load, log};
use crate::config::Config;
use crate::engine::{self, EngineError, Missing, Opened, Start};
use crate::sys::landlock::Connects;
use crate::sys::notify::Notify;
use crate::sys::{privilege, process, socket};
use crate::wireguard::uapi;

/// Runs the engine over the inherited socket until the warden closes it.
///
/// # Errors
///
/// Why it cannot go on. The warden starts another one.
pub fn run(link_fd: RawFd) -> Result<Code, Failure> {
    // The first act: nothing that comes from elsewhere is read or parsed with a privilege.
    let parent = rustix::process::getppid().context("the engine is started by the gateway only")?;
    let user = privilege::engine_user(&fs::read_to_string("/etc/passwd").unwrap_or_default());
    privilege::drop_all(parent, user).map_err(anyhow::Error::from)?;
    let link = process::inherited(link_fd).context("the inherited socket")?;
    let confined = confine(&[], Connects::Nowhere);
    let start_log = |log| {
        log::start(log);
        confined.report();
    };
    block_on(engine::run(link, start_log)).map_err(anyhow::Error::from)?;
    Ok(Code::Ok)
}

/// Paths that the command line names.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// The configuration.
    pub config: Option<PathBuf>,
    /// The control socket.
    pub control: Option<PathBuf>,
    /// The socket of the warden.
    pub warden: Option<PathBuf>,
}

impl Paths {
    /// The command line over the configuration.
    fn over(&self, config: Config) -> Config {
        let mut config = at(config, self.warden.as_deref());
        if let Some(control) = &self.control {
            config.control = control.clone();
        }
        config
    }
}

/// Runs the engine of the sealed topology until TERM or INT.
///
/// # Errors
///
/// What is wrong with the configuration, or that the warden does not take this engine, with the code for it.
pub fn run_sealed(paths: Paths) -> Result<Code, Failure> {
    // The configuration is the operator's own, and may be private to the user that started us. Everything
    // else waits until no privilege is left.
    let loaded = load::load_sealed(paths.config.as_deref()).map_err(Failure::usage)?;
    let config = paths.over(loaded.config.clone());
    let early = while_privileged(&config.control);
    privilege::drop_alone(loaded.config.sealed.engine_user).map_err(anyhow::Error::from)?;
    for notice in loaded.notices.iter().chain(&loaded.warnings) {
        eprintln!("{notice}");
    }
    let mut readable = sources(paths.config.as_deref(), &loaded);
    readable.push(RESOLV_CONF.into());
    log::start(config.log);
    let path = config.control.clone();
    let listen = move || socket::listener(&path).map_err(|error| chain(error.into()));
    // In the warden's volume there is room for it only when the warden has been there.
    let control = early.or_else(|| listen().ok());
    let settle = {
        let (config, notify) = (config.clone(), Notify::from_environment());
        move |missing| {
            let opened = settle(&config, missing, &readable);
            notify.ready();
            opened
        }
    };
    let start = Start {
        reload: Box::new(move || match load::load_sealed(paths.config.as_deref()) {
            Ok(loaded) => Ok(paths.over(loaded.config)),
            Err(errors) => Err(errors.to_string()),
        }),
        control,
        listen: Box::new(listen),
        settle: Box::new(settle),
        resolv_conf: RESOLV_CONF.into(),
        config,
    };
    let control = start.config.control.clone();
    let ended = block_on(engine::run_sealed(start));
    // One that is not confined yet, because no warden took it, leaves nothing in the way of the next, which may
    // be another user. What a confined one leaves the next one replaces.
    let _ = fs::remove_file(control);
    match ended {
        Ok(()) => Ok(Code::Ok),
        Err(error @ EngineError::Declined(_)) => Err(Failure::usage(error)),
        Err(error) => Err(anyhow::Error::from(error).into()),
    }
}

/// As root, before that is given up: makes room for the control socket, where an engine of another user may have left one,
/// and opens it where only root can. In a folder that everybody can write, what is opened later is our own user's.
fn while_privileged(path: &Path) -> Option<UnixListener> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    socket::claim(path).ok()?;
    let folder = fs::metadata(path.parent()?).ok()?;
    if folder.permissions().mode() & 0o002 != 0 {
        return None;
    }
    let listener = socket::listener(path).ok()?;
    // Where that is not permitted it stays root's, and root can ask.
    let _ = std::os::unix::fs::lchown(path, Some(privilege::NOBODY), Some(privilege::NOBODY));
    Some(listener)
}

/// An error with its causes, on one line.
fn chain(error: anyhow::Error) -> String {
    format!("{error:#}")
}

/// Opens what is missing, then gives up what an engine does not need. The files that stay readable are held
/// as long as the process lives.
fn settle(config: &Config, missing: Missing, readable: &[PathBuf]) -> Opened {
    let open = |path: &Path, without: &str| match socket::listener(path) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(error = chain(error.into()), "{without}");
            None
        }
    };
    let control = match missing {
        Missing::Control => open(
            &config.control,
            "`vpngw status` and health checks will not answer",
        ),
        Missing::Nothing => None,
    };
    let uapi = socket::listener(&uapi::path(&config.tunnel.device)).ok();
    if uapi.is_none() {
        tracing::info!("`wg show` will not answer");
    }
    let confined = confine(readable, Connects::Lan);
    confined.report();
    confined.stay();
    Opened { control, uapi }
}
