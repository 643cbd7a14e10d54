//! LAN exceptions have a direction, an address and a port; everything beside them is refused.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::lab::classify::LanFlow;
use crate::lab::flood::Flood;
use crate::lab::gateway::Gateway;
use crate::lab::services::{Service, Services};
use crate::lab::tunnel::{Stream, ask, assert_inside};
use crate::lab::{APP, BEHIND, EVIL, HOST, LAN, Lab, METADATA, PRIVATE, ROUTER, at};
use crate::probes::{self, Family};

const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for an answer that comes, short enough to wait for one that must not.
const SILENCE: Duration = Duration::from_secs(3);

fn web(lab: &Lab) -> Services {
    let any = Ipv4Addr::UNSPECIFIED;
    let ports = vec![Service::Tcp(at(any, 8080)), Service::Tcp(at(any, 8081))];
    Services::start(&lab.ns, "app", "web", ports)
}

fn visit(
    lab: &Lab,
    namespace: &str,
    from: Ipv4Addr,
    port: u16,
    patience: Duration,
) -> Option<String> {
    let to = at(APP, port);
    let stream = Stream::open_from(&lab.ns, namespace, at(from, 0), to, patience);
    stream.ok().map(|stream| stream.greeting)
}

#[test]
fn lan_clients_reach_the_published_port_and_nothing_else() {
    let control = std::thread::spawn(everybody_reaches_everything_without_a_gateway);
    control.join().expect("the control");
    let lab = Lab::new();
    let _web = web(&lab);
    let mut conf = lab.conf();
    conf.toml = "[lan]\ninbound = [{ from = \"172.30.0.50/32\", to = \"tcp/8080\" }, \
                 { from = \"192.168.77.0/24\", to = \"tcp/8080\" }]"
        .into();
    lab.sensor.permit(|rules| {
        rules.lan = [LAN, BEHIND].map(|remote| from_port(8080, remote)).to_vec();
        rules.arp.push(LAN);
    });
    let _gateway = lab.connect(&conf);
    for (namespace, from) in [("lan", LAN), ("inet", BEHIND)] {
        let greeting = visit(&lab, namespace, from, 8080, PATIENCE);
        assert_eq!(greeting, Some(format!("web {from}\n")));
        assert_eq!(visit(&lab, namespace, from, 8081, SILENCE), None);
    }
    for (namespace, from) in [("evil", EVIL), ("inet", HOST)] {
        assert_eq!(visit(&lab, namespace, from, 8080, SILENCE), None, "{from}");
    }
    assert_inside(&lab.ns, 1);
    let tally = lab.sensor.verdict();
    assert!(tally.lan > 0, "{tally}");
}

/// A lab of its own, because what the kernel learns of its neighbours here would show up later.
fn everybody_reaches_everything_without_a_gateway() {
    let lab = Lab::new();
    let _web = web(&lab);
    let clients = [
        ("lan", LAN),
        ("inet", BEHIND),
        ("evil", EVIL),
        ("inet", HOST),
    ];
    for (namespace, from) in clients {
        for port in [8080, 8081] {
            let greeting = visit(&lab, namespace, from, port, PATIENCE);
            assert_eq!(greeting, Some(format!("web {from}\n")), "the control");
        }
    }
}

/// Inbound means that they open connections to us; their address is not a way out.
#[test]
fn an_inbound_exception_is_no_way_out() {
    let lab = Lab::new();
    probes::control(&lab, Family::Multicast);
    probes::control(&lab, Family::Dns);
    let mut conf = lab.conf();
    conf.toml = "[lan]\ninbound = [{ from = \"172.30.0.0/24\", to = \"tcp/8080\" }]".into();
    let _gateway = lab.connect(&conf);
    let flood = Flood::start(&lab);
    probes::fire(&lab, Family::Multicast);
    probes::fire(&lab, Family::Dns);
    // From the published port itself, towards a client: a new flow, not an answer.
    let out = lab.ns.enter("app", || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&at(APP, 8080).into())?;
        socket.connect_timeout(&at(LAN, 7).into(), SILENCE)
    });
    assert!(out.is_err());
    flood.goes_on(300);
    lab.sensor.verdict();
}

#[test]
fn an_outbound_exception_is_one_host_and_one_port() {
    let lab = Lab::new();
    let reach = |to: SocketAddr, patience| {
        Stream::open(&lab.ns, "app", to, patience)
            .ok()
            .map(|stream| stream.greeting)
    };
    for to in [at(LAN, 445), at(LAN, 7)] {
        assert_eq!(
            reach(to, PATIENCE).as_deref(),
            Some("lan 172.30.0.2\n"),
            "the control"
        );
    }
    let mut conf = lab.conf();
    conf.toml = "[lan]\noutbound = [{ to = \"172.30.0.50\", port = \"tcp/445\" }]".into();
    lab.sensor.permit(|rules| {
        rules.lan = vec![to_port(LAN, 445)];
        rules.arp.push(LAN);
    });
    let _gateway = lab.connect(&conf);
    assert_eq!(
        reach(at(LAN, 445), PATIENCE).as_deref(),
        Some("lan 172.30.0.2\n")
    );
    for to in [at(LAN, 7), at(EVIL, 445), at(ROUTER, 445)] {
        assert_eq!(reach(to, SILENCE), None, "{to}");
    }
    // The host may not open connections to us because we may to it.
    let _web = web(&lab);
    assert_eq!(visit(&lab, "lan", LAN, 8080, SILENCE), None);
    let tally = lab.sensor.verdict();
    assert!(tally.lan > 0, "{tally}");
}

/// Refused at start, or started and refused: either way nothing may leave.
#[test]
fn what_an_exception_may_never_open_stays_shut() {
    let lab = Lab::new();
    probes::control(&lab, Family::Multicast);
    probes::control(&lab, Family::Dns);
    let wide: [(&str, Ipv4Addr, &str); 5] = [
        ("DNS", LAN, "udp/53"),
        ("DNS over TLS", LAN, "tcp/853"),
        ("metadata", METADATA, "tcp/80"),
        ("NAT-PMP", ROUTER, "udp/5351"),
        ("UPnP", Ipv4Addr::new(239, 255, 255, 250), "udp/1900"),
    ];
    for (what, to, port) in wide {
        let mut conf = lab.conf();
        conf.toml = format!("[lan]\noutbound = [{{ to = \"{to}\", port = \"{port}\" }}]");
        let gateway = lab.start(&conf);
        println!("{what}:");
        probes::fire(&lab, Family::Multicast);
        probes::fire(&lab, Family::Dns);
        drop(gateway);
    }
}

#[test]
fn an_exception_that_overlaps_the_tunnel_is_refused() {
    let lab = Lab::new();
    for from in [
        "10.64.0.0/10",
        "198.51.100.0/24",
        "0.0.0.0/0",
        "10.64.0.1/32",
    ] {
        let mut conf = lab.conf();
        conf.toml = format!("[lan]\ninbound = [{{ from = \"{from}\", to = \"tcp/8080\" }}]");
        let mut gateway = Gateway::start(&lab, "app", &conf);
        assert_eq!(gateway.wait_exit(PATIENCE).code(), Some(2), "{from}");
    }
    lab.sensor.verdict();
}

/// A torrent client hears of peers in private networks; the VPN provider does not.
#[test]
fn private_destinations_are_not_told_to_the_vpn() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    conf.toml = "[tunnel]\nprivate = [\"10.9.9.0/24\"]".into();
    let gateway = lab.connect(&conf);
    assert!(
        ask(&lab.ns, "app", at(PRIVATE, 7), PATIENCE).is_some(),
        "the control"
    );
    drop(gateway);
    let _gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    let before = lab.servers[0].services.visits().len();
    assert_eq!(ask(&lab.ns, "app", at(PRIVATE, 7), SILENCE), None);
    let visits = lab.servers[0].services.visits();
    assert!(visits[before..].iter().all(|v| v.service != at(PRIVATE, 7)));
    assert_inside(&lab.ns, 1);
    lab.sensor.verdict();
}

fn from_port(local: u16, remote: Ipv4Addr) -> LanFlow {
    LanFlow {
        protocol: 6,
        local: Some(local),
        remote,
        remote_port: None,
    }
}

fn to_port(remote: Ipv4Addr, port: u16) -> LanFlow {
    LanFlow {
        protocol: 6,
        local: None,
        remote,
        remote_port: Some(port),
    }
}
