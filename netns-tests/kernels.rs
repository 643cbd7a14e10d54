//! Kernels that lack something, and namespaces with more devices than a chain takes, under the whole program.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use vpngw::control::api::State;

use crate::lab::gateway::{Gateway, PATIENCE, PROGRAM};
use crate::lab::sealed::Sealed;
use crate::lab::tunnel::{Stream, ask, assert_inside};
use crate::lab::{HOST, Lab, at, wait};

/// `vpngw plan` in `app`, by another program, on a kernel with this fault.
fn plan(lab: &Lab, by: &str, fault: &str) -> String {
    let config = lab.conf().write(&lab.folder.path().join("app"));
    fs::write(lab.faults(), fault).unwrap();
    let mut words = by.split_whitespace().chain([PROGRAM, "plan", "--config"]);
    let mut command = Command::new(words.next().unwrap());
    command
        .args(words)
        .arg(config)
        .env("NETNS_FAULT", lab.faults());
    let done = lab.ns.enter("app", || command.output()).unwrap();
    fs::write(lab.faults(), "").unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn the_plan_is_for_this_kernel_or_says_for_which() {
    let lab = Lab::new();
    let full = plan(&lab, "", "");
    assert!(full.contains("takes these rules: it was asked"), "{full}");
    assert!(full.contains("table netdev vpngw"), "{full}");
    let old = plan(&lab, "", "no-egress-hook");
    assert!(!old.contains("table netdev"), "{old}");
    assert!(
        old.contains("# this kernel has no netdev egress hook"),
        "{old}"
    );
    let silent = plan(&lab, "", "no-reject");
    assert!(
        !silent.contains("reject with") && silent.contains("log prefix"),
        "{silent}"
    );
    let unasked = plan(
        &lab,
        "setpriv --bounding-set -net_admin --inh-caps -net_admin",
        "",
    );
    assert!(unasked.contains("for Linux 5.16 or newer"), "{unasked}");
    assert!(unasked.contains("could not be asked"), "{unasked}");
    assert_eq!(lab.app("nft list ruleset"), "", "nothing was loaded");
}

fn leaktest(lab: &Lab, gateway: &Gateway, more: &str) -> Output {
    let socket = gateway.socket.display();
    let line = format!("{PROGRAM} leaktest {more} --socket {socket}");
    lab.ns.output("app", &line)
}

/// On an old kernel the test itself would be the leak that takes the network down.
#[test]
fn a_leak_test_blocks_no_gateway_that_it_was_not_told_to() {
    let lab = Lab::new();
    fs::write(lab.faults(), "no-egress-hook").unwrap();
    let gateway = lab.connect(&lab.conf());
    let done = leaktest(&lab, &gateway, "");
    let page = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(1), "{page}");
    assert!(
        page.contains("NOT TRIED") && page.contains("leaktest --raw"),
        "{page}"
    );
    lab.sensor.verdict();
    assert_inside(&lab.ns, 1);
    assert_eq!(gateway.status().unwrap().state, State::Connected);
    // The control: told to, it says so first, and the gateway sees the frame.
    lab.sensor.disarm();
    let done = leaktest(&lab, &gateway, "--raw");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    assert!(
        said.contains("blocks everything until `vpngw connect`"),
        "{said}"
    );
    gateway.wait_for("it is blocked", PATIENCE, |it| it.state == State::Blocked);
}

#[test]
fn a_sealed_warden_starts_on_a_kernel_without_the_egress_hook_and_says_so() {
    let lab = Lab::new();
    fs::write(lab.faults(), "no-egress-hook").unwrap();
    let sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    let log = sealed.log(0);
    assert!(log.contains("raw_frames=false"), "{log}");
    assert!(log.contains("no netdev egress hook"), "{log}");
    let tables = lab.ns.run("box", "nft list tables");
    assert_eq!(tables, "table inet vpngw\ntable arp vpngw\n");
    assert!(inside(&lab));
    lab.sensor.verdict();
}

#[test]
fn a_missing_module_is_said_in_the_log() {
    let lab = Lab::new();
    for (fault, word) in [("no-log", "nft_log"), ("no-reject", "nft_reject_inet")] {
        fs::write(lab.faults(), fault).unwrap();
        let mut sealed = Sealed::new(&lab, &lab.conf());
        sealed.start_warden(&[]);
        let log = sealed.log(0);
        // The log of the run before stands above it.
        let line = log
            .lines()
            .rfind(|line| line.contains("WARN") && line.contains("lacks"));
        let line = line.unwrap_or_else(|| panic!("{fault}: {log}"));
        assert!(line.contains(word) && line.contains("modprobe"), "{line}");
        drop(sealed);
    }
}

fn inside(lab: &Lab) -> bool {
    let answer = ask(&lab.ns, "box", at(HOST, 7), Duration::from_secs(20));
    answer.is_some_and(|answer| answer.starts_with("inside1 10.64.0.2 "))
}

/// As on a NAS: nothing leads out of a sealed namespace without rules either, if that is enough for its operator.
#[test]
fn a_sealed_warden_without_nf_tables_runs_only_where_that_was_said() {
    let lab = Lab::new();
    fs::write(lab.faults(), "no-tables").unwrap();
    let mut sealed = Sealed::new(&lab, &lab.conf());
    sealed.spawn_warden(&[]);
    assert_eq!(sealed.warden_ends().code(), Some(2));
    let log = sealed.log(0);
    for words in [
        "without_rules = true",
        "VPNGW_SEALED_WITHOUT_RULES",
        "modprobe nf_tables",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
    sealed.start_warden(&[("VPNGW_SEALED_WITHOUT_RULES", "true")]);
    sealed.wait_log(0, "rules=false");
    sealed.wait_log(0, "DNS to foreign resolvers (G7)");
    assert_eq!(lab.ns.run("box", "nft list ruleset"), "");
    sealed.start_engine();
    sealed.wait_connected();
    assert!(inside(&lab));
    lab.sensor.verdict();
}

/// With a way out, or in the shared topology, no word of an operator opens anything without rules.
#[test]
fn without_nf_tables_a_namespace_with_a_way_out_is_shut() {
    let lab = Lab::new();
    let mut sealed = Sealed::new(&lab, &lab.conf());
    lab.ns
        .run("box", "ip link add dsl7 up type veth peer name far7");
    fs::write(lab.faults(), "no-tables").unwrap();
    sealed.spawn_warden(&[("VPNGW_SEALED_WITHOUT_RULES", "true")]);
    assert_eq!(sealed.warden_ends().code(), Some(2));
    let log = sealed.log(0);
    assert!(log.contains("every link was set down"), "{log}");
    let links = lab.ns.run("box", "ip -o link show dsl7");
    assert!(!links.contains(",UP") && !links.contains("<UP"), "{links}");
    // With loopback alone, that is what is said.
    lab.ns.run("box", "ip link del dsl7");
    lab.ns.run("box", "ip link set lo up");
    let config = lab.conf().write(&lab.folder.path().join("box"));
    let mut command = Command::new(PROGRAM);
    command.arg("run").arg("--config").arg(config);
    command.env("NETNS_FAULT", lab.faults());
    let done = lab.ns.enter("box", || command.output()).unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("no device but loopback"), "{said}");
    assert!(!said.contains("set down"), "{said}");
}

#[test]
fn three_hundred_devices_change_nothing_for_programs() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let lines = |verb: &str, rest: &str| -> String {
        (0..150)
            .map(|n| format!("link {verb} d{n} {}\n", rest.replace('#', &n.to_string())))
            .collect()
    };
    lab.ns.feed(
        "app",
        "ip -batch -",
        &lines("add", "type veth peer name e#"),
    );
    let held = |wanted: usize| {
        wait("the egress chains have all devices", PATIENCE, || {
            let listed = lab.ns.run("app", "nft list table netdev vpngw");
            let names = listed.split([' ', ',', '{', '}']).filter(|word| {
                let number = word.strip_prefix(['d', 'e']);
                number.is_some_and(|rest| rest.parse::<u32>().is_ok())
            });
            (names.count() == wanted).then_some(())
        });
    };
    held(300);
    let connected = || {
        assert_inside(&lab.ns, 1);
        let status = gateway.status().unwrap();
        assert_eq!(status.state, State::Connected, "{status:#?}");
    };
    connected();
    stream.echo(PATIENCE).unwrap();
    lab.ns.feed("app", "ip -batch -", &lines("del", ""));
    held(0);
    connected();
    stream.echo(PATIENCE).unwrap();
    lab.sensor.verdict();
}
