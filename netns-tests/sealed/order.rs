//! Which half comes first, ends, comes again, and what it is told meanwhile.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;
use vpngw::control::api::State;
use vpngw::sys::socket::uninterrupted;

use super::{PATIENCE, assert_inside};
use crate::lab::sealed::{Sealed, nobody_is_mapped};
use crate::lab::tunnel::{Stream, ask, ifindex};
use crate::lab::{HOST, Lab, at, wait};

#[test]
fn the_engine_waits_for_the_warden() {
    let lab = Lab::new();
    let mut sealed = Sealed::new(&lab, &lab.conf());
    sealed.own_control();
    sealed.start_engine();
    sealed.wait_log(1, "is `vpngw warden` running");
    let status = sealed.wait_for("it waits", |s| s.reason.contains("waiting for the warden"));
    assert_eq!(status.state, State::Arming);
    assert_eq!(sealed.ctl("app", &["healthcheck"]).status.code(), Some(1));
    sealed.start_warden(&[]);
    sealed.wait_connected();
    assert_inside(&lab);
    lab.sensor.verdict();
}

/// As a composition starts them, at the same time: the volume is the warden's to open.
#[test]
fn the_engine_finds_room_for_its_socket_when_the_warden_has_come() {
    let lab = Lab::new();
    let mut sealed = Sealed::new(&lab, &lab.conf());
    sealed.start_engine();
    sealed.wait_log(1, "is `vpngw warden` running");
    sealed.start_warden(&[]);
    sealed.wait_connected();
    assert_inside(&lab);
    lab.sensor.verdict();
}

#[test]
fn the_warden_holds_the_namespace_before_there_is_an_engine() {
    let lab = Lab::new();
    let mut sealed = Sealed::new(&lab, &lab.conf());
    sealed.start_warden(&[]);
    let rules = lab.ns.run("box", "nft list ruleset");
    assert!(rules.contains("table inet vpngw"), "{rules}");
    assert_eq!(
        ask(&lab.ns, "box", at(HOST, 7), Duration::from_secs(1)),
        None
    );
    let (code, line) = health(&sealed);
    assert_eq!((code, line.as_str()), (Some(1), "waiting for the engine\n"));
    sealed.start_engine();
    sealed.wait_connected();
    assert_inside(&lab);
    wait("the warden's health check agrees", PATIENCE, || {
        (health(&sealed).0 == Some(0)).then_some(())
    });
    sealed.kill_engine();
    wait("the warden's health check hears of it", PATIENCE, || {
        (health(&sealed).0 == Some(1)).then_some(())
    });
    lab.sensor.verdict();
}

/// As in the warden's container: nobody answers on the control socket there.
pub(super) fn health(sealed: &Sealed) -> (Option<i32>, String) {
    let door = sealed.door.to_str().unwrap();
    let words = [
        "healthcheck",
        "--socket-of-warden",
        door,
        "--socket",
        "/nowhere",
    ];
    let said = sealed.ctl_as_it_is("box", &words);
    (said.status.code(), String::from_utf8(said.stdout).unwrap())
}

#[test]
fn an_engine_finds_the_next_warden() {
    let lab = Lab::new();
    let mut sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    assert_inside(&lab);
    let engine = sealed.engine();
    sealed.kill_warden();
    sealed.wait_for("it waits", |s| s.state == State::Arming);
    assert_eq!(
        ask(&lab.ns, "box", at(HOST, 7), Duration::from_secs(1)),
        None
    );
    // What the first one left is no obstacle.
    sealed.start_warden(&[]);
    sealed.wait_connected();
    assert_inside(&lab);
    assert_eq!(sealed.engine(), engine);
    lab.sensor.verdict();
}

#[test]
fn what_the_operator_says_before_there_is_a_warden_counts() {
    let lab = Lab::new();
    let mut sealed = Sealed::new(&lab, &lab.conf());
    sealed.own_control();
    sealed.start_engine();
    sealed.wait_for("it waits", |s| s.state == State::Arming);
    sealed.ctl("app", &["disconnect"]);
    sealed.start_warden(&[]);
    sealed.wait_for("it is blocked", |s| s.state == State::Blocked);
    assert_eq!(
        ask(&lab.ns, "box", at(HOST, 7), Duration::from_secs(1)),
        None
    );
    // The next engine finds it blocked.
    sealed.kill_engine();
    sealed.start_engine();
    sealed.wait_for("it is blocked", |s| s.state == State::Blocked);
    sealed.ctl("app", &["connect"]);
    sealed.wait_connected();
    assert_inside(&lab);
    lab.sensor.verdict();
}

#[test]
fn an_engine_with_a_new_configuration_keeps_the_device() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    let mut sealed = Sealed::connect(&lab, &conf, &[("VPNGW_FORWARD_PORTS", "6881")]);
    let device = ifindex(&lab.ns, "box", "tun0");
    let mut stream = Stream::open(&lab.ns, "box", at(HOST, 7), PATIENCE).unwrap();
    let accepts = || lab.ns.run("box", "nft list ruleset").contains("dport 6881");
    // By reload.
    conf.toml = "[forward]\nports = [6881]".into();
    sealed.configure(&conf);
    sealed.signal(sealed.engine(), Signal::HUP);
    wait("the port is open", PATIENCE, || accepts().then_some(()));
    stream.echo(PATIENCE).unwrap();
    // More than the warden permits changes nothing.
    conf.toml = "[forward]\nports = [6881, 22]".into();
    sealed.configure(&conf);
    sealed.signal(sealed.engine(), Signal::HUP);
    sealed.wait_log(1, "[forward] ports names 22");
    assert!(accepts());
    // By another engine, with another MTU.
    conf.toml = "[tunnel]\nmtu = 1280".into();
    sealed.configure(&conf);
    sealed.kill_engine();
    sealed.start_engine();
    let status = sealed.wait_connected();
    assert_eq!(status.tunnel.mtu, 1280);
    assert!(!accepts());
    let link = lab.ns.run("box", "ip link show dev tun0");
    assert!(link.contains("mtu 1280"), "{link}");
    stream.echo(Duration::from_secs(60)).unwrap();
    assert_eq!(ifindex(&lab.ns, "box", "tun0"), device);
    lab.sensor.verdict();
}

#[test]
fn a_warden_with_a_narrower_configuration_keeps_what_both_permit() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    conf.toml = "[forward]\nports = [6881]".into();
    let mut sealed = Sealed::new(&lab, &conf);
    sealed.permit("[forward]\nports = [6881]\n");
    sealed.start_warden(&[]);
    sealed.start_engine();
    sealed.wait_connected();
    let accepts = || lab.ns.run("box", "nft list ruleset").contains("dport 6881");
    assert!(accepts(), "the control");
    sealed.permit("");
    sealed.signal(sealed.warden(), Signal::HUP);
    wait("the port is closed", PATIENCE, || {
        (!accepts()).then_some(())
    });
    assert_eq!(sealed.engine_ends().code(), Some(2));
    assert!(sealed.log(1).contains("[forward] ports names 6881"));
    lab.sensor.verdict();
}

/// The operator forgot `user:`, and puts it right.
#[test]
fn an_engine_of_another_user_is_refused_and_leaves_nothing_in_the_way() {
    let lab = Lab::new();
    let mut sealed = Sealed::new(&lab, &lab.conf());
    sealed.start_warden(&[]);
    if nobody_is_mapped() {
        sealed.start_engine_as(0);
        assert_eq!(sealed.engine_ends().code(), Some(2));
        let line = "run the engine's service as that user (`user: \"65534\"`)";
        assert!(sealed.log(1).contains(line), "{}", sealed.log(1));
    }
    sealed.start_engine();
    sealed.wait_connected();
    assert_inside(&lab);
    lab.sensor.verdict();
}

/// `Type=notify` of systemd: whoever comes after the warden finds the namespace closed.
#[test]
fn a_service_manager_hears_when_the_warden_is_ready() {
    let lab = Lab::new();
    let mut sealed = Sealed::new(&lab, &lab.conf());
    let path = lab.folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    sealed.spawn_warden(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    let mut buffer = [0; 64];
    let length = uninterrupted(|| manager.recv(&mut buffer)).unwrap();
    assert_eq!(&buffer[..length], b"READY=1");
    assert!(sealed.door.exists());
    let rules = lab.ns.run("box", "nft list ruleset");
    assert!(rules.contains("table inet vpngw"), "{rules}");
}

#[test]
fn a_namespace_with_an_uplink_is_not_taken_for_a_sealed_one() {
    let lab = Lab::new();
    let mut sealed = Sealed::new(&lab, &lab.conf());
    lab.ns
        .run("box", "ip link add eth0 type veth peer name eth1");
    lab.ns.run("box", "ip link set eth0 up");
    sealed.spawn_warden(&[]);
    assert_eq!(sealed.warden_ends().code(), Some(2));
    let log = sealed.log(0);
    assert!(log.contains("`network_mode: none`"), "{log}");
    let rules = lab.ns.run("box", "nft list ruleset");
    assert!(rules.contains("table inet vpngw"), "it stays shut: {rules}");
}

#[test]
fn term_ends_both_halves_and_leaves_the_namespace_closed() {
    let lab = Lab::new();
    let mut sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    assert_inside(&lab);
    sealed.signal(sealed.engine(), Signal::TERM);
    assert!(sealed.engine_ends().success());
    sealed.signal(sealed.warden(), Signal::TERM);
    assert!(sealed.warden_ends().success());
    assert!(fs::metadata(&sealed.door).is_err());
    let rules = lab.ns.run("box", "nft list ruleset");
    assert!(rules.contains("table inet vpngw"), "{rules}");
    assert!(!rules.contains("10.64.0.2"), "{rules}");
    lab.sensor.verdict();
}
