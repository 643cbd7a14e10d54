//! Makes the namespace ready: the tunnel device, the uplink's routes, the first rules after deny-all.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::hands::Hands;
use super::listeners::{Listeners, Place};
use super::resolver::Resolver;
use super::rules::Rules;
use super::tunnel::Tunnel;
use super::uplink::Uplink;
use super::watcher::Watcher;
use super::{Engines, Start};
use crate::config::Config;
use crate::guard::{self, Do, Event, Guard, Note, Topology};
use crate::link::Listener;
use crate::net::{Fwmark, IfName};
use crate::plan;
use crate::sys::link;
use crate::sys::nft::Armed;
use crate::sys::route::RouteError;
use crate::sys::rtnl::RtnlError;
use crate::sys::socket::SocketError;
use crate::sys::tun::TunError;
use crate::wireguard::uapi::path as uapi_path;

/// How long the first look at `resolv.conf` is awaited: it names the resolver of the uplink, which only a server given
/// by name needs.
const FIRST_LOOK: Duration = Duration::from_millis(300);

/// What the namespace lacks, at the start or since. Deny-all stays in force.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The tunnel device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The tunnel device cannot be configured.
    #[error(transparent)]
    Link(#[from] RtnlError),
    /// The uplink.
    #[error("the uplink cannot be observed")]
    Route(#[from] RouteError),
    /// A listener.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The first rules after deny-all.
    #[error("{0}")]
    Refused(String),
    /// A device that leads somewhere in a namespace that shall be sealed.
    #[error(
        "this namespace has the device `{0}`, so it is not sealed: give the warden's service \
         `network_mode: none`, and publish ports on the engine's service"
    )]
    NotSealed(IfName),
    /// Kernel notifications.
    #[error("the kernel's notifications cannot be subscribed to")]
    Watch(#[source] std::io::Error),
    /// Signals.
    #[error("signals cannot be handled")]
    Signals(#[source] std::io::Error),
    /// A thread of our own.
    #[error("a thread cannot be started")]
    Thread(#[source] std::io::Error),
    /// While it ran, another program removed the tunnel device.
    #[error(
        "another program removed the tunnel device `{0}`; everything is blocked and stays so until the gateway is started again"
    )]
    TunnelLost(IfName),
}

/// The listeners that the engine is handed. In the sealed topology it has its own.
fn listen(config: &Config) -> Result<Listeners, StartError> {
    let mut listeners = Listeners::default();
    listeners.follow(&places(config));
    match listeners.trouble(Listener::Control) {
        Some(why) => Err(StartError::Refused(why.to_owned())),
        None => Ok(listeners),
    }
}

/// Where the gateway listens in the shared topology.
pub(super) fn places(config: &Config) -> Vec<(Listener, Place)> {
    let uapi = uapi_path(&config.tunnel.device);
    let mut places = vec![
        (Listener::Control, Place::Path(config.control.clone())),
        (Listener::Uapi, Place::Path(uapi)),
    ];
    let metrics = |address| (Listener::Metrics, Place::Address(address));
    places.extend(config.metrics.map(metrics));
    places
}

/// What the warden works with.
pub(super) struct Ready {
    pub(super) guard: Guard,
    pub(super) hands: Hands,
}

/// Enters the namespace. Returns once the first order is in force.
pub(super) async fn enter(start: &mut Start, armed: Armed) -> Result<Ready, StartError> {
    let config = start.config.clone();
    let rules = Rules::new(armed);
    let tunnel = Tunnel::create(&config)?;
    let watcher = Watcher::start().map_err(StartError::Watch)?;
    let mut resolver = Resolver::start(start.resolv_conf.clone()).map_err(StartError::Thread)?;
    let (listeners, topology) = match start.engines {
        Engines::Started => (listen(&config)?, Topology::Shared),
        Engines::Awaited => {
            check_devices(&config.tunnel.device)?;
            (Listeners::default(), Topology::Sealed)
        }
    };
    let mark = config.tunnel.fwmark.map_or(Fwmark::DEFAULT, Fwmark);
    let mut uplink = Uplink::new(mark, &config, topology);
    let seen = uplink.observe(&config)?;
    match (&seen.uplink, topology) {
        (Some(uplink), _) => info!(device = %uplink.device, "uplink"),
        (None, Topology::Shared) => warn!("no uplink yet: no device has a default route"),
        (None, Topology::Sealed) => {}
    }
    let former_resolver = match topology {
        Topology::Shared => resolver.first(FIRST_LOOK).await,
        Topology::Sealed => None,
    };
    let mut guard = Guard::new(guard::Start {
        config,
        topology,
        former_resolver,
        seen,
    });
    let owned = (resolver, watcher, listeners);
    let mut hands = Hands::new((rules, uplink, tunnel), owned, start.armed_in);
    hands.tunnel.configure(&plan::Tunnel::of(guard.config()))?;
    hands.keep(&guard);
    begin(&mut guard, &mut hands)?;
    // What is there before an engine runs is an operator's business. Nothing was there that could have been taken.
    let tunnel = &guard.config().tunnel.device;
    let _ = hands
        .interference
        .look(guard.uplink(), tunnel, &mut hands.record);
    hands.follow(guard.config(), guard.is_sealed());
    hands.set_sysctls(&guard.plan());
    Ok(Ready { guard, hands })
}

/// The first order. What the kernel refuses here ends the start, with deny-all in force; routes are tried again later.
fn begin(guard: &mut Guard, hands: &mut Hands) -> Result<(), StartError> {
    // The first look leads to one order, or to why there is none.
    for doing in guard.handle(Event::Look, Instant::now()) {
        if let Do::Note(Note::Failed(why)) = doing {
            return Err(StartError::Refused(why));
        }
        if let Do::Enforce(order) = doing {
            let enforced = hands.enforce(&order, guard);
            let enforced = enforced.map_err(|refusal| StartError::Refused(refusal.to_string()))?;
            if let Some(why) = enforced.routes {
                return Err(StartError::Refused(why));
            }
            // Nobody waits for an answer yet.
            drop(guard.handle(Event::Enforced(enforced), Instant::now()));
        }
    }
    Ok(())
}

/// A sealed namespace has no device that leads anywhere.
fn check_devices(own: &IfName) -> Result<(), StartError> {
    // Those that the kernel puts into every namespace (`fb_tunnels_only_for_init_net`) are down.
    let leads = |device: &link::Device| device.up && !device.loopback && device.name != *own;
    match link::devices()?.into_iter().find(leads) {
        Some(device) => Err(StartError::NotSealed(device.name)),
        None => Ok(()),
    }
}
