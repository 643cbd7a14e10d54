//! Every other way out: plain, bound, marked, raw, multicast; and what a neighbour can find out.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use vpngw::control::api::State;

use crate::devices::Far;
use crate::lab::canary;
use crate::lab::flood::Flood;
use crate::lab::forge::{datagram, initiation, to_router};
use crate::lab::raw::{Layer, PacketSocket};
use crate::lab::server::Swallow;
use crate::lab::tunnel::assert_inside;
use crate::lab::{APP, ENDPOINT, HOST, Lab, TUNNEL, at, settled, wait};
use crate::probes::{self, Family};
use crate::rules::kernel;

const FAMILIES: [Family; 4] = [
    Family::Ip,
    Family::Device,
    Family::Packet,
    Family::Multicast,
];

#[test]
fn no_way_out_while_connected() {
    let lab = Lab::new();
    for family in FAMILIES {
        probes::control(&lab, family);
    }
    let _gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    for family in FAMILIES {
        probes::fire(&lab, family);
    }
    assert_inside(&lab.ns, 1);
}

#[test]
fn no_way_out_while_connecting() {
    let lab = Lab::new();
    for family in FAMILIES {
        probes::control(&lab, family);
    }
    lab.servers[0].swallow(Swallow::Everything);
    let _gateway = lab.start(&lab.conf());
    wait("a handshake is tried", Duration::from_secs(30), || {
        lab.sensor.handshakes().pop()
    });
    for family in FAMILIES {
        probes::fire(&lab, family);
    }
}

/// As `docker network connect` does, while the gateway is stopped: whatever it would do about the device comes too late.
#[test]
fn a_network_that_is_connected_meanwhile_takes_no_raw_frame() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    gateway.signal(Signal::STOP);
    lab.app("ip link add moved0 type veth peer name far0 netns evil");
    lab.ns.run("evil", "ip link set dev far0 up");
    let far = Far::start(&lab, "far0");
    let raw = |device: &str| {
        let before = far.tokens();
        lab.app(&format!("ip link set dev {device} up"));
        lab.ns.enter("app", || {
            let socket = PacketSocket::open(device, Layer::Frame, 0).unwrap();
            for _ in 0..20 {
                let _ = socket.send(&to_router(0x0800, &datagram(&canary::fresh())));
            }
        });
        settled(|| far.tokens()) - before
    };
    // The control: a name that nobody expects.
    assert_eq!(raw("moved0"), 20);
    lab.app("ip link set dev moved0 down");
    lab.app("ip link set dev moved0 name eth1");
    let left = raw("eth1");
    assert_eq!(left, if kernel().absent_devices { 0 } else { 20 });
    lab.sensor.verdict();
}

/// Marks are not secrets: whoever may send raw packets may set them.
#[test]
fn the_gateways_own_mark_opens_nothing() {
    let lab = Lab::new();
    probes::control(&lab, Family::Device);
    let _gateway = lab.connect(&lab.conf());
    let marks = marks(&lab);
    assert!(
        !marks.is_empty(),
        "the rules name no mark:\n{}",
        lab.app("nft list ruleset")
    );
    let mut tokens = Vec::new();
    for mark in marks {
        for to in [
            at(HOST, 9),
            at(crate::lab::LAN, 9),
            at(ENDPOINT, 51820),
            at(ENDPOINT, 53),
        ] {
            for device in [None, Some(&b"eth0"[..])] {
                let token = canary::fresh();
                lab.ns.enter("app", || {
                    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
                    socket.set_mark(mark).unwrap();
                    socket.bind_device(device).unwrap();
                    let _ = socket.send_to(&token, &to.into());
                    let _ = socket.send_to(&initiation(&token), &to.into());
                });
                tokens.push((mark, to, token));
            }
        }
    }
    lab.sensor.verdict();
    for (mark, to, token) in tokens {
        assert!(!lab.sensor.saw(&token), "leaked: mark {mark:#x} to {to}");
    }
}

fn marks(lab: &Lab) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for text in [lab.app("nft list ruleset"), lab.app("ip rule")] {
        for part in text.split("0x").skip(1) {
            let digits: String = part.chars().take_while(char::is_ascii_hexdigit).collect();
            found.extend(u32::from_str_radix(&digits, 16).ok());
        }
    }
    found
}

/// The source address of the tunnel is not for the uplink, nor the other way round.
#[test]
fn a_program_bound_to_the_uplinks_address_sends_nothing_into_the_tunnel() {
    let lab = Lab::new();
    let _gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    let before = lab.servers[0].services.visits().len();
    lab.ns.enter("app", || {
        let socket = std::net::UdpSocket::bind((APP, 0)).unwrap();
        for _ in 0..10 {
            let _ = socket.send_to(b"from the uplink's address", at(HOST, 7));
        }
    });
    assert_inside(&lab.ns, 1);
    let visits = lab.servers[0].services.visits();
    assert!(visits[before..].iter().all(|v| v.peer.ip() == TUNNEL));
    lab.sensor.verdict();
}

/// The gateway asks for the router and for nobody else. Without the route to the router, which the
/// kernel forgets when the link goes down, everything looks as if it were on the link.
#[test]
fn arp_is_for_the_router_only() {
    let lab = Lab::new();
    let flood = Flood::start(&lab);
    let gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    for _ in 0..3 {
        lab.app("ip link set eth0 down");
        lab.app("ip link set eth0 up");
        flood.goes_on(1000);
    }
    lab.route_by_the_uplink();
    let patience = Duration::from_secs(90);
    gateway.wait_for("it is connected", patience, |s| s.state == State::Connected);
    assert_inside(&lab.ns, 1);
    lab.sensor.verdict();
}
