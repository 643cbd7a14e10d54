//! The privileged half: owns TUN, firewall, addresses, `resolv.conf`.
//!
//! It decides nothing: what happens becomes an [`Event`] of the [`Guard`], and what that returns is performed here. By
//! the time it runs, deny-all is in the kernel ([`sys::nft::arm`](crate::sys::nft::arm) is the process's first act),
//! and nothing is removed when it ends. Its loop waits for its own events and for nothing else: files are opened by
//! threads, messages wait in an outbox.

mod account;
mod child;
mod counters;
mod door;
mod facts;
mod hands;
mod hear;
mod interference;
mod listeners;
mod outbox;
mod perform;
mod portal;
mod reading;
mod record;
mod renames;
mod resolver;
mod rules;
mod sensor;
mod start;
mod stopped;
mod tunnel;
mod uplink;
mod watcher;

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task;
use tokio::time;
use tracing::{error, info, warn};

use crate::config::{Config, PublicKey};
use crate::guard::{Event, Guard};
use crate::leak::evidence::{Evidence, Sensor as Kind};
use crate::link::{Health, Link, ToEngine};
use crate::net::{IfName, Stamps};
use crate::plan::{self, departed};
use crate::ruleset::Lack;
use crate::sys::fault;
use crate::sys::nft::Armed;
use child::Child;
use door::{Arrival, Door, farewell};
use hands::Hands;
use reading::Reading;
use start::Ready;
use stopped::Stopped;
use watcher::Changed;

pub use account::{Inexact, inexact};
pub use reading::Reader;
pub use start::StartError;

/// How often packet counters are read and sent to the engine.
const TICK: Duration = Duration::from_secs(1);

/// How often a way out is tried, to see that it is closed.
const PROBE: Duration = Duration::from_secs(60);

/// How long a burst of notifications about the network is awaited before the namespace is looked at again. A new
/// device has no route of ours and `inet output` refuses it from the start; this bounds how long raw
/// frames could use it.
const SETTLE: Duration = Duration::from_millis(20);

/// How long the engine may take to end by itself: whoever stops the gateway waits for it.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long what the engine said of its health is true.
const FRESH: Duration = Duration::from_secs(3);

/// How long the removal of our own socket files may take at the end.
const FAREWELL: Duration = Duration::from_millis(200);

/// What the warden starts from.
pub struct Start {
    /// The configuration.
    pub config: Config,
    /// Reads the configuration again.
    pub reload: Reader,
    /// What the first act of the process came to; taken at the start.
    pub armed: Option<Armed>,
    /// From the start of the process to the commit of deny-all.
    pub armed_in: Duration,
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// Where engines come from.
    pub engines: Engines,
    /// Called when the namespace is as it shall be, and engines can come.
    pub ready: Box<dyn Fn()>,
    /// Called once a second by the loop: it goes round.
    pub alive: Box<dyn Fn()>,
}

/// Where engines come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engines {
    /// The warden starts them, in this namespace, which has an uplink: the shared topology.
    Started,
    /// They come from another namespace, and this one has no uplink: the sealed topology.
    Awaited,
}

/// The guard, its hands, and whom they speak to.
struct Warden {
    guard: Guard,
    hands: Hands,
    child: Child,
    door: Door,
    stopped: Stopped,
    reading: Reading,
    /// An engine at the door, while what it offers is decided on.
    knock: Option<(Link, String)>,
    /// What the engine said of its health, and when.
    health: Option<(Health, Instant)>,
    /// The newest stamp of a handshake with each server, over all engines.
    stamps: Stamps<PublicKey>,
    /// When the namespace is looked at again.
    look_at: Option<Instant>,
    /// Whether the tunnel device is gone for good.
    lost: bool,
    alive: Box<dyn Fn()>,
}

/// Runs the gateway until it is told to stop. On return everything is blocked and stays so.
///
/// # Errors
///
/// [`StartError`]: what the namespace lacks, from the start or since. Deny-all stays in force.
pub async fn run(mut start: Start) -> Result<(), StartError> {
    let mut signals = Signals::new()?;
    let Some(armed) = start.armed.take() else {
        return Err(StartError::Refused("deny-all is not in force".to_owned()));
    };
    let Ready { guard, hands } = start::enter(&mut start, armed).await?;
    let (door, child) = match start.engines {
        Engines::Started => (Door::none(), Child::spawn(Instant::now())),
        Engines::Awaited => {
            let sealed = &guard.config().sealed;
            let door = Door::open(sealed)?;
            let (socket, user) = (sealed.socket.display(), sealed.engine_user);
            info!(%socket, user, "sealed: no uplink; waiting for the engine");
            (door, Child::none(Instant::now()))
        }
    };
    let lacks = hands.rules.kernel().lacks();
    let unheard = lacks
        .into_iter()
        .find(|it| matches!(it, Lack::Log | Lack::Rules));
    let unheard = unheard.map(|lack| lack.to_string());
    let mut warden = Warden {
        guard,
        hands,
        child,
        door,
        stopped: Stopped::listen(time::Instant::now(), unheard),
        reading: Reading::new(start.reload),
        knock: None,
        health: None,
        stamps: Stamps::default(),
        look_at: None,
        lost: false,
        alive: start.alive,
    };
    (start.ready)();
    let outcome = warden.work(&mut signals).await;
    info!("stopping: everything but loopback is blocked and stays so");
    warden.happen(Event::Stopping);
    warden.child.stop(PATIENCE).await;
    warden.leave().await;
    outcome
}

impl Warden {
    /// The loop that guards. No arm waits for anything but its event.
    async fn work(&mut self, signals: &mut Signals) -> Result<(), StartError> {
        let mut tick = every(TICK);
        let mut probe = every(PROBE);
        let mut fault = std::pin::pin!(fault::injected());
        loop {
            let open = self.guard.is_sealed() && self.guard.blocked().is_none();
            tokio::select! {
                () = &mut fault => {}
                _ = signals.terminate.recv() => return Ok(()),
                _ = signals.interrupt.recv() => return Ok(()),
                _ = signals.hangup.recv() => self.read_again(),
                _ = signals.child.recv() => self.child.reap(),
                changed = self.hands.watcher.changed() => self.look_soon(changed),
                () = until(self.look_at) => {
                    self.look_at = None;
                    self.look();
                }
                () = self.hands.sensor.stirred() => {
                    self.look_for_leaks();
                    // While frames keep coming this is always ready, and notifications are only heard of by
                    // who waits.
                    task::yield_now().await;
                }
                message = self.child.receive() => match message {
                    Some(message) => self.hear(message),
                    None => self.lost_engine(),
                },
                () = self.child.served() => {}
                () = self.child.due() => self.child.start(Instant::now()),
                arrival = self.door.arrival() => self.arrived(arrival),
                // Without an engine connections wait.
                (to, stream) = self.hands.portal.accepted(), if open && self.child.is_running() => {
                    self.child.send(ToEngine::Accepted { to }, &[stream.as_fd()]);
                }
                () = self.stopped.stirred() => self.stopped.read(time::Instant::now()),
                outcome = self.hands.resolver.looked() => {
                    let former = self.hands.resolver.take(outcome, &mut self.hands.record);
                    self.happen(Event::Resolver(former));
                }
                read = self.reading.done() => self.reread(read),
                _ = probe.tick() => {
                    self.hands.probe();
                    self.look_for_leaks();
                }
                _ = tick.tick() => self.tick(),
            }
            if self.lost {
                let device = self.guard.config().tunnel.device.clone();
                return Err(StartError::TunnelLost(device));
            }
        }
    }

    fn look_soon(&mut self, changed: Changed) {
        let soon = match changed {
            // Packets may be leaving meanwhile.
            Changed::Firewall => Instant::now(),
            Changed::Network { moved, lost } => {
                for device in moved {
                    self.hands.interference.told();
                    self.was_taken(device);
                }
                if lost {
                    self.hands.interference.lost();
                }
                Instant::now() + SETTLE
            }
        };
        self.look_at = Some(self.look_at.map_or(soon, |at| at.min(soon)));
    }

    /// Looks at rules, devices, addresses and routes, and puts right what is not as it should be.
    fn look(&mut self) {
        // The rules first: packets may be leaving, and whoever can blind us could remove them then.
        if let Some(event) = self.hands.verify() {
            self.happen(event);
        }
        if !self.guard.is_armed() {
            self.happen(Event::Look);
        }
        let wanted = plan::Tunnel::of(self.guard.config());
        self.hands.tunnel.keep(&wanted, &mut self.hands.record);
        match self.hands.uplink.observe(self.guard.config()) {
            Ok(seen) => self.happen(Event::Observed(seen)),
            Err(error) => self.happen(Event::Unobserved(error.to_string())),
        }
        self.hands.keep(&self.guard);
        if self.guard.is_sealed() {
            self.hands.portal.follow(&self.guard.config().lan);
        }
        self.lost = self.hands.tunnel.is_lost();
        self.look_for_cuts();
        self.tell_facts();
    }

    /// Looks for what cuts the network of joined programs, and for a way out that was taken.
    fn look_for_cuts(&mut self) {
        let tunnel = self.guard.config().tunnel.device.clone();
        let hands = &mut self.hands;
        let taken = hands
            .interference
            .look(self.guard.uplink(), &tunnel, &mut hands.record);
        if let Some(device) = taken {
            self.was_taken(device);
        }
    }

    /// No rule holds a device in another namespace, and no sensor sees what leaves by it.
    fn was_taken(&mut self, device: IfName) {
        let what = departed::words(&device);
        let evidence = Evidence::new(record::unix_ms(), Kind::Watcher, "taken", &what);
        self.hands.record.leak(&evidence);
        self.happen(Event::Moved(device));
        self.tell_facts();
    }

    fn tick(&mut self) {
        (self.alive)();
        self.lost = self.hands.tunnel.is_lost();
        let now = Instant::now();
        self.child.tick();
        self.hands.resolver.look(now);
        if self.reading.hangs(now) {
            error!(
                "the configuration is not reloaded yet: another program keeps one of its files from being read"
            );
        }
        if let Some(event) = self.hands.verify() {
            self.happen(event);
        }
        self.look_for_cuts();
        self.happen(Event::Tick);
        self.listen();
        if self.hands.portal.is_wanting() {
            self.hands.portal.follow(&self.guard.config().lan);
        }
        self.tell_facts();
        self.look_for_leaks();
    }

    fn look_for_leaks(&mut self) {
        let leaks = self.hands.seen();
        if !leaks.is_empty() {
            self.happen(Event::Leaked(leaks));
            self.tell_facts();
        }
    }

    fn lost_engine(&mut self) {
        warn!("the engine ended; inner packets are dropped until the next one is ready");
        self.health = None;
        self.happen(Event::EngineGone);
        self.child.restart(Instant::now());
    }

    fn arrived(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Engine {
                link,
                release,
                offer,
            } => self.knocked(link, release, offer),
            Arrival::Health(link) => farewell(link, ToEngine::Health(self.health())),
        }
    }

    fn read_again(&mut self) {
        if let Err(why) = self.reading.begin(Instant::now()) {
            error!("the configuration was not reloaded, the old one stays:\n{why}");
        }
    }

    fn reread(&mut self, read: Result<Config, String>) {
        match read {
            Ok(config) => {
                self.happen(Event::Reloaded(Box::new(config)));
                // It may name another uplink.
                self.look();
            }
            Err(why) => error!("the configuration was not reloaded, the old one stays:\n{why}"),
        }
        if self.reading.is_wanted_again() {
            self.read_again();
        }
    }

    /// What a health check beside the warden is told.
    fn health(&self) -> Health {
        let not = |line: String| Health { ready: false, line };
        let armed = self.guard.is_armed();
        match (self.guard.blocked(), &self.health) {
            (Some(reason), _) => not(format!("blocked: {reason}")),
            (None, _) if !armed => not("the kernel has not confirmed the rules".to_owned()),
            (None, Some((_, at))) if at.elapsed() > FRESH => not(format!(
                "not confirmed: the engine has been silent for {} s",
                at.elapsed().as_secs()
            )),
            (None, Some((health, _))) => health.clone(),
            (None, None) => not("waiting for the engine".to_owned()),
        }
    }

    /// Leaves the namespace as it is, blocked, but for the sockets that nobody will answer on.
    async fn leave(self) {
        let mut paths = self.hands.listeners.paths();
        if self.guard.is_sealed() {
            paths.push(self.guard.config().sealed.socket.clone());
        }
        let removed = task::spawn_blocking(move || {
            for path in paths {
                // One that is gone already is as good.
                let _ = fs::remove_file(path);
            }
        });
        // A folder that does not answer ends with the process.
        let _ = time::timeout(FAREWELL, removed).await;
    }
}

fn every(period: Duration) -> time::Interval {
    let mut interval = time::interval(period);
    interval.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    interval
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

struct Signals {
    child: Signal,
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, StartError> {
        let on = |kind| signal(kind).map_err(StartError::Signals);
        Ok(Self {
            child: on(SignalKind::child())?,
            hangup: on(SignalKind::hangup())?,
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }
}
