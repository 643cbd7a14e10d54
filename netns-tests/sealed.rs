//! The sealed topology: the joined programs' namespace has no uplink, and the engine is in another one.

use std::time::Duration;

use vpngw::control::api::{State, Topology};

use crate::connect::permit_resolver;
use crate::lab::sealed::Sealed;
use crate::lab::tunnel::{Stream, ask, ifindex};
use crate::lab::{HOST, INNER, Lab, at};

mod door;
mod lan;
mod leak;
mod order;
mod privilege;
mod rootless;
mod stale;
mod version;

const PATIENCE: Duration = Duration::from_secs(30);

/// Asserts that a datagram of a joined program goes through the tunnel.
fn assert_inside(lab: &Lab) {
    let answer = ask(&lab.ns, "box", at(HOST, 7), PATIENCE);
    let answer = answer.expect("an echo through the tunnel");
    assert!(answer.starts_with("inside1 10.64.0.2 "), "{answer}");
}

#[test]
fn a_sealed_namespace_has_the_tunnel_and_nothing_else() {
    let lab = Lab::new();
    let sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    let status = sealed.wait_connected();
    assert_eq!(status.topology, Topology::Sealed);
    assert!(status.ready() && status.leaks.watched, "{status:#?}");
    assert_inside(&lab);
    let links = lab.ns.run("box", "ip -o link show");
    let names: Vec<_> = links
        .lines()
        .filter_map(|line| line.split(": ").nth(1))
        .collect();
    assert_eq!(names, ["lo", "tun0"], "{links}");
    lab.sensor.verdict();
}

#[test]
fn an_engine_that_dies_a_hundred_times_keeps_the_connections() {
    let lab = Lab::new();
    let mut sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    let mut stream = Stream::open(&lab.ns, "box", at(HOST, 7), PATIENCE).unwrap();
    let state = || {
        let shown = ["ip -4 -o addr show dev tun0", "ip -4 route show"];
        (
            ifindex(&lab.ns, "box", "tun0"),
            shown.map(|line| lab.ns.run("box", line)),
        )
    };
    let before = state();
    for round in 0..100 {
        sealed.kill_engine();
        assert_eq!(state(), before, "round {round}");
        sealed.start_engine();
        // Killed in the middle of everything, too.
        if round % 4 != 0 {
            stream.echo(Duration::from_secs(60)).unwrap();
        }
    }
    sealed.wait_connected();
    stream.echo(PATIENCE).unwrap();
    assert_eq!(state(), before);
    lab.sensor.verdict();
}

#[test]
fn a_sealed_engine_looks_the_servers_name_up_where_the_uplink_is() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    conf.peers[0].endpoint = "vpn.test:51820".into();
    lab.sensor.permit(permit_resolver);
    lab.sensor.permit(|rules| rules.resolver_again = true);
    let sealed = Sealed::connect(&lab, &conf, &[]);
    let status = sealed.wait_connected();
    assert_eq!(status.endpoint, Some(lab.servers[0].endpoint));
    assert_inside(&lab);
    // Again, from the same source port.
    sealed.ctl("app", &["disconnect"]);
    sealed.wait_for("it is blocked", |s| s.state == State::Blocked);
    sealed.ctl("app", &["connect"]);
    sealed.wait_connected();
    assert_inside(&lab);
    let tally = lab.sensor.verdict();
    assert!(tally.resolver > 0 && tally.wireguard > 0, "{tally}");
}

#[test]
fn a_joined_program_asks_the_tunnels_resolver_only() {
    let lab = Lab::new();
    let _sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    let said = lab.ns.run("box", "getent ahostsv4 example.org");
    assert!(said.starts_with(&HOST.to_string()), "{said}");
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap();
    let active: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(active, [format!("nameserver {INNER}")]);
    lab.sensor.verdict();
}

#[test]
fn an_engine_that_reads_its_messages_is_not_taken_for_one_that_hangs() {
    let lab = Lab::new();
    let sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    // On one processor, one that does not press forward reads only when the warden waits again.
    for half in [sealed.warden(), sealed.engine()] {
        let half = half.as_raw_nonzero();
        lab.app(&format!("taskset --all-tasks --pid 1 {half}"));
        lab.app(&format!("chrt --all-tasks --batch --pid 0 {half}"));
    }
    // One that hangs is ended after ten seconds.
    std::thread::sleep(Duration::from_secs(24));
    assert!(!sealed.log(0).contains("ended"), "{}", sealed.log(0));
    sealed.wait_connected();
    lab.sensor.verdict();
}
