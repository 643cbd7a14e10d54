//! The namespace as the warden keeps it. Every change is the same step: compose the whole rules and
//! routes from what is known, and replace what is there ([`Namespace::settle`]).

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use tracing::{debug, info, warn};

use super::ledger::Ledger;
use super::permit::{self, Way};
use super::sensor::Sensor;
use super::settle::{Unsettled, chain};
use super::watcher::{Changed, Watcher};
use crate::config::Config;
use crate::gateway::BlockReason;
use crate::link::{Facts, Ipv6Fact, ResolverFact, ToEngine};
use crate::net::{Fwmark, IfName, Uplink};
use crate::plan::Address;
use crate::policy::Permit;
use crate::ruleset::{Kernel, Ruleset};
use crate::sys::nft::{self, Armed};
use crate::sys::route::{self, RouteError};
use crate::sys::socket::{self, SocketError};
use crate::sys::tun::{self, Tun, TunError};
use crate::sys::{link, resolv, sysctl};

/// Where wg(8) looks for the socket of a userspace implementation (wireguard-tools, ipc-uapi-unix.h).
const UAPI: &str = "/var/run/wireguard";

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
    /// Kernel notifications.
    #[error("the kernel's notifications cannot be subscribed to")]
    Watch(#[source] std::io::Error),
    /// Signals.
    #[error("signals cannot be handled")]
    Signals(#[source] std::io::Error),
}

/// Everything the warden knows and holds.
pub(super) struct Namespace {
    pub(super) config: Config,
    pub(super) kernel: Kernel,
    pub(super) mark: Fwmark,
    tun: Tun,
    control: UnixListener,
    uapi: Option<UnixListener>,
    watcher: Watcher,
    pub(super) sensor: Sensor,
    resolv_conf: PathBuf,
    /// The resolver of the uplink, as `resolv.conf` named it before we rewrote it.
    former_resolver: Option<Ipv4Addr>,
    pub(super) uplink: Option<Uplink>,
    /// The last uplink there was: a link that went down takes its routes with it.
    last_uplink: Option<Uplink>,
    pub(super) open: Option<Open>,
    /// The socket of a configured port, and the port.
    listening: Option<(UdpSocket, u16)>,
    pub(super) blocked: Option<BlockReason>,
    /// What the kernel holds as far as we know.
    pub(super) in_force: Option<Ruleset>,
    /// Whether the last attempt at the routes failed.
    pub(super) routes_wanting: bool,
    pub(super) blocked_counts: Ledger,
    pub(super) passed_counts: Ledger,
    pub(super) facts: Facts,
}

/// The one way across the uplink that is open, and the socket that goes it.
pub(super) struct Open {
    pub(super) way: Way,
    socket: UdpSocket,
    pub(super) port: u16,
}

impl Namespace {
    /// Makes the namespace ready: the tunnel device, the uplink's routes, `resolv.conf`, the rules.
    pub(super) fn enter(
        config: Config,
        armed: Armed,
        armed_in: Duration,
        resolv_conf: PathBuf,
    ) -> Result<Self, StartError> {
        let kernel = nft::probe(&armed).map_err(Unsettled::from)?;
        let device = &config.tunnel.device;
        let tun = tun::create(device, config.tunnel.offload)?;
        let watcher = Watcher::start().map_err(StartError::Watch)?;
        let control = socket::listener(&config.control)?;
        let uapi = uapi(device);
        let former = fs::read_to_string(&resolv_conf).unwrap_or_default();
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
            mark: config.tunnel.fwmark.map_or(Fwmark::DEFAULT, Fwmark),
            uplink: None,
            last_uplink: None,
            tun,
            control,
            uapi,
            watcher,
            sensor: Sensor::default(),
            resolv_conf,
            former_resolver,
            open: None,
            listening: None,
            blocked: None,
            in_force: None,
            routes_wanting: false,
            blocked_counts: Ledger::default(),
            passed_counts: Ledger::default(),
            facts,
            config,
        };
        link::configure(&namespace.plan().tunnel)?;
        namespace.uplink = namespace.observe()?;
        namespace.last_uplink = namespace.uplink.clone();
        match &namespace.uplink {
            Some(uplink) => info!(device = %uplink.device, "uplink"),
            None => warn!("no uplink yet: no device has a default route"),
        }
        namespace.settle()?;
        namespace.write_resolver();
        namespace.set_sysctls();
        Ok(namespace)
    }

    /// The answer to an engine that attached. Whatever an engine before it was granted is over.
    pub(super) fn welcome(&mut self) -> (ToEngine, Vec<BorrowedFd<'_>>) {
        self.withdraw();
        let facts = Box::new(self.facts());
        let mut listeners = vec!["control".to_owned()];
        let mut fds = vec![self.tun.fd.as_fd(), self.control.as_fd()];
        if let Some(uapi) = &self.uapi {
            listeners.push("uapi".to_owned());
            fds.push(uapi.as_fd());
        }
        let welcome = ToEngine::Welcome {
            config: Box::new(self.config.clone()),
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
        let way = permit::check(&self.config, resolver, permit)?;
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
        self.blocked = None;
        self.settle_or_block();
    }

    /// Why everything is blocked, if it is.
    pub(super) fn blocked(&self) -> Option<&BlockReason> {
        self.blocked.as_ref()
    }

    /// Takes a whole new configuration, in one transaction. Returns what is in force from now on.
    ///
    /// # Errors
    ///
    /// Why it is not in force; the old one still is.
    pub(super) fn reconfigure(&mut self, config: Config) -> Result<Config, String> {
        let config = self.with_what_cannot_change(config);
        let gone = self
            .open
            .as_ref()
            .is_some_and(|open| !holds(&config, open.way));
        let open = if gone { self.open.take() } else { None };
        let old = std::mem::replace(&mut self.config, config);
        if let Err(error) = self.settle() {
            self.config = old;
            self.open = open.or_else(|| self.open.take());
            self.settle_or_block();
            return Err(error.to_string());
        }
        if let Err(error) = link::configure(&self.plan().tunnel) {
            warn!(%error, "the tunnel device keeps its former settings");
        }
        self.write_resolver();
        Ok(self.config.clone())
    }

    /// Ready when the kernel says that something changed in the namespace.
    pub(super) async fn changed(&self) -> Changed {
        self.watcher.changed().await
    }

    /// Ready when a frame left that has to be looked at.
    pub(super) async fn stirred(&self) {
        self.sensor.stirred().await;
    }

    /// Looks at the frames that left; blocks if the policy did not permit one. Returns the first such
    /// frame in words.
    pub(super) fn leaked(&mut self, now: Instant) -> Option<String> {
        let leaks = self.sensor.leaks(now);
        let first = leaks.first()?.clone();
        self.facts.leaks += leaks.len() as u64;
        self.facts.last_leak = leaks.last().cloned();
        // The first one stays the reason; it is what the operator has to hear of.
        self.block(BlockReason::Leak(first.clone()));
        Some(first)
    }

    /// Looks at devices, addresses, routes and rules again and puts right what is not as it should be.
    /// Returns whether the uplink is another one.
    pub(super) fn look_again(&mut self) -> bool {
        let seen = match self.observe() {
            Ok(seen) => seen,
            Err(error) => {
                warn!(%error, "the uplink cannot be observed");
                // The rules are looked at all the same: whoever can blind us could then remove them.
                self.verify();
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
        self.verify();
        self.settle_or_block();
        changed
    }

    /// Gives the tunnel device back what somebody took from it: down, or without its address, it
    /// carries nothing.
    fn keep_tunnel(&self) {
        let wanted = self.plan().tunnel;
        let whole = |found: &[Address]| {
            wanted.addresses.iter().all(|network| {
                let same = |it: &Address| it.device == wanted.device && it.network == *network;
                found.iter().any(same)
            })
        };
        let kept = match link::addresses() {
            Ok(found) if whole(&found) => Ok(()),
            Ok(_) => link::configure(&wanted),
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            warn!(%error, "the tunnel device is not as it should be");
        }
    }

    /// Whether something is left to do that was not possible before.
    pub(super) fn is_unsettled(&self) -> bool {
        self.routes_wanting
    }

    /// What is known now, counters read anew.
    pub(super) fn facts(&mut self) -> Facts {
        self.count();
        self.facts.blocked = self.blocked_counts.total();
        self.facts.passed = self.passed_counts.total();
        self.facts.uplink = self.uplink.clone();
        self.facts.mark = Some(self.mark);
        self.facts.watched = self.sensor.is_watching();
        self.facts.clone()
    }

    /// Leaves the namespace as it is, blocked, but for the sockets that nobody will answer on.
    pub(super) fn leave(self) {
        let uapi = uapi_path(&self.config.tunnel.device);
        for path in [&self.config.control, &uapi] {
            // One that is gone already is as good.
            let _ = fs::remove_file(path);
        }
    }

    fn observe(&self) -> Result<Option<Uplink>, RouteError> {
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
            Some(_) | None => socket::udp(self.mark, port).map_err(|error| chain(&error))?,
        };
        if port == self.config.tunnel.listen_port.unwrap_or(0) {
            let kept = socket.try_clone().map_err(|error| error.to_string())?;
            self.listening = Some((kept, port));
        }
        Ok(Open { way, socket, port })
    }

    fn write_resolver(&mut self) {
        let nameservers = &self.config.tunnel.dns;
        self.facts.resolver = match resolv::rewrite(&self.resolv_conf, nameservers) {
            Ok(()) => ResolverFact::Written(nameservers.clone()),
            Err(error) => {
                warn!(%error, "DNS to anything but the tunnel's resolvers is refused all the same");
                ResolverFact::Failed(error.to_string())
            }
        };
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

    /// What a running gateway cannot change keeps its value, and is said.
    fn with_what_cannot_change(&self, mut config: Config) -> Config {
        let (old, new) = (&self.config, &mut config);
        keep(
            &mut new.tunnel.device,
            &old.tunnel.device,
            "[tunnel] device",
        );
        keep(
            &mut new.tunnel.offload,
            &old.tunnel.offload,
            "[tunnel] offload",
        );
        keep(&mut new.tunnel.mtu, &old.tunnel.mtu, "[tunnel] mtu");
        keep(&mut new.tunnel.fwmark, &old.tunnel.fwmark, "FwMark");
        keep(&mut new.control, &old.control, "[control] socket");
        keep(&mut new.log, &old.log, "[log]");
        config
    }
}

fn keep<T: Clone + PartialEq>(new: &mut T, old: &T, key: &str) {
    if new != old {
        warn!(key, "takes effect when the gateway is started again");
        *new = old.clone();
    }
}

/// Whether the configuration still holds the host at the end of this way.
fn holds(config: &Config, way: Way) -> bool {
    use crate::config::Host;
    match way {
        Way::Resolver(_) => false,
        Way::Endpoint(remote) => config.peers.iter().any(|peer| {
            let endpoint = &peer.endpoint;
            let host = match endpoint.host {
                Host::Address(ip) => ip == *remote.ip(),
                Host::Name(_) => true,
            };
            host && endpoint.port == remote.port()
        }),
    }
}

fn uapi_path(device: &IfName) -> PathBuf {
    Path::new(UAPI).join(format!("{device}.sock"))
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
