//! Every change of the kernel that the gateway makes, as a value that prints itself.
//!
//! [`Plan::of`] says what is wanted; [`changes`] and [`rule_changes`] say what is still to do, given
//! what the kernel has. The firewall is not in here: it is [`crate::ruleset`].

use std::collections::HashSet;
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use crate::config::Config;
use crate::net::beside::{Link, Shares};
use crate::net::{Fwmark, IfName, Uplink, networks};
use crate::policy::Hole;

pub mod departed;
mod diff;
pub mod interference;
#[cfg(test)]
mod lookup;
mod print;
mod route;
mod rule;
mod sysctl;
mod uplink;

pub use diff::{Change, changes, restored};
pub use route::{Kind, MAIN, PROTOCOL, Route, Scope};
pub use rule::{Flow, OURS, PORTS, Packets, Rule, RuleChange, rule_changes};
pub use sysctl::{Sysctl, sysctls};
pub use uplink::{choose, resume};

/// Routing table of packets that carry our mark, and of nothing else. Any free number does
/// (253 to 255 are taken, iproute2 `rt_tables`).
pub const MARKED: u32 = 30320;

/// Routing table no rule leads to. It remembers the routes that were taken out of the main table, for a later
/// run in the same namespace and for `vpngw cleanup`.
pub const MEMORY: u32 = 30321;

/// Routing table of every packet that does not carry our mark: LAN exceptions, the tunnel, or nowhere.
pub const PROGRAMS: u32 = 30322;

/// Priority of our first rule: after `local` (0), before `main` (32766). The ten from here on are ours.
pub const PRIORITY: u32 = 30320;

/// Metric of the one route of ours in the main table. Nobody else's, so that `ip route add default`, which gives 0
/// or what a DHCP client is told to, never finds the place taken.
const SHOWN: u32 = 30320;

/// Packets the tunnel device queues before it drops: what the kernel gives a TUN device
/// (`TUN_READQ_SIZE`, drivers/net/tun.c) is 500; a 64 KiB superpacket counts as one.
const TX_QUEUE: u32 = 1000;

/// The last metric: tried when no other route to the same destination is left.
const LAST: u32 = u32::MAX;

/// What the kernel shall look like, the firewall aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The tunnel device.
    pub tunnel: Tunnel,
    /// The uplink, if there is one. What it has in the main table beside the networks of its addresses goes.
    pub uplink: Option<Uplink>,
    /// Routes of our own tables, and the one that the main table gets.
    pub routes: Vec<Route>,
    /// Policy rules.
    pub rules: Vec<Rule>,
    /// Written where the kernel lets us, verified everywhere.
    pub sysctls: Vec<Sysctl>,
    /// The nameservers of `/etc/resolv.conf`.
    pub nameservers: Vec<Ipv4Addr>,
}

/// The tunnel device as wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its name.
    pub device: IfName,
    /// Bytes of the largest inner packet.
    pub mtu: u16,
    /// Packets it queues.
    pub tx_queue: u32,
    /// Our addresses on it.
    pub addresses: Vec<Ipv4Network>,
}

impl Tunnel {
    /// The tunnel device that `config` wants.
    pub fn of(config: &Config) -> Self {
        let tunnel = &config.tunnel;
        Self {
            device: tunnel.device.clone(),
            mtu: tunnel.mtu,
            tx_queue: TX_QUEUE,
            addresses: tunnel.addresses.clone(),
        }
    }
}

impl Plan {
    /// What `config` leads to on this uplink, all LAN exceptions being on its side. `hole` is the one flow across the uplink that is open:
    /// the endpoint, or the resolver that is asked for its address.
    pub fn of(config: &Config, uplink: Option<&Uplink>, mark: Fwmark, hole: Option<&Hole>) -> Self {
        let device = &config.tunnel.device;
        let mut routes = tunnel_routes(device);
        if let Some(uplink) = uplink {
            routes.extend(lan_routes(config, uplink));
            routes.extend(marked_routes(uplink, hole));
        }
        routes.push(Route::unreachable(MARKED, 0));
        routes.push(Route::into_tunnel(MAIN, device, SHOWN));
        let rules = rule::rules(mark, hole.filter(|_| uplink.is_some()));
        let mut devices = vec![device.clone()];
        devices.extend(uplink.map(|uplink| uplink.device.clone()));
        Self {
            tunnel: Tunnel::of(config),
            uplink: uplink.cloned(),
            routes,
            rules,
            sysctls: sysctls(&devices),
            nameservers: config.tunnel.resolvers().to_vec(),
        }
    }

    /// The same, with each LAN exception on the device that it works on.
    #[must_use]
    pub fn shared_out(mut self, shares: &Shares) -> Self {
        if shares.beside.is_empty() {
            return self;
        }
        let on_the_uplink = self.uplink.as_ref().map(|uplink| uplink.device.clone());
        let by_the_uplink = |route: &Route| {
            route.table == PROGRAMS && route.device.is_some() && route.device == on_the_uplink
        };
        let elsewhere = |route: &Route| {
            let mut links = shares.beside.iter().map(|share| share.link.address);
            links.any(|link| route.destination.is_subnet_of(networks::masked(link)))
        };
        self.routes
            .retain(|route| !(by_the_uplink(route) && elsewhere(route)));
        let routes = shares.beside.iter().flat_map(|share| {
            let Link { device, address } = &share.link;
            let source = Some(address.ip());
            let clients = share.lan.inbound.iter().map(|rule| rule.from());
            let hosts = share.lan.outbound.iter().map(|rule| rule.to().into());
            let on_link = move |network| Route::on_link(PROGRAMS, network, device, source);
            clients.chain(hosts).map(on_link)
        });
        self.routes.extend(dedup(routes.collect()));
        let tunnel = std::iter::once(&self.tunnel.device).chain(&on_the_uplink);
        let beside = shares.beside.iter().map(|share| &share.link.device);
        let devices: Vec<_> = tunnel.chain(beside).cloned().collect();
        self.sysctls = sysctls(&devices);
        self
    }
}

/// All that has no better route goes into the tunnel, and nowhere when the tunnel is gone.
fn tunnel_routes(device: &IfName) -> Vec<Route> {
    vec![
        Route::into_tunnel(PROGRAMS, device, 0),
        Route::unreachable(PROGRAMS, LAST),
    ]
}

/// The router and the LAN exceptions; nothing else of the uplink.
fn lan_routes(config: &Config, uplink: &Uplink) -> Vec<Route> {
    let mut routes = Vec::new();
    // A strict reverse path filter (rp_filter = 1) leaves the router's ARP requests unanswered without
    // this: arp_process looks up the route to who asks (net/ipv4/arp.c).
    if let Some(gateway) = uplink.gateway {
        routes.push(toward(uplink, PROGRAMS, gateway.into()));
    }
    let inbound = config.lan.inbound.iter().map(|exception| exception.from());
    let outbound = config.lan.outbound.iter().map(|exception| exception.to());
    for network in inbound.chain(outbound.map(Ipv4Network::from)) {
        let network = networks::masked(network);
        // Never a default route by the uplink, whatever the configuration says.
        if network.prefix() == 0 {
            continue;
        }
        routes.push(toward(uplink, PROGRAMS, network));
        let link = networks::masked(uplink.address);
        if link != network && link.is_subnet_of(network) {
            routes.push(toward(uplink, PROGRAMS, link));
        }
    }
    dedup(routes)
}

fn marked_routes(uplink: &Uplink, hole: Option<&Hole>) -> Vec<Route> {
    let remote = hole.map(|hole| *hole.remote.ip());
    let hosts = uplink.gateway.into_iter().chain(remote);
    dedup(
        hosts
            .map(|host| toward(uplink, MARKED, host.into()))
            .collect(),
    )
}

/// By the router, or directly where the destination is on the link.
fn toward(uplink: &Uplink, table: u32, destination: Ipv4Network) -> Route {
    let source = Some(uplink.address.ip());
    let on_link = destination.is_subnet_of(networks::masked(uplink.address))
        || uplink
            .gateway
            .is_some_and(|gateway| destination == gateway.into());
    match uplink.gateway {
        Some(gateway) if !on_link => {
            Route::by_router(table, destination, gateway, &uplink.device, source)
        }
        Some(_) | None => Route::on_link(table, destination, &uplink.device, source),
    }
}

fn dedup(mut routes: Vec<Route>) -> Vec<Route> {
    let mut known = HashSet::with_capacity(routes.len());
    routes.retain(|route| known.insert(route.clone()));
    routes
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use super::*;
    pub(super) use crate::config::example::config;

    pub(super) fn uplink() -> Uplink {
        Uplink {
            device: "eth0".parse().unwrap(),
            address: "172.30.0.2/24".parse().unwrap(),
            gateway: Some("172.30.0.1".parse().unwrap()),
        }
    }

    pub(super) fn plan(config: &Config) -> Plan {
        let mark = Fwmark(0x1234);
        let hole = Hole {
            mark,
            source_port: 40000,
            remote: remote(),
        };
        Plan::of(config, Some(&uplink()), mark, Some(&hole))
    }

    fn remote() -> SocketAddrV4 {
        SocketAddrV4::new([198, 51, 100, 10].into(), 51820)
    }

    /// The default route of the uplink, as Docker sets it.
    pub(super) fn default_route() -> Route {
        let Uplink {
            device, gateway, ..
        } = uplink();
        Route {
            onlink: false,
            protocol: 3,
            ..Route::by_router(MAIN, networks::ALL, gateway.unwrap(), &device, None)
        }
    }

    /// The network of the uplink's address, as the kernel adds it.
    pub(super) fn link_route() -> Route {
        let Uplink {
            device, address, ..
        } = uplink();
        let source = Some(address.ip());
        Route {
            protocol: 2,
            ..Route::on_link(MAIN, networks::masked(address), &device, source)
        }
    }

    fn lines(plan: &Plan) -> Vec<String> {
        plan.routes.iter().map(Route::to_string).collect()
    }

    #[test]
    fn a_plan_prints_as_commands() {
        insta::assert_snapshot!(plan(&config()));
    }

    #[test]
    fn without_an_uplink_everything_goes_into_the_tunnel_or_nowhere() {
        let plan = Plan::of(&config(), None, Fwmark(1), None);
        let expected = [
            "default dev tun0 scope global proto 30 table 30322",
            "unreachable default metric 4294967295 proto 30 table 30322",
            "unreachable default proto 30 table 30320",
            "default dev tun0 scope global metric 30320 proto 30",
        ];
        assert_eq!(lines(&plan), expected);
    }

    #[test]
    fn without_a_router_every_destination_is_on_the_link() {
        let uplink = Uplink {
            gateway: None,
            ..uplink()
        };
        let plan = Plan::of(&config(), Some(&uplink), Fwmark(1), None);
        let of_uplink = plan
            .routes
            .iter()
            .filter(|route| route.device == Some(uplink.device.clone()));
        assert!(of_uplink.clone().count() > 0);
        for route in of_uplink {
            assert_eq!((route.gateway, route.scope), (None, Scope::Link), "{route}");
        }
    }

    #[test]
    fn an_exception_wider_than_the_link_keeps_the_link_direct() {
        let mut config = config();
        config.lan.inbound[0] = crate::config::example::inbound("172.16.0.0/12", "tcp/8080");
        let lines = lines(&plan(&config));
        for wanted in [
            "172.16.0.0/12 via 172.30.0.1 dev eth0 src 172.30.0.2 onlink proto 30 table 30322",
            "172.30.0.0/24 dev eth0 scope link src 172.30.0.2 proto 30 table 30322",
        ] {
            assert!(lines.iter().any(|line| line == wanted), "{lines:#?}");
        }
    }

    #[test]
    fn an_exception_of_a_second_network_leads_there() {
        let mut config = config();
        config.lan.inbound[0] = crate::config::example::inbound("172.16.0.0/12", "tcp/8080");
        config.lan.outbound[0] = crate::config::example::outbound("172.31.0.9", "tcp/8989");
        let links = [Link {
            device: "eth1".parse().unwrap(),
            address: "172.31.0.2/24".parse().unwrap(),
        }];
        let inside = config.tunnel.inside();
        let tunnel = &config.tunnel.device;
        let shares = Shares::of(&config.lan, Some(&uplink()), tunnel, inside, &links);
        let plan = plan(&config).shared_out(&shares);
        let lines = lines(&plan);
        for wanted in [
            "172.16.0.0/12 via 172.30.0.1 dev eth0 src 172.30.0.2 onlink proto 30 table 30322",
            "172.31.0.0/24 dev eth1 scope link src 172.31.0.2 proto 30 table 30322",
            "172.31.0.9 dev eth1 scope link src 172.31.0.2 proto 30 table 30322",
        ] {
            assert!(lines.iter().any(|line| line == wanted), "{lines:#?}");
        }
        let by_the_uplink = |line: &&String| line.contains("172.31") && line.contains("eth0");
        assert_eq!(lines.iter().find(by_the_uplink), None);
        let of_eth1 = plan.sysctls.iter().filter(|sysctl| sysctl.scope == "eth1");
        assert!(of_eth1.count() > 0);
    }

    #[test]
    fn no_configuration_leads_to_a_default_route_by_the_uplink() {
        let mut config = config();
        config.lan.inbound[0] = crate::config::example::inbound("10.0.0.0/8", "tcp/8080");
        for route in plan(&config).routes {
            assert!(
                !route.is_default() || route.device != Some(uplink().device),
                "{route}"
            );
        }
    }

    #[test]
    fn the_main_table_gets_one_route_and_no_exception() {
        let routes = plan(&config()).routes;
        let main = routes.iter().filter(|route| route.table == MAIN);
        let main: Vec<_> = main.map(Route::to_string).collect();
        assert_eq!(
            main,
            ["default dev tun0 scope global metric 30320 proto 30"]
        );
    }
}
