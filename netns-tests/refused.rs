//! A LAN client that no exception lets in is seen, with the line that would let it in.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use vpngw::control::api::{Line, Report};

use crate::blocked::{as_user, cpu};
use crate::lab::classify::LanFlow;
use crate::lab::gateway::Gateway;
use crate::lab::services::{Service, Services};
use crate::lab::tunnel::Stream;
use crate::lab::{APP, BEHIND, EVIL, LAN, Lab, at, wait};

const PATIENCE: Duration = Duration::from_secs(20);
/// What is refused is not waited for: one packet is enough.
const GLANCE: Duration = Duration::from_millis(100);

fn report(gateway: &Gateway) -> Report {
    let done = gateway.ctl(&["blocked", "--json"]);
    assert!(done.status.success(), "{done:?}");
    serde_json::from_slice(&done.stdout).unwrap()
}

fn said(gateway: &Gateway, words: &[&str]) -> String {
    let done = gateway.ctl(words);
    assert!(done.status.success(), "{words:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

fn visit(lab: &Lab, namespace: &str, from: Ipv4Addr, patience: Duration) -> Option<String> {
    let stream = Stream::open_from(&lab.ns, namespace, at(from, 0), at(APP, 8080), patience);
    stream.ok().map(|stream| stream.greeting)
}

/// Waits until this client is listed, and for what.
fn listed(gateway: &Gateway, client: Ipv4Addr, protocol: &str) -> Line {
    wait("the client is listed", PATIENCE, || {
        let mut lines = report(gateway).lines.into_iter();
        lines.find(|line| line.from == Some(client.into()) && line.protocol == protocol)
    })
}

#[test]
fn a_refused_client_is_listed_with_the_line_that_lets_it_in() {
    let lab = Lab::new();
    let any = Ipv4Addr::UNSPECIFIED;
    let _web = Services::start(&lab.ns, "app", "web", vec![Service::Tcp(at(any, 8080))]);
    lab.sensor.permit(|rules| {
        let from_8080 = |remote| LanFlow {
            protocol: 6,
            local: Some(8080),
            remote,
            remote_port: None,
        };
        rules.lan = [LAN, BEHIND].map(from_8080).to_vec();
        rules.arp.push(LAN);
    });
    let mut conf = lab.conf();
    conf.toml = "[log]\nlevel = \"debug\"".into();
    let gateway = lab.connect(&conf);
    let spoofed = || {
        let status = gateway.status().unwrap();
        let count = status.kill_switch.blocked_by_reason.get("spoofed").copied();
        count.unwrap_or_default()
    };
    let before = spoofed();
    // One on the link, and one beyond the router, to which no route leads back.
    let clients = [("lan", LAN), ("inet", BEHIND)];
    for (namespace, client) in clients {
        assert_eq!(visit(&lab, namespace, client, GLANCE), None);
        let line = listed(&gateway, client, "tcp");
        assert_eq!((line.reason.as_str(), line.port), ("inbound", Some(8080)));
        assert_eq!((line.destination, line.uid), (None, None));
    }
    lab.ns.enter("lan", || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"hello", at(APP, 27015)).unwrap();
    });
    assert_eq!(listed(&gateway, LAN, "udp").port, Some(27015));
    wait("both are counted", PATIENCE, || {
        let status = gateway.status().unwrap();
        let count = status.kill_switch.blocked_by_reason.get("inbound").copied();
        (count >= Some(3)).then_some(())
    });
    assert_eq!(spoofed(), before);

    let page = said(&gateway, &["blocked"]);
    let log = std::fs::read_to_string(gateway.config.parent().unwrap().join("log")).unwrap();
    let rules = clients.map(|(_, client)| {
        let line = format!("inbound = [{{ from = \"{client}/32\", to = \"tcp/8080\" }}]");
        let variable = format!("VPNGW_LAN_INBOUND={client}/32=tcp/8080");
        assert!(page.contains(&format!("{client} to tcp/8080")), "{page}");
        let client = client.to_string();
        for port in ["tcp/8080", "8080/tcp"] {
            let text = said(&gateway, &["explain", "--from", &client, port]);
            assert!(text.contains("is refused (inbound)"), "{text}");
            assert!(text.contains(&line) && text.contains(&variable), "{text}");
        }
        for part in [&line, &variable] {
            assert!(page.contains(part), "no {part}:\n{page}");
            let said = log.lines().filter(|it| it.contains(part.as_str()));
            let said: Vec<_> = said.collect();
            assert!(
                said.len() == 1 && said[0].contains("DEBUG"),
                "{said:#?}\n{log}"
            );
        }
        line
    });

    // The very lines let them in.
    let items = rules.map(|line| line.replace("inbound = [", "").replace(']', ""));
    conf.toml = format!("{}\n[lan]\ninbound = [{}]", conf.toml, items.join(", "));
    gateway.reload(&conf);
    gateway.wait_for("the exceptions are in force", PATIENCE, |status| {
        status.lan.inbound.len() == 2
    });
    for (namespace, client) in clients {
        let greeting = visit(&lab, namespace, client, PATIENCE);
        assert_eq!(greeting, Some(format!("web {client}\n")));
        let text = said(
            &gateway,
            &["explain", "--from", &client.to_string(), "tcp/8080"],
        );
        assert!(text.contains("passes (lan-inbound)"), "{text}");
    }
    lab.sensor.verdict();
}

/// A neighbour sends as much as it can: the gateway spends little on it, and what a program tried is not lost.
#[test]
fn a_flood_from_the_lan_costs_little_and_hides_nothing_that_programs_tried() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let (before, start) = (cpu(&gateway), Instant::now());
    let mut sent = 0_u64;
    while start.elapsed() < Duration::from_secs(2) || report(&gateway).lost == 0 {
        assert!(
            start.elapsed() < 3 * PATIENCE,
            "nothing was lost of {sent}: no flood"
        );
        lab.ns.enter("evil", || {
            let socket = UdpSocket::bind(at(EVIL, 0)).unwrap();
            for port in 1..20_000 {
                let _ = socket.send_to(&[0; 60], at(APP, port));
            }
        });
        sent += 20_000;
    }
    // While the flood is still being read.
    as_user(&lab, "echo x > /dev/udp/8.8.8.8/53");
    let dns = wait("what a program tried is listed", PATIENCE, || {
        let lines = report(&gateway).lines;
        lines.into_iter().find(|line| line.reason == "dns")
    });
    assert_eq!(dns.packets, 1);
    let (spent, took) = (cpu(&gateway) - before, start.elapsed());
    println!("{sent} packets in {took:?}; the warden used {spent:?}");
    assert!(
        spent < took / 4,
        "{spent:?} of {took:?}: the flood costs too much"
    );
    let log = std::fs::read_to_string(gateway.config.parent().unwrap().join("log")).unwrap();
    assert!(
        !log.contains(&EVIL.to_string()),
        "no address of a user above debug: {log}"
    );
    lab.sensor.verdict();
}

#[test]
fn what_no_peer_takes_does_not_pass() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    conf.peers.truncate(1);
    conf.peers[0].allowed_ips = "0.0.0.0/1".into();
    let gateway = lab.connect(&conf);
    let text = said(&gateway, &["explain", "203.0.113.9:443/tcp via tun0"]);
    assert!(text.contains("no peer takes it"), "{text}");
    let text = said(&gateway, &["explain", "8.8.8.8:443/tcp via tun0"]);
    assert!(text.contains("passes (tunnel)"), "{text}");
}
