//! The gateway's own frame sensor: what leaves past the rules is seen, said, and ends the traffic.

use std::net::UdpSocket;
use std::time::Duration;

use vpngw::control::api::State;
use vpngw::gateway::BlockReason;

use crate::lab::canary;
use crate::lab::forge::datagram;
use crate::lab::raw::{Layer, PacketSocket};
use crate::lab::tunnel::assert_inside;
use crate::lab::{HOST, LAN, Lab, ROUTER_MAC, at, wait};

/// How soon a leak has to be known: the sensor hears of each frame, so this is a busy machine's time.
const BOUND: Duration = Duration::from_secs(1);

#[test]
fn a_frame_that_leaves_past_the_rules_blocks_the_gateway() {
    let lab = Lab::new();
    lab.tables_belong_to_nobody();
    let gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    lab.sensor.disarm();
    let token = canary::fresh();
    // The rules come back within milliseconds, so it takes a few attempts to be faster.
    wait("a frame leaves", Duration::from_secs(20), || {
        lab.app("nft flush ruleset");
        lab.ns.enter("app", || {
            let socket = PacketSocket::open("eth0", Layer::Payload, 0).unwrap();
            for _ in 0..50 {
                let _ = socket.send_to(&datagram(&token), 0x0800, ROUTER_MAC);
            }
        });
        lab.sensor.drain();
        lab.sensor.saw(&token).then_some(())
    });
    let status = gateway.wait_for("it blocks", BOUND, |s| s.state == State::Blocked);
    assert!(
        matches!(status.blocked_by, Some(BlockReason::Leak(_))),
        "{status:?}"
    );
    assert!(
        status.leaks.watched && status.leaks.detected > 0,
        "{:?}",
        status.leaks
    );
    let last = status.leaks.last.unwrap();
    assert!(
        last.contains(&HOST.to_string()) && last.contains("eth0"),
        "{last}"
    );
    assert_eq!(gateway.ctl(&["status"]).status.code(), Some(3));
    assert_eq!(gateway.ctl(&["healthcheck"]).status.code(), Some(1));

    // Only an operator opens it again.
    assert_eq!(gateway.ctl(&["connect"]).status.code(), Some(0));
    gateway.wait_connected();
    assert_inside(&lab.ns, 1);
}

/// The kernel cuts a packet after the output rules have let it pass; parts of it would be frames that no
/// permission speaks of, so any program with a permitted destination could block the gateway.
#[test]
fn a_datagram_that_would_be_cut_neither_leaves_nor_blocks() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    conf.toml = "[lan]\noutbound = [{ to = \"172.30.0.50\", port = \"udp/7777\" }]".into();
    lab.sensor.permit(|rules| rules.arp.push(LAN));
    let gateway = lab.connect(&conf);
    // The second: our own flow, on an uplink too narrow for what the tunnel carries.
    lab.app("ip link set eth0 mtu 1400");
    for to in [at(LAN, 7777), at(HOST, 7777)] {
        let sent = lab.ns.enter("app", || {
            UdpSocket::bind("0.0.0.0:0")?.send_to(&[0; 3000], to)
        });
        assert_eq!(sent.unwrap(), 3000, "{to}");
    }
    assert_inside(&lab.ns, 1);
    // The sensor hears of a frame at once, so one that left has been judged by now.
    std::thread::sleep(BOUND);
    let status = gateway.status().unwrap();
    assert_eq!((status.state, status.leaks.detected), (State::Connected, 0));
    lab.sensor.verdict();
}

#[test]
fn permitted_frames_are_no_leak() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    for _ in 0..20 {
        assert_inside(&lab.ns, 1);
    }
    assert!(lab.sensor.verdict().wireguard > 20);
    let status = gateway.status().unwrap();
    assert_eq!((status.leaks.watched, status.leaks.detected), (true, 0));
}
