//! What is still to do: the routes and rules of the kernel against those that are wanted.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::route::{Kind, MAIN, PROTOCOL, Route, Rule, Spot};
use super::{MARKED, MEMORY, PRIORITY, Plan};
use crate::net::{Fwmark, IfName, Uplink, networks};

/// One step, in the order it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Add it, in the place of one with the same table, destination and metric.
    Replace(Route),
    /// Take it out.
    Remove(Route),
}

/// One step, in the order it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleChange {
    /// Add it.
    Add(Rule),
    /// Take it out.
    Remove(Rule),
}

/// `RTPROT_KERNEL` and `RTPROT_STATIC` (linux/rtnetlink.h): of an address, and set by an administrator.
const KERNEL: u8 = 2;
const STATIC: u8 = 4;

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replace(route) => write!(f, "ip -4 route replace {route}"),
            Self::Remove(route) => write!(f, "ip -4 route del {route}"),
        }
    }
}

impl fmt::Display for RuleChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(rule) => write!(f, "ip -4 rule add {rule}"),
            Self::Remove(rule) => write!(f, "ip -4 rule del {rule}"),
        }
    }
}

/// Priorities that are ours.
const OURS: std::ops::Range<u32> = PRIORITY..PRIORITY + 10;

/// Steps from `current`, the routes of all tables, to those of the plan. Empty when there is nothing
/// left to do. Routes of the uplink are remembered before they are removed.
pub fn changes(current: &[Route], plan: &Plan) -> Vec<Change> {
    let wanted: HashSet<&Route> = plan.routes.iter().collect();
    let unwanted: Vec<&Route> = current
        .iter()
        .filter(|route| leads_out(route, plan) && !wanted.contains(route))
        .collect();
    let memories = memories(current, &unwanted, plan);
    let there: HashSet<&Route> = current.iter().collect();
    let missing = |route: &&Route| !there.contains(route);
    let added: Vec<&Route> = memories
        .iter()
        .chain(&plan.routes)
        .filter(missing)
        .collect();
    // What a Replace overwrites is gone already: the first in its place (`fib_table_insert`, net/ipv4/fib_trie.c).
    let filled: HashSet<Spot> = added.iter().map(|route| route.spot()).collect();
    let mut firsts: HashMap<Spot, &Route> = HashMap::new();
    for route in current {
        firsts.entry(route.spot()).or_insert(route);
    }
    let overwritten = |route: &Route| {
        let spot = route.spot();
        filled.contains(&spot) && firsts.get(&spot).is_some_and(|first| *first == route)
    };
    let stale = current
        .iter()
        .filter(|route| is_stale(route, &wanted, &memories));
    let removed = unwanted
        .iter()
        .copied()
        .chain(stale)
        .filter(|route| !overwritten(route));
    let replace = added.iter().copied().cloned().map(Change::Replace);
    replace
        .chain(removed.cloned().map(Change::Remove))
        .collect()
}

/// Steps from `current` to the rules of the plan. Rules at other priorities are not ours to touch, unless
/// they lead past the tunnel, or our own flow away from its way.
pub fn rule_changes(current: &[Rule], routes: &[Route], plan: &Plan) -> Vec<RuleChange> {
    let there: HashSet<&Rule> = current.iter().collect();
    let missing = |rule: &&Rule| !there.contains(rule);
    let added = plan.rules.iter().filter(missing);
    let past = Past::of(routes, plan);
    let unwanted = |rule: &&Rule| {
        (OURS.contains(&rule.priority) || past.beats_ours(rule)) && !plan.rules.contains(rule)
    };
    let removed = current.iter().filter(unwanted);
    // The new rule first: a packet of ours is never without one.
    let added = added.cloned().map(RuleChange::Add);
    added
        .chain(removed.cloned().map(RuleChange::Remove))
        .collect()
}

/// Tables that lead past the tunnel.
struct Past {
    mark: Option<Fwmark>,
    /// By the uplink. The main table has nothing but our routes by the uplink, so it does no harm to the packets of
    /// others.
    out: HashSet<u32>,
    /// Anywhere with the packets of our own flow.
    away: HashSet<u32>,
}

impl Past {
    fn of(routes: &[Route], plan: &Plan) -> Self {
        let remote = plan
            .rules
            .iter()
            .find_map(|ours| Some(*ours.flow?.remote.ip()));
        let uplink = plan.uplink.as_ref().map(|uplink| &uplink.device);
        let out = |route: &&Route| {
            uplink.is_some() && route.device.as_ref() == uplink && route.table != MAIN
        };
        let away = |route: &&Route| remote.is_some_and(|remote| route.destination.contains(remote));
        let table = |route: &Route| route.table;
        Self {
            mark: plan.rules.iter().find_map(|ours| ours.mark),
            out: routes.iter().filter(out).map(table).collect(),
            away: routes.iter().filter(away).map(table).collect(),
        }
    }

    /// Whether a rule is asked before our rules and its table leads out.
    fn beats_ours(&self, rule: &Rule) -> bool {
        let ours = self.mark.is_some_and(|mark| rule.takes(mark));
        rule.priority < PRIORITY
            && (self.out.contains(&rule.table) || (ours && self.away.contains(&rule.table)))
    }
}

/// Whether this route takes packets away from the tunnel: by the uplink, by default, or by any other device
/// unless it is the network of that device's own address. A nexthop object that the kernel does not print
/// may lead anywhere.
fn leads_out(route: &Route, plan: &Plan) -> bool {
    let uplink = plan.uplink.as_ref().map(|uplink| &uplink.device);
    let by_uplink = uplink.is_some() && route.device.as_ref() == uplink;
    let hidden = route.nexthop.is_some() && route.device.is_none();
    let loopback = |device: &IfName| device.as_str() == "lo";
    let other = route
        .device
        .as_ref()
        .is_some_and(|device| !loopback(device));
    let pushed = other && route.protocol != KERNEL;
    route.table == MAIN
        && route.kind == Kind::Unicast
        && (by_uplink || route.destination.prefix() == 0 || hidden || pushed)
        && route.device.as_ref() != Some(&plan.tunnel.device)
}

/// The same routes in the table that no rule leads to, and the way to the router if it is not among
/// them: the kernel forgets it when the link goes down. Our own routes in the main table are not worth
/// remembering: they follow from the configuration.
fn memories(current: &[Route], unwanted: &[&Route], plan: &Plan) -> Vec<Route> {
    // Of a route by a nexthop object only what the kernel prints of it can be remembered.
    let known = |route: &&&Route| route.protocol != PROTOCOL && route.device.is_some();
    let foreign = unwanted.iter().filter(known);
    let foreign = foreign.map(|route| Route {
        table: MEMORY,
        onlink: route.gateway.is_some(),
        tos: 0,
        nexthop: None,
        ..(*route).clone()
    });
    let mut spots = HashSet::new();
    let mut memories: Vec<Route> = foreign
        .filter(|memory| spots.insert(memory.spot()))
        .collect();
    let to_router = plan.uplink.as_ref().and_then(to_router);
    if let Some(memory) = to_router {
        let same = |known: &Route| {
            known.table == MEMORY
                && known.destination == memory.destination
                && (&known.device, known.gateway) == (&memory.device, memory.gateway)
        };
        if !current.iter().chain(&memories).any(same) {
            memories.push(memory);
        }
    }
    memories
}

/// The default route as a person would write it, for `vpngw cleanup` to give back.
fn to_router(uplink: &Uplink) -> Option<Route> {
    let route = Route::by_router(MEMORY, networks::ALL, uplink.gateway?, &uplink.device, None);
    Some(Route {
        protocol: STATIC,
        ..route
    })
}

/// Left behind by an earlier run: in the marked table all that is not wanted, in the memory a default
/// route when there is a newer one by the same device.
fn is_stale(route: &Route, wanted: &HashSet<&Route>, memories: &[Route]) -> bool {
    let is_default = |route: &Route| route.destination.prefix() == 0;
    let newer = |new: &Route| is_default(new) && new.device == route.device && new != route;
    match route.table {
        MARKED => !wanted.contains(route),
        MEMORY => is_default(route) && memories.iter().any(newer),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, plan, uplink};
    use super::*;

    fn apply(current: &mut Vec<Route>, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Replace(new) => {
                    match current.iter().position(|old| new.spot() == old.spot()) {
                        Some(at) => current[at] = new.clone(),
                        None => current.push(new.clone()),
                    }
                }
                Change::Remove(old) => current.retain(|route| route != old),
            }
        }
    }

    fn settle(routes: &mut Vec<Route>, plan: &Plan) {
        let changes = changes(routes, plan);
        apply(routes, &changes);
    }

    fn fresh() -> Vec<Route> {
        let uplink = uplink();
        let source = Some(uplink.address.ip());
        vec![
            Route {
                onlink: false,
                protocol: 3,
                ..Route::by_router(
                    MAIN,
                    networks::ALL,
                    uplink.gateway.unwrap(),
                    &uplink.device,
                    None,
                )
            },
            Route {
                protocol: 2,
                ..Route::on_link(
                    MAIN,
                    networks::masked(uplink.address),
                    &uplink.device,
                    source,
                )
            },
        ]
    }

    #[test]
    fn afterwards_nothing_is_left_to_do() {
        let plan = plan(&config());
        let mut routes = fresh();
        settle(&mut routes, &plan);
        assert_eq!(changes(&routes, &plan), []);
        for wanted in &plan.routes {
            assert!(routes.contains(wanted), "{wanted}");
        }
    }

    #[test]
    fn what_the_main_table_loses_is_remembered_first() {
        let plan = plan(&config());
        let changes = changes(&fresh(), &plan);
        for old in fresh() {
            let memory = |change: &Change| matches!(change, Change::Replace(new) if new.table == MEMORY && new.destination == old.destination);
            let gone = |change: &Change| match change {
                Change::Replace(new) => new.spot() == old.spot(),
                Change::Remove(route) => *route == old,
            };
            let memory = changes.iter().position(memory).unwrap();
            assert!(memory < changes.iter().position(gone).unwrap(), "{old}");
        }
    }

    #[test]
    fn leftovers_of_an_earlier_endpoint_go() {
        let plan = plan(&config());
        let old = Route::by_router(
            MARKED,
            "203.0.113.9/32".parse().unwrap(),
            "172.30.0.1".parse().unwrap(),
            &uplink().device,
            None,
        );
        let steps = changes(std::slice::from_ref(&old), &plan);
        assert!(steps.contains(&Change::Remove(old)));
    }

    #[test]
    fn a_new_default_route_replaces_the_one_remembered() {
        let plan = plan(&config());
        let mut routes = fresh();
        settle(&mut routes, &plan);
        let mut newer = fresh().remove(0);
        newer.metric = 100;
        newer.gateway = Some("172.30.0.254".parse().unwrap());
        routes.push(newer.clone());
        settle(&mut routes, &plan);
        let default = |route: &&Route| route.table == MEMORY && route.destination.prefix() == 0;
        let remembered: Vec<_> = routes.iter().filter(default).collect();
        assert_eq!(remembered.len(), 1);
        assert_eq!(remembered[0].gateway, newer.gateway);
    }

    #[test]
    fn a_route_by_a_nexthop_object_is_remembered_by_what_it_leads_to() {
        let plan = plan(&config());
        let mut routes = fresh();
        routes[0].nexthop = Some(5);
        settle(&mut routes, &plan);
        assert!(routes.iter().all(|route| route.nexthop.is_none()));
        assert!(
            routes
                .iter()
                .any(|route| route.table == MEMORY && route.gateway == uplink().gateway)
        );
        let hidden = Route {
            device: None,
            gateway: None,
            nexthop: Some(6),
            destination: "203.0.113.0/24".parse().unwrap(),
            ..fresh().remove(0)
        };
        assert_eq!(
            changes(&[plan.routes.clone(), vec![hidden.clone()]].concat(), &plan).last(),
            Some(&Change::Remove(hidden))
        );
    }

    fn foreign(priority: u32, mark: Option<u32>, table: u32) -> Rule {
        Rule {
            priority,
            mark: mark.map(Fwmark),
            mask: u32::MAX,
            flow: None,
            table,
            other: true,
        }
    }

    fn removed(current: &[Rule], routes: &[Route]) -> Vec<Rule> {
        let steps = rule_changes(current, routes, &plan(&config()));
        let removed = steps.into_iter().filter_map(|step| match step {
            RuleChange::Remove(rule) => Some(rule),
            RuleChange::Add(_) => None,
        });
        removed.collect()
    }

    #[test]
    fn rules_of_others_stay_unless_they_lead_out() {
        let mut routes = plan(&config()).routes;
        routes.push(Route {
            table: 200,
            ..fresh().remove(0)
        });
        routes.push(Route::on_link(
            52,
            "100.64.0.0/10".parse().unwrap(),
            &"other0".parse().unwrap(),
            None,
        ));
        let stale = foreign(PRIORITY, None, MARKED);
        let (to_uplink, ours_away) = (foreign(7, Some(9), 200), foreign(100, Some(0x1234), MAIN));
        let anybody_s = foreign(100, None, MAIN);
        let current = [
            foreign(0, None, 255),
            foreign(5210, Some(0x80000), MAIN),
            foreign(5270, None, 52),
            stale.clone(),
            to_uplink.clone(),
            ours_away.clone(),
            anybody_s.clone(),
            foreign(32766, None, MAIN),
            foreign(32765, None, 200),
        ];
        assert_eq!(
            removed(&current, &routes),
            [stale, to_uplink, ours_away, anybody_s]
        );
    }
}
