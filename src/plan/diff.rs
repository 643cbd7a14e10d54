//! What is still to do: the routes of the kernel against those that are wanted.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::Ipv4Addr;

use super::route::{Kind, MAIN, PROTOCOL, Route, STATIC, Spot};
use super::{MARKED, MEMORY, PROGRAMS, Plan};
use crate::net::{IfName, Uplink, networks};

/// One step, in the order it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Add it, in the place of one with the same table, destination and metric.
    Replace(Route),
    /// Take it out.
    Remove(Route),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replace(route) => write!(f, "ip -4 route replace {route}"),
            Self::Remove(route) => write!(f, "ip -4 route del {route}"),
        }
    }
}

/// Steps from `current`, the routes of all tables, to those of the plan. Empty when there is nothing
/// left to do. First the tables of our own, whose first routes lead into the tunnel or nowhere; then what leaves the
/// main table is remembered, and only then removed.
pub fn changes(current: &[Route], plan: &Plan) -> Vec<Change> {
    let planned: HashSet<&Route> = plan.routes.iter().collect();
    let unwanted: Vec<&Route> = current
        .iter()
        .filter(|route| leads_out(route, plan) && !planned.contains(route))
        .collect();
    let memories = memories(current, &unwanted, plan);
    let of_address = of_address(current, plan);
    let in_main = |route: &&Route| route.table == MAIN;
    let own = plan.routes.iter().filter(|route| !in_main(route));
    let shown = plan.routes.iter().filter(in_main);
    let wanted = own.chain(&memories).chain(&of_address).chain(shown);
    let there: HashSet<&Route> = current.iter().collect();
    let added: Vec<&Route> = wanted.filter(|route| !there.contains(route)).collect();
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
        .filter(|route| is_stale(route, plan, &planned, &memories));
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

/// Steps that give the main table back what it had before our first run, and remove our routes. `own` are the
/// addresses there are.
pub fn restored(current: &[Route], own: &[Ipv4Addr]) -> Vec<Change> {
    let ours = |route: &&Route| {
        [MARKED, MEMORY, PROGRAMS].contains(&route.table) || route.protocol == PROTOCOL
    };
    let memories = current.iter().filter(|route| route.table == MEMORY);
    let back = memories.map(|memory| Route {
        table: MAIN,
        // The kernel takes no source that is not our address any more.
        source: memory.source.filter(|source| own.contains(source)),
        ..memory.clone()
    });
    // What somebody has put in its place meanwhile is newer.
    let newer = |back: &Route| current.iter().any(|it| !ours(&it) && back.replaces(it));
    let back = back.filter(|back| !newer(back)).map(Change::Replace);
    let removed = current.iter().filter(ours).cloned().map(Change::Remove);
    back.chain(removed).collect()
}

/// Whether this route of the main table would take packets away from the tunnel if they asked there: by default, or by
/// any device, unless it is the network of an address of that device. A nexthop object that the kernel does not print
/// may lead anywhere.
fn leads_out(route: &Route, plan: &Plan) -> bool {
    let hidden = route.nexthop.is_some() && route.device.is_none();
    let loopback = |device: &IfName| device.as_str() == "lo";
    let by_device = route
        .device
        .as_ref()
        .is_some_and(|device| !loopback(device));
    route.table == MAIN
        && route.kind == Kind::Unicast
        && (route.is_default() || hidden || (by_device && !route.is_of_address()))
        && route.device.as_ref() != Some(&plan.tunnel.device)
}

/// The network of the uplink's address, for the main table, if a former version has it in the memory instead.
fn of_address(current: &[Route], plan: &Plan) -> Option<Route> {
    let uplink = plan.uplink.as_ref()?;
    let link = networks::masked(uplink.address);
    let of_uplink = |route: &&Route| {
        route.is_of_address()
            && (route.device.as_ref(), route.destination) == (Some(&uplink.device), link)
            && route.source == Some(uplink.address.ip())
    };
    let mut found = current.iter().filter(of_uplink);
    let there = found.clone().any(|route| route.table == MAIN);
    let memory = found.find(|route| route.table == MEMORY && !there)?;
    Some(Route {
        table: MAIN,
        ..memory.clone()
    })
}

/// The same routes in the table that no rule leads to, and the way to the router if it is not among
/// them: the kernel forgets it when the link goes down. Our own routes in the main table are not worth
/// remembering: they follow from the configuration.
fn memories(current: &[Route], unwanted: &[&Route], plan: &Plan) -> Vec<Route> {
    let mut memories: Vec<Route> = Vec::new();
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
    for memory in foreign {
        let memory = beside(current, &memories, memory);
        if spots.insert(memory.spot()) {
            memories.push(memory);
        }
    }
    let to_router = plan.uplink.as_ref().and_then(to_router);
    if let Some(memory) = to_router {
        let same = |known: &Route| {
            known.table == MEMORY
                && known.destination == memory.destination
                && (&known.device, known.gateway) == (&memory.device, memory.gateway)
        };
        if !current.iter().chain(&memories).any(same) {
            memories.push(beside(current, &memories, memory));
        }
    }
    memories
}

/// The default route with the first metric that no other device's has in the memory: with two networks Docker moves
/// the default route from one device to the other, and either may be the one that stays.
fn beside(current: &[Route], memories: &[Route], mut memory: Route) -> Route {
    let others = |memory: &Route| {
        let mut known = current.iter().chain(memories);
        known.any(|known| known.replaces(memory) && known.device != memory.device)
    };
    while memory.is_default() && others(&memory) {
        memory.metric = memory.metric.saturating_add(1);
    }
    memory
}

/// The default route as a person would write it, for `vpngw cleanup` to give back.
fn to_router(uplink: &Uplink) -> Option<Route> {
    let route = Route::by_router(MEMORY, networks::ALL, uplink.gateway?, &uplink.device, None);
    Some(Route {
        protocol: STATIC,
        ..route
    })
}

/// Left behind by an earlier run, or put in our tables by somebody: what is not wanted there, and what a former version
/// had in the main table; in the memory a default route when there is a newer one by the same device, and the network
/// of the uplink's address, which is in the main table.
fn is_stale(route: &Route, plan: &Plan, planned: &HashSet<&Route>, memories: &[Route]) -> bool {
    let newer = |new: &Route| new.is_default() && new.device == route.device && new != route;
    let of_uplink = |uplink: &Uplink| Some(&uplink.device) == route.device.as_ref();
    match route.table {
        MARKED | PROGRAMS => !planned.contains(route),
        MAIN => route.protocol == PROTOCOL && !planned.contains(route),
        MEMORY => {
            (route.is_default() && memories.iter().any(newer))
                || (route.is_of_address() && plan.uplink.as_ref().is_some_and(of_uplink))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, default_route, link_route, plan, uplink};
    use super::*;

    fn apply(current: &mut Vec<Route>, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Replace(new) => match current.iter().position(|old| new.replaces(old)) {
                    Some(at) => current[at] = new.clone(),
                    None => current.push(new.clone()),
                },
                Change::Remove(old) => current.retain(|route| route != old),
            }
        }
    }

    fn settle(routes: &mut Vec<Route>, plan: &Plan) {
        let changes = changes(routes, plan);
        apply(routes, &changes);
    }

    fn fresh() -> Vec<Route> {
        vec![default_route(), link_route()]
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
        let pushed = Route {
            destination: "0.0.0.0/1".parse().unwrap(),
            ..default_route()
        };
        let changes = changes(&[fresh(), vec![pushed.clone()]].concat(), &plan);
        for old in [default_route(), pushed] {
            let memory = |change: &Change| matches!(change, Change::Replace(new) if new.table == MEMORY && new.destination == old.destination);
            let memory = changes.iter().position(memory).unwrap();
            let gone = changes
                .iter()
                .position(|it| *it == Change::Remove(old.clone()));
            assert!(memory < gone.unwrap(), "{old}");
        }
    }

    /// Docker looks there for conflicts, and finds the next router by them.
    #[test]
    fn the_networks_of_addresses_stay_in_the_main_table() {
        let plan = plan(&config());
        let mut routes = fresh();
        // A new address of the uplink, and another device.
        for (device, source) in [("eth0", "172.30.0.3"), ("eth1", "172.31.0.2")] {
            let source: Ipv4Addr = source.parse().unwrap();
            routes.push(Route {
                device: Some(device.parse().unwrap()),
                destination: networks::masked(format!("{source}/24").parse().unwrap()),
                source: Some(source),
                ..link_route()
            });
        }
        let of_addresses = routes[1..].to_vec();
        settle(&mut routes, &plan);
        for route in of_addresses {
            assert!(routes.contains(&route), "{route}");
        }
    }

    /// The first version had its own routes and exceptions in the main table and the uplink's network in the memory.
    #[test]
    fn the_main_table_of_a_former_version_is_put_right() {
        let plan = plan(&config());
        let tunnel = &plan.tunnel.device;
        let in_memory = |route: Route| Route {
            table: MEMORY,
            ..route
        };
        let exception = Route::by_router(
            MAIN,
            "192.168.1.0/24".parse().unwrap(),
            uplink().gateway.unwrap(),
            &uplink().device,
            None,
        );
        let mut routes = vec![
            Route::on_link(MAIN, networks::ALL, tunnel, None),
            Route::unreachable(MAIN, u32::MAX),
            exception,
            in_memory(default_route()),
            in_memory(link_route()),
        ];
        settle(&mut routes, &plan);
        assert_eq!(changes(&routes, &plan), []);
        let of = |table: u32| {
            let of = routes.iter().filter(move |route| route.table == table);
            of.cloned().collect::<Vec<_>>()
        };
        let shown = plan.routes.last().unwrap().clone();
        assert_eq!(of(MAIN), [link_route(), shown]);
        assert_eq!(of(MEMORY), [in_memory(default_route())]);
    }

    #[test]
    fn each_device_keeps_its_default_route_in_the_memory() {
        let plan = plan(&config());
        let mut routes = fresh();
        settle(&mut routes, &plan);
        let second = Route {
            device: Some("eth1".parse().unwrap()),
            gateway: Some("172.31.0.1".parse().unwrap()),
            ..default_route()
        };
        routes.push(second.clone());
        settle(&mut routes, &plan);
        assert_eq!(changes(&routes, &plan), []);
        for device in [uplink().device, second.device.unwrap()] {
            let mut memory = routes.iter().filter(|route| route.table == MEMORY);
            assert!(memory.any(|it| it.is_default() && it.device.as_ref() == Some(&device)));
        }
    }

    #[test]
    fn what_is_put_in_our_tables_goes() {
        let plan = plan(&config());
        let mut routes = fresh();
        settle(&mut routes, &plan);
        for table in [MARKED, PROGRAMS] {
            let pushed = Route {
                table,
                destination: "203.0.113.0/24".parse().unwrap(),
                ..default_route()
            };
            routes.push(pushed.clone());
            assert_eq!(changes(&routes, &plan), [Change::Remove(pushed)]);
            routes.pop();
        }
    }

    #[test]
    fn everything_is_given_back_but_what_has_been_replaced_meanwhile() {
        let plan = plan(&config());
        let mut routes = fresh();
        settle(&mut routes, &plan);
        let own = [uplink().address.ip()];
        let mut back = routes.clone();
        apply(&mut back, &restored(&routes, &own));
        let onlink = Route {
            onlink: true,
            ..default_route()
        };
        assert_eq!(back, [link_route(), onlink]);
        let newer = Route {
            gateway: Some("172.30.0.254".parse().unwrap()),
            ..default_route()
        };
        routes.push(newer.clone());
        let mut back = routes.clone();
        apply(&mut back, &restored(&routes, &own));
        assert_eq!(back, [link_route(), newer]);
    }

    #[test]
    fn a_source_that_is_no_address_any_more_is_not_given_back() {
        let memory = Route {
            table: MEMORY,
            source: Some("172.30.0.9".parse().unwrap()),
            ..default_route()
        };
        let steps = restored(&[memory], &[uplink().address.ip()]);
        assert_eq!(steps[0], Change::Replace(default_route()));
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
}
