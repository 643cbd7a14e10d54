//! It connects, and what a joined program sends goes through the tunnel.

use std::fs;
use std::time::Duration;

use vpngw::control::api::State;

use crate::lab::classify::Rules;
use crate::lab::conf::{Conf, Keys, Peer};
use crate::lab::gateway::Gateway;
use crate::lab::services::question;
use crate::lab::tunnel::{Stream, ask, assert_inside};
use crate::lab::{HOST, INNER, Lab, ONES, ROUTER, at, wait};

#[test]
fn what_a_program_sends_goes_through_the_tunnel() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), Duration::from_secs(20)).unwrap();
    assert_eq!(stream.greeting, "inside1 10.64.0.2\n");
    for _ in 0..50 {
        stream.echo(Duration::from_secs(20)).unwrap();
    }
    assert_eq!(lab.inet.visits().len(), 0);
    let status = gateway.wait_for("traffic is counted", Duration::from_secs(20), |s| {
        s.rx_bytes > 1000 && s.tx_bytes > 1000
    });
    assert_eq!(status.endpoint, Some(lab.servers[0].endpoint));
    assert!(status.handshake_age_seconds.is_some_and(|age| age < 120.0));
    assert_eq!(status.leaks.detected, 0);
    let tally = lab.sensor.verdict();
    assert!(tally.wireguard > 50, "{tally}");
}

#[test]
fn names_are_asked_of_the_tunnels_resolver() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let written = fs::read_to_string("/etc/resolv.conf").unwrap();
    let lines = written.lines().map(str::trim);
    let lines: Vec<_> = lines
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .collect();
    assert_eq!(lines, [format!("nameserver {INNER}")]);
    let answer = lab.ns.run("app", "getent ahostsv4 www.example.org");
    assert!(answer.starts_with(&HOST.to_string()), "{answer}");
    let visits = lab.servers[0].services.visits();
    let asked = visits.iter().filter(|v| v.service == at(INNER, 53));
    assert!(asked.count() > 0);
    let dns = gateway.status().unwrap().dns;
    assert!(dns.resolv_conf && dns.servers == [INNER], "{dns:?}");
    lab.sensor.verdict();
}

/// The one question leaves before the tunnel opens, to the resolver that was there, for that name.
#[test]
fn an_endpoint_by_name_is_resolved_before_the_tunnel_opens() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    conf.peers[0].endpoint = "vpn.test:51820".into();
    lab.sensor.permit(permit_resolver);
    let gateway = lab.connect(&conf);
    assert_inside(&lab.ns, 1);
    let status = gateway.status().unwrap();
    assert_eq!(status.endpoint, Some(lab.servers[0].endpoint));
    let tally = lab.sensor.verdict();
    assert!(tally.resolver > 0 && tally.wireguard > 0, "{tally}");
    let name = &question("vpn.test", 0)[12..22];
    for visit in lab.router.visits() {
        assert!(
            visit.bytes.windows(name.len()).any(|w| w == name),
            "{visit:?}"
        );
    }
    let rules = lab.app("nft list ruleset");
    assert!(
        !rules.contains(&format!("{ROUTER} udp dport 53")),
        "{rules}"
    );
}

pub(crate) fn permit_resolver(rules: &mut Rules) {
    let std::net::SocketAddr::V4(resolver) = at(ROUTER, 53) else {
        unreachable!("IPv4");
    };
    rules.resolver = Some(resolver);
}

/// Two gateways, each the server of the other.
#[test]
fn it_talks_to_another_of_its_kind() {
    let lab = Lab::new();
    lab.servers[1].kill();
    let other = Keys::new();
    let endpoint = "192.0.2.10:51999";
    let mut near = lab.conf();
    near.dns = "10.64.0.3".into();
    near.peers = vec![peer(&other, endpoint)];
    let far = Conf {
        private_key: other.private,
        address: "10.64.0.3/24".into(),
        dns: String::new(),
        listen_port: Some(51999),
        peers: vec![peer(&lab.keys, "172.30.0.2:40123")],
        toml: "[tunnel]\ndevice = \"tun1\"\n[forward]\nports = [7]".into(),
    };
    let _far = Gateway::start(&lab, "vpn2", &far);
    let gateway = lab.connect(&near);
    let to = at("10.64.0.3".parse().unwrap(), 7);
    let mut stream = Stream::open(&lab.ns, "app", to, Duration::from_secs(30)).unwrap();
    assert_eq!(stream.greeting, "inside2 10.64.0.2\n");
    stream.echo(Duration::from_secs(20)).unwrap();
    assert_eq!(gateway.status().unwrap().state, State::Connected);
    lab.sensor.verdict();
}

fn peer(keys: &Keys, endpoint: &str) -> Peer {
    Peer {
        public_key: keys.public.clone(),
        endpoint: endpoint.into(),
        resolved: endpoint.parse().unwrap(),
        allowed_ips: "0.0.0.0/0".into(),
        keepalive: None,
    }
}

/// Many providers hand out a source port of 0: then it is random, and not that of the last run.
#[test]
fn the_source_port_is_random_unless_configured() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    conf.listen_port = None;
    let mut ports = Vec::new();
    for _ in 0..2 {
        let mut gateway = lab.connect(&conf);
        lab.sensor.drain();
        ports.extend(lab.sensor.handshakes().last().map(|h| h.message.source));
        gateway.kill();
    }
    assert_ne!(ports[0], ports[1]);
    lab.sensor.verdict();
}

#[test]
fn a_public_resolver_by_address_is_reached_only_as_configured() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    conf.dns = ONES.to_string();
    let _gateway = lab.connect(&conf);
    let answer = lab.ns.run("app", "getent ahostsv4 www.example.org");
    assert!(answer.starts_with(&HOST.to_string()), "{answer}");
    let echo = ask(&lab.ns, "app", at(ONES, 7), Duration::from_secs(20));
    assert!(echo.is_some_and(|e| e.starts_with("inside1")));
    wait(
        "the resolver inside was asked",
        Duration::from_secs(5),
        || {
            let visits = lab.servers[0].services.visits();
            visits
                .iter()
                .any(|v| v.service == at(ONES, 53))
                .then_some(())
        },
    );
    assert_eq!(lab.inet.visits().len(), 0);
    lab.sensor.verdict();
}
