//! IPv4 routes; finds the uplink, and puts a plan of routes and policy rules in force.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enums of netlink are not ours and not exhaustive"
)]

use std::collections::HashMap;
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop,
    RouteNextHopFlags, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::link::{self, Device};
use super::rtnl::{Rtnl, RtnlError};
use super::rule::{change_rule, rules};
use crate::net::beside::Link;
use crate::net::{IfName, Uplink};
use crate::plan::{self, Change, Kind, Plan, Route, RuleChange, Scope};

/// How often the tables are read again to see whether the plan is in force.
const PASSES: u32 = 4;

/// The table of our own addresses, which the kernel keeps (`RT_TABLE_LOCAL`, linux/rtnetlink.h).
const LOCAL: u32 = 255;

/// Routes or rules are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The kernel refused, or its answer cannot be read.
    #[error(transparent)]
    Rtnl(#[from] RtnlError),
    /// Someone undoes what we do.
    #[error(
        "routes do not stay as planned; still to do: {0}; another program in this namespace sets routes"
    )]
    Unsettled(String),
}

/// The uplink as it is now: the device of the default route, or the one an earlier run of ours in
/// this namespace took the default route from. `links` are those that are up, `own` is the tunnel. `None` while there is none.
///
/// # Errors
/// Where the kernel refuses, or its answer cannot be read.
pub fn observe(
    links: &[Link],
    configured: Option<&IfName>,
    own: &IfName,
) -> Result<Option<Uplink>, RouteError> {
    Ok(plan::choose(&routes()?, links, configured, own))
}

/// Like [`observe`], but stays with `last`, the uplink of this process so far, while its device is up and
/// its router on the link: setting a link down makes the kernel forget its routes in every table, and a
/// default route by another device is somebody else's wish.
///
/// # Errors
/// As [`observe`].
pub fn observe_again(
    links: &[Link],
    configured: Option<&IfName>,
    own: &IfName,
    last: &Uplink,
) -> Result<Option<Uplink>, RouteError> {
    let chosen = observe(links, configured, own)?;
    let resumed = || plan::resume(last, links);
    match chosen {
        // Its own device says where its router is, if it names one.
        Some(chosen) if chosen.device == last.device && chosen.gateway.is_some() => {
            Ok(Some(chosen))
        }
        Some(chosen) => Ok(resumed().or(Some(chosen))),
        None => Ok(resumed()),
    }
}

/// Makes routes and rules those of the plan. What an earlier run left behind is replaced. The tunnel
/// device must exist and be up. Returns the steps that took out what others had put there, as `ip` has it.
///
/// # Errors
/// Where the kernel refuses a step, or the tables differ from the plan afterwards.
pub fn apply(plan: &Plan) -> Result<Vec<String>, RouteError> {
    let (mut left, mut removed) = (String::new(), Vec::new());
    for _ in 0..PASSES {
        let routes = routes()?;
        let steps = plan::changes(&routes, plan);
        let rule_steps = plan::rule_changes(&rules()?, &routes, plan);
        if steps.is_empty() && rule_steps.is_empty() {
            return Ok(removed);
        }
        removed.extend(taken_out(&steps, &rule_steps));
        left = still_to_do(&steps, &rule_steps);
        let mut kernel = Kernel::open()?;
        // Rules first: without them a packet of ours would go into the tunnel, and the rest by the main table.
        for step in &rule_steps {
            change_rule(step)?;
        }
        for step in &steps {
            kernel.change(step)?;
        }
    }
    Err(RouteError::Unsettled(left))
}

/// For an error that one person reads: the first few of what may be thousands.
fn still_to_do(steps: &[Change], rule_steps: &[RuleChange]) -> String {
    const SHOWN: usize = 8;
    let count = steps.len() + rule_steps.len();
    let rules = rule_steps.iter().map(RuleChange::to_string);
    let words = rules.chain(steps.iter().map(Change::to_string)).take(SHOWN);
    let mut text = words.collect::<Vec<_>>().join("; ");
    if count > SHOWN {
        text += &format!("; and {} more", count - SHOWN);
    }
    text
}

/// What others had put there: not ours of before, and not the default route that comes with an uplink.
fn taken_out(steps: &[Change], rule_steps: &[RuleChange]) -> Vec<String> {
    let foreign_route = |step: &&Change| match step {
        Change::Remove(route) => {
            let read = [plan::MAIN, plan::PROGRAMS].contains(&route.table);
            read && route.protocol != plan::PROTOCOL && !route.is_default()
        }
        Change::Replace(_) => false,
    };
    let foreign_rule = |step: &&RuleChange| match step {
        RuleChange::Remove(rule) => rule.priority < plan::PRIORITY || rule.other,
        RuleChange::Add(_) => false,
    };
    let routes = steps.iter().filter(foreign_route).map(Change::to_string);
    let rules = rule_steps.iter().filter(foreign_rule);
    routes.chain(rules.map(RuleChange::to_string)).collect()
}

/// Gives the main table back what it had before our first run, and removes our tables and rules.
/// For `vpngw cleanup`; the caller removes the tunnel device.
///
/// # Errors
/// Where the kernel refuses a step.
pub fn restore() -> Result<(), RouteError> {
    let addresses = link::addresses()?;
    let own: Vec<_> = addresses.iter().map(|it| it.address.ip()).collect();
    let mut kernel = Kernel::open()?;
    for step in plan::restored(&routes()?, &own) {
        kernel.change(&step)?;
    }
    let ours = |rule: &plan::Rule| plan::OURS.contains(&rule.priority);
    for rule in rules()?.into_iter().filter(ours) {
        change_rule(&RuleChange::Remove(rule))?;
    }
    Ok(())
}

/// All IPv4 routes of all tables but `local`. A route with several next hops is one entry for each.
///
/// # Errors
/// Where the kernel refuses, or its answer cannot be read.
pub fn routes() -> Result<Vec<Route>, RouteError> {
    let devices = link::devices()?;
    let mut request = RouteMessage::default();
    request.header.address_family = AddressFamily::Inet;
    let request = RouteNetlinkMessage::GetRoute(request);
    let entries = Rtnl::open()?.dump(&request, "ip -4 route show table all")?;
    // What the kernel has learnt of the way to one host, its MTU, is listed too (`fib_dump_info_fnhe`,
    // net/ipv4/route.c); removing that would remove the route it was learnt on.
    let learnt = |message: &RouteMessage| message.header.flags.contains(RouteFlags::Cloned);
    let messages = entries.iter().filter_map(|entry| match entry {
        RouteNetlinkMessage::NewRoute(message) if !learnt(message) => Some(message),
        _ => None,
    });
    let routes = messages.flat_map(|message| decode_route(message, &devices));
    Ok(routes.filter(|route| route.table != LOCAL).collect())
}

/// Makes one change after the other by one socket: there may be thousands.
struct Kernel {
    socket: Rtnl,
    /// Numbers of devices that were asked for. A device that is gone meanwhile has a number that no other gets.
    numbers: HashMap<IfName, u32>,
}

impl Kernel {
    fn open() -> Result<Self, RtnlError> {
        Ok(Self {
            socket: Rtnl::open()?,
            numbers: HashMap::new(),
        })
    }

    fn number(&mut self, device: &IfName) -> Result<u32, RtnlError> {
        if let Some(number) = self.numbers.get(device) {
            return Ok(*number);
        }
        let number = link::index(device)?;
        self.numbers.insert(device.clone(), number);
        Ok(number)
    }

    fn change(&mut self, change: &Change) -> Result<(), RtnlError> {
        let (Change::Replace(route) | Change::Remove(route)) = change;
        let number = match &route.device {
            Some(device) if route.nexthop.is_none() => self.number(device).map(Some),
            Some(_) | None => Ok(None),
        };
        let what = change.to_string();
        match change {
            Change::Replace(_) => {
                let message = RouteNetlinkMessage::NewRoute(encode_route(route, number?));
                let flags = NLM_F_CREATE | NLM_F_REPLACE;
                self.socket.change(message, flags, &what)
            }
            Change::Remove(_) => {
                let number = match number {
                    // The device went away and took the route along.
                    Err(error) if error.is_gone() => return Ok(()),
                    other => other?,
                };
                let message = RouteNetlinkMessage::DelRoute(encode_route(route, number));
                unless(self.socket.change(message, 0, &what), libc::ESRCH)
            }
        }
    }
}

/// Someone else made the same change first.
pub(super) fn unless(outcome: Result<(), RtnlError>, errno: i32) -> Result<(), RtnlError> {
    match outcome {
        Err(error) if error.errno() == Some(errno) => Ok(()),
        other => other,
    }
}

/// `number` is that of the device, if there is one that counts.
fn encode_route(route: &Route, number: Option<u32>) -> RouteMessage {
    let Route {
        table,
        kind,
        destination,
        gateway,
        device: _,
        source,
        metric,
        scope,
        onlink,
        protocol,
        tos,
        nexthop,
    } = route;
    let mut message = RouteMessage::default();
    message.header.tos = *tos;
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = destination.prefix();
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.header.protocol = RouteProtocol::from(*protocol);
    message.header.scope = match scope {
        Scope::Global => RouteScope::Universe,
        Scope::Link => RouteScope::Link,
        Scope::Other(number) => RouteScope::from(*number),
    };
    message.header.kind = match kind {
        Kind::Unicast => RouteType::Unicast,
        Kind::Unreachable => RouteType::Unreachable,
        Kind::Other(number) => RouteType::from(*number),
    };
    if *onlink {
        message.header.flags = RouteFlags::Onlink;
    }
    let inet = |ip| RouteAddress::Inet(ip);
    message.attributes.push(RouteAttribute::Table(*table));
    if destination.prefix() > 0 {
        let destination = RouteAttribute::Destination(inet(destination.ip()));
        message.attributes.push(destination);
    }
    // A nexthop object stands for both (`fib_nh_match`, net/ipv4/fib_semantics.c).
    message.attributes.extend(nexthop.map(RouteAttribute::NhId));
    let named = nexthop.is_none();
    let gateway = gateway.map(|gateway| RouteAttribute::Gateway(inet(gateway)));
    message.attributes.extend(gateway.filter(|_| named));
    message.attributes.extend(number.map(RouteAttribute::Oif));
    let source = source.map(|source| RouteAttribute::PrefSource(inet(source)));
    message.attributes.extend(source);
    if *metric != 0 {
        message.attributes.push(RouteAttribute::Priority(*metric));
    }
    message
}

/// One route for each next hop.
fn decode_route(message: &RouteMessage, devices: &[Device]) -> Vec<Route> {
    let header = &message.header;
    let name = |index: u32| {
        let device = devices.iter().find(|device| device.index == index);
        device.map(|device| device.name.clone())
    };
    let mut route = Route {
        table: u32::from(header.table),
        kind: match header.kind {
            RouteType::Unicast => Kind::Unicast,
            RouteType::Unreachable => Kind::Unreachable,
            other => Kind::Other(other.into()),
        },
        destination: network(None, header.destination_prefix_length),
        gateway: None,
        device: None,
        source: None,
        metric: 0,
        scope: match header.scope {
            RouteScope::Universe => Scope::Global,
            RouteScope::Link => Scope::Link,
            other => Scope::Other(other.into()),
        },
        onlink: header.flags.contains(RouteFlags::Onlink),
        protocol: header.protocol.into(),
        tos: header.tos,
        nexthop: None,
    };
    let mut hops: &[RouteNextHop] = &[];
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => {
                route.destination = network(Some(*ip), header.destination_prefix_length);
            }
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => route.gateway = Some(*ip),
            RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => route.source = Some(*ip),
            RouteAttribute::Oif(index) => route.device = name(*index),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::NhId(number) => route.nexthop = Some(*number),
            RouteAttribute::MultiPath(several) => hops = several,
            // Foreign enum, non-exhaustive: the rest does not say where a packet goes.
            _ => {}
        }
    }
    if hops.is_empty() {
        return vec![route];
    }
    let by_hop = |hop: &RouteNextHop| Route {
        gateway: hop.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => Some(*ip),
            _ => None,
        }),
        device: name(hop.interface_index),
        onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
        ..route.clone()
    };
    hops.iter().map(by_hop).collect()
}

/// The kernel leaves out the address of a default route.
fn network(ip: Option<Ipv4Addr>, prefix: u8) -> Ipv4Network {
    let ip = ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
    Ipv4Network::new(ip, prefix).unwrap_or_else(|_| ip.into())
}
