//! Many changes in little time, under a flood of probes: no moment in between lets anything out, nothing
//! that is permitted is taken for a leak, and in the end it works.

use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::lab::flood::Flood;
use crate::lab::gateway::Gateway;
use crate::lab::tunnel::{Stream, assert_inside};
use crate::lab::{HOST, Lab, at, wait};

const PATIENCE: Duration = Duration::from_secs(60);

fn ends_well(lab: &Lab, gateway: &Gateway) {
    let status = gateway.wait_connected();
    assert_inside(&lab.ns, 1);
    assert_eq!(
        (status.leaks.watched, status.leaks.detected),
        (true, 0),
        "{status:?}"
    );
    lab.sensor.verdict();
}

#[test]
fn reloads_and_commands() {
    let lab = Lab::new();
    let _flood = Flood::start(&lab);
    let plain = lab.conf();
    let gateway = lab.connect(&plain);
    let mut with_lan = lab.conf();
    with_lan.toml = "[lan]\ninbound = [{ from = \"172.30.0.0/24\", to = \"tcp/8080\" }]".into();
    for round in 0..15 {
        gateway.reload(if round % 2 == 0 { &with_lan } else { &plain });
        for _ in 0..4 {
            gateway.signal(Signal::HUP);
        }
        gateway.ctl(&["disconnect"]);
        gateway.ctl(&["connect"]);
    }
    ends_well(&lab, &gateway);
}

#[test]
fn a_flapping_uplink() {
    let lab = Lab::new();
    let _flood = Flood::start(&lab);
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    for round in 0..15 {
        lab.app("ip link set eth0 down");
        std::thread::sleep(Duration::from_millis(10 * round));
        lab.app("ip link set eth0 up");
        std::thread::sleep(Duration::from_millis(10 * (15 - round)));
    }
    stream.echo(PATIENCE).unwrap();
    ends_well(&lab, &gateway);
}

#[test]
fn engines_that_die_again_and_again() {
    let lab = Lab::new();
    let _flood = Flood::start(&lab);
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    for _ in 0..8 {
        let old = gateway.engine();
        kill_process(old, Signal::KILL).unwrap();
        wait("another engine runs", PATIENCE, || {
            (gateway.engine() != old).then_some(())
        });
    }
    stream.echo(PATIENCE).unwrap();
    ends_well(&lab, &gateway);
}

#[test]
fn gateways_that_die_again_and_again() {
    let lab = Lab::new();
    let flood = Flood::start(&lab);
    for round in 0..6 {
        let mut gateway = lab.start(&lab.conf());
        std::thread::sleep(Duration::from_millis(60 * round));
        gateway.kill();
    }
    flood.goes_on(100);
    let gateway = lab.connect(&lab.conf());
    ends_well(&lab, &gateway);
}

/// A program with NET_ADMIN takes our policy rules away: our own packets have no way round the tunnel
/// for a moment, and are not sent into it for long.
#[test]
fn policy_rules_that_are_taken_away_come_back() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    for _ in 0..10 {
        lab.app("ip rule del priority 30320");
        wait("the rule is back", Duration::from_secs(2), || {
            lab.app("ip rule").contains("30320:").then_some(())
        });
    }
    ends_well(&lab, &gateway);
}

#[test]
fn tables_that_are_flushed_come_back() {
    let lab = Lab::new();
    lab.tables_belong_to_nobody();
    let gateway = lab.connect(&lab.conf());
    let rules = || lab.app("nft -s list ruleset");
    let before = rules();
    for change in [
        "nft flush ruleset",
        "nft delete table inet vpngw",
        "nft delete chain netdev vpngw egress",
        "nft add rule inet vpngw output accept",
        "nft insert rule inet vpngw input accept",
    ] {
        lab.app(change);
        wait(change, Duration::from_secs(2), || {
            (rules() == before).then_some(())
        });
    }
    ends_well(&lab, &gateway);
}
