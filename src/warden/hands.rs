//! The warden's hands: the parts that own what is in the kernel, and what is done to it. Nothing is decided here.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::account::{self, Accounting, Scope};
use super::interference::Interference;
use super::listeners::Listeners;
use super::portal::Portal;
use super::record::{Record, Seen, unix_ms};
use super::resolver::Resolver;
use super::rules::{Rules, Verified};
use super::sensor::Sensor;
use super::tunnel::Tunnel;
use super::uplink::Uplink;
use super::watcher::Watcher;
use crate::config::Config;
use crate::guard::{Enforced, Event, Guard, Leak, Order, Refusal};
use crate::leak::evidence::{Evidence, Sensor as Kind};
use crate::link::Ipv6Fact;
use crate::net::IfName;
use crate::plan::{self, Plan};
use crate::policy::Policy;
use crate::sys::nft::{ApplyError, Pace};
use crate::sys::{chain, link, route, socket, sysctl};

/// The parts. Each owns its state; none knows another.
pub(super) struct Hands {
    pub(super) rules: Rules,
    pub(super) uplink: Uplink,
    pub(super) tunnel: Tunnel,
    pub(super) sensor: Sensor,
    pub(super) accounting: Accounting,
    pub(super) resolver: Resolver,
    pub(super) record: Record,
    /// The LAN exceptions of the sealed topology.
    pub(super) portal: Portal,
    pub(super) watcher: Watcher,
    pub(super) interference: Interference,
    pub(super) listeners: Listeners,
    pub(super) ipv6: Ipv6Fact,
    /// When a probe was last refused by the rules on every device: milliseconds since 1970.
    pub(super) proven: Option<u64>,
    pub(super) armed_in: Duration,
    /// Somebody changed our rules, and the guard has not heard of it.
    differs: Option<Event>,
    /// How often counters are worth reading.
    pace: Pace,
    /// Found by accounting and probes, not yet told to the guard.
    found: Vec<Seen>,
    /// Number of the last order that was performed.
    number: u64,
    /// Whether routes were as planned once: what is taken out before that are the uplink's own.
    routes_were_planned: bool,
}

impl Hands {
    pub(super) fn new(
        (rules, uplink, tunnel): (Rules, Uplink, Tunnel),
        (resolver, watcher, listeners): (Resolver, Watcher, Listeners),
        armed_in: Duration,
    ) -> Self {
        Self {
            rules,
            uplink,
            tunnel,
            sensor: Sensor::default(),
            accounting: Accounting::default(),
            resolver,
            record: Record::default(),
            portal: Portal::default(),
            watcher,
            interference: Interference::default(),
            listeners,
            ipv6: Ipv6Fact::default(),
            proven: None,
            armed_in,
            differs: None,
            pace: Pace::default(),
            found: Vec::new(),
            number: 0,
            routes_were_planned: false,
        }
    }

    /// Puts an order in force: rules first, as one transaction, because they hold whatever the routes say.
    pub(super) fn enforce(&mut self, order: &Order, guard: &Guard) -> Result<Enforced, Refusal> {
        let number = order.number;
        // One that was overtaken would take back what the newer one holds.
        if number < self.number {
            let why = "it was overtaken by a newer order".to_owned();
            return Err(Refusal::Unknown(why));
        }
        self.number = number;
        let bare = self.load(order, guard)?;
        let now = Instant::now();
        self.sensor.follow(self.rules.devices(), &order.policy, now);
        let routes = self.route(&order.plan).err();
        Ok(Enforced {
            number,
            routes,
            bare,
        })
    }

    /// Loads the rules. Of deny-all as much as the kernel takes: the devices that its second layer does not hold.
    fn load(&mut self, order: &Order, guard: &Guard) -> Result<Vec<IfName>, Refusal> {
        let mut pass = 0;
        loop {
            let draft = match self.rules.draft(&order.policy) {
                Ok(None) => return Ok(self.bare()),
                Ok(Some(draft)) => draft,
                Err(error) => {
                    let why = format!("the devices cannot be listed: {error}");
                    return Err(Refusal::Refused(why));
                }
            };
            self.count(guard);
            match self.rules.load(draft) {
                Ok(()) => break,
                Err(error) if Rules::is_worth_another(&error, pass) => pass += 1,
                Err(error) if order.policy == Policy::default() => {
                    return self.rules.close().map_err(|_| refusal(&error));
                }
                Err(error) => return Err(refusal(&error)),
            }
        }
        let scope = scope(&self.rules, guard);
        self.accounting.turn(&scope, Instant::now());
        Ok(self.bare())
    }

    /// Devices that no rule holds: all, in a sealed namespace of a kernel without rules.
    fn bare(&self) -> Vec<IfName> {
        if self.rules.kernel().rules {
            Vec::new()
        } else {
            self.rules.devices().to_vec()
        }
    }

    fn route(&mut self, plan: &Plan) -> Result<(), String> {
        let removed = route::apply(plan).map_err(|error| chain(&error))?;
        for what in removed {
            // At the start these are the uplink's own.
            if self.routes_were_planned {
                warn!(
                    what,
                    "a route or rule of another program led past the tunnel"
                );
                self.record.undone("route", &what);
            }
        }
        self.routes_were_planned = true;
        Ok(())
    }

    /// Whether the kernel still holds what was confirmed; what is to be told if it does not.
    pub(super) fn verify(&mut self) -> Option<Event> {
        self.differs.take().or_else(|| self.check())
    }

    fn check(&mut self) -> Option<Event> {
        let event = match self.rules.verify() {
            Verified::Same => return None,
            Verified::Differs(what) => {
                self.record.undone("rules", &what);
                Event::RulesDiffer(what)
            }
            Verified::Unread(why) => Event::RulesUnread(why),
        };
        // What they had counted may have gone with them, and was sent all the same.
        self.accounting.excuse();
        Some(event)
    }

    /// As [`Hands::count`], unless reading the counters takes so long that it is not done each time.
    pub(super) fn count_if_due(&mut self, guard: &Guard) {
        if self.pace.is_due(Instant::now()) {
            self.count(guard);
        }
    }

    /// Adds what the rules in force have counted to what those before them had, and holds it against what was sent.
    pub(super) fn count(&mut self, guard: &Guard) {
        let sent = {
            let scope = scope(&self.rules, guard);
            self.accounting.traffic(&scope)
        };
        let began = Instant::now();
        let counted = match self.rules.count() {
            Ok(counted) => counted,
            Err(error) => {
                warn!(%error, "packet counters cannot be read");
                return;
            }
        };
        self.pace.note(began, Instant::now());
        let scope = scope(&self.rules, guard);
        let seen = self
            .accounting
            .compare(sent, counted, &scope, Instant::now());
        let Some(seen) = seen else { return };
        // Rules that somebody replaced have counted nothing since, so a few frames are no leak but his change.
        if seen.evidence.count <= account::EXCUSED {
            self.differs = self.differs.take().or_else(|| self.check());
        }
        if self.differs.is_none() || seen.evidence.count > account::EXCUSED {
            self.found.push(seen);
        }
    }

    /// What the sensors saw since the last call, kept.
    pub(super) fn seen(&mut self) -> Vec<Leak> {
        let mut seen = self.sensor.leaks(Instant::now(), unix_ms());
        seen.append(&mut self.found);
        let leak = |Seen { device, evidence }: Seen| {
            self.record.leak(&evidence);
            Leak {
                device,
                what: evidence.what,
            }
        };
        seen.into_iter().map(leak).collect()
    }

    /// Tries the way out by each device, as a program would. Only a refusal by the rules is a proof; a
    /// datagram that was taken is a leak, whatever the other sensors saw.
    pub(super) fn probe(&mut self) {
        let mut proven = true;
        for device in self.rules.devices().to_vec() {
            match socket::try_out(&device) {
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
                Err(error) => {
                    debug!(%device, %error, "the probe proves nothing");
                    proven = false;
                }
                Ok(()) => {
                    let what =
                        format!("udp to {} by {device}: no rule refused it", socket::NOWHERE);
                    let evidence = Evidence::new(unix_ms(), Kind::Probe, "udp", &what);
                    self.found.push(Seen { device, evidence });
                    proven = false;
                }
            }
        }
        if proven {
            self.proven = Some(unix_ms());
        }
    }

    /// Sets every link but loopback down; which ones were up.
    pub(super) fn links_down(&self) -> Vec<IfName> {
        let up = link::devices().unwrap_or_default().into_iter();
        let up: Vec<_> = up.filter(|it| it.up && !it.loopback).collect();
        if let Err(error) = link::all_down() {
            error!(%error, "a link could not be set down");
        }
        up.into_iter().map(|it| it.name).collect()
    }

    /// Sets a device down.
    pub(super) fn set_down(&self, device: &IfName) {
        match link::set_down(device) {
            Ok(()) => {}
            Err(error) if error.is_gone() => {}
            Err(error) => error!(%error, "a device that leaks could not be set down"),
        }
    }

    /// Sets a device up that the gateway itself had set down.
    pub(super) fn set_up(&self, device: &IfName) {
        match link::set_up(device) {
            Ok(()) => info!(%device, "set up again"),
            Err(error) => warn!(%error, "a device that was set down stays so"),
        }
    }

    /// Gives the tunnel device back what was taken from it, and keeps devices down that leaked.
    pub(super) fn keep(&mut self, guard: &Guard) {
        let uplink = guard.uplink().map(|uplink| &uplink.device);
        self.tunnel.keep_mtu(guard.config(), uplink);
        for device in guard.held_down() {
            self.set_down(device);
        }
    }

    /// The configuration in force is another one.
    pub(super) fn adopt(&mut self, guard: &Guard) {
        if let Err(error) = self.tunnel.configure(&plan::Tunnel::of(guard.config())) {
            warn!(%error, "the tunnel device keeps its former settings");
        }
        self.follow(guard.config(), guard.is_sealed());
    }

    /// Resolvers, LAN listeners and our own sockets are those of the configuration.
    pub(super) fn follow(&mut self, config: &Config, sealed: bool) {
        if sealed {
            self.portal.follow(&config.lan);
        } else {
            self.uplink.keep(config);
        }
        // Before an engine has come nobody knows which tunnel this is, resolvers included.
        if !sealed || !config.tunnel.addresses.is_empty() {
            self.resolver
                .name(config.tunnel.resolvers(), Instant::now());
        }
    }

    /// Writes the kernel parameters that are wanted, once.
    pub(super) fn set_sysctls(&mut self, plan: &Plan) {
        let mut refused = 0;
        for (sysctl, outcome) in sysctl::apply(&plan.sysctls) {
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
        self.ipv6 = if sysctl::ipv6_is_off() {
            Ipv6Fact::Off
        } else {
            Ipv6Fact::Dropped
        };
    }

    /// A connection to a joined program, for a LAN client.
    pub(super) fn connect(
        &self,
        guard: &Guard,
        port: u16,
        client: Ipv4Addr,
    ) -> Result<OwnedFd, String> {
        match guard.blocked() {
            None if guard.is_sealed() => super::portal::connect(&guard.config().lan, port, client),
            None => Err("this namespace is not sealed".to_owned()),
            Some(reason) => Err(reason.to_string()),
        }
    }
}

fn refusal(error: &ApplyError) -> Refusal {
    if error.changed_nothing() {
        Refusal::Refused(chain(error))
    } else {
        Refusal::Unknown(chain(error))
    }
}

fn scope<'a>(rules: &'a Rules, guard: &'a Guard) -> Scope<'a> {
    Scope {
        devices: rules.devices(),
        uplink: guard.uplink().map(|uplink| &uplink.device),
        beside: guard.beside().collect(),
        egress_hook: rules.kernel().egress_hook,
        lan: &guard.config().lan,
    }
}
