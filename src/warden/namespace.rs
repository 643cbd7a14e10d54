//! The namespace as the warden keeps it. Every change is the same step: compose the whole rules and
//! routes from what is known, and replace what is there ([`Namespace::settle`]).

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Engines;
use super::alarm::Alarm;
use super::ledger::Ledger;
use super::sealed::{Sealed, check_devices};
use super::sensor::Sensor;
use super::settle::{Unsettled, chain};
use super::watcher::{Changed, Watcher};
use crate::config::Config;
use crate::gateway::BlockReason;
use crate::link::{Facts, Ipv6Fact, Listener, ToEngine};
use crate::net::{Fwmark, IfName, Uplink};
use crate::policy::{Permit, Way, way};
use crate::ruleset::{Kernel, Ruleset};
use crate::sys::nft::{self, Armed};
use crate::sys::route::{self, RouteError};
use crate::sys::socket::{self, SocketError};
use crate::sys::tun::{self, Tun, TunError};
use crate::sys::{link, resolv, sysctl};
use crate::wireguard::uapi::path as uapi_path;

/// What the namespace lacks at the start. Deny-all stays in force.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The tunnel device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The tunnel device cannot be configured.
    #[error(transparent)]
    Link(#[from] crate::sys::rtnl::RtnlError),
    /// The uplink.
    #[error("the uplink cannot be observed")]
    Route(#[from] RouteError),
    /// A listener.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The first rules after deny-all.
    #[error(transparent)]
    Unsettled(#[from] Unsettled),
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
    /// While it ran, another program removed the tunnel device.
    #[error(
        "another program removed the tunnel device `{0}`; everything is blocked and stays so until the gateway is started again"
    )]
    TunnelLost(IfName),
}

/// Everything the warden knows and holds.
pub(super) struct Namespace {
    pub(super) config: Config,
    /// What a sealed namespace has besides.
    pub(super) sealed: Option<Sealed>,
    pub(super) kernel: Kernel,
    pub(super) armed: Armed,
    pub(super) mark: Fwmark,
    pub(super) tun: Tun,
    /// In the sealed topology the engine has its own.
    control: Option<UnixListener>,
    uapi: Option<UnixListener>,
    watcher: Watcher,
    pub(super) sensor: Sensor,
    pub(super) alarm: Alarm,
    pub(super) resolv_conf: PathBuf,
    /// The resolver of the uplink, as `resolv.conf` named it before we rewrote it.
    former_resolver: Option<Ipv4Addr>,
    pub(super) uplink: Option<Uplink>,
    /// The last uplink there was: a link that went down takes its routes with it.
    last_uplink: Option<Uplink>,
    pub(super) open: Option<Open>,
    /// Bytes of the largest packet the tunnel device takes now.
    pub(super) mtu: u16,
    /// The socket of a configured port, and the port.
    listening: Option<(UdpSocket, u16)>,
    pub(super) blocked: Option<BlockReason>,
    /// The block that the engine has to be told of.
    pub(super) untold: Option<BlockReason>,
    /// What the kernel holds as far as we know.
    pub(super) in_force: Option<Ruleset>,
    /// Whether the last attempt at the routes failed.
    pub(super) routes_wanting: bool,
    /// Whether they were as planned once.
    pub(super) routes_settled: bool,
    pub(super) blocked_counts: Ledger<(String, String)>,
    pub(super) passed_counts: Ledger<String>,
    pub(super) facts: Facts,
}

/// The one way across the uplink that is open, and the socket that goes it.
pub(super) struct Open {
    pub(super) way: Way,
    socket: UdpSocket,
    pub(super) port: u16,
    /// Bytes that fit the path, once the engine has found out.
    pub(super) path: Option<u32>,
}

impl Namespace {
    /// Makes the namespace ready: the tunnel device, the uplink's routes, `resolv.conf`, the rules.
    pub(super) fn enter(
        config: Config,
        mut armed: Armed,
        armed_in: Duration,
        resolv_conf: PathBuf,
        engines: Engines,
    ) -> Result<Self, StartError> {
        let kernel = nft::probe(&mut armed).map_err(Unsettled::from)?;
        let device = &config.tunnel.device;
        let tun = tun::create(device, config.tunnel.offload)?;
        let watcher = Watcher::start().map_err(StartError::Watch)?;
        let (control, uapi, sealed) = match engines {
            Engines::Started => (Some(socket::listener(&config.control)?), uapi(device), None),
            Engines::Awaited => {
                check_devices(device)?;
                (None, None, Some(Sealed::new(config.clone())))
            }
        };
        let former = resolv::read(&resolv_conf).unwrap_or_default();
        // One inside the namespace, such as Docker's at 127.0.0.11, is none of the uplink.
        let former_resolver = resolv::former_nameservers(&former)
            .into_iter()
            .find(|ip| !ip.is_loopback());
        let facts = Facts {
            armed: true,
            armed_in_microseconds: u64::try_from(armed_in.as_micros()).unwrap_or(u64::MAX),
            egress_hook: armed.egress_hook,
            ..Facts::default()
        };
        let mut namespace = Self {
            kernel,
            armed,
            mark: config.tunnel.fwmark.map_or(Fwmark::DEFAULT, Fwmark),
            uplink: None,
            last_uplink: None,
            tun,
            control,
            uapi,
            watcher,
            sensor: Sensor::default(),
            alarm: Alarm::default(),
            resolv_conf,
            former_resolver,
            open: None,
            mtu: config.tunnel.mtu,
            listening: None,
            blocked: None,
            untold: None,
            in_force: None,
            routes_wanting: false,
            routes_settled: false,
            blocked_counts: Ledger::default(),
            passed_counts: Ledger::default(),
            facts,
            sealed,
            config,
        };
        link::configure(&namespace.plan().tunnel)?;
        namespace.uplink = namespace.observe()?;
        namespace.last_uplink = namespace.uplink.clone();
        namespace.keep_mtu();
        match (&namespace.uplink, &namespace.sealed) {
            (Some(uplink), _) => info!(device = %uplink.device, "uplink"),
            (None, None) => warn!("no uplink yet: no device has a default route"),
            (None, Some(_)) => {}
        }
        namespace.settle()?;
        namespace.keep_portal();
        namespace.write_resolver();
        namespace.set_sysctls();
        Ok(namespace)
    }

    /// The answer to an engine that attached. Whatever an engine before it was granted is over.
    pub(super) fn welcome(&mut self) -> (ToEngine, Vec<BorrowedFd<'_>>) {
        self.withdraw();
        self.alarm.untold = true;
        let facts = Box::new(self.facts());
        let (mut listeners, mut fds) = (Vec::new(), vec![self.tun.fd.as_fd()]);
        let held = [
            (Listener::Control, &self.control),
            (Listener::Uapi, &self.uapi),
        ];
        for (kind, listener) in held {
            if let Some(listener) = listener {
                listeners.push(kind);
                fds.push(listener.as_fd());
            }
        }
        let shared = self.sealed.is_none();
        let welcome = ToEngine::Welcome {
            config: shared.then(|| Box::new(self.config.clone())),
            mtu: self.config.tunnel.mtu,
            listeners,
            blocked: self.blocked.clone(),
            facts,
        };
        (welcome, fds)
    }

    /// Opens what the engine asks for, as far as the configuration holds it, in one transaction that
    /// also closes what was open before.
    pub(super) fn permit(
        &mut self,
        permit: &Permit,
    ) -> Result<(Option<SocketAddrV4>, Option<UdpSocket>), String> {
        if let Some(reason) = &self.blocked {
            return Err(reason.to_string());
        }
        let resolver = self.config.resolver.or(self.former_resolver);
        let way = way::check(&self.config, resolver, permit)?;
        let open = way.map(|way| self.open(way)).transpose()?;
        let socket = open
            .as_ref()
            .map(|open| open.socket.try_clone())
            .transpose();
        let socket = socket.map_err(|error| format!("the socket: {error}"))?;
        let before = std::mem::replace(&mut self.open, open);
        if let Err(error) = self.settle() {
            // The rules may be those from before or the new ones: back to what was open, for certain.
            self.open = before;
            self.settle_or_block();
            return Err(error.to_string());
        }
        self.keep_mtu();
        Ok((way.map(Way::remote), socket))
    }

    /// Closes what is open on the uplink.
    pub(super) fn withdraw(&mut self) {
        if self.open.take().is_some() {
            self.settle_or_block();
        }
    }

    /// Blocks everything but loopback until [`Namespace::unblock`].
    pub(super) fn block(&mut self, reason: BlockReason) {
        if !matches!(self.blocked, Some(BlockReason::Leak(_))) {
            self.blocked = Some(reason);
        }
        self.open = None;
        self.settle_or_block();
    }

    /// The operator lifted the block.
    pub(super) fn unblock(&mut self) {
        self.release(Instant::now());
        self.blocked = None;
        self.settle_or_block();
    }

    /// Why everything is blocked, if it is.
    pub(super) fn blocked(&self) -> Option<&BlockReason> {
        self.blocked.as_ref()
    }

    /// Why everything is blocked, once, if that was not the engine's doing.
    pub(super) fn news(&mut self) -> Option<BlockReason> {
        self.untold.take()
    }

    /// Ready when the kernel says that something changed in the namespace.
    pub(super) async fn changed(&self) -> Changed {
        self.watcher.changed().await
    }

    /// Ready when a frame left that has to be looked at.
    pub(super) async fn stirred(&self) {
        self.sensor.stirred().await;
    }

    /// Looks at devices, addresses, routes and rules again and puts right what is not as it should be.
    /// Returns whether the uplink is another one.
    pub(super) fn look_again(&mut self) -> bool {
        // The rules first: packets may be leaving, and whoever can blind us could remove them then.
        self.verify();
        if self.in_force.is_none() {
            self.settle_or_block();
        }
        let seen = match self.observe() {
            Ok(seen) => seen,
            Err(error) => {
                warn!(%error, "the uplink cannot be observed");
                self.settle_or_block();
                self.routes_wanting = true;
                return false;
            }
        };
        let changed = seen != self.uplink;
        if changed {
            match &seen {
                Some(uplink) => info!(device = %uplink.device, "uplink changed"),
                None => warn!("the uplink is gone"),
            }
            // The hole names the device and the address that were.
            self.open = None;
            self.uplink = seen;
            if self.uplink.is_some() {
                self.last_uplink = self.uplink.clone();
            }
        }
        self.keep_tunnel();
        self.keep_mtu();
        self.keep_portal();
        self.settle_or_block();
        self.hold_down();
        changed
    }

    /// Whether something is left to do that was not possible before.
    pub(super) fn is_unsettled(&self) -> bool {
        self.routes_wanting || self.is_portal_wanting()
    }

    /// What is known now, counters read anew.
    pub(super) fn facts(&mut self) -> Facts {
        self.count();
        self.facts.note_blocked(self.blocked_counts.total());
        self.facts.passed = self.passed_counts.total();
        self.facts.uplink = self.uplink.clone();
        self.facts.mark = self.sealed.is_none().then_some(self.mark);
        self.facts.mtu = self.mtu;
        self.facts.watched = self.sensor.is_watching();
        self.facts.clone()
    }

    /// Leaves the namespace as it is, blocked, but for the sockets that nobody will answer on.
    pub(super) fn leave(self) {
        let uapi = uapi_path(&self.config.tunnel.device);
        let paths = match &self.sealed {
            None => vec![&self.config.control, &uapi],
            Some(_) => vec![&self.config.sealed.socket],
        };
        for path in paths {
            // One that is gone already is as good.
            let _ = fs::remove_file(path);
        }
    }

    fn observe(&self) -> Result<Option<Uplink>, RouteError> {
        // Whatever appears in a sealed namespace, it is no uplink.
        if self.sealed.is_some() {
            return Ok(None);
        }
        let (wanted, own) = (self.config.uplink.as_ref(), &self.config.tunnel.device);
        match &self.last_uplink {
            Some(last) => route::observe_again(wanted, own, last),
            None => route::observe(wanted, own),
        }
    }

    /// A socket for this way.
    fn open(&mut self, way: Way) -> Result<Open, String> {
        if self.uplink.is_none() {
            return Err("there is no uplink".to_owned());
        }
        let port = match way {
            Way::Endpoint(_) => self.config.tunnel.listen_port.unwrap_or(0),
            Way::Resolver(_) => 0,
        };
        let (socket, port) = match &self.listening {
            // Engines hold it too: a configured port cannot be bound twice, so it stays one socket.
            Some((socket, bound)) if port != 0 && *bound == port => {
                (socket.try_clone().map_err(|error| error.to_string())?, port)
            }
            Some(_) | None => socket::udp(Some(self.mark), port).map_err(|error| chain(&error))?,
        };
        if port == self.config.tunnel.listen_port.unwrap_or(0) {
            let kept = socket.try_clone().map_err(|error| error.to_string())?;
            self.listening = Some((kept, port));
        }
        Ok(Open {
            way,
            socket,
            port,
            path: None,
        })
    }

    fn set_sysctls(&mut self) {
        let mut refused = 0;
        for (sysctl, outcome) in sysctl::apply(&self.plan().sysctls) {
            if let sysctl::Outcome::Refused(why) = outcome {
                debug!(%sysctl, why, "not set");
                refused += 1;
            }
        }
        if refused > 0 {
            info!(
                refused,
                "kernel parameters could not be set; the rules hold without them"
            );
        }
        let off = sysctl::ipv6_is_off();
        self.facts.ipv6 = if off {
            Ipv6Fact::Off
        } else {
            Ipv6Fact::Dropped
        };
    }
}

fn uapi(device: &IfName) -> Option<UnixListener> {
    match socket::listener(&uapi_path(device)) {
        Ok(listener) => Some(listener),
        Err(error) => {
            info!(%error, "`wg show` will not answer");
            None
        }
    }
}
