//! Routes and addresses by which the local network takes traffic out of the tunnel.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smoltcp::wire::EthernetAddress;

use crate::lab::canary;
use crate::lab::capture::Capture;
use crate::lab::flood::Flood;
use crate::lab::services::{Service, Services};
use crate::lab::tunnel::{Stream, ask};
use crate::lab::{HOST, Lab, at, settled, wait};
use crate::probes::{self, Family};

const PATIENCE: Duration = Duration::from_secs(30);

/// What to do, and how to undo it. Prefixes of every length that hold the host.
const PUSHED: [(&str, &str); 8] = [
    (
        "route add 128.0.0.0/1 via 172.30.0.66 dev eth0 onlink",
        "route del 128.0.0.0/1",
    ),
    (
        "route add 200.0.0.0/5 via 172.30.0.66 dev eth0 onlink proto dhcp",
        "route del 200.0.0.0/5",
    ),
    (
        "route add 203.0.0.0/8 via 172.30.0.66 dev eth0 onlink proto dhcp",
        "route del 203.0.0.0/8",
    ),
    (
        "route add 203.0.112.0/23 via 172.30.0.66 dev eth0 onlink tos 0x10",
        "route del 203.0.112.0/23 tos 0x10",
    ),
    (
        "route add 203.0.113.0/24 via 172.30.0.66 dev eth0 onlink",
        "route del 203.0.113.0/24",
    ),
    (
        "route add 203.0.113.9/32 via 172.30.0.66 dev eth0 onlink metric 7",
        "route del 203.0.113.9/32",
    ),
    (
        "route add 203.0.113.9/32 dev eth0 scope link",
        "route del 203.0.113.9/32",
    ),
    ("rule add pref 0 lookup 200", "rule del pref 0 lookup 200"),
];

/// Counts tokens in clear that arrive at the hostile host.
struct Evil {
    tokens: Arc<AtomicU64>,
    _capture: Capture,
}

impl Evil {
    fn start(lab: &Lab) -> Self {
        let tokens = Arc::<AtomicU64>::default();
        let counter = tokens.clone();
        let capture = Capture::start(&lab.ns, "evil", "eth0", move |frame| {
            let found = canary::find(frame.bytes).len() as u64;
            counter.fetch_add(found, Ordering::Relaxed);
        });
        Self {
            tokens,
            _capture: capture,
        }
    }

    fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }
}

/// TunnelVision: a DHCP server pushes routes. Nothing goes by them, and what they speak of goes on through
/// the tunnel: dropping it would tell the attacker where the user goes.
#[test]
fn cve_2024_3661_a_pushed_route_neither_leaks_nor_blocks() {
    let lab = Lab::new();
    let evil = Evil::start(&lab);
    lab.app("ip route add 203.0.113.0/24 via 172.30.0.66 dev eth0 onlink table 200");
    let mac = lab.ns.run("evil", "cat /sys/class/net/eth0/address");
    let neighbour = format!(
        "ip neigh replace 203.0.113.9 lladdr {} dev eth0",
        mac.trim()
    );
    lab.app(&neighbour);
    let flood = Flood::start(&lab);
    for (push, undo) in PUSHED.iter().filter(|(push, _)| !push.contains("tos")) {
        let before = settled_at(&evil, &flood);
        lab.app(&format!("ip {push}"));
        wait(
            "without a gateway it goes to the hostile host",
            PATIENCE,
            || (evil.tokens() > before + 5).then_some(()),
        );
        lab.app(&format!("ip {undo}"));
    }

    let gateway = lab.connect(&lab.conf());
    lab.app(&neighbour);
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    lab.sensor.drain();
    let before = settled(|| evil.tokens());
    for round in 0..3 {
        for (push, _) in PUSHED {
            lab.app("ip route replace 203.0.113.0/24 via 172.30.0.66 dev eth0 onlink table 200");
            lab.app(&format!("ip {push}"));
            flood.goes_on(50);
            stream
                .echo(PATIENCE)
                .unwrap_or_else(|why| panic!("round {round}, {push}: {why}"));
            let answer = ask(&lab.ns, "app", at(HOST, 7), PATIENCE);
            assert!(
                answer.is_some_and(|it| it.starts_with("inside1 10.64.0.2 ")),
                "{push}"
            );
        }
    }
    // Undone, not merely survived.
    wait("the routes are as planned", PATIENCE, || {
        let (routes, rules) = (lab.app("ip route"), lab.app("ip rule"));
        let clean = !routes.contains("172.30.0.66") && !rules.contains("lookup 200");
        clean.then_some(())
    });
    assert_eq!(evil.tokens(), before, "cleartext reached the hostile host");
    gateway.wait_connected();
    lab.sensor.verdict();
}

/// Once nothing arrives any more although the flood goes on.
fn settled_at(evil: &Evil, flood: &Flood) -> u64 {
    flood.goes_on(50);
    settled(|| evil.tokens())
}

/// A link with public addresses: the network of the uplink is 203.0.113.0/24, and the hostile neighbour has
/// the address of the host that the user wants.
fn public_link() -> Lab {
    let lab = Lab::new();
    lab.app("ip addr flush dev eth0");
    lab.app("ip addr add 203.0.113.2/24 dev eth0");
    lab.ns.run("rtr", "ip addr add 203.0.113.1/24 dev br0");
    lab.app("ip route add default via 203.0.113.1");
    lab.ns.run("evil", "ip addr add 203.0.113.9/24 dev eth0");
    lab.sensor.permit(|rules| {
        rules.uplink = vec![Ipv4Addr::new(203, 0, 113, 2)];
        rules.router_mac = EthernetAddress(crate::lab::ROUTER_MAC);
        // The second is asked for by what waits for the kill switch, which is on this link here.
        rules.arp = vec![
            Ipv4Addr::new(203, 0, 113, 1),
            Ipv4Addr::new(203, 0, 113, 99),
        ];
    });
    lab
}

fn neighbours(lab: &Lab) -> Services {
    let list = vec![Service::Tcp(at(HOST, 7)), Service::Udp(at(HOST, 7))];
    Services::start(&lab.ns, "evil", "evil", list)
}

fn greeting(lab: &Lab) -> String {
    Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE)
        .unwrap()
        .greeting
}

/// TunnelCrack, LocalNet: what the link calls its own goes in clear.
#[test]
fn cve_2023_36672_a_public_address_on_the_link_gets_nothing_in_clear() {
    let lab = public_link();
    let neighbours = neighbours(&lab);
    probes::control(&lab, Family::Ip);
    assert_eq!(greeting(&lab), "evil 203.0.113.2\n", "the control");
    let before = neighbours.visits().len();
    let flood = Flood::start(&lab);
    let _gateway = lab.connect(&lab.conf());
    assert_eq!(greeting(&lab), "inside1 10.64.0.2\n");
    flood.goes_on(1000);
    probes::fire(&lab, Family::Ip);
    assert_eq!(neighbours.visits().len(), before);
    lab.sensor.verdict();
}

/// TunnelCrack, LocalNet, the other way round: what the link calls its own is blocked.
#[test]
fn cve_2023_35838_a_public_address_on_the_link_is_not_blocked() {
    let lab = public_link();
    let _neighbours = neighbours(&lab);
    assert_eq!(greeting(&lab), "evil 203.0.113.2\n", "the control");
    let mut conf = lab.conf();
    conf.toml = "[lan]\ninbound = [{ from = \"172.30.0.0/24\", to = \"tcp/8080\" }]".into();
    let _gateway = lab.connect(&conf);
    for _ in 0..5 {
        // Until the route is undone, a few ms later, a connection is refused.
        let inside = || {
            let stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).ok()?;
            Some(stream.greeting)
        };
        let greeting = wait("the tunnel carries it", PATIENCE, inside);
        assert_eq!(greeting, "inside1 10.64.0.2\n");
        let answer = ask(&lab.ns, "app", at(HOST, 7), PATIENCE);
        assert!(answer.is_some_and(|it| it.starts_with("inside1 10.64.0.2 ")));
        lab.app("ip route replace 203.0.113.0/24 dev eth0");
    }
    lab.sensor.verdict();
}
