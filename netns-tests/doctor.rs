//! `vpngw doctor`: what it says where a gateway runs, where one ran, and where none is.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::lab::gateway::PROGRAM;
use crate::lab::sealed::Sealed;
use crate::lab::tunnel::assert_inside;
use crate::lab::{Lab, wait};

/// What it said, by the output of `--json`.
struct Said {
    code: Option<i32>,
    report: Value,
}

impl Said {
    fn of(done: &Output) -> Self {
        let report = serde_json::from_slice(&done.stdout);
        Self {
            code: done.status.code(),
            report: report.unwrap_or_else(|why| panic!("{why}: {done:?}")),
        }
    }

    fn finding(&self, check: &str) -> &Value {
        let checks = self.report["checks"].as_array().unwrap();
        let found = checks.iter().find(|it| it["check"] == check);
        found.unwrap_or_else(|| panic!("no {check}: {:#}", self.report))
    }

    fn assert(&self, check: &str, outcome: &str) {
        assert_eq!(
            self.finding(check)["outcome"],
            outcome,
            "{check}: {:#}",
            self.report
        );
    }

    fn why(&self, check: &str) -> &str {
        self.finding(check)["why"].as_str().unwrap()
    }
}

/// Runs it in `app`, by another program and with other words.
fn doctor(lab: &Lab, by: &str, words: &str) -> Said {
    let line = format!("{by} {PROGRAM} doctor --json {words}");
    Said::of(&lab.ns.output("app", &line))
}

#[test]
fn it_says_what_holds_in_the_shared_topology_connected_blocked_and_dead() {
    let lab = Lab::new();
    let mut gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    gateway.wait_for("it counts", crate::lab::gateway::PATIENCE, |it| {
        it.leaks.accounted
    });
    let socket = format!("--socket {}", gateway.socket.display());
    let said = doctor(&lab, "", &socket);
    assert_eq!(said.report["topology"], "shared");
    for check in [
        "topology",
        "connection",
        "kill switch",
        "raw frames",
        "owned tables",
        "frame sensor",
        "accounting",
        "leaks",
        "IPv6",
        "DNS",
        "/dev/net/tun",
        "NET_ADMIN",
        "NET_RAW",
    ] {
        said.assert(check, "holds");
    }
    // Who lives here is not told where the tests are not root on the machine.
    let all_seen = said.finding("joined programs")["outcome"] == "holds";
    let code = if all_seen { 0 } else { 1 };
    assert_eq!(said.code, Some(code), "{:#}", said.report);
    gateway.ctl(&["disconnect"]);
    let said = doctor(&lab, "", &socket);
    assert_eq!(said.code, Some(1));
    said.assert("connection", "does_not_hold");
    said.assert("kill switch", "holds");
    gateway.kill();
    let said = doctor(&lab, "", &socket);
    assert_eq!(
        (said.code, &said.report["topology"]),
        (Some(1), &"shared".into())
    );
    said.assert("connection", "unknown");
    said.assert("kill switch", "holds");
    said.assert("owned tables", "does_not_hold");
    lab.sensor.verdict();
}

/// It does not take what it cannot see for what holds.
#[test]
fn without_capabilities_it_says_what_it_cannot_see() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let nothing = "setpriv --bounding-set=-all --inh-caps=-all";
    let socket = format!("--socket {}", gateway.socket.display());
    let said = doctor(&lab, nothing, &socket);
    assert_eq!(said.report["topology"], "shared");
    said.assert("NET_ADMIN", "hint");
    said.assert("NET_RAW", "hint");
    // The gateway says so; whose the tables are it does not.
    said.assert("kill switch", "holds");
    said.assert("owned tables", "unknown");
    let said = doctor(&lab, nothing, "--socket /nowhere");
    assert_eq!(said.code, Some(1));
    said.assert("topology", "unknown");
    said.assert("kill switch", "unknown");
    lab.sensor.verdict();
}

#[test]
fn a_joined_program_with_a_capability_is_named() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let socket = format!("--socket {}", gateway.socket.display());
    let named = |wanted: &str| {
        let said = doctor(&lab, "", &socket);
        let named = said.finding("joined programs").to_string().contains(wanted);
        (named, said)
    };
    let mut children = Vec::new();
    for (capabilities, program) in [("-all,+net_admin", "sleep"), ("-all", "tail")] {
        let mut command = Command::new("setpriv");
        command.arg(format!("--bounding-set={capabilities}"));
        command.args(["--inh-caps=-all", program]);
        command.args(if program == "sleep" {
            &["600"][..]
        } else {
            &["-f", "/dev/null"]
        });
        children.push(lab.ns.start("app", command.stdin(Stdio::null())));
    }
    let pids: Vec<_> = children.iter().map(|it| it.id()).collect();
    let words = format!("sleep (pid {}) has NET_ADMIN", pids[0]);
    let said = wait("it is named", crate::lab::gateway::PATIENCE, || {
        let (named, said) = named(&words);
        named.then_some(said)
    });
    assert_eq!(said.code, Some(1));
    said.assert("joined programs", "does_not_hold");
    let why = said.why("joined programs");
    assert!(!why.contains(&format!("{words} and NET_RAW")), "{why}");
    assert!(!why.contains("tail") && !why.contains("vpngw"), "{why}");
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(!named("sleep").0);
    lab.sensor.verdict();
}

#[test]
fn where_no_gateway_is_it_says_so() {
    let lab = Lab::new();
    let before = lab.app("nft list ruleset");
    let done = lab
        .ns
        .output("app", &format!("{PROGRAM} doctor --socket /nowhere"));
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let page = String::from_utf8(done.stdout).unwrap();
    assert!(
        page.starts_with("topology: none: no gateway here\n"),
        "{page}"
    );
    assert!(
        page.contains("change: run it where the gateway is"),
        "{page}"
    );
    assert_eq!(lab.app("nft list ruleset"), before);
    let wrong = lab.ns.output("app", &format!("{PROGRAM} doctor --bogus"));
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn it_tells_both_sides_of_the_sealed_topology() {
    let lab = Lab::new();
    let sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    let inside = Said::of(&sealed.ctl("box", &["doctor", "--json"]));
    assert_eq!(inside.report["topology"], "sealed");
    for check in [
        "topology",
        "connection",
        "kill switch",
        "raw frames",
        "joined programs",
        "leaks",
    ] {
        inside.assert(check, "holds");
    }
    assert_eq!(inside.code, Some(0), "{:#}", inside.report);
    // Namespaces of the lab have names, as in the host topology.
    assert!(inside.why("topology").contains("a namespace with a name"));
    let engine = Said::of(&sealed.ctl("app", &["doctor", "--json"]));
    assert_eq!(engine.report["topology"], "sealed_engine");
    engine.assert("topology", "holds");
    engine.assert("kill switch", "holds");
    lab.sensor.verdict();
}
