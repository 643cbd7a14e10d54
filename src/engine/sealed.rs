//! The engine of the sealed topology: finds its warden, offers what its configuration says, and does the same
//! again whenever the warden is gone.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::geteuid;
use tokio::time;
use tracing::{info, warn};

use super::outside::{Outside, Reload, Told};
use super::serve::{Questions, Servers};
use super::status::{self, Parts};
use super::uplink::{Own, Uplink};
use super::{Ended, EngineError, Held, Session, Welcome, attach, seed, welcome, work};
use crate::config::Config;
use crate::control::api::{Status, Topology};
use crate::control::server::Request;
use crate::gateway::{Command, Gateway};
use crate::link::{Decline, Facts, Link, LinkError, Offer, ToWarden};
use crate::net::Stamps;
use crate::sys::seqpacket;
use crate::wireguard::Snapshot;

/// How often the warden is looked for.
const RETRY: Duration = Duration::from_millis(500);

/// How long a warden may take to answer, and how much longer for each so many LAN exceptions, which it has to put in
/// force first: one that is given up and asked again would begin anew each time.
const PATIENCE: Duration = Duration::from_secs(3);
const EXCEPTIONS: usize = 300;

/// What the engine starts from.
pub struct Start {
    /// The configuration.
    pub config: Config,
    /// Reads it again.
    pub reload: Reload,
    /// Answers operators, if it can be opened yet: the folder may be the warden's to open.
    pub control: Option<UnixListener>,
    /// Tries to open it, until there is a warden; the error is one line for the operator.
    pub listen: Box<dyn Fn() -> Result<UnixListener, String>>,
    /// Called once there is a warden, and before anything hostile is heard: opens what is missing, given
    /// whether the control socket is, and gives up what is not needed from then on.
    pub settle: Box<dyn FnOnce(Missing) -> Opened>,
    /// Names the resolvers of this namespace.
    pub resolv_conf: PathBuf,
}

/// Whether the control socket is still to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is.
    Control,
    /// It is open.
    Nothing,
}

/// Listeners that could be opened.
#[derive(Debug, Default)]
pub struct Opened {
    /// Answers operators.
    pub control: Option<UnixListener>,
    /// Answers wg(8).
    pub uapi: Option<UnixListener>,
}

/// Why there is no warden yet.
enum Absent {
    /// It is worth trying again.
    Yet(String),
    /// An operator has to change something.
    Never(EngineError),
}

/// Runs the engine until it is told to stop.
///
/// # Errors
///
/// The warden does not take this engine, or [`EngineError`] when it cannot go on.
pub async fn run_sealed(start: Start) -> Result<(), EngineError> {
    let mut config = start.config;
    let mut outside = Outside::new(start.reload)?;
    let (mut servers, mut questions) = Servers::new();
    let mut door = Door {
        missing: Missing::Control,
        listen: start.listen,
        said: None,
    };
    door.open(start.control, &servers);
    let (mut settle, mut uapi) = (Some(start.settle), None);
    let mut stamps = Stamps::default();
    loop {
        let found = find(&mut config, &mut questions, &mut outside, || {
            door.retry(&servers)
        })
        .await?;
        let Some((link, welcome, pending)) = found else {
            return Ok(());
        };
        if let Some(settle) = settle.take() {
            let opened = settle(door.missing);
            uapi = opened.uapi;
            door.open(opened.control, &servers);
            // Confined, it can be opened no longer.
            door.missing = Missing::Nothing;
        }
        info!("attached to the warden");
        let held = Held {
            uapi: uapi.as_ref().and_then(|uapi| uapi.try_clone().ok()),
            ..Held::default()
        };
        let welcome = Welcome { held, ..welcome };
        let session = Session {
            link,
            welcome,
            uplink: Uplink::Own(Own::new(start.resolv_conf.clone())),
            pending,
        };
        let ended = work(
            session,
            &mut stamps,
            &mut servers,
            &mut questions,
            &mut outside,
        );
        match ended.await {
            Ok(Ended::Stopped) => return Ok(()),
            Ok(Ended::Closed) => warn!("the warden is gone; joined programs have no network"),
            Err(EngineError::Link(error)) => warn!(%error, "the link to the warden broke"),
            Err(error) => return Err(error),
        }
    }
}

/// The control socket, until it is open.
struct Door {
    missing: Missing,
    listen: Box<dyn Fn() -> Result<UnixListener, String>>,
    /// Why it is not open, as the log has it.
    said: Option<String>,
}

impl Door {
    fn open(&mut self, control: Option<UnixListener>, servers: &Servers) {
        if let Some(control) = control {
            servers.control_on(control);
            self.missing = Missing::Nothing;
        }
    }

    /// Tries again. A folder may be writable, or a file out of the way, by now.
    fn retry(&mut self, servers: &Servers) {
        if self.missing == Missing::Nothing {
            return;
        }
        match (self.listen)() {
            Ok(control) => self.open(Some(control), servers),
            Err(why) if self.said.as_ref() != Some(&why) => {
                info!(why, "`vpngw status` does not answer yet");
                self.said = Some(why);
            }
            Err(_) => {}
        }
    }
}

type Found = Option<(Link, Welcome, Option<Command>)>;

/// Looks for the warden until it is there, and answers operators meanwhile. `None` when told to stop.
async fn find(
    config: &mut Config,
    questions: &mut Questions,
    outside: &mut Outside,
    mut meanwhile: impl FnMut(),
) -> Result<Found, EngineError> {
    let since = Instant::now();
    let (mut said, mut pending) = (None, None);
    let mut retry = time::interval(RETRY);
    retry.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = retry.tick() => meanwhile(),
            Some(request) = questions.control.recv() => {
                let answer = match request {
                    Request::Status(answer) => answer,
                    // The warden knows; who asks is told that nobody answers yet.
                    Request::Leaks(_) | Request::Stopped(_) => continue,
                    Request::Command(command, answer) => {
                        info!(?command, "operator command; the warden will hear of it");
                        pending = Some(command);
                        let why = "there is no warden yet; it hears of this as soon as it is there";
                        // Whoever asked may have hung up.
                        let _ = answer.send(Err(why.to_owned()));
                        continue;
                    }
                };
                // Whoever asked may have hung up.
                let _ = answer.send(waiting(config, since, said.as_deref()));
                continue;
            }
            // Nothing is measured yet.
            Some(question) = questions.metrics.recv() => {
                drop(question);
                continue;
            }
            told = outside.told() => match told {
                Told::Stop => return Ok(None),
                Told::Reload(new) => *config = *new,
            },
        }
        let knock = time::timeout(patience(config), knock(config)).await;
        let why = match knock {
            Ok(Ok((link, welcome))) => return Ok(Some((link, welcome, pending))),
            Ok(Err(Absent::Never(error))) => return Err(error),
            Ok(Err(Absent::Yet(why))) => why,
            Err(_) => "it does not answer".to_owned(),
        };
        if said.as_ref() != Some(&why) {
            let socket = config.sealed.socket.display();
            info!(%socket, why, "waiting for the warden");
            said = Some(why);
        }
    }
}

/// Goes to the warden's door once.
async fn knock(config: &Config) -> Result<(Link, Welcome), Absent> {
    let broken = |error: LinkError| Absent::Yet(error.to_string());
    let path = &config.sealed.socket;
    let socket = seqpacket::dial(path).map_err(|error| absent(path, &error))?;
    let user = seqpacket::user(&socket).map_err(|error| absent(path, &error))?;
    if user != 0 && user != geteuid().as_raw() {
        let why = format!("who listens there is user {user}, and the warden is root");
        return Err(Absent::Yet(why));
    }
    let link = Link::new(socket).map_err(broken)?;
    attach(&link).await.map_err(broken)?;
    let offer = ToWarden::Offer(Box::new(Offer::of(config)));
    match link.send(&offer, &[]).await {
        // Why it closed the link is the message that it sent before.
        Ok(()) | Err(LinkError::Closed) => {}
        Err(error) => return Err(broken(error)),
    }
    match welcome(&link, Some(config)).await {
        Ok(Some(welcome)) => Ok((link, welcome)),
        Ok(None) => Err(Absent::Yet("it closed the connection".to_owned())),
        Err(EngineError::Declined(Decline::Busy)) => Err(Absent::Yet(Decline::Busy.to_string())),
        Err(EngineError::Link(error)) => Err(broken(error)),
        Err(error) => Err(Absent::Never(error)),
    }
}

fn patience(config: &Config) -> Duration {
    let exceptions = config.lan.inbound.len() + config.lan.outbound.len();
    PATIENCE + Duration::from_secs((exceptions / EXCEPTIONS) as u64)
}

fn absent(path: &Path, error: &io::Error) -> Absent {
    Absent::Yet(if error.kind() == io::ErrorKind::NotFound {
        format!(
            "there is no {}: is `vpngw warden` running, and do both services mount the same volume \
             at {}?",
            path.display(),
            path.parent().unwrap_or(path).display()
        )
    } else if error.kind() == io::ErrorKind::ConnectionRefused {
        "nobody listens there any more".to_owned()
    } else {
        error.to_string()
    })
}

/// What `vpngw status` says before there is a warden.
fn waiting(config: &Config, since: Instant, why: Option<&str>) -> Status {
    let now = Instant::now();
    let mut status = status::compose(&Parts {
        config,
        facts: &Facts::default(),
        facts_age: Duration::ZERO,
        topology: Topology::Sealed,
        gateway: &Gateway::new(config.peers.clone(), seed(), now),
        snapshot: &Snapshot::default(),
        mtu: config.tunnel.mtu,
        rx_bits_per_second: 0.0,
        tx_bits_per_second: 0.0,
        elapsed: now.saturating_duration_since(since),
        now: SystemTime::now(),
        rejected: 0,
        no_metrics: None,
    });
    status.reason = format!(
        "waiting for the warden: {}",
        why.unwrap_or("looking for it")
    );
    status
}
