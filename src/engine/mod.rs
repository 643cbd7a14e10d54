//! The unprivileged half: keys, UDP socket, WireGuard, API, metrics. Holds no capability.
//!
//! It decides when to connect ([`Gateway`]) and moves packets ([`Device`]); what may flow is the
//! warden's to say, and everything that changes the kernel is asked for over the [`Link`]. In the sealed topology
//! it lives in the uplink's namespace and opens its own way to the server ([`run_sealed`]).

mod confirm;
mod diagnosis;
mod host;
mod lookup;
mod open;
mod outside;
mod portal;
mod rate;
mod sealed;
mod serve;
mod status;
mod uplink;
mod words;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time;
use tracing::{debug, info, warn};

use crate::config::{Config, Log, PublicKey};
use crate::control::server::Request;
use crate::gateway::{BlockReason, Command, Event, Gateway, State, Step};
use crate::link::{Decline, Facts, Link, LinkError, Listener, ToEngine, ToWarden, VERSION};
use crate::metrics::Question;
use crate::net::Stamps;
use crate::policy::IntoTunnel;
use crate::sys::fault;
use crate::wireguard::{Device, Setup};
use host::Host;
use outside::{Outside, Told};
use serve::{Questions, Servers};
use uplink::Uplink;

pub use outside::Reload;
pub use sealed::{Missing, Opened, Start, run_sealed};

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
    /// The warden does not take this engine.
    #[error("the warden does not take this engine: {0}")]
    Declined(Decline),
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
    stamps: Stamps<PublicKey>,
    held: Held,
}

/// Listeners that the warden holds for us, so that nobody takes their place while an engine is replaced.
#[derive(Default)]
struct Held {
    control: Option<UnixListener>,
    uapi: Option<UnixListener>,
    metrics: Option<TcpListener>,
}

/// What the engine is told at the start and from then on.
struct Known {
    config: Config,
    mtu: u16,
    facts: Facts,
}

/// Runs the engine over a connected link until the warden closes it. `start_log` is called once the
/// configuration is known.
///
/// # Errors
///
/// [`EngineError`] when it cannot go on; inner packets are dropped from then on.
pub async fn run(link: OwnedFd, start_log: impl FnOnce(Log)) -> Result<(), EngineError> {
    let link = Link::new(link)?;
    attach(&link).await?;
    let Some(mut welcome) = welcome(&link, None).await? else {
        return Ok(());
    };
    start_log(welcome.known.config.log);
    let (mut servers, mut questions) = Servers::new();
    if let Some(control) = welcome.held.control.take() {
        servers.control_on(control);
    }
    let mut outside = Outside::none();
    let session = Session {
        link,
        welcome,
        uplink: Uplink::Warden,
        pending: None,
    };
    let mut stamps = Stamps::default();
    work(
        session,
        &mut stamps,
        &mut servers,
        &mut questions,
        &mut outside,
    )
    .await?;
    Ok(())
}

/// One warden, from its welcome on.
struct Session {
    link: Link,
    welcome: Welcome,
    uplink: Uplink,
    /// What the operator said before there was a warden.
    pending: Option<Command>,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The warden is gone.
    Closed,
    /// We were told to stop.
    Stopped,
}

/// Keeps the tunnel open until the warden closes the link. `stamps` are those of handshakes that this process has sent,
/// to whatever warden. One of the two places that read the clock.
async fn work(
    session: Session,
    stamps: &mut Stamps<PublicKey>,
    servers: &mut Servers,
    questions: &mut Questions,
    outside: &mut Outside,
) -> Result<Ended, EngineError> {
    let Session {
        link,
        welcome,
        uplink,
        pending,
    } = session;
    remember(&link, stamps, &welcome.stamps).await?;
    let (wake, mut woken) = mpsc::unbounded_channel();
    let notify = move |event| {
        // The engine is gone when nobody listens; the thread ends with it.
        let _ = wake.send(event);
    };
    let Known { config, mtu, .. } = &welcome.known;
    let setup = Setup {
        tun: welcome.tun,
        mtu: *mtu,
        offload: config.tunnel.offload,
        policy: IntoTunnel::of(config),
        stamps: stamps.clone(),
    };
    let device = Device::start(setup, notify).map_err(|source| EngineError::Io {
        what: "start the data plane",
        source,
    })?;
    let metrics = config.metrics;
    if let Some(listener) = welcome.held.metrics {
        servers.metrics_given(listener);
    }
    servers.metrics_at(metrics, &welcome.known.facts.unheard);

    let gateway = Gateway::new(config.peers.clone(), seed(), Instant::now());
    let (report, mut found) = mpsc::unbounded_channel();
    let mut host = Host::new(link, uplink, device, welcome.known, report, Instant::now());
    host.note_metrics(servers.trouble());
    let mut core = Core {
        gateway,
        host,
        stamps,
        explained: None,
    };
    core.host.serve_uapi(welcome.held.uapi);
    core.handle(Event::Attached {
        blocked: welcome.blocked,
    })
    .await?;
    if let Some(command) = pending {
        core.host.command(command, None).await?;
        core.handle(Event::Command(command)).await?;
    }
    let mut tick = time::interval(TICK);
    tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut fault = std::pin::pin!(fault::injected());
    loop {
        let due = core
            .gateway
            .deadline()
            .unwrap_or_else(|| Instant::now() + IDLE);
        let blocked = matches!(core.gateway.state(), State::Blocked(_));
        tokio::select! {
            () = &mut fault => {}
            message = core.host.receive() => match message? {
                Some((message, fds)) => {
                    if let Some(event) = core.host.take(message, fds, Instant::now())? {
                        core.handle(event).await?;
                    }
                    core.host.pass_on(&core.gateway, Instant::now());
                    core.keep_metrics(servers);
                }
                None => return Ok(Ended::Closed),
            },
            Some(event) = woken.recv() => core.wireguard(event).await?,
            Some((id, event)) = found.recv() => {
                if core.host.is_current(id) {
                    core.handle(event).await?;
                }
            }
            Some(request) = questions.control.recv() => core.answer(request).await?,
            Some(question) = questions.metrics.recv() => core.scraped(question),
            visitor = core.host.visitor(), if !blocked => core.host.admit(visitor, Instant::now()).await?,
            told = outside.told() => match told {
                Told::Stop => return Ok(Ended::Stopped),
                Told::Reload(config) => {
                    if let Some(event) = core.host.reload(*config).await? {
                        core.handle(event).await?;
                    }
                    core.keep_metrics(servers);
                }
            },
            () = time::sleep_until(due.into()) => core.handle(Event::Timeout).await?,
            _ = tick.tick() => {
                core.host.sample(Instant::now());
                core.host.heard.watch(Instant::now());
                core.host.tell_health(&core.gateway, Instant::now()).await?;
                core.explain();
            }
        }
    }
}

/// Says of which handshakes the warden has not heard, and takes over those that it has.
async fn remember(
    link: &Link,
    stamps: &mut Stamps<PublicKey>,
    told: &Stamps<PublicKey>,
) -> Result<(), LinkError> {
    for (peer, stamp) in stamps.newer_than(told) {
        link.send(&ToWarden::Stamp { peer, stamp }, &[]).await?;
    }
    stamps.merge(told);
    Ok(())
}

/// The state machine and its effects.
struct Core<'a> {
    gateway: Gateway,
    host: Host,
    stamps: &'a mut Stamps<PublicKey>,
    /// The stay in `connecting` of which the log has said why it lasts.
    explained: Option<Instant>,
}

impl Core<'_> {
    async fn handle(&mut self, event: Event) -> Result<(), EngineError> {
        let before = self.gateway.state().clone();
        debug!(?event, "event");
        self.host.cause(words::cause(&event));
        for action in self.gateway.handle(event, Instant::now()) {
            debug!(?action, "action");
            self.host.perform(action, &self.gateway).await?;
        }
        if matches!(self.gateway.state(), State::Blocked(_)) {
            self.host.cut();
        }
        words::log_change(&before, &self.gateway);
        Ok(())
    }

    async fn wireguard(&mut self, event: crate::wireguard::Event) -> Result<(), EngineError> {
        match event {
            crate::wireguard::Event::Handshake => self.handle(Event::Handshake).await,
            crate::wireguard::Event::Silent => self.handle(Event::Silent).await,
            crate::wireguard::Event::NothingReturns => {
                warn!(
                    "the server answers, and nothing comes back through it: the account may have ended, or the key may \
                     have been withdrawn"
                );
                self.handle(Event::NothingReturns).await
            }
            crate::wireguard::Event::Returns => {
                info!("packets come back through the tunnel again");
                self.handle(Event::Returns).await
            }
            crate::wireguard::Event::PathMtu { remote, mtu } => {
                self.host.path_mtu(remote, mtu).await
            }
            crate::wireguard::Event::Stamp { peer, stamp } => {
                self.stamps.note(peer, stamp);
                self.host.stamp(peer, stamp).await
            }
            crate::wireguard::Event::ClockWentBack(by) => {
                let by = words::coarse(by);
                warn!("the clock went back by {by}; handshakes go on from the newest stamp");
                Ok(())
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
                info!(?command, "operator command");
                self.host.command(command, Some(answer)).await?;
                return self.handle(Event::Command(command)).await;
            }
        };
        // Whoever asked may have hung up.
        let _ = answer.send(self.host.status(&self.gateway, Instant::now()));
        Ok(())
    }

    /// Says once why a server that does not answer may not.
    fn explain(&mut self) {
        let State::Connecting(attempt) = self.gateway.state() else {
            return;
        };
        let since = self.gateway.since();
        let shaking = matches!(attempt.step, Step::Shaking(_));
        if self.explained == Some(since) || !shaking || since.elapsed() < diagnosis::PATIENCE {
            return;
        }
        self.explained = Some(since);
        let server = words::server(&self.gateway, attempt.peer);
        let why = self.host.status(&self.gateway, Instant::now()).reason;
        warn!(server, "{why}");
    }

    /// Serves metrics as configuration and warden have it now.
    fn keep_metrics(&mut self, servers: &mut Servers) {
        if let Some(listener) = self.host.given_metrics() {
            servers.metrics_given(listener);
        }
        servers.metrics_at(self.host.config().metrics, &self.host.facts().unheard);
    }

    fn scraped(&self, question: Question) {
        let _ = question.send(self.host.sampled(&self.gateway, Instant::now()));
    }
}

/// Says who is there.
async fn attach(link: &Link) -> Result<(), LinkError> {
    let attach = ToWarden::Attach {
        version: VERSION,
        release: env!("CARGO_PKG_VERSION").to_owned(),
    };
    link.send(&attach, &[]).await
}

/// The warden's welcome; `None` when it closed the link. An engine that has no configuration of its `own` is
/// told one.
async fn welcome(link: &Link, own: Option<&Config>) -> Result<Option<Welcome>, EngineError> {
    let Some((message, fds)) = link.receive::<ToEngine>().await? else {
        return Ok(None);
    };
    let (config, mtu, listeners, blocked, facts, stamps) = match message {
        ToEngine::Welcome {
            config,
            mtu,
            listeners,
            blocked,
            facts,
            stamps,
        } => (config, mtu, listeners, blocked, facts, stamps),
        ToEngine::Declined(why) => return Err(EngineError::Declined(why)),
        ToEngine::Agreed
        | ToEngine::Connected { .. }
        | ToEngine::NotConnected { .. }
        | ToEngine::Accepted { .. }
        | ToEngine::Health(_)
        | ToEngine::Granted { .. }
        | ToEngine::Refused { .. }
        | ToEngine::Done { .. }
        | ToEngine::NotDone { .. }
        | ToEngine::Listen(_)
        | ToEngine::Reconfigure(_)
        | ToEngine::UplinkChanged
        | ToEngine::Blocked(_)
        | ToEngine::Facts(_)
        | ToEngine::Evidence(_)
        | ToEngine::Stopped(_) => return Err(EngineError::Protocol("no welcome".to_owned())),
    };
    let Some(config) = own.cloned().or_else(|| config.map(|config| *config)) else {
        return Err(EngineError::Protocol(
            "a welcome without a configuration".to_owned(),
        ));
    };
    let mut fds = fds.into_iter();
    let Some(tun) = fds.next() else {
        return Err(EngineError::Protocol(
            "a welcome without a TUN device".to_owned(),
        ));
    };
    let mut held = Held::default();
    for (listener, fd) in listeners.into_iter().zip(fds) {
        match listener {
            Listener::Control => held.control = Some(UnixListener::from(fd)),
            Listener::Uapi => held.uapi = Some(UnixListener::from(fd)),
            Listener::Metrics => held.metrics = Some(TcpListener::from(fd)),
        }
    }
    let known = Known {
        config,
        mtu,
        facts: *facts,
    };
    Ok(Some(Welcome {
        known,
        blocked,
        tun,
        stamps,
        held,
    }))
}

fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Jitter without entropy is still jitter of one gateway: any seed does.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_le_bytes(bytes)
}
