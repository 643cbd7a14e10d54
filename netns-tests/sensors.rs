//! The gateway's own sensors: each sees what it is there for, in time, and ends it.

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use vpngw::control::api::{State, Status};
use vpngw::leak::evidence::{Evidence, Sensor};

use crate::lab::canary::{self, Canary};
use crate::lab::conf::Conf;
use crate::lab::gateway::{Gateway, PATIENCE};
use crate::lab::tunnel::assert_inside;
use crate::lab::{HOST, Lab, at, wait};
use crate::status::scrape;

/// The bound of every sensor (one reading a second), and a busy machine's time.
const BOUND: Duration = Duration::from_secs(3);

/// What a program with CAP_NET_ADMIN can do that no rule sees: a packet on loopback is sent by the uplink,
/// after the egress hook of another device has let it pass (net/sched/act_mirred.c).
const REDIRECT: [&str; 2] = [
    "tc qdisc add dev lo clsact",
    "tc filter add dev lo egress protocol ip u32 match u32 0 0 action mirred egress redirect dev eth0",
];

fn redirect(lab: &Lab) {
    for line in REDIRECT {
        lab.app(line);
    }
}

fn to_loopback(lab: &Lab, token: &Canary) -> io::Result<usize> {
    lab.ns.enter("app", || {
        UdpSocket::bind("127.0.0.1:0")?.send_to(token, at([127, 0, 0, 1].into(), 9))
    })
}

/// Sends to loopback until the frame is seen outside; it must have left for the rest to mean anything.
fn leak(lab: &Lab, token: &Canary) {
    wait("the redirected packet leaves", BOUND, || {
        to_loopback(lab, token).unwrap();
        lab.sensor.drain();
        lab.sensor.saw(token).then_some(())
    });
}

fn evidence(gateway: &Gateway) -> Vec<Evidence> {
    let said = gateway.ctl(&["leaks", "--json"]);
    serde_json::from_slice(&said.stdout).unwrap()
}

fn blocked(gateway: &Gateway) -> Status {
    gateway.wait_for("a leak blocks it", BOUND, |s| s.state == State::Blocked)
}

/// The gateway is stopped meanwhile. When it looks, the kernel tells it of the device first and of the frames then.
#[test]
fn a_frame_is_seen_though_its_device_is_down_by_then() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    lab.sensor.disarm();
    redirect(&lab);
    gateway.signal(Signal::STOP);
    leak(&lab, &canary::fresh());
    lab.app("ip link set dev eth0 down");
    gateway.signal(Signal::CONT);
    blocked(&gateway);
    let found = evidence(&gateway);
    let framed = found.iter().any(|it| it.sensor == Sensor::Frame);
    assert!(framed, "{found:?}");
}

/// Rules cannot stop it, so in the end the device does.
#[test]
fn a_device_that_goes_on_leaking_is_set_down() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    lab.sensor.disarm();
    redirect(&lab);
    let token = canary::fresh();
    leak(&lab, &token);
    let status = blocked(&gateway);
    assert!(status.leaks.detected > 0, "{:?}", status.leaks);
    let start = Instant::now();
    wait("the uplink is down", BOUND, || {
        let _ = to_loopback(&lab, &token);
        lab.app("ip link show dev eth0")
            .contains("state DOWN")
            .then_some(())
    });
    println!(
        "set down {} ms after the block",
        start.elapsed().as_millis()
    );
    let frame = evidence(&gateway)
        .into_iter()
        .find(|it| it.sensor == Sensor::Frame);
    let frame = frame.expect("the frame is kept");
    assert!(
        frame.leaked && frame.what.contains("127.0.0.1:9"),
        "{frame:?}"
    );
    let digits: String = token.iter().map(|b| format!("{b:02x}")).collect();
    assert!(frame.bytes.contains(&digits), "{frame:?}");
    assert_eq!(gateway.ctl(&["leaks"]).status.code(), Some(3));

    // Somebody who sets it up again has it for a moment.
    lab.app("ip link set eth0 up");
    wait("it is down again", BOUND, || {
        let shown = lab.app("ip link show dev eth0");
        shown.contains("state DOWN").then_some(())
    });

    // The operator removes the cause and connects.
    lab.app("tc qdisc del dev lo clsact");
    assert_eq!(gateway.ctl(&["connect"]).status.code(), Some(0));
    gateway.wait_connected();
    assert_inside(&lab.ns, 1);
}

/// Without CAP_NET_RAW there is no frame sensor; the devices count all the same.
#[test]
fn a_frame_that_no_rule_counted_is_found_by_accounting() {
    let lab = Lab::new();
    let config = lab.conf().write(&lab.folder.path().join("app"));
    let by = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"];
    let gateway = Gateway::start_by(&lab, "app", &config, &[], &by);
    gateway.wait_connected();
    assert_inside(&lab.ns, 1);
    let status = gateway.wait_for("it accounts", PATIENCE, |s| s.leaks.accounted);
    assert!(!status.leaks.watched, "{:?}", status.leaks);
    lab.sensor.disarm();
    redirect(&lab);
    // Not while the rules may just have been replaced.
    std::thread::sleep(Duration::from_secs(1));
    leak(&lab, &canary::fresh());
    blocked(&gateway);
    let found = evidence(&gateway);
    assert!(
        found
            .iter()
            .any(|it| it.sensor == Sensor::Accounting && it.leaked),
        "{found:?}"
    );
    assert_eq!(gateway.ctl(&["status"]).status.code(), Some(3));
    lab.sensor.drain();
    assert!(lab.sensor.excuse() > 0 || lab.sensor.tally().before > 0);
}

/// A queue holds frames back and drops some, so nobody could tell; that is said, not passed over.
#[test]
fn what_cannot_be_accounted_is_said() {
    let lab = Lab::new();
    // Before the gateway is there: one that comes later is taken away again.
    lab.app("tc qdisc add dev eth0 root pfifo");
    let gateway = lab.connect(&lab.conf());
    let said = |s: &Status| s.leaks.not_accounted.is_some();
    let status = gateway.wait_for("it does not account", PATIENCE, said);
    let why = status.leaks.not_accounted.unwrap();
    assert!(why.contains("eth0") && why.contains("pfifo"), "{why}");
    let page = gateway.ctl(&["leaks"]);
    assert_eq!(page.status.code(), Some(0));
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(
        page.contains("NOT watched: what the devices sent"),
        "{page}"
    );
    lab.app("tc qdisc del dev eth0 root");
    gateway.wait_for("it accounts", BOUND, |s| s.leaks.accounted);
}

/// A probe is proof only where a rule refuses it.
#[test]
fn the_probe_proves_that_the_way_out_is_closed() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let status = gateway.wait_for("a probe", PATIENCE, |s| s.leaks.proof_age_seconds.is_some());
    assert!(status.leaks.proof_age_seconds.is_some_and(|age| age < 60.0));
    assert_eq!(status.leaks.detected, 0);
    let tally = lab.sensor.verdict();
    assert!(tally.wireguard > 0, "{tally}");
}

/// What others change is undone, and a person can see that it happened.
#[test]
fn a_change_that_was_undone_is_kept() {
    let lab = Lab::new();
    lab.tables_belong_to_nobody();
    let conf = Conf {
        toml: "[metrics]\nlisten = \"127.0.0.1:9586\"".into(),
        ..lab.conf()
    };
    let gateway = lab.connect(&conf);
    lab.app("nft flush ruleset");
    let status = gateway.wait_for("it is noticed", BOUND, |s| !s.leaks.found.is_empty());
    let found = &status.leaks.found[0];
    assert_eq!(
        (found.sensor, found.leaked, status.state),
        (Sensor::Watcher, false, State::Connected)
    );
    let kept = evidence(&gateway);
    assert!(
        kept.iter().any(|it| it.what.contains("table inet vpngw")),
        "{kept:?}"
    );
    let metrics = scrape(&lab);
    assert!(
        metrics.contains("vpngw_changes_undone_total{sensor=\"watcher\",kind=\"rules\"}"),
        "{metrics}"
    );
}

/// Frames are counted by the rules, sent by the device, and read by us at three different moments, while the
/// rules are replaced: the account must come out even all the same.
#[test]
fn bulk_traffic_under_replaced_rules_is_no_leak() {
    let lab = Lab::new();
    let plain = lab.conf();
    let gateway = lab.connect(&plain);
    let mut with_lan = lab.conf();
    with_lan.toml = "[lan]\ninbound = [{ from = \"172.30.0.0/24\", to = \"tcp/8080\" }]".into();
    let until = Instant::now() + Duration::from_secs(5);
    let senders = [0, 1].map(|_| {
        lab.ns.spawn("app", move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            while Instant::now() < until {
                for _ in 0..64 {
                    let _ = socket.send_to(&[7; 1200], at(HOST, 9));
                }
            }
        })
    });
    let mut round = 0;
    while Instant::now() < until {
        gateway.reload(if round % 2 == 0 { &with_lan } else { &plain });
        round += 1;
        std::thread::sleep(Duration::from_millis(if round % 10 == 0 {
            1500
        } else {
            40
        }));
    }
    for sender in senders {
        sender.join().unwrap();
    }
    // One more reading when all is quiet.
    std::thread::sleep(Duration::from_millis(2500));
    let status = gateway.status().unwrap();
    assert!(status.leaks.accounted, "{:?}", status.leaks);
    assert_eq!((status.state, status.leaks.detected), (State::Connected, 0));
    let tally = lab.sensor.verdict();
    println!("{round} reloads under {} frames", tally.wireguard);
    assert!(tally.wireguard > 500, "{tally}");
}
