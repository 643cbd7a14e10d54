//! The wall clock is set back by two hours. A server takes no handshake with an older stamp than its last one, so the
//! stamps go on from there: wireguard-go is such a server.

use std::time::Duration;

use rustix::process::{Signal, kill_process};
use vpngw::control::api::State;

use crate::lab::gateway::Gateway;
use crate::lab::sealed::Sealed;
use crate::lab::tunnel::{ask, assert_inside};
use crate::lab::{HOST, Lab, at, wait};

const BACK: i64 = -7200;

/// For back-off and a busy machine. The clock would take two hours to catch up.
const PATIENCE: Duration = Duration::from_secs(40);

fn connect_again(gateway: &Gateway) {
    for word in ["disconnect", "connect"] {
        let done = gateway.ctl(&[word]);
        assert!(done.status.success(), "{done:?}");
    }
}

fn wait_handshake(gateway: &Gateway, what: &str) {
    gateway.wait_for(what, PATIENCE, |status| {
        status.state == State::Connected && status.handshake_age_seconds.is_some()
    });
}

#[test]
fn a_clock_that_is_set_back_never_stops_a_new_session() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    lab.set_clock(BACK);
    connect_again(&gateway);
    wait_handshake(&gateway, "it is connected again");
    assert_inside(&lab.ns, 1);
    let log = || std::fs::read_to_string(lab.folder.path().join("app/log")).unwrap();
    let said = |log: &str| log.matches("the clock went back by 2 h").count();
    wait("the log says so", PATIENCE, || {
        (said(&log()) > 0).then_some(())
    });
    connect_again(&gateway);
    wait_handshake(&gateway, "it is connected a third time");
    assert_inside(&lab.ns, 1);
    assert_eq!(said(&log()), 1, "{}", log());
    lab.sensor.verdict();
}

/// The warden remembers the stamps for the next engine.
#[test]
fn a_clock_that_is_set_back_never_stops_a_new_engine() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    lab.set_clock(BACK);
    for _ in 0..2 {
        let old = gateway.engine();
        kill_process(old, Signal::KILL).unwrap();
        wait("another engine runs", PATIENCE, || {
            (gateway.engine() != old).then_some(())
        });
        wait_handshake(&gateway, "another engine is connected");
        assert_inside(&lab.ns, 1);
    }
    lab.sensor.verdict();
}

#[test]
fn a_clock_that_is_set_back_never_stops_a_new_engine_of_a_sealed_namespace() {
    let lab = Lab::new();
    let mut sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    lab.set_clock(BACK);
    sealed.kill_engine();
    sealed.start_engine();
    sealed.wait_connected();
    let answer = ask(&lab.ns, "box", at(HOST, 7), PATIENCE);
    assert!(answer.is_some(), "no echo through the tunnel");
    lab.sensor.verdict();
}

/// Its engine lives longer than its warden, and tells the next one.
#[test]
fn a_clock_that_is_set_back_never_stops_an_engine_that_finds_another_warden() {
    let lab = Lab::new();
    let mut sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    lab.set_clock(BACK);
    sealed.kill_warden();
    sealed.wait_log(1, "the warden is gone");
    sealed.start_warden(&[]);
    sealed.wait_connected();
    // What the second warden knows it has from the first engine.
    sealed.kill_engine();
    sealed.start_engine();
    sealed.wait_connected();
    lab.sensor.verdict();
}
