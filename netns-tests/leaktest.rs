//! `vpngw leaktest`: it sees what is open, and says so of what is not.

use serde_json::Value;

use crate::lab::Lab;
use crate::lab::gateway::PROGRAM;
use crate::lab::tunnel::assert_inside;

/// Runs it in `app`; its code, and what it says by attempt.
fn leaktest(lab: &Lab, by: &str) -> (Option<i32>, Value) {
    let done = lab
        .ns
        .output("app", &format!("{by} {PROGRAM} leaktest --json"));
    let json = serde_json::from_slice(&done.stdout);
    let json = json.unwrap_or_else(|why| panic!("{why}: {done:?}"));
    (done.status.code(), json)
}

fn outcomes(report: &Value) -> Vec<(&str, &str)> {
    let attempts = report["attempts"].as_array().unwrap().iter();
    attempts
        .map(|it| {
            (
                it["what"].as_str().unwrap(),
                it["outcome"].as_str().unwrap(),
            )
        })
        .collect()
}

#[test]
fn it_sees_what_leaves_where_no_gateway_runs() {
    let lab = Lab::new();
    let (code, report) = leaktest(&lab, "");
    assert_eq!((code, &report["verdict"]), (Some(3), &"leaked".into()));
    for (what, outcome) in outcomes(&report) {
        // Nobody can watch what is behind loopback.
        let expected = if what.contains("Docker") {
            "unknown"
        } else {
            "leaked"
        };
        assert_eq!(outcome, expected, "{what}: {report:#}");
    }
}

#[test]
fn it_holds_behind_a_gateway_connected_blocked_and_dead() {
    let lab = Lab::new();
    let mut gateway = lab.connect(&lab.conf());
    let held = |when: &str| {
        let (code, report) = leaktest(&lab, "");
        assert_eq!(
            (code, &report["verdict"]),
            (Some(0), &"held".into()),
            "{when}: {report:#}"
        );
        assert_eq!(report["watched"], true);
        let outcomes = outcomes(&report);
        assert!(outcomes.len() >= 12, "{report:#}");
        assert!(
            outcomes.iter().all(|(_, outcome)| *outcome == "held"),
            "{when}: {report:#}"
        );
    };
    held("connected");
    assert_inside(&lab.ns, 1);
    gateway.ctl(&["disconnect"]);
    held("blocked");
    gateway.kill();
    held("dead");
    lab.sensor.verdict();
}

/// A joined program that may do nothing is told what it cannot even try, and that the rest held.
#[test]
fn it_needs_no_capability() {
    let lab = Lab::new();
    let _gateway = lab.connect(&lab.conf());
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set=-all";
    let (code, report) = leaktest(&lab, nobody);
    assert_eq!(
        (code, &report["watched"]),
        (Some(0), &false.into()),
        "{report:#}"
    );
    let outcomes = outcomes(&report);
    let of = |outcome: &str| outcomes.iter().filter(|(_, it)| *it == outcome).count();
    assert!(of("held") >= 8 && of("impossible") >= 3, "{report:#}");
    lab.sensor.verdict();
}
