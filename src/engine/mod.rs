//! The unprivileged half: keys, UDP socket, WireGuard, API, metrics. Holds no capability.
//!
//! It decides when to connect ([`Gateway`]) and moves packets ([`Device`]); what may flow is the
//! warden's to say, and everything that changes the kernel is asked for over the [`Link`].

mod host;
mod rate;
mod serve;
mod status;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time;
use tracing::{debug, info, warn};

use crate::config::{Config, Log};
use crate::control::server::Request;
use crate::gateway::{BlockReason, Event, Gateway, State};
use crate::link::{Facts, Link, LinkError, ToEngine, ToWarden, VERSION};
use crate::metrics::Question;
use crate::sys::fault;
use crate::wireguard::Device;
use host::Host;
use serve::Servers;

/// How often the byte counters are noted, for the rates.
const TICK: Duration = Duration::from_secs(1);

/// How long to sleep where the state machine waits for nothing.
const IDLE: Duration = Duration::from_secs(3600);

/// Why the engine cannot go on. The warden starts another one; the rules stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The socket to the warden.
    #[error("the link to the warden broke")]
    Link(#[from] LinkError),
    /// The warden speaks another protocol, or out of turn.
    #[error("the warden said something out of turn: {0}")]
    Protocol(String),
    /// The data plane.
    #[error("the data plane stopped: {0}")]
    DataPlane(String),
    /// A socket or a thread of our own.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// What the warden's welcome holds.
struct Welcome {
    known: Known,
    blocked: Option<BlockReason>,
    tun: OwnedFd,
    control: Option<UnixListener>,
    uapi: Option<UnixListener>,
}

/// What the engine is told at the start and from then on.
struct Known {
    config: Config,
    mtu: u16,
    facts: Facts,
}

/// Runs the engine over a connected link until the warden closes it. One of the two places that read
/// the clock. `start_log` is called once the configuration is known.
///
/// # Errors
///
/// [`EngineError`] when it cannot go on; inner packets are dropped from then on.
pub async fn run(link: OwnedFd, start_log: fn(Log)) -> Result<(), EngineError> {
    let link = Link::new(link)?;
    let release = env!("CARGO_PKG_VERSION").to_owned();
    link.send(
        &ToWarden::Attach {
            version: VERSION,
            release,
        },
        &[],
    )
    .await?;
    let Some(welcome) = welcome(&link).await? else {
        return Ok(());
    };
    start_log(welcome.known.config.log);

    let (wake, mut woken) = mpsc::unbounded_channel();
    let notify = move |event| {
        // The engine is gone when nobody listens; the thread ends with it.
        let _ = wake.send(event);
    };
    let Known { config, mtu, .. } = &welcome.known;
    let device =
        Device::start(welcome.tun, *mtu, config.tunnel.offload, notify).map_err(|source| {
            EngineError::Io {
                what: "start the data plane",
                source,
            }
        })?;
    let (mut servers, mut questions) = Servers::start(welcome.control);
    servers.metrics_at(config.metrics);

    let gateway = Gateway::new(config.peers.clone(), seed(), Instant::now());
    let (report, mut found) = mpsc::unbounded_channel();
    let host = Host::new(link, device, welcome.known, report);
    let mut core = Core { gateway, host };
    core.host.serve_uapi(welcome.uapi);
    core.handle(Event::Attached {
        blocked: welcome.blocked,
    })
    .await?;
    let mut tick = time::interval(TICK);
    tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut fault = std::pin::pin!(fault::injected());
    loop {
        let due = core
            .gateway
            .deadline()
            .unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            () = &mut fault => {}
            message = core.host.receive() => match message? {
                Some((message, fds)) => {
                    if let Some(event) = core.host.take(message, fds)? {
                        core.handle(event).await?;
                        servers.metrics_at(core.host.config().metrics);
                    }
                }
                None => return Ok(()),
            },
            Some(event) = woken.recv() => core.wireguard(event).await?,
            Some((id, event)) = found.recv() => {
                if core.host.is_current(id) {
                    core.handle(event).await?;
                }
            }
            Some(request) = questions.control.recv() => core.answer(request).await?,
            Some(question) = questions.metrics.recv() => core.scraped(question),
            () = time::sleep_until(due.into()) => core.handle(Event::Timeout).await?,
            _ = tick.tick() => core.host.sample(Instant::now()),
        }
    }
}

/// The state machine and its effects.
struct Core {
    gateway: Gateway,
    host: Host,
}

impl Core {
    async fn handle(&mut self, event: Event) -> Result<(), EngineError> {
        let before = self.gateway.state().clone();
        debug!(?event, "event");
        self.host.cause(cause(&event));
        for action in self.gateway.handle(event, Instant::now()) {
            debug!(?action, "action");
            self.host.perform(action, &self.gateway).await?;
        }
        log_change(&before, self.gateway.state());
        Ok(())
    }

    async fn wireguard(&mut self, event: crate::wireguard::Event) -> Result<(), EngineError> {
        match event {
            crate::wireguard::Event::Handshake => self.handle(Event::Handshake).await,
            crate::wireguard::Event::Silent => self.handle(Event::Silent).await,
            crate::wireguard::Event::PathMtu { remote, mtu } => {
                self.host.path_mtu(remote, mtu).await
            }
            crate::wireguard::Event::Failed(why) => Err(EngineError::DataPlane(why)),
        }
    }

    async fn answer(&mut self, request: Request) -> Result<(), EngineError> {
        let answer = match request {
            Request::Status(answer) => answer,
            Request::Leaks(answer) => {
                // Whoever asked may have hung up.
                let _ = answer.send(self.host.evidence());
                return Ok(());
            }
            Request::Stopped(answer) => return self.host.ask_stopped(answer).await,
            Request::Command(command, answer) => {
                info!(?command, "the operator says");
                self.handle(Event::Command(command)).await?;
                answer
            }
        };
        // Whoever asked may have hung up.
        let _ = answer.send(self.host.status(&self.gateway, Instant::now()));
        Ok(())
    }

    fn scraped(&self, question: Question) {
        let _ = question.send(self.host.sampled(&self.gateway, Instant::now()));
    }
}

async fn welcome(link: &Link) -> Result<Option<Welcome>, EngineError> {
    let Some((message, fds)) = link.receive::<ToEngine>().await? else {
        return Ok(None);
    };
    let ToEngine::Welcome {
        config,
        mtu,
        listeners,
        blocked,
        facts,
    } = message
    else {
        return Err(EngineError::Protocol("no welcome".to_owned()));
    };
    let mut fds = fds.into_iter();
    let Some(tun) = fds.next() else {
        return Err(EngineError::Protocol(
            "a welcome without a TUN device".to_owned(),
        ));
    };
    let (mut control, mut uapi) = (None, None);
    for (name, fd) in listeners.iter().zip(fds) {
        match name.as_str() {
            "control" => control = Some(UnixListener::from(fd)),
            "uapi" => uapi = Some(UnixListener::from(fd)),
            other => warn!(listener = other, "unknown listener from the warden"),
        }
    }
    let known = Known {
        config: *config,
        mtu,
        facts: *facts,
    };
    Ok(Some(Welcome {
        known,
        blocked,
        tun,
        control,
        uapi,
    }))
}

/// Why a tunnel is opened anew, as metrics call it; `None` for events that only carry on what another
/// began.
fn cause(event: &Event) -> Option<&'static str> {
    match event {
        Event::Silent => Some("silent"),
        Event::Timeout => Some("timeout"),
        Event::UplinkChanged => Some("uplink"),
        Event::Reconfigured(_) => Some("reload"),
        Event::Command(_) => Some("operator"),
        Event::Attached { .. }
        | Event::Granted(_)
        | Event::Refused { .. }
        | Event::Resolved(_)
        | Event::Unresolved(_)
        | Event::Handshake
        | Event::Blocked(_) => None,
    }
}

/// Says each state change once: what a person who reads the log wants to know.
fn log_change(before: &State, after: &State) {
    if before == after {
        return;
    }
    match after {
        State::Arming => info!("waiting for the rules"),
        State::Connecting(attempt) => {
            let crate::gateway::Attempt {
                peer, tries, step, ..
            } = attempt;
            match step {
                crate::gateway::Step::Waiting(why) => {
                    warn!(peer, tries, why, "cannot try the server now");
                }
                crate::gateway::Step::Asking(_) => info!(peer, tries, "connecting"),
                crate::gateway::Step::Resolving => info!(peer, "looking up the server's name"),
                crate::gateway::Step::Shaking(_) => info!(peer, "handshake sent"),
            }
        }
        State::Connected { peer, .. } => info!(peer, "connected"),
        // What leaked is in the status: its destination is the user's affair.
        State::Blocked(BlockReason::Leak(_)) => warn!("blocked: loopback only, because of a leak"),
        State::Blocked(reason) => warn!(%reason, "blocked: loopback only"),
    }
}

fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Jitter without entropy is still jitter of one gateway: any seed does.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_le_bytes(bytes)
}
