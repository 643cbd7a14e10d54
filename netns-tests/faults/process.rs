//! The same faults under a whole gateway, while programs keep sending.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use vpngw::control::api::State;
use vpngw::gateway::BlockReason;

use crate::lab::flood::Flood;
use crate::lab::gateway::{Gateway, PROGRAM};
use crate::lab::tunnel::{Stream, ask, assert_inside};
use crate::lab::{HOST, Lab, at, wait};
use crate::probes::{self, Family};

const PATIENCE: Duration = Duration::from_secs(40);

/// The file from which a gateway takes its orders of faults.
fn orders(lab: &Lab) -> PathBuf {
    let path = lab.faults();
    std::fs::write(&path, "").unwrap();
    path
}

fn log(lab: &Lab) -> String {
    std::fs::read_to_string(lab.folder.path().join("app/log")).unwrap()
}

fn start(lab: &Lab, orders: &Path) -> Gateway {
    let conf = lab.conf();
    lab.sensor
        .permit(|rules| rules.endpoints = conf.permitted());
    let config = conf.write(&lab.folder.path().join("app"));
    Gateway::start_with(
        lab,
        "app",
        &config,
        &[("NETNS_FAULT", orders.to_str().unwrap())],
    )
}

/// Runs `vpngw run` to its end in `app`, with these words before it; its exit code and what it said.
fn run(lab: &Lab, before: &[&str], orders: Option<&Path>) -> (Option<i32>, String) {
    let config = lab.conf().write(&lab.folder.path().join("app"));
    let mut command = Command::new("timeout");
    command
        .args(["-k", "1", "30"])
        .args(before)
        .args([PROGRAM, "run", "--config"])
        .arg(config);
    if let Some(orders) = orders {
        command.env("NETNS_FAULT", orders);
    }
    let done = lab.ns.enter("app", || command.output()).unwrap();
    (
        done.status.code(),
        String::from_utf8_lossy(&done.stderr).into_owned(),
    )
}

fn is_down(lab: &Lab) -> bool {
    let said = lab.app("ip -o link show dev eth0");
    !said
        .split_once('>')
        .is_some_and(|(flags, _)| flags.contains(",UP") || flags.contains("<UP"))
}

#[test]
fn a_gateway_that_cannot_arm_takes_every_link_down_and_ends() {
    let lab = Lab::new();
    probes::control(&lab, Family::Ip);
    let orders = orders(&lab);
    let up = "link set eth0 up\nroute replace default via 172.30.0.1\n";
    // The beginning, a table, a chain, a rule, the last one.
    for order in [
        "refused 0",
        "refused 1",
        "refused 4",
        "refused 9",
        "refused 20",
        "not-taken",
        "answer-lost",
    ] {
        std::fs::write(&orders, order).unwrap();
        assert!(!is_down(&lab), "the control");
        let (code, said) = run(&lab, &[], Some(&orders));
        assert_eq!(code, Some(2), "{order}: {said}");
        assert!(said.contains("every link was set down"), "{order}: {said}");
        assert!(is_down(&lab), "{order}");
        lab.app("nft flush ruleset");
        lab.ns.feed("app", "ip -batch -", up);
    }
}

#[test]
fn without_net_admin_it_ends_and_the_rules_of_the_run_before_hold() {
    let lab = Lab::new();
    for family in [Family::Ip, Family::Device, Family::Packet] {
        probes::control(&lab, family);
    }
    let bare = [
        "setpriv",
        "--bounding-set",
        "-net_admin",
        "--inh-caps",
        "-net_admin",
    ];
    let (code, said) = run(&lab, &bare, None);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("THIS NAMESPACE IS OPEN") && said.contains("CAP_NET_ADMIN"),
        "{said}"
    );

    let mut gateway = lab.connect(&lab.conf());
    gateway.kill();
    lab.sensor.drain();
    let held = lab.app("nft -s list ruleset");
    let (code, said) = run(&lab, &bare, None);
    assert_eq!(code, Some(2), "{said}");
    assert_eq!(lab.app("nft -s list ruleset"), held);
    for family in [Family::Ip, Family::Device, Family::Packet] {
        probes::fire(&lab, family);
    }
}

/// A reload that the kernel refuses, at each message: the tunnel goes on as before.
#[test]
fn a_reload_that_the_kernel_refuses_changes_nothing() {
    let lab = Lab::new();
    probes::control(&lab, Family::Device);
    let orders = orders(&lab);
    let flood = Flood::start(&lab);
    let gateway = start(&lab, &orders);
    gateway.wait_connected();
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let mut other = lab.conf();
    other.toml = "[lan]\ninbound = [{ from = \"172.30.0.0/24\", to = \"tcp/8080\" }]".into();
    for number in [0, 1, 5, 12, 30, 60] {
        // The reload is refused, and so is going back to what was: it is in force already.
        std::fs::write(&orders, format!("refused {number}")).unwrap();
        let refusals = || log(&lab).matches("was not reloaded").count();
        let before = refusals();
        gateway.reload(&other);
        wait("the reload is refused", PATIENCE, || {
            (refusals() > before).then_some(())
        });
        std::fs::write(&orders, "").unwrap();
        let rules = lab.app("nft list ruleset");
        assert!(!rules.contains("8080"), "{number}: {rules}");
        flood.goes_on(200);
        lab.sensor.verdict();
        // Blocked, if it could not load what was in force either; an operator lifts that.
        if gateway.status().is_some_and(|s| s.state == State::Blocked) {
            let status = gateway.status().unwrap();
            assert!(
                matches!(status.blocked_by, Some(BlockReason::Ruleset(_))),
                "{status:?}"
            );
            assert_eq!(gateway.ctl(&["connect"]).status.code(), Some(0));
        }
        gateway.wait_connected();
        stream.echo(PATIENCE).unwrap();
    }
    gateway.reload(&other);
    wait("the reload works at last", PATIENCE, || {
        lab.app("nft list ruleset").contains("8080").then_some(())
    });
    assert_inside(&lab.ns, 1);
    probes::fire(&lab, Family::Device);
}

/// The rules are gone, and the kernel takes no others: no link stays up.
#[test]
fn when_the_rules_are_lost_and_cannot_be_loaded_every_link_goes_down() {
    let lab = Lab::new();
    let orders = orders(&lab);
    lab.tables_belong_to_nobody();
    let gateway = start(&lab, &orders);
    gateway.wait_connected();
    std::fs::write(&orders, "refused 2").unwrap();
    lab.sensor.disarm();
    lab.app("nft delete table inet vpngw");
    wait("the links are down", Duration::from_secs(10), || {
        is_down(&lab).then_some(())
    });
    let status = gateway.wait_for("it says so", PATIENCE, |s| s.state == State::Blocked);
    assert!(
        matches!(status.blocked_by, Some(BlockReason::Ruleset(_))),
        "{status:?}"
    );
    assert!(!status.kill_switch.armed, "{status:?}");
    assert_eq!(gateway.ctl(&["status"]).status.code(), Some(4));
    assert_eq!(gateway.ctl(&["healthcheck"]).status.code(), Some(1));
}

/// An answer that is lost: which rules are in force cannot be told, so the ones that are wanted are loaded.
#[test]
fn an_answer_that_is_lost_leaves_no_door_open() {
    let lab = Lab::new();
    let orders = orders(&lab);
    let gateway = start(&lab, &orders);
    gateway.wait_connected();
    std::fs::write(&orders, "once answer-lost").unwrap();
    let flood = Flood::start(&lab);
    let mut other = lab.conf();
    other.toml = "[lan]\noutbound = [{ to = \"172.30.0.50\", port = \"udp/7\" }]".into();
    gateway.reload(&other);
    wait("the fault has happened", PATIENCE, || {
        (!orders.exists()).then_some(())
    });
    flood.goes_on(300);
    wait("the rules are not those of the reload", PATIENCE, || {
        (!lab.app("nft list ruleset").contains("172.30.0.50")).then_some(())
    });
    // Nothing of the LAN exception may have been used: the sensor does not know it.
    assert_eq!(
        ask(
            &lab.ns,
            "app",
            at(crate::lab::LAN, 7),
            Duration::from_secs(1)
        ),
        None
    );
    lab.sensor.verdict();
    let code = gateway.ctl(&["connect"]).status.code();
    assert_eq!(code, Some(0));
    gateway.wait_connected();
}

#[test]
fn an_old_kernel_holds_packets_and_says_that_it_does_not_hold_frames() {
    let lab = Lab::new();
    for family in [Family::Ip, Family::Device] {
        probes::control(&lab, family);
    }
    let orders = orders(&lab);
    std::fs::write(&orders, "no-egress-hook").unwrap();
    let gateway = start(&lab, &orders);
    let status = gateway.wait_connected();
    assert!(!status.kill_switch.raw_frames && status.kill_switch.armed);
    for family in [Family::Ip, Family::Device] {
        probes::fire(&lab, family);
    }
    assert!(!lab.app("nft list tables").contains("netdev"));
    assert!(log(&lab).contains("no netdev egress hook"), "{}", log(&lab));
}
