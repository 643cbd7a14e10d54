//! `vpngw run`: closes the namespace, then opens the tunnel and keeps it open.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::thread::CapabilitySet;

use super::exit::{Code, Failure};
use super::{block_on, load, log};
use crate::config::{Config, Errors, Loaded};
use crate::ruleset::Lack;
use crate::sys::notify::Notify;
use crate::sys::{host, link, nft, privilege};
use crate::warden::{self, Engines, Start, StartError};

/// Where the C library reads its resolvers.
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Runs the gateway until TERM or INT. `begun` is when the process started.
///
/// Deny-all is in force when this returns, whatever it returns, unless the kernel took no rules: then
/// every link is down.
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
    let with = move |mut config: Config| {
        // `--socket` wins over `[control] socket`.
        if let Some(socket) = &socket {
            config.control = socket.clone();
        }
        config
    };
    let half = Half {
        engines: Engines::Started,
        keep: privilege::WARDEN,
        load: load::load,
        with: Box::new(with),
    };
    guard(config, half, place, begun)
}

/// How a warden comes to its engines, and what it needs for that.
pub(super) struct Half {
    pub(super) engines: Engines,
    pub(super) keep: CapabilitySet,
    /// Reads the configuration.
    pub(super) load: fn(Option<&Path>) -> Result<Loaded, Errors>,
    /// Lays the command line over it.
    pub(super) with: Box<dyn Fn(Config) -> Config + Send + Sync>,
}

/// Closes the namespace, then runs a warden in it.
pub(super) fn guard(
    config: Option<&Path>,
    half: Half,
    place: Place,
    begun: Instant,
) -> Result<Code, Failure> {
    let armed = first_act(place, half.engines)?;
    let armed_in = begun.elapsed();

    let Some(first) = read(config, &half) else {
        return Ok(Code::Usage);
    };
    log::start(first.log);
    let mut armed = match armed {
        Some(armed) => armed,
        None if first.sealed.without_rules => nft::Armed::without_rules(),
        None => return Err(Failure::usage(anyhow::anyhow!(WITHOUT_RULES))),
    };
    say_what_it_has(&mut armed, armed_in, half.engines)?;
    privilege::no_dumps().map_err(anyhow::Error::from)?;
    privilege::keep_only(half.keep).map_err(anyhow::Error::from)?;

    let (config, engines) = (config.map(PathBuf::from), half.engines);
    let notify = Rc::new(Notify::from_environment());
    let alive = Rc::clone(&notify);
    let start = Start {
        config: first,
        reload: Arc::new(move || again(config.as_deref(), &half)),
        armed: Some(armed),
        armed_in,
        resolv_conf: RESOLV_CONF.into(),
        engines,
        ready: Box::new(move || notify.ready()),
        alive: Box::new(move || alive.alive()),
    };
    match block_on(warden::run(start)) {
        Ok(()) => Ok(Code::Ok),
        // It ran; whoever supervises it is to start it again.
        Err(error @ StartError::TunnelLost(_)) => Err(error.into()),
        Err(error) => Err(Failure::usage(error)),
    }
}

/// [`arm`]; `None` for a sealed namespace on a kernel without rules. Nothing leads out of it either way, and its
/// configuration, which is not read yet, says whether that is enough.
fn first_act(place: Place, engines: Engines) -> Result<Option<nft::Armed>, Failure> {
    refuse_own_namespace(place)?;
    match (nft::arm(), engines) {
        (Ok(armed), _) => Ok(Some(armed)),
        (Err(error), Engines::Awaited) if error.no_rules() => {
            let leads = |it: &link::Device| it.up && it.leads_out;
            match link::devices() {
                Ok(devices) if !devices.iter().any(leads) => Ok(None),
                Ok(_) | Err(_) => Err(unarmed(error)),
            }
        }
        (Err(error), Engines::Awaited | Engines::Started) => Err(unarmed(error)),
    }
}

/// Asks what else of the kernel's the rules can use, and says what they have to do without.
fn say_what_it_has(
    armed: &mut nft::Armed,
    armed_in: Duration,
    engines: Engines,
) -> Result<(), Failure> {
    let kernel = nft::probe(armed).map_err(|error| {
        let error = anyhow::Error::from(error);
        Failure::usage(
            error.context("deny-all is in force and stays so; nothing beyond it could be loaded"),
        )
    })?;
    tracing::info!(
        microseconds = armed_in.as_micros(),
        rules = kernel.rules,
        raw_frames = kernel.egress_hook,
        "armed"
    );
    for lack in kernel.lacks() {
        let cure = lack.cure();
        match (lack, engines) {
            (Lack::EgressHook, Engines::Awaited) => {
                tracing::info!("{lack}; a sealed namespace has no device that one could leave by")
            }
            (Lack::EgressHook, Engines::Started) | (Lack::Rules | Lack::Log | Lack::Reject, _) => {
                tracing::warn!(cure, "{lack}")
            }
        }
    }
    Ok(())
}

/// What arguments that cannot be read were meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meant {
    /// To close this namespace: they name a command that does.
    Closing,
    /// They name no command. As the arguments of a container they stand in the place of `run`; typed by a person they are
    /// a slip.
    Unknown,
    /// They name another command.
    Other,
}

/// Closes the namespace for arguments that cannot be read, if they were to close it: wrong ones must not leave it open. A slip
/// of a person changes nothing, and the machine's own namespace is left alone without a word about it.
pub fn close_if_meant(meant: Meant) {
    let closing = match meant {
        Meant::Closing => true,
        Meant::Unknown => host::is_first_of_a_container(),
        Meant::Other => false,
    };
    if !closing || host::may_be_own_namespace() {
        return;
    }
    match arm(Place::MadeForUs) {
        Ok(_) => {
            eprintln!("vpngw: nothing leaves this namespace any more; `vpngw cleanup` opens it")
        }
        Err(Failure { error, .. }) => eprintln!("vpngw: {error:#}"),
    }
}

/// Which namespace may be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// One that was made for the gateway, by evidence.
    MadeForUs,
    /// Whichever this is: the operator said so.
    Anywhere,
}

/// The first act. A machine's own namespace is left alone: closing it would cut the machine off.
fn arm(place: Place) -> Result<nft::Armed, Failure> {
    refuse_own_namespace(place)?;
    nft::arm().map_err(unarmed)
}

fn refuse_own_namespace(place: Place) -> Result<(), Failure> {
    if place == Place::MadeForUs && host::may_be_own_namespace() {
        return Err(Failure::usage(anyhow::anyhow!(HOST)));
    }
    Ok(())
}

const WITHOUT_RULES: &str = "this kernel has no nf_tables, so no rule can be in force, and the warden does not run \
    without rules unless it is told to. Nothing leads out of this namespace either way, but without rules DNS to foreign \
    resolvers (G7), IPv6 (G9), unasked connections from the tunnel (G11) and private networks (G12) are not held back. \
    Load nf_tables on the machine (`modprobe nf_tables`); or, if that is enough for you, set `[sealed] without_rules = \
    true` for the warden (VPNGW_SEALED_WITHOUT_RULES=true)";

const HOST: &str = "this looks like the machine's own network namespace: closing it would cut the \
    machine off, so nothing was changed; run it in a container (without \
    `network_mode: host`) or in a namespace of its own (`ip netns add`, `ip netns exec`), or say `run --allow-host` if you mean this one";

fn unarmed(error: nft::ApplyError) -> Failure {
    if error.is_owned()
        && let Some(process) = gateway()
    {
        return Failure::usage(anyhow::anyhow!(
            "a gateway runs in this namespace already (process {process}); nothing was changed"
        ));
    }
    let cure = if error.no_rules() {
        Lack::Rules.cure()
    } else {
        "the gateway needs CAP_NET_ADMIN and a kernel with nf_tables"
    };
    let alone = link::devices().is_ok_and(|devices| devices.iter().all(|it| it.loopback));
    let error = anyhow::Error::from(error);
    match link::all_down() {
        Ok(()) if alone => Failure::usage(error.context(format!(
            "the kill switch could not be armed; this namespace has no device but loopback, so nothing leads out; {cure}"
        ))),
        Ok(()) => Failure::usage(error.context(format!(
            "the kill switch could not be armed, so every link was set down; {cure}"
        ))),
        Err(down) => Failure::usage(error.context(format!(
            "the kill switch could not be armed, and links could not be set down ({down}): THIS \
             NAMESPACE IS OPEN; the gateway needs CAP_NET_ADMIN (`cap_add: [NET_ADMIN]`)"
        ))),
    }
}

/// The process of the gateway that the rules belong to. They may belong to somebody else, who is no reason to
/// leave the links up.
fn gateway() -> Option<u32> {
    let process = nft::owner().ok()??;
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    (name.trim_end() == "vpngw").then_some(process)
}

/// The configuration; `None` when what is wrong with it has been printed.
fn read(config: Option<&Path>, half: &Half) -> Option<Config> {
    match (half.load)(config) {
        Ok(loaded) => {
            for notice in loaded.notices.iter().chain(&loaded.warnings) {
                eprintln!("{notice}");
            }
            Some((half.with)(loaded.config))
        }
        Err(errors) => {
            eprintln!("{errors}");
            eprintln!("vpngw: the configuration is not valid; the namespace stays closed");
            None
        }
    }
}

fn again(config: Option<&Path>, half: &Half) -> Result<Config, String> {
    match (half.load)(config) {
        Ok(loaded) => {
            for notice in &loaded.notices {
                tracing::info!("{notice}");
            }
            for warning in &loaded.warnings {
                tracing::warn!("{warning}");
            }
            Ok((half.with)(loaded.config))
        }
        Err(errors) => Err(errors.to_string()),
    }
}
