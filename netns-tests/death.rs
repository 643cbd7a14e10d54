//! It dies in every way a process can die. The rules stay, nothing leaves, and programs keep their
//! network where half of it is left.

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::lab::flood::Flood;
use crate::lab::gateway::has_ended;
use crate::lab::server::Swallow;
use crate::lab::tunnel::{Stream, assert_inside, ifindex};
use crate::lab::{HOST, Lab, at, wait};
use crate::probes::{self, Family};

const PATIENCE: Duration = Duration::from_secs(30);
const ALL: [Family; 4] = [Family::Ip, Family::Device, Family::Packet, Family::Endpoint];

/// Nothing may leave any more, not even to the endpoint.
fn assert_silent(lab: &Lab, flood: &Flood) {
    lab.sensor.drain();
    lab.sensor.permit(|rules| rules.endpoints.clear());
    flood.goes_on(1500);
    for family in ALL {
        probes::fire(lab, family);
    }
    let rules = lab.app("nft list ruleset");
    for table in ["inet vpngw", "netdev vpngw", "arp vpngw"] {
        assert!(
            rules.contains(&format!("table {table}")),
            "{table} is gone:\n{rules}"
        );
    }
}

fn lab_under_fire() -> (Lab, Flood) {
    let lab = Lab::new();
    for family in ALL {
        probes::control(&lab, family);
    }
    let flood = Flood::start(&lab);
    (lab, flood)
}

#[test]
fn term_leaves_everything_blocked() {
    let (lab, flood) = lab_under_fire();
    let mut gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    let ended = gateway.stop();
    assert!(ended.success(), "{ended}");
    let rules = lab.app("nft list ruleset");
    assert!(
        !rules.contains("198.51.100.10"),
        "the endpoint is still open:\n{rules}"
    );
    assert_silent(&lab, &flood);
}

#[test]
fn killing_the_engine_keeps_the_connections() {
    let lab = Lab::new();
    let flood = Flood::start(&lab);
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let device = ifindex(&lab.ns, "app", "tun0");
    for round in 0..3 {
        let old = gateway.engine();
        kill_process(old, Signal::KILL).unwrap();
        let killed = Instant::now();
        wait("another engine runs", PATIENCE, || {
            (gateway.engine() != old).then_some(())
        });
        let took = killed.elapsed();
        println!("round {round}: another engine after {took:?}");
        // One second is promised; the rest is for the tests that run beside this one.
        assert!(took < Duration::from_secs(2), "{took:?}");
        stream.echo(Duration::from_secs(60)).unwrap();
        assert_eq!(ifindex(&lab.ns, "app", "tun0"), device);
    }
    gateway.wait_connected();
    flood.goes_on(1000);
    lab.sensor.verdict();
}

#[test]
fn killing_the_warden_leaves_everything_blocked() {
    let (lab, flood) = lab_under_fire();
    let mut gateway = lab.connect(&lab.conf());
    let engine = gateway.engine();
    gateway.signal(Signal::KILL);
    gateway.wait_exit(PATIENCE);
    wait("the engine follows", PATIENCE, || {
        has_ended(engine).then_some(())
    });
    assert_silent(&lab, &flood);
}

#[test]
fn killing_both_leaves_everything_blocked() {
    let (lab, flood) = lab_under_fire();
    let mut gateway = lab.connect(&lab.conf());
    gateway.kill();
    assert_silent(&lab, &flood);
}

#[test]
fn killing_both_before_the_first_handshake_leaves_everything_blocked() {
    let (lab, flood) = lab_under_fire();
    lab.servers[0].swallow(Swallow::Everything);
    let mut gateway = lab.start(&lab.conf());
    wait("a handshake is tried", PATIENCE, || {
        lab.sensor.handshakes().pop()
    });
    gateway.kill();
    assert_silent(&lab, &flood);
}

#[test]
fn a_panic_of_the_engine_keeps_the_connections() {
    let lab = Lab::new();
    let flood = Flood::start(&lab);
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let old = gateway.engine();
    kill_process(old, Signal::USR2).unwrap();
    wait("another engine runs", PATIENCE, || {
        (gateway.engine() != old).then_some(())
    });
    stream.echo(Duration::from_secs(60)).unwrap();
    gateway.wait_connected();
    flood.goes_on(1000);
    lab.sensor.verdict();
}

#[test]
fn a_panic_of_the_warden_leaves_everything_blocked() {
    let (lab, flood) = lab_under_fire();
    let mut gateway = lab.connect(&lab.conf());
    let engine = gateway.engine();
    gateway.signal(Signal::USR2);
    assert_eq!(gateway.wait_exit(PATIENCE).code(), Some(101));
    wait("the engine follows", PATIENCE, || {
        has_ended(engine).then_some(())
    });
    assert_silent(&lab, &flood);
}

#[test]
fn stopping_both_halves_lets_nothing_out() {
    let lab = Lab::new();
    probes::control(&lab, Family::Packet);
    let flood = Flood::start(&lab);
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let halves = [gateway.engine(), gateway.warden()];
    for half in halves {
        kill_process(half, Signal::STOP).unwrap();
    }
    flood.goes_on(4000);
    probes::fire(&lab, Family::Packet);
    for half in halves {
        kill_process(half, Signal::CONT).unwrap();
    }
    stream.echo(PATIENCE).unwrap();
    gateway.wait_connected();
    lab.sensor.verdict();
}

/// What `docker pause` does, and a machine that sleeps: every wait of both is cut short.
#[test]
fn a_gateway_that_is_stopped_and_goes_on_many_times_keeps_its_engine() {
    let lab = Lab::new();
    let flood = Flood::start(&lab);
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let halves = [gateway.engine(), gateway.warden()];
    for _ in 0..200 {
        for signal in [Signal::STOP, Signal::CONT] {
            for half in halves {
                kill_process(half, signal).unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        stream.echo(PATIENCE).unwrap();
    }
    gateway.wait_connected();
    assert_eq!([gateway.engine(), gateway.warden()], halves);
    flood.goes_on(1000);
    lab.sensor.verdict();
}

#[test]
fn it_starts_over_what_an_earlier_run_left() {
    let (lab, flood) = lab_under_fire();
    let mut first = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    first.kill();
    drop(first);
    flood.goes_on(500);
    let mut second = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    second.stop();
    drop(second);
    let _third = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    for family in [Family::Device, Family::Packet] {
        probes::fire(&lab, family);
    }
}

/// The warden keeps watch whatever becomes of the engine: one that takes no messages is replaced.
#[test]
fn an_engine_that_hangs_is_replaced() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let old = gateway.engine();
    kill_process(old, Signal::STOP).unwrap();
    // The buffer between the two fills with one message a second, or as fast as something changes.
    for port in 0..400 {
        lab.app(&format!(
            "ip addr add 10.9.{}.{}/32 dev lo",
            port / 200,
            port % 200 + 1
        ));
    }
    wait("another engine runs", Duration::from_secs(150), || {
        (gateway.engine() != old).then_some(())
    });
    stream.echo(Duration::from_secs(60)).unwrap();
    lab.sensor.verdict();
}
