//! What the command line says about a running gateway, and what it leaves alone.

use std::io::{Read, Write};
use std::time::Duration;

use vpngw::control::api::State;

use crate::lab::gateway::Gateway;
use crate::lab::server::Swallow;
use crate::lab::tunnel::{Stream, ask, assert_inside};
use crate::lab::{HOST, Lab, at, wait};
use crate::probes::{self, Family};

const PATIENCE: Duration = Duration::from_secs(40);

fn code(gateway: &Gateway, words: &[&str]) -> i32 {
    let done = gateway.ctl(words);
    let code = done.status.code();
    code.unwrap_or_else(|| panic!("{words:?}: {done:?}"))
}

fn said(gateway: &Gateway, words: &[&str]) -> String {
    let done = gateway.ctl(words);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{words:?}: {done:?}");
    text
}

#[test]
fn exit_codes_tell_the_state() {
    let lab = Lab::new();
    probes::control(&lab, Family::Device);
    lab.servers[0].swallow(Swallow::Everything);
    let mut gateway = lab.start(&lab.conf());
    gateway.wait_for("it tries", PATIENCE, |s| s.state == State::Connecting);
    assert_eq!(code(&gateway, &["status"]), 1);
    assert_eq!(code(&gateway, &["healthcheck"]), 1);
    lab.servers[0].swallow(Swallow::Nothing);
    gateway.wait_for("it connects", Duration::from_secs(100), |s| {
        s.state == State::Connected
    });
    assert_eq!(code(&gateway, &["status"]), 0);
    assert_eq!(code(&gateway, &["healthcheck"]), 0);

    assert_eq!(code(&gateway, &["disconnect"]), 0);
    gateway.wait_for("it is blocked", PATIENCE, |s| s.state == State::Blocked);
    assert_eq!(code(&gateway, &["status"]), 4);
    assert_eq!(code(&gateway, &["healthcheck"]), 1);
    probes::fire(&lab, Family::Device);
    assert_eq!(code(&gateway, &["connect"]), 0);
    gateway.wait_connected();
    assert_inside(&lab.ns, 1);

    assert_eq!(code(&gateway, &["nonsense"]), 2);
    gateway.stop();
    assert_eq!(code(&gateway, &["status"]), 1);
    assert_eq!(code(&gateway, &["healthcheck"]), 1);
    lab.sensor.verdict();
}

/// Only an operator leaves `blocked`: not a new engine, not a reload.
#[test]
fn blocked_stays_blocked() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    said(&gateway, &["disconnect"]);
    gateway.wait_for("it is blocked", PATIENCE, |s| s.state == State::Blocked);
    lab.sensor.drain();
    lab.sensor.permit(|rules| rules.endpoints.clear());
    let engine = gateway.engine();
    rustix::process::kill_process(engine, rustix::process::Signal::KILL).unwrap();
    wait("another engine runs", PATIENCE, || {
        (gateway.engine() != engine).then_some(())
    });
    gateway.wait_for("it is still blocked", PATIENCE, |s| {
        s.state == State::Blocked
    });
    gateway.reload(&lab.conf());
    assert_eq!(
        ask(&lab.ns, "app", at(HOST, 7), Duration::from_secs(5)),
        None
    );
    assert_eq!(gateway.status().map(|s| s.state), Some(State::Blocked));
    lab.sensor.verdict();
}

#[test]
fn the_json_has_the_promised_keys() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    let text = said(&gateway, &["status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    for key in KEYS {
        let mut value = &json;
        for part in key.split('.') {
            let next = value.get(part);
            value = next.unwrap_or_else(|| panic!("no {key} in {text}"));
        }
    }
    assert_eq!(json["state"], "connected");
    assert_eq!(json["topology"], "shared");
    assert_eq!(json["kill_switch"]["raw_frames"], true);
    assert_eq!(json["tunnel"]["device"], "tun0");
    assert!(
        !text.contains(&lab.keys.private),
        "the private key is in the status"
    );
}

const KEYS: [&str; 22] = [
    "version",
    "topology",
    "state",
    "reason",
    "since",
    "endpoint",
    "handshake_age_seconds",
    "rx_bytes",
    "tx_bytes",
    "rx_bits_per_second",
    "tx_bits_per_second",
    "kill_switch.armed",
    "kill_switch.armed_in_microseconds",
    "kill_switch.blocked_packets",
    "leaks.detected",
    "leaks.last",
    "lan.inbound",
    "lan.outbound",
    "ipv6",
    "dns",
    "tunnel.device",
    "tunnel.mtu",
];

#[test]
fn what_was_stopped_is_counted() {
    let lab = Lab::new();
    probes::control(&lab, Family::Device);
    let gateway = lab.connect(&lab.conf());
    let before = gateway.status().unwrap().kill_switch.blocked_packets;
    probes::fire(&lab, Family::Device);
    gateway.wait_for("stopped packets are counted", PATIENCE, |s| {
        s.kill_switch.blocked_packets >= before + 5
    });
}

#[test]
fn wg_show_reads_it_and_cannot_change_it() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    let shown = lab.app("wg show tun0 dump");
    let lines: Vec<Vec<&str>> = shown.lines().map(|l| l.split('\t').collect()).collect();
    assert_ne!(
        lines[0][0], lab.keys.private,
        "the private key is given away"
    );
    assert_eq!(lines[1][0], lab.servers[0].keys.public);
    assert_eq!(lines[1][2], "198.51.100.10:51820");
    assert_eq!(lines[1][3], "0.0.0.0/0");
    let handshake: i64 = lines[1][4].parse().unwrap();
    let server = lab.servers[0].last_handshake().cast_signed();
    assert!(
        (handshake - server).abs() <= 2,
        "{handshake} {server}: not Unix time"
    );
    assert!(lines[1][5] != "0" && lines[1][6] != "0", "{shown}");
    let set = lab.ns.output("app", "wg set tun0 listen-port 1");
    assert!(!set.status.success());
    gateway.wait_connected();
    assert_inside(&lab.ns, 1);
    lab.sensor.verdict();
}

#[test]
fn looking_changes_nothing() {
    let lab = Lab::new();
    let config = lab.conf().write(&lab.folder.path().join("app"));
    let state = || {
        let lines = [
            "nft list ruleset",
            "ip -4 addr",
            "ip -4 route show table all",
            "ip rule",
        ];
        lines.map(|line| lab.app(line))
    };
    let before = state();
    let program = crate::lab::gateway::PROGRAM;
    for words in ["plan", "check", "explain 1.1.1.1:53/udp"] {
        let line = format!("{program} {words} --config {}", config.display());
        let text = lab.ns.output("app", &line);
        assert!(text.status.success(), "{line}: {text:?}");
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        assert!(!text.trim().is_empty(), "{words} says nothing");
        assert!(
            !text.contains(&lab.keys.private),
            "{words} prints the private key"
        );
    }
    assert_eq!(state(), before);
}

#[test]
fn only_cleanup_removes_the_rules() {
    let lab = Lab::new();
    let mut gateway = lab.connect(&lab.conf());
    gateway.stop();
    assert!(lab.app("nft list ruleset").contains("table inet vpngw"));
    assert_eq!(
        ask(&lab.ns, "app", at(HOST, 7), Duration::from_secs(2)),
        None
    );
    lab.sensor.verdict();
    lab.sensor.disarm();
    said(&gateway, &["cleanup"]);
    let rules = lab.app("nft list ruleset");
    assert!(!rules.contains("vpngw"), "{rules}");
    let policy = lab.app("ip rule");
    assert!(!policy.contains("fwmark"), "{policy}");
}

#[test]
fn metrics_are_served_where_configured() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    conf.toml = "[metrics]\nlisten = \"127.0.0.1:9586\"".into();
    let _gateway = lab.connect(&conf);
    assert_inside(&lab.ns, 1);
    let text = scrape(&lab);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.contains("# TYPE vpngw_"), "{text}");
    assert!(!text.contains(&lab.keys.private));
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    lab.ns.feed("app", "promtool check metrics", body);
    lab.sensor.verdict();
}

/// A program in the same namespace cannot command the gateway by the loopback device.
#[test]
fn no_control_by_tcp() {
    let lab = Lab::new();
    let _gateway = lab.connect(&lab.conf());
    let listening = lab.app("ss -Hltn");
    assert!(listening.trim().is_empty(), "{listening}");
    let open = Stream::open(
        &lab.ns,
        "app",
        at(std::net::Ipv4Addr::LOCALHOST, 9586),
        PATIENCE,
    );
    assert!(open.is_err());
}

/// The answer of a gateway that serves metrics at 127.0.0.1:9586, headers and all.
pub(crate) fn scrape(lab: &Lab) -> String {
    lab.ns.enter("app", || {
        let mut stream = std::net::TcpStream::connect("127.0.0.1:9586").unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
}
