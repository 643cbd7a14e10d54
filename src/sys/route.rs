//! IPv4 routes and policy rules; finds the uplink.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enums of netlink are not ours and not exhaustive"
)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use ipnetwork::Ipv4Network;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Nla as _};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop,
    RouteNextHopFlags, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{
    RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange,
};
use netlink_packet_route::{AddressFamily, IpProtocol, RouteNetlinkMessage};

use super::link::{self, Device};
use super::rtnl::{Rtnl, RtnlError};
use crate::net::{Fwmark, IfName, Uplink};
use crate::plan::{self, Change, Flow, Kind, Plan, Route, Rule, RuleChange, Scope};

/// How often the tables are read again to see whether the plan is in force.
const PASSES: u32 = 4;

/// `FRA_SPORT_MASK`, `FRA_DPORT_MASK` (linux/fib_rules.h).
const SPORT_MASK: u16 = 28;
const DPORT_MASK: u16 = 29;

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
/// this namespace took the default route from. `own` is the tunnel. `None` while there is none.
///
/// # Errors
/// Where the kernel refuses, or its answer cannot be read.
pub fn observe(configured: Option<&IfName>, own: &IfName) -> Result<Option<Uplink>, RouteError> {
    let addresses = link::addresses()?;
    Ok(plan::choose(&routes()?, &addresses, configured, own))
}

/// Like [`observe`], but stays with `last`, the uplink of this process so far, while its device is up and
/// its router on the link: setting a link down makes the kernel forget its routes in every table, and a
/// default route by another device is somebody else's wish.
///
/// # Errors
/// As [`observe`].
pub fn observe_again(
    configured: Option<&IfName>,
    own: &IfName,
    last: &Uplink,
) -> Result<Option<Uplink>, RouteError> {
    let addresses = link::addresses()?;
    let chosen = plan::choose(&routes()?, &addresses, configured, own);
    let resumed = || plan::resume(last, &addresses);
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
        // Rules first: without the rule a packet of ours would follow the main table into the tunnel.
        for step in &rule_steps {
            kernel.change_rule(step)?;
        }
        for step in &steps {
            kernel.change_route(step)?;
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
            route.table == plan::MAIN
                && route.protocol != plan::PROTOCOL
                && route.destination.prefix() > 0
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
    let mut kernel = Kernel::open()?;
    let routes = routes()?;
    let ours = |route: &&Route| {
        route.table == plan::MARKED
            || route.table == plan::MEMORY
            || route.protocol == plan::PROTOCOL
    };
    for route in routes.iter().filter(|route| route.table == plan::MEMORY) {
        let mut back = route.clone();
        back.table = plan::MAIN;
        kernel.change_route(&Change::Replace(back))?;
    }
    for route in routes.iter().filter(ours) {
        kernel.change_route(&Change::Remove(route.clone()))?;
    }
    for rule in rules()? {
        if rule.table == plan::MARKED {
            kernel.change_rule(&RuleChange::Remove(rule))?;
        }
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

/// All IPv4 policy rules.
///
/// # Errors
/// Where the kernel refuses, or its answer cannot be read.
pub fn rules() -> Result<Vec<Rule>, RouteError> {
    let mut request = RuleMessage::default();
    request.header.family = AddressFamily::Inet;
    let request = RouteNetlinkMessage::GetRule(request);
    let entries = Rtnl::open()?.dump(&request, "ip -4 rule show")?;
    let rule = |entry: &RouteNetlinkMessage| match entry {
        RouteNetlinkMessage::NewRule(message) => Some(decode_rule(message)),
        _ => None,
    };
    Ok(entries.iter().filter_map(rule).collect())
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

    fn change_route(&mut self, change: &Change) -> Result<(), RtnlError> {
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

    fn change_rule(&mut self, change: &RuleChange) -> Result<(), RtnlError> {
        let what = change.to_string();
        match change {
            RuleChange::Add(rule) => {
                let message = RouteNetlinkMessage::NewRule(encode_rule(rule));
                let flags = NLM_F_CREATE | NLM_F_EXCL;
                unless(self.socket.change(message, flags, &what), libc::EEXIST)
            }
            RuleChange::Remove(rule) => {
                let message = RouteNetlinkMessage::DelRule(encode_rule(rule));
                unless(self.socket.change(message, 0, &what), libc::ENOENT)
            }
        }
    }
}

/// Someone else made the same change first.
fn unless(outcome: Result<(), RtnlError>, errno: i32) -> Result<(), RtnlError> {
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

fn encode_rule(rule: &Rule) -> RuleMessage {
    let Rule {
        priority,
        mark,
        mask,
        flow,
        table,
        other: _,
    } = rule;
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(*priority),
        RuleAttribute::Table(*table),
    ];
    if let Some(Fwmark(mark)) = mark {
        message.attributes.push(RuleAttribute::FwMark(*mark));
        message.attributes.push(RuleAttribute::FwMask(*mask));
    }
    if let Some(Flow {
        source_port,
        remote,
    }) = flow
    {
        let only = |port| RulePortRange {
            start: port,
            end: port,
        };
        message.header.dst_len = 32;
        message.attributes.extend([
            RuleAttribute::Destination(IpAddr::V4(*remote.ip())),
            RuleAttribute::IpProtocol(IpProtocol::Udp),
            RuleAttribute::SourcePortRange(only(*source_port)),
            RuleAttribute::DestinationPortRange(only(remote.port())),
        ]);
    }
    message
}

fn decode_rule(message: &RuleMessage) -> Rule {
    let header = &message.header;
    let plain = header.src_len == 0
        && header.tos == 0
        && header.action == RuleAction::ToTable
        && !header.flags.contains(RuleFlags::Invert);
    let mut rule = Rule {
        priority: 0,
        mark: None,
        mask: u32::MAX,
        flow: None,
        table: u32::from(header.table),
        other: !plain,
    };
    let of = |attribute: &DefaultNla| {
        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        value
    };
    let only = |range: &RulePortRange| (range.start == range.end).then_some(range.start);
    let (mut to, mut from_port, mut to_port, mut udp) = (None, None, None, false);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::FwMark(mark) => rule.mark = Some(Fwmark(*mark)),
            RuleAttribute::FwMask(mask) => rule.mask = *mask,
            RuleAttribute::Destination(IpAddr::V4(ip)) if header.dst_len == 32 => to = Some(*ip),
            RuleAttribute::SourcePortRange(range) => from_port = only(range),
            RuleAttribute::DestinationPortRange(range) => to_port = only(range),
            RuleAttribute::IpProtocol(protocol) => udp = *protocol == IpProtocol::Udp,
            // What the kernel prints of every rule.
            RuleAttribute::Protocol(_) | RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            // All bits of the ports count (Linux 6.15).
            RuleAttribute::Other(it)
                if [SPORT_MASK, DPORT_MASK].contains(&it.kind()) && of(it) == [0xff; 2] => {}
            // Foreign enum, non-exhaustive: our rules have nothing else.
            _ => rule.other = true,
        }
    }
    let conditions = [to.is_some(), from_port.is_some(), to_port.is_some(), udp];
    if let (Some(to), Some(source_port), Some(to_port), true) = (to, from_port, to_port, udp) {
        rule.flow = Some(Flow {
            source_port,
            remote: SocketAddrV4::new(to, to_port),
        });
    } else if conditions.contains(&true) || header.dst_len > 0 {
        rule.other = true;
    }
    rule
}
