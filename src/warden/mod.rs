//! The privileged half: owns TUN, firewall, addresses, `resolv.conf`. Parses nothing hostile.
//!
//! By the time it runs, deny-all is in the kernel ([`sys::nft::arm`](crate::sys::nft::arm) is the
//! process's first act). It widens that step by step, only as far as the configuration says, and
//! removes nothing when it ends.

mod agree;
mod alarm;
mod child;
mod door;
mod keep;
mod ledger;
#[allow(dead_code, reason = "wired with the next change of the warden")]
mod listeners;
mod mtu;
mod namespace;
mod portal;
mod reload;
mod renames;
mod sealed;
mod sensor;
mod settle;
mod stopped;
mod watcher;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task;
use tokio::time::{self, Instant};
use tracing::{debug, error, info, warn};

use crate::config::Config;
use crate::gateway::BlockReason;
use crate::link::{Decline, Link, Offer, ToEngine, ToWarden, VERSION};
use crate::sys::fault;
use crate::sys::nft::Armed;
use child::Child;
use door::{Arrival, Door};
use namespace::Namespace;
use stopped::Stopped;
use watcher::Changed;

pub use alarm::{Inexact, inexact};
pub use namespace::StartError;
pub use settle::Unsettled;

/// How often packet counters are read and sent to the engine.
const TICK: Duration = Duration::from_secs(1);

/// How often a way out is tried, to see that it is closed.
const PROBE: Duration = Duration::from_secs(60);

/// How long a burst of notifications about the network is awaited before the namespace is looked at again. A new
/// device has no route of ours and `inet output` refuses it from the start; this bounds how long raw
/// frames could use it.
const SETTLE: Duration = Duration::from_millis(20);

/// How long the engine may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the warden starts from.
pub struct Start {
    /// The configuration.
    pub config: Config,
    /// Reads the configuration again; each line of the error is one thing that is wrong with it.
    pub reload: Box<dyn Fn() -> Result<Config, String>>,
    /// What the first act of the process came to.
    pub armed: Armed,
    /// From the start of the process to the commit of deny-all.
    pub armed_in: Duration,
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// Where engines come from.
    pub engines: Engines,
    /// Called when the namespace is as it shall be, and engines can come.
    pub ready: Box<dyn Fn()>,
}

/// Where engines come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engines {
    /// The warden starts them, in this namespace, which has an uplink: the shared topology.
    Started,
    /// They come from another namespace, and this one has no uplink: the sealed topology.
    Awaited,
}

/// Runs the gateway until it is told to stop. On return everything is blocked and stays so.
///
/// # Errors
///
/// [`StartError`]: what the namespace lacks, from the start or since. Deny-all stays in force.
pub async fn run(start: Start) -> Result<(), StartError> {
    let mut signals = Signals::new()?;
    let reload = start.reload;
    let sealed = start.config.sealed.clone();
    let mut namespace = Namespace::enter(
        start.config,
        start.armed,
        start.armed_in,
        start.resolv_conf,
        start.engines,
    )?;
    let mut stopped = Stopped::listen(Instant::now());
    let (mut door, mut child) = match start.engines {
        Engines::Started => (Door::none(), Child::spawn(Instant::now())),
        Engines::Awaited => (Door::open(&sealed)?, Child::none(Instant::now())),
    };
    namespace.announce();
    (start.ready)();
    let mut tick = time::interval(TICK);
    tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut probe = time::interval(PROBE);
    probe.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut settle_at: Option<Instant> = None;
    let mut fault = std::pin::pin!(fault::injected());
    let outcome = loop {
        tokio::select! {
            () = &mut fault => {}
            message = child.receive() => match message {
                Some(ToWarden::Stopped) => {
                    let report = Box::new(stopped.report(Instant::now()));
                    child.send(&ToEngine::Stopped(report), &[]).await;
                }
                Some(message) => answer(&mut namespace, &mut child, message).await,
                None => {
                    warn!("the engine ended; inner packets are dropped until the next one is ready");
                    namespace.withdraw();
                    namespace.note_health(None);
                    child.restart(Instant::now());
                }
            },
            () = child.due() => child.start(Instant::now()),
            arrival = door.arrival() => match arrival {
                Arrival::Engine { link, release, offer } => {
                    attach(&mut namespace, &mut child, &mut door, (link, release, offer)).await;
                }
                // Whoever asked may have hung up.
                Arrival::Health(link) => {
                    let _ = time::timeout(PATIENCE, link.send(&ToEngine::Health(namespace.health()), &[])).await;
                }
            },
            // Without an engine connections wait.
            (to, stream) = namespace.accepted(), if child.is_running() => {
                child.send(&ToEngine::Accepted { to }, &[stream.as_fd()]).await;
            }
            _ = signals.child.recv() => child.reap(),
            _ = signals.hangup.recv() => match reload() {
                Ok(config) => match start.engines {
                    Engines::Started => reconfigure(&mut namespace, &mut child, config).await,
                    Engines::Awaited => reconfigure_sealed(&mut namespace, &child, config),
                },
                Err(why) => error!("the configuration was not reloaded, the old one stays:\n{why}"),
            },
            _ = signals.terminate.recv() => break Ok(()),
            _ = signals.interrupt.recv() => break Ok(()),
            changed = namespace.changed() => {
                let soon = match changed {
                    // Packets may be leaving meanwhile.
                    Changed::Firewall => Instant::now(),
                    Changed::Network => Instant::now() + SETTLE,
                };
                settle_at = Some(settle_at.map_or(soon, |at| at.min(soon)));
            }
            () = stopped.stirred() => stopped.read(Instant::now()),
            () = namespace.stirred() => {
                look_for_leaks(&mut namespace, &mut child).await;
                // While frames keep coming this is always ready, and notifications are only heard of by
                // who waits.
                task::yield_now().await;
            }
            () = until(settle_at) => {
                settle_at = None;
                if namespace.look_again() {
                    child.send(&ToEngine::UplinkChanged, &[]).await;
                }
                facts(&mut namespace, &mut child).await;
                if namespace.tunnel_is_lost() {
                    break Err(StartError::TunnelLost(namespace.config.tunnel.device.clone()));
                }
            }
            _ = probe.tick() => {
                namespace.probe();
                look_for_leaks(&mut namespace, &mut child).await;
            }
            _ = tick.tick() => {
                // Before it is told more, which it has had no time to read.
                child.listen_for_life(Instant::now());
                if namespace.tunnel_is_lost() {
                    break Err(StartError::TunnelLost(namespace.config.tunnel.device.clone()));
                }
                namespace.keep_resolver();
                if namespace.is_unsettled() {
                    settle_at.get_or_insert_with(Instant::now);
                }
                facts(&mut namespace, &mut child).await;
                look_for_leaks(&mut namespace, &mut child).await;
            }
        }
    };
    info!("stopping: everything but loopback is blocked and stays so");
    namespace.block(BlockReason::Stopping);
    child.stop(PATIENCE).await;
    namespace.leave();
    outcome
}

async fn answer(namespace: &mut Namespace, child: &mut Child, message: ToWarden) {
    match message {
        ToWarden::Attach { version, release } if version == VERSION => {
            info!(release, "engine attached");
            let (welcome, fds) = namespace.welcome();
            child.welcome(&welcome, &fds).await;
        }
        ToWarden::Attach { version, release } => {
            error!(
                version,
                release, "an engine of another protocol version; this warden speaks {VERSION}"
            );
            child.kill();
        }
        ToWarden::Offer(offer) => match namespace.take_offer(*offer) {
            Ok(()) => child.send(&ToEngine::Agreed, &[]).await,
            Err(why) => {
                warn!(why, "what the engine offers is not taken");
                let declined = ToEngine::Declined(Decline::Offer(why));
                child.send(&declined, &[]).await;
            }
        },
        ToWarden::Connect { id, port, client } => {
            match namespace.connect(port, client) {
                Ok(stream) => {
                    let connected = ToEngine::Connected { id };
                    child.send(&connected, &[stream.as_fd()]).await;
                }
                Err(why) => child.send(&ToEngine::NotConnected { id, why }, &[]).await,
            }
            return;
        }
        ToWarden::Health(health) => {
            namespace.note_health(Some(health));
            return;
        }
        // It asks at the door, where nobody is an engine yet.
        ToWarden::AskHealth => child.kill(),
        ToWarden::Ask { id, permit } => match namespace.permit(&permit) {
            Ok((remote, socket)) => {
                let granted = ToEngine::Granted { id, permit, remote };
                let fds: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
                child.send(&granted, &fds).await;
            }
            Err(why) => {
                child
                    .send(&ToEngine::Refused { id, permit, why }, &[])
                    .await
            }
        },
        ToWarden::PathMtu { remote, mtu } => namespace.path_is(remote, mtu),
        ToWarden::Block(reason) => namespace.block(reason),
        ToWarden::Unblock => namespace.unblock(),
        // The main loop answers it.
        ToWarden::Stopped => {}
    }
    facts(namespace, child).await;
}

async fn reconfigure(namespace: &mut Namespace, child: &mut Child, config: Config) {
    match namespace.reconfigure(config) {
        Ok(config) => {
            info!("configuration reloaded");
            child
                .send(&ToEngine::Reconfigure(Box::new(config)), &[])
                .await;
            // It may name another uplink.
            if namespace.look_again() {
                child.send(&ToEngine::UplinkChanged, &[]).await;
            }
        }
        Err(why) => error!("the configuration was not reloaded, the old one stays:\n{why}"),
    }
}

/// An engine came to the door. It gets the namespace if there is no other, and if its configuration fits.
async fn attach(
    namespace: &mut Namespace,
    child: &mut Child,
    door: &mut Door,
    (link, release, offer): (Link, String, Offer),
) {
    if child.is_running() {
        return door.turn_away(&link, Decline::Busy).await;
    }
    if let Err(why) = namespace.take_offer(offer) {
        return door.turn_away(&link, Decline::Offer(why)).await;
    }
    info!(release, "engine attached");
    child.adopt(link, Instant::now());
    let (welcome, fds) = namespace.welcome();
    child.welcome(&welcome, &fds).await;
    facts(namespace, child).await;
}

fn reconfigure_sealed(namespace: &mut Namespace, child: &Child, config: Config) {
    match namespace.take_own(config) {
        Ok(true) => info!("configuration reloaded"),
        Ok(false) => {
            info!("configuration reloaded; the engine has to come again");
            child.kill();
        }
        Err(why) => error!("the configuration was not reloaded, the old one stays:\n{why}"),
    }
}

async fn look_for_leaks(namespace: &mut Namespace, child: &mut Child) {
    let known = matches!(namespace.blocked(), Some(BlockReason::Leak(_)));
    if let Some(leak) = namespace.leaked(Instant::now())
        && !known
    {
        // Which frame it was is in the status; its destination is the user's affair. Said once a block:
        // whoever can leak could fill the log, and keep us waiting for an engine that has to hear of each.
        error!("LEAK: a frame left that the policy does not permit; everything is blocked");
        debug!(leak, "leak");
        facts(namespace, child).await;
        child
            .send(&ToEngine::Blocked(BlockReason::Leak(leak)), &[])
            .await;
    }
}

async fn facts(namespace: &mut Namespace, child: &mut Child) {
    let facts = namespace.facts();
    child.send(&ToEngine::Facts(Box::new(facts)), &[]).await;
    if let Some(evidence) = namespace.untold() {
        child.send(&ToEngine::Evidence(evidence), &[]).await;
    }
    // The kernel would not take a ruleset meanwhile.
    if let Some(reason) = namespace.news() {
        child.send(&ToEngine::Blocked(reason), &[]).await;
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => time::sleep_until(at).await,
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
