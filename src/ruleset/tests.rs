//! Properties of every ruleset, and how the rules are held against the specification.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::Ipv4Network;
use proptest::prelude::*;

use super::*;
use crate::config::{Inbound, Outbound};
use crate::policy::{
    Device, DeviceKind, Direction, Flow, Hole, LanPolicy, Policy, Protocol, TunnelPolicy,
    UplinkPolicy, verdict,
};

/// Few values, so that rules and packets meet.
const ADDRESSES: [[u8; 4]; 16] = [
    [10, 64, 0, 2],
    [10, 64, 0, 1],
    [10, 64, 9, 9],
    [172, 30, 0, 2],
    [172, 30, 0, 1],
    [172, 30, 0, 20],
    [192, 168, 1, 7],
    [198, 51, 100, 10],
    [1, 1, 1, 1],
    [127, 0, 0, 1],
    [127, 0, 0, 11],
    [239, 255, 255, 250],
    [255, 255, 255, 255],
    [169, 254, 169, 254],
    [100, 100, 100, 200],
    [0, 0, 0, 0],
];
const PORTS: [u16; 9] = [53, 853, 443, 1900, 5351, 8080, 6881, 40000, 51820];
const DEVICES: [&str; 4] = ["lo", "eth0", "tun0", "eth1"];

fn address() -> impl Strategy<Value = Ipv4Addr> {
    prop::sample::select(&ADDRESSES[..]).prop_map(Ipv4Addr::from)
}

fn network() -> impl Strategy<Value = Ipv4Network> {
    let prefix = prop::sample::select(vec![8_u8, 12, 16, 24, 31, 32]);
    (address(), prefix).prop_map(|(ip, prefix)| Ipv4Network::new(ip, prefix).unwrap())
}

fn port() -> impl Strategy<Value = u16> {
    prop::sample::select(&PORTS[..])
}

fn transport_port() -> impl Strategy<Value = crate::net::Port> {
    (any::<bool>(), port()).prop_map(|(tcp, number)| crate::net::Port {
        transport: if tcp { Transport::Tcp } else { Transport::Udp },
        number,
    })
}

fn hole() -> impl Strategy<Value = Hole> {
    (address(), port(), port()).prop_map(|(ip, remote, source_port)| Hole {
        mark: Fwmark(7),
        source_port,
        remote: SocketAddrV4::new(ip, remote),
    })
}

fn exceptions() -> impl Strategy<Value = (Vec<Inbound>, Vec<Outbound>)> {
    let inbound = (network(), transport_port());
    let inbound = inbound.prop_filter_map("no exception", |(from, to)| Inbound::new(from, to).ok());
    let outbound = (address(), transport_port());
    let outbound =
        outbound.prop_filter_map("no exception", |(to, port)| Outbound::new(to, port).ok());
    (
        prop::collection::vec(inbound, 0..3),
        prop::collection::vec(outbound, 0..3),
    )
}

/// What a device beside the uplink may carry.
fn beside() -> impl Strategy<Value = LanPolicy> {
    exceptions().prop_map(|(inbound, outbound)| LanPolicy {
        device: "eth1".parse().unwrap(),
        address: Ipv4Addr::new(172, 31, 0, 2),
        inbound,
        outbound,
    })
}

fn uplink() -> impl Strategy<Value = UplinkPolicy> {
    let holes = (prop::option::of(hole()), prop::option::of(hole()));
    (exceptions(), holes).prop_map(|((inbound, outbound), (endpoint, resolver))| UplinkPolicy {
        device: "eth0".parse().unwrap(),
        address: Ipv4Addr::new(172, 30, 0, 2),
        endpoint,
        resolver,
        inbound,
        outbound,
    })
}

fn tunnel() -> impl Strategy<Value = TunnelPolicy> {
    let own = prop::sample::select(vec!["10.64.0.2/32", "10.64.0.2/16"]);
    let dns = prop::collection::vec(address(), 0..2);
    let private = prop::collection::vec(network(), 0..2);
    let forward = prop::collection::vec(port(), 0..2);
    (own, dns, private, forward).prop_map(|(own, dns, private, forward)| TunnelPolicy {
        device: "tun0".parse().unwrap(),
        addresses: vec![own.parse().unwrap()],
        dns,
        private,
        forward,
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let parts = (prop::option::of(uplink()), prop::option::of(tunnel()));
    let beside = prop::collection::vec(beside(), 0..2);
    (parts, beside).prop_map(|((uplink, tunnel), beside)| Policy {
        uplink,
        beside,
        tunnel,
    })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    let ports = (port(), port(), any::<bool>());
    prop_oneof![
        3 => (port(), port()).prop_map(|(source, destination)| Protocol::Tcp { source, destination }),
        6 => ports.prop_map(|(source, destination, wireguard)| Protocol::Udp {
            source,
            destination,
            wireguard,
        }),
        1 => Just(Protocol::Icmp),
        2 => hole().prop_map(|hole| Protocol::TooBig {
            source_port: hole.source_port,
            remote: hole.remote,
        }),
        1 => Just(Protocol::Other(47)),
    ]
}

fn flow() -> impl Strategy<Value = Flow> {
    let direction = prop_oneof![
        4 => Just(Direction::Out),
        4 => Just(Direction::In),
        1 => Just(Direction::Forward)
    ];
    let device = (prop::sample::select(&DEVICES[..]), any::<bool>()).prop_map(|(name, fake)| {
        let kind = match name {
            "lo" => DeviceKind::Loopback,
            "tun0" if !fake => DeviceKind::Tun,
            _ => DeviceKind::Other,
        };
        let name = name.parse().unwrap();
        Device { name, kind }
    });
    let ends = (address(), address(), prop::bool::weighted(0.1));
    let rest = (protocol(), any::<bool>(), any::<bool>());
    (direction, device, ends, rest).prop_map(|(direction, device, ends, rest)| {
        let (from, to, ipv6) = ends;
        let (protocol, marked, reply) = rest;
        let version = |ip: Ipv4Addr| match ipv6 {
            true => IpAddr::V6(Ipv6Addr::LOCALHOST),
            false => IpAddr::V4(ip),
        };
        Flow {
            direction,
            device,
            source: version(from),
            destination: version(to),
            protocol,
            mark: Fwmark(if marked { 7 } else { 0 }),
            reply,
        }
    })
}

/// The end of a packet under a ruleset, with the reason that the rule names.
fn decided(ruleset: &Ruleset, flow: &Flow) -> (bool, Option<Reason>) {
    let decision = ruleset.decide(flow);
    (decision.accept, decision.rule.map(|rule| rule.reason))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_say_what_the_policy_says(policy in policy(), flow in flow()) {
        let ruleset = Ruleset::of(&policy, &[], Kernel::FULL);
        let wanted = verdict(&policy, &flow);
        prop_assert_eq!(decided(&ruleset, &flow), (wanted.accept, Some(wanted.rule)));
        let bare = Kernel { egress_hook: false, ..Kernel::FIRST };
        let bare = Ruleset::of(&policy, &[], bare);
        prop_assert_eq!(bare.decide(&flow).accept, wanted.accept);
    }

    #[test]
    fn a_router_is_heard_about_our_own_flow_and_no_other(uplink in uplink(), other in hole(), source in address(), related: bool) {
        let own = uplink.endpoint;
        let policy = Policy { uplink: Some(uplink), ..Policy::default() };
        let ruleset = Ruleset::of(&policy, &[], Kernel::FULL);
        for hole in [own.unwrap_or(other), other] {
            let flow = Flow {
                direction: Direction::In,
                device: Device { name: "eth0".parse().unwrap(), kind: DeviceKind::Other },
                source: source.into(),
                destination: Ipv4Addr::new(172, 30, 0, 2).into(),
                protocol: Protocol::TooBig { source_port: hole.source_port, remote: hole.remote },
                mark: Fwmark(0),
                reply: related,
            };
            let heard = own.is_some_and(|own| own == hole);
            prop_assert_eq!(ruleset.decide(&flow).accept, heard);
            prop_assert_eq!(verdict(&policy, &flow).accept, heard);
        }
    }

    #[test]
    fn the_default_policy_accepts_loopback_only(flow in flow()) {
        let accept = verdict(&Policy::default(), &flow).accept;
        let loopback = flow.device.kind == DeviceKind::Loopback;
        prop_assert!(!accept || loopback);
    }

    #[test]
    fn nothing_accepts_ipv6_off_loopback(policy in policy(), flow in flow()) {
        let ruleset = Ruleset::of(&policy, &[], Kernel::FULL);
        let accept = ruleset.decide(&flow).accept;
        let ipv6 = flow.source.is_ipv6() && flow.device.kind != DeviceKind::Loopback;
        prop_assert!(!(accept && ipv6));
    }

    #[test]
    fn only_what_is_permitted_leaves_by_the_uplink_or_beside_it(policy in policy(), flow in flow()) {
        let led_out = ["eth0", "eth1"].contains(&flow.device.name.as_str());
        let out = flow.direction == Direction::Out && led_out;
        let accept = Ruleset::of(&policy, &[], Kernel::FULL).decide(&flow).accept;
        if out && accept {
            let lan = policy.lan_on(&flow.device.name).unwrap();
            prop_assert_eq!(flow.source, IpAddr::V4(lan.address));
            let (transport, from, to) = flow.protocol.ports().unwrap();
            let uplink = flow.device.name.as_str() == "eth0";
            let hole = uplink && flow.mark == Fwmark(7) && transport == Transport::Udp;
            let answer = flow.reply && lan.inbound.iter().any(|r| r.to().number == from);
            let ask = lan.outbound.iter().any(|r| r.port().number == to);
            prop_assert!(hole || answer || ask);
        }
    }

    #[test]
    fn egress_is_a_second_layer_of_the_same_permissions(policy in policy(), flow in flow()) {
        let devices = ["eth0".parse().unwrap(), "eth1".parse().unwrap()];
        let ruleset = Ruleset::of(&policy, &devices, Kernel::FULL);
        let led_out = ["eth0", "eth1"].contains(&flow.device.name.as_str());
        if flow.direction == Direction::Out && led_out {
            let accept = |flow: &Flow| ruleset.decide(flow).accept;
            let frame = ruleset.at(Hook::Egress, &flow).unwrap().accept;
            prop_assert!(frame || !accept(&flow), "what output permits must not die at egress");
            let connected = Flow { reply: true, ..flow.clone() };
            let special = [Reason::Dns, Reason::PortMapping, Reason::Metadata, Reason::Multicast];
            let named = ruleset.decide(&connected).rule.map(|rule| rule.reason);
            let refused = named.is_some_and(|reason| special.contains(&reason));
            prop_assert!(!frame || accept(&connected) || refused);
            prop_assert!(!frame || policy.lan_on(&flow.device.name).is_some());
        }
    }

    #[test]
    fn every_device_has_one_egress_chain_of_a_size_that_the_kernel_takes(many in 0..800_usize, policy in policy()) {
        let devices: Vec<IfName> = (0..many).map(|n| format!("d{n}").parse().unwrap()).collect();
        let ruleset = Ruleset::of(&policy, &devices, Kernel::FULL);
        let chains: Vec<_> = ruleset.tables[1].chains.iter().collect();
        let mut held: Vec<_> = chains.iter().flat_map(|chain| chain.devices.clone()).collect();
        prop_assert!(chains.iter().all(|chain| (1..256).contains(&chain.devices.len()) && !chain.accept));
        prop_assert!(chains.iter().all(|chain| chain.rules == chains[0].rules));
        prop_assert_eq!(held.len(), many + 10, "and those that are expected");
        held.sort();
        held.dedup();
        prop_assert_eq!(held.len(), many + 10);
        for chain in &chains {
            prop_assert_eq!(Hook::of_chain(&chain.name()), Some(Hook::Egress));
        }
        let names: HashSet<_> = chains.iter().map(|chain| chain.name()).collect();
        prop_assert_eq!(names.len(), chains.len());
    }

    /// Whoever fills the table of connections must not reach our flow, and cannot over loopback.
    #[test]
    fn our_own_flow_and_loopback_are_not_tracked_and_all_else_is(policy in policy(), flow in flow()) {
        let ruleset = Ruleset::of(&policy, &[], Kernel::FULL);
        let early = match flow.direction {
            Direction::Out => Hook::OutputRaw,
            Direction::In | Direction::Forward => Hook::Prerouting,
        };
        let rule = ruleset.at(early, &flow).and_then(|decision| decision.rule);
        let untracked = rule.is_some_and(|rule| rule.untracked);
        let ours = [Reason::Endpoint, Reason::Resolver].contains(&verdict(&policy, &flow).rule)
            && verdict(&policy, &flow).accept;
        let loopback = flow.device.name.as_str() == "lo";
        let early_chains = policy.lans().next().is_some() || policy.tunnel.is_some();
        if flow.direction != Direction::Forward {
            prop_assert_eq!(untracked, early_chains && (loopback || ours));
        }
        // Nothing is decided by it: what an early chain lets pass is decided about later.
        prop_assert!(!untracked || rule.is_some_and(|rule| rule.end == End::Accept));
    }

    #[test]
    fn permissions_only_add_accepts(policy in policy(), devices in 0..3_usize) {
        let devices: Vec<_> = ["eth0", "eth1"][..devices.min(2)]
            .iter()
            .map(|name| name.parse().unwrap())
            .collect();
        let rules = |policy: &Policy| -> HashSet<String> {
            let ruleset = Ruleset::of(policy, &devices, Kernel::FULL);
            let accepts = ruleset.rules().filter(|(_, hook, rule)| {
                rule.end == End::Accept && !hook.is_early()
            });
            accepts.map(|(f, h, rule)| format!("{f:?} {h:?} {rule}")).collect()
        };
        let (least, more) = (rules(&Policy::default()), rules(&policy));
        prop_assert!(least.is_subset(&more));
        let idle = Policy { uplink: policy.uplink.map(|uplink| UplinkPolicy {
            endpoint: None,
            resolver: None,
            ..uplink
        }), ..policy };
        prop_assert!(rules(&idle).is_subset(&more));
    }

    #[test]
    fn no_accept_speaks_of_ipv6(policy in policy()) {
        let devices = ["eth0".parse().unwrap()];
        let ruleset = Ruleset::of(&policy, &devices, Kernel::FULL);
        for (family, hook, rule) in ruleset.rules().filter(|(_, _, r)| r.end == End::Accept) {
            let text = rule.to_string();
            prop_assert!(!text.contains("ipv6") && !text.contains("ip6"), "{}", text);
            let bound = rule.matches.iter().any(|m| matches!(
                m,
                Match::Source(_) | Match::Destination(_) | Match::ArpSource(_) | Match::ArpDestination(_)
            ));
            prop_assert!(bound || rule.reason == Reason::Loopback, "{:?} {:?} {}", family, hook, text);
        }
        for chain in ruleset.tables.iter().flat_map(|table| &table.chains) {
            prop_assert_eq!(chain.accept, chain.hook.is_early());
        }
    }
}
