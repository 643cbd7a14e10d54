//! The leak matrix: every probe, as everybody who may join, in every state of the gateway. What is expected
//! stands in `expected.txt`; what came out is added up by `scripts/leak-table`.
//!
//! Each test has its own positive control and a flood from before the gateway starts until after it is dead.

mod attacks;
mod crew;
mod memory;
mod table;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Signal, kill_process};
use vpngw::control::api::State;

use crate::lab::conf::Conf;
use crate::lab::flood::Flood;
use crate::lab::gateway::{Gateway, has_ended};
use crate::lab::inside::Inside;
use crate::lab::server::Swallow;
use crate::lab::tunnel::assert_inside;
use crate::lab::{Lab, report, wait};
use crate::probes::program::Persona;

use crew::{Crew, Tunnel};

const PATIENCE: Duration = Duration::from_secs(30);

/// One layer each, as an ordinary container.
const FLOOD: [&str; 6] = [
    "ip/udp",
    "device/udp",
    "dns/router-udp",
    "ipv6/udp-to-device",
    "packet/frame",
    "ring/frame-bypass",
];

/// A lab without a gateway yet: everybody has shown what he can, and the flood runs.
fn lab_under_fire() -> (Lab, Crew, Flood) {
    let lab = Lab::new();
    let crew = Crew::with_control(&lab);
    let flood = Flood::of(&lab, Persona::Docker, &FLOOD);
    (lab, crew, flood)
}

/// Nothing at all may leave any more, and the flood is still at it.
fn ends_silent(lab: &Lab, flood: &Flood) {
    lab.sensor.drain();
    lab.sensor.permit(|rules| rules.endpoints.clear());
    flood.goes_on(600);
    lab.sensor.verdict();
}

/// The kill switch stands, and the gateway waits for the end of its configuration.
#[test]
fn nobody_gets_out_while_starting() {
    let (lab, mut crew, flood) = lab_under_fire();
    let conf = lab.conf();
    let path = conf.write(&lab.folder.path().join("app"));
    let text = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    lab.sensor.drain();
    let before = lab.sensor.tally().before;
    let gateway = Gateway::start_with(&lab, "app", &path, &[]);
    lab.sensor.drain();
    let (frames, took) = (lab.sensor.tally().before - before, gateway.armed_after);
    println!("start-up: {frames} frames of the flood left in {took:?}");
    report::line(&format!(
        "exposure start-up docker starting start-up {frames} {:.1} -",
        took.as_secs_f64() * 1000.0
    ));
    crew.fire(&lab, "starting", Tunnel::Unknown);
    assert!(gateway.status().is_none(), "it has not started");
    lab.sensor
        .permit(|rules| rules.endpoints = conf.permitted());
    fs::write(&path, text).unwrap();
    gateway.wait_connected();
    assert_inside(&lab.ns, 1);
    drop(gateway);
    ends_silent(&lab, &flood);
}

#[test]
fn nobody_gets_out_while_the_handshake_is_pending() {
    let (lab, mut crew, flood) = lab_under_fire();
    lab.servers[0].swallow(Swallow::Everything);
    let gateway = lab.start(&lab.conf());
    wait("a handshake is tried", PATIENCE, || {
        lab.sensor.handshakes().pop()
    });
    crew.fire(&lab, "handshake pending", Tunnel::Unknown);
    drop(gateway);
    ends_silent(&lab, &flood);
}

#[test]
fn nobody_gets_out_while_connected() {
    let (lab, mut crew, flood) = lab_under_fire();
    let inside = Inside::watch(&lab, 1);
    let gateway = lab.connect(&lab.conf());
    crew.fire(&lab, "connected", Tunnel::Open(&inside));
    let status = gateway.status().unwrap();
    assert_eq!((status.state, status.leaks.detected), (State::Connected, 0));
    drop(gateway);
    ends_silent(&lab, &flood);
}

/// The server answers by ICMP that nobody is there, then not at all.
#[test]
fn nobody_gets_out_when_the_server_is_dead() {
    let (lab, mut crew, flood) = lab_under_fire();
    let gateway = lab.connect(&lab.conf());
    lab.servers[0].kill();
    crew.fire(&lab, "peer dead", Tunnel::Unknown);
    lab.servers[0].swallow(Swallow::Everything);
    crew.fire(&lab, "peer dead", Tunnel::Unknown);
    drop(gateway);
    ends_silent(&lab, &flood);
}

/// The keys have expired: no session, and no answer to a handshake (REJECT_AFTER_TIME is 180 s, WireGuard
/// whitepaper, section 6.2).
#[test]
fn nobody_gets_out_when_the_session_has_expired() {
    let (lab, mut crew, flood) = lab_under_fire();
    let gateway = lab.connect(&lab.conf());
    lab.servers[0].swallow(Swallow::Everything);
    gateway.wait_for("the keys expire", Duration::from_secs(400), |s| {
        s.handshake_age_seconds.is_none_or(|age| age > 185.0)
    });
    crew.fire(&lab, "session expired", Tunnel::Unknown);
    drop(gateway);
    ends_silent(&lab, &flood);
}

/// On the way to another server, which does not answer yet.
#[test]
fn nobody_gets_out_while_switching() {
    let (lab, mut crew, flood) = lab_under_fire();
    let gateway = lab.connect(&lab.conf());
    let next = Conf::new(&lab.keys, &[&lab.servers[1]]);
    lab.sensor
        .permit(|rules| rules.endpoints.extend(next.permitted()));
    lab.servers[1].swallow(Swallow::Everything);
    gateway.reload(&next);
    wait("the other server is tried", PATIENCE, || {
        let spans = lab.sensor.spans();
        spans.contains_key(&lab.servers[1].endpoint).then_some(())
    });
    crew.fire(&lab, "switching", Tunnel::Unknown);
    lab.servers[1].swallow(Swallow::Nothing);
    let inside = Inside::watch(&lab, 2);
    let there = Some(lab.servers[1].endpoint);
    gateway.wait_for("it is there", Duration::from_secs(60), |s| {
        s.state == State::Connected && s.endpoint == there
    });
    crew.fire(&lab, "switched", Tunnel::Open(&inside));
    drop(gateway);
    ends_silent(&lab, &flood);
}

/// Another configuration every few milliseconds, all the while.
#[test]
fn nobody_gets_out_while_reloading() {
    let (lab, mut crew, flood) = lab_under_fire();
    let plain = lab.conf();
    let gateway = lab.connect(&plain);
    let mut with_lan = lab.conf();
    with_lan.toml = "[lan]\ninbound = [{ from = \"172.30.0.0/24\", to = \"tcp/8080\" }]".into();
    let done = AtomicBool::new(false);
    let folder = gateway.config.parent().unwrap();
    let warden = gateway.warden();
    let mut reloads = 0;
    let shots = std::thread::scope(|scope| {
        let reloader = scope.spawn(|| {
            let mut reloads = 0;
            while !done.load(Ordering::Relaxed) {
                let conf = if reloads % 2 == 0 { &with_lan } else { &plain };
                conf.write(folder);
                kill_process(warden, Signal::HUP).unwrap();
                reloads += 1;
                std::thread::sleep(Duration::from_millis(3));
            }
            reloads
        });
        let shots = Persona::JOINED.map(|persona| (persona, crew.shoot_as(persona, &lab)));
        done.store(true, Ordering::Relaxed);
        reloads += reloader.join().unwrap();
        shots
    });
    crew.judge(shots.into(), &lab, "reloading", Tunnel::Unknown);
    println!("{reloads} reloads meanwhile");
    assert!(reloads > 10);
    gateway.reload(&plain);
    gateway.wait_connected();
    assert_inside(&lab.ns, 1);
    drop(gateway);
    ends_silent(&lab, &flood);
}

/// Between SIGTERM and the end, which a stopped engine draws out: the warden waits for it for a second.
#[test]
fn nobody_gets_out_while_stopping() {
    let (lab, mut crew, flood) = lab_under_fire();
    let mut left = Persona::JOINED.to_vec();
    let mut rounds = 0;
    while let Some(mut persona) = left.pop() {
        let mut gateway = lab.connect(&lab.conf());
        kill_process(gateway.engine(), Signal::STOP).unwrap();
        gateway.signal(Signal::TERM);
        wait("the endpoint is closed", PATIENCE, || {
            let rules = lab.app("nft list ruleset");
            (!rules.contains("198.51.100.10")).then_some(())
        });
        loop {
            let shots = crew.shoot_as(persona, &lab);
            if has_ended(gateway.warden()) {
                // Too slow for this time.
                left.push(persona);
                break;
            }
            crew.judge(vec![(persona, shots)], &lab, "stopping", Tunnel::Unknown);
            let Some(next) = left.pop() else { break };
            persona = next;
        }
        gateway.wait_exit(PATIENCE);
        rounds += 1;
        assert!(rounds < 20, "it never was slow enough to be stopping");
    }
    ends_silent(&lab, &flood);
}

/// SIGKILL to both halves, and at once everything.
#[test]
fn nobody_gets_out_when_both_are_killed() {
    let (lab, mut crew, flood) = lab_under_fire();
    let mut gateway = lab.connect(&lab.conf());
    gateway.kill();
    crew.fire(&lab, "killed", Tunnel::Unknown);
    ends_silent(&lab, &flood);
}

#[test]
fn nobody_gets_out_while_suspended() {
    let (lab, mut crew, flood) = lab_under_fire();
    let gateway = lab.connect(&lab.conf());
    let halves = [gateway.engine(), gateway.warden()];
    for half in halves {
        kill_process(half, Signal::STOP).unwrap();
    }
    crew.fire(&lab, "suspended", Tunnel::Unknown);
    for half in halves {
        kill_process(half, Signal::CONT).unwrap();
    }
    gateway.wait_connected();
    assert_inside(&lab.ns, 1);
    drop(gateway);
    ends_silent(&lab, &flood);
}

/// A cgroup whose memory is used up by somebody else: the kernel kills the gateway in it.
#[test]
fn nobody_gets_out_when_memory_has_run_out() {
    let (lab, mut crew, flood) = lab_under_fire();
    let gateway = lab.connect(&lab.conf());
    let halves = [gateway.engine(), gateway.warden()];
    memory::exhaust(&lab, &halves);
    wait("the kernel has killed the warden", PATIENCE, || {
        has_ended(halves[1]).then_some(())
    });
    crew.fire(&lab, "out of memory", Tunnel::Unknown);
    drop(gateway);
    ends_silent(&lab, &flood);
}

/// Stopped in order, and gone.
#[test]
fn nobody_gets_out_when_it_is_dead() {
    let (lab, mut crew, flood) = lab_under_fire();
    let mut gateway = lab.connect(&lab.conf());
    assert!(gateway.stop().success());
    ends_silent(&lab, &flood);
    crew.fire(&lab, "dead", Tunnel::Unknown);
    ends_silent(&lab, &flood);
}

/// Killed, started again over what was left.
#[test]
fn nobody_gets_out_when_restarted() {
    let (lab, mut crew, flood) = lab_under_fire();
    let mut first = lab.connect(&lab.conf());
    first.kill();
    let inside = Inside::watch(&lab, 1);
    let gateway = lab.connect(&lab.conf());
    crew.fire(&lab, "restarted", Tunnel::Open(&inside));
    drop(gateway);
    ends_silent(&lab, &flood);
}
