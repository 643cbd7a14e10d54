//! Which way a packet goes by a plan: a small model of the kernel's lookup (`fib_rules_lookup`, `fib_table_lookup`).

use std::net::Ipv4Addr;

use super::rule::{PORTS, Packets, Rule};
use super::tests::{config, default_route, link_route, plan};
use super::*;

/// What is looked up.
#[derive(Clone, Copy, Debug)]
struct Question {
    to: Ipv4Addr,
    protocol: u8,
    from_port: u16,
    to_port: u16,
    mark: u32,
    /// Whether it has a source address already.
    sourced: bool,
    /// Whether only routes of a link count: a route is added, and its router looked up.
    of_link: bool,
}

fn falls_under(question: Question, rule: &Rule) -> bool {
    let udp = question.protocol == 17;
    let packets = match rule.packets {
        Packets::All => true,
        Packets::Udp => udp,
        Packets::WithoutSource => !question.sourced,
        Packets::UdpFromPort => udp && PORTS.contains(&question.from_port),
        Packets::UdpToPort => udp && PORTS.contains(&question.to_port),
        Packets::Flow(flow) => {
            let ports = (question.from_port, question.to_port);
            udp && question.to == *flow.remote.ip()
                && ports == (flow.source_port, flow.remote.port())
        }
    };
    let marked = rule.mark.is_none_or(|mark| question.mark == mark.0);
    (packets && marked) != rule.inverted
}

/// The route it goes by; `None` if it goes nowhere.
fn way<'a>(question: Question, plan: &Plan, routes: &'a [Route]) -> Option<&'a Route> {
    let main = Rule {
        priority: 32766,
        table: MAIN,
        ..plan.rules.last().unwrap().clone()
    };
    let mut rules = [plan.rules.clone(), vec![main]].concat();
    rules.sort_by_key(|rule| rule.priority);
    for rule in rules.iter().filter(|rule| falls_under(question, rule)) {
        let counts = |route: &&Route| {
            route.table == rule.table
                && route.destination.contains(question.to)
                && !(question.of_link && route.scope == Scope::Global)
        };
        let metric = |route: &&Route| std::cmp::Reverse(route.metric);
        let best = routes.iter().filter(counts);
        let best = best.max_by_key(|route| (route.destination.prefix(), metric(route)));
        let suppressed =
            |route: &&Route| rule.longer_than >= Some(u32::from(route.destination.prefix()));
        match best.filter(|route| !suppressed(route)) {
            Some(route) if route.kind == Kind::Unicast => return Some(route),
            Some(_) => return None,
            None => {}
        }
    }
    None
}

/// Whatever a main table may have, for as long as it has it.
fn with_everything(plan: &Plan) -> Vec<Route> {
    let pushed = ["0.0.0.0/1", "203.0.113.0/24", "203.0.113.9/32"].map(|network| Route {
        destination: network.parse().unwrap(),
        ..default_route()
    });
    let of_main = [default_route(), link_route()];
    let main = of_main.into_iter().chain(pushed);
    plan.routes.iter().cloned().chain(main).collect()
}

const ANY: Question = Question {
    to: Ipv4Addr::new(203, 0, 113, 9),
    protocol: 6,
    from_port: 0,
    to_port: 0,
    mark: 0,
    sourced: false,
    of_link: false,
};

/// What programs send: everything but UDP without ports, and UDP from and to port 65535. And what the firewall asks for
/// the way back of UDP.
fn packets() -> Vec<Question> {
    let others = [0, 1, 6, 132, 255].map(|protocol| Question { protocol, ..ANY });
    let ports = [(1, 0), (65534, 53), (40000, 65535), (65535, 1), (0, 65534)];
    let udp = ports.map(|(from_port, to_port)| Question {
        protocol: 17,
        from_port,
        to_port,
        ..ANY
    });
    let way_back = Question {
        protocol: 17,
        sourced: true,
        ..ANY
    };
    let all = others.into_iter().chain(udp).chain([way_back]);
    all.collect()
}

#[test]
fn no_packet_of_a_program_gets_to_the_main_table() {
    let plan = plan(&config());
    let routes = with_everything(&plan);
    let mut without_tunnel = routes.clone();
    without_tunnel.retain(|route| route.device.as_ref() != Some(&plan.tunnel.device));
    for packet in packets() {
        // The Internet, and a neighbour that is no exception.
        for to in ["203.0.113.9", "1.1.1.1", "172.30.0.66"] {
            let to = to.parse().unwrap();
            let packet = Question { to, ..packet };
            let route = way(packet, &plan, &routes).unwrap();
            assert_eq!(
                route.device.as_ref(),
                Some(&plan.tunnel.device),
                "{packet:?}"
            );
            assert_eq!(way(packet, &plan, &without_tunnel), None, "{packet:?}");
        }
        let to = "192.168.1.9".parse().unwrap();
        let exception = way(Question { to, ..packet }, &plan, &routes).unwrap();
        assert_eq!(exception.table, PROGRAMS);
    }
}

#[test]
fn only_our_own_packets_go_by_the_table_of_the_mark() {
    let plan = plan(&config());
    let routes = with_everything(&plan);
    let ours = Question {
        to: [198, 51, 100, 10].into(),
        protocol: 17,
        from_port: 40000,
        to_port: 51820,
        mark: 0x1234,
        ..ANY
    };
    let out = way(ours, &plan, &routes).unwrap();
    assert_eq!((out.table, out.gateway.is_some()), (MARKED, true));
    let to = ANY.to;
    assert_eq!(way(Question { to, ..ours }, &plan, &routes), None);
    let way_back = way(Question { mark: 0, ..ours }, &plan, &routes).unwrap();
    assert_eq!(way_back.table, MARKED);
    let another_port = Question {
        mark: 0,
        to_port: 443,
        ..ours
    };
    let into_tunnel = way(another_port, &plan, &routes).unwrap();
    assert_eq!(into_tunnel.table, PROGRAMS);
}

/// Docker asks which device leads to a router before it adds a route by it; the kernel asks itself when it is added.
#[test]
fn a_router_is_found_by_the_network_of_a_link_even_if_the_plan_does_not_know_it() {
    let plan = plan(&config());
    let mut routes = with_everything(&plan);
    let eth1 = Some("eth1".parse().unwrap());
    routes.push(Route {
        device: eth1.clone(),
        destination: "172.31.0.0/24".parse().unwrap(),
        source: Some("172.31.0.2".parse().unwrap()),
        ..link_route()
    });
    let to = "172.31.0.1".parse().unwrap();
    let asked = Question {
        to,
        protocol: 17,
        ..ANY
    };
    let added = Question {
        to,
        protocol: 0,
        of_link: true,
        ..ANY
    };
    for question in [asked, added] {
        let found = way(question, &plan, &routes).unwrap();
        assert_eq!(found.device, eth1, "{question:?}");
    }
}
