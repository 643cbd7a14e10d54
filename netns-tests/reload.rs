//! SIGHUP: a whole new configuration in one step, or the old one goes on.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use vpngw::control::api::State;

use crate::lab::conf::Conf;
use crate::lab::flood::Flood;
use crate::lab::tunnel::{Stream, assert_inside, ifindex};
use crate::lab::{HOST, Lab, at};

const PATIENCE: Duration = Duration::from_secs(40);

#[test]
fn a_reload_moves_to_another_server() {
    let lab = Lab::new();
    let flood = Flood::start(&lab);
    let gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    let device = ifindex(&lab.ns, "app", "tun0");
    let next = Conf::new(&lab.keys, &[&lab.servers[1]]);
    let (old, new) = (lab.servers[0].endpoint, lab.servers[1].endpoint);
    lab.sensor
        .permit(|rules| rules.endpoints.extend(next.permitted()));
    gateway.reload(&next);
    gateway.wait_for("it is at the other server", PATIENCE, |s| {
        s.state == State::Connected && s.endpoint == Some(new)
    });
    assert_inside(&lab.ns, 2);
    flood.goes_on(1000);
    assert_eq!(ifindex(&lab.ns, "app", "tun0"), device);
    let rules = lab.app("nft list ruleset");
    assert!(!rules.contains(&old.ip().to_string()), "{rules}");
    lab.sensor.verdict();
    let spans = lab.sensor.spans();
    assert!(
        spans[&old].1 <= spans[&new].0,
        "two servers at a time: {spans:?}"
    );
}

#[test]
fn a_bad_reload_changes_nothing() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let flood = Flood::start(&lab);
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let before = lab.app("nft -s list ruleset");
    let good = fs::read(&gateway.config).unwrap();
    let halves = (gateway.warden(), gateway.engine());
    let broken: [&[u8]; 5] = [
        b"",
        b"wireguard = [",
        b"surprise = 1",
        b"\xff\xfe",
        &good[..good.len() / 2],
    ];
    for bytes in broken {
        fs::write(&gateway.config, bytes).unwrap();
        gateway.signal(Signal::HUP);
        flood.goes_on(600);
        stream.echo(PATIENCE).unwrap();
        assert_eq!(gateway.status().map(|s| s.state), Some(State::Connected));
        assert_eq!(lab.app("nft -s list ruleset"), before);
    }
    assert_eq!((gateway.warden(), gateway.engine()), halves);
    lab.sensor.verdict();
}

#[test]
fn a_reload_changes_exceptions_without_a_new_connection() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let mut conf = lab.conf();
    conf.toml = "[lan]\ninbound = [{ from = \"172.30.0.50/32\", to = \"tcp/8080\" }]".into();
    gateway.reload(&conf);
    gateway.wait_for("the exception is in force", PATIENCE, |s| {
        s.lan.inbound.len() == 1
    });
    stream.echo(PATIENCE).unwrap();
    gateway.reload(&lab.conf());
    gateway.wait_for("the exception is gone", PATIENCE, |s| {
        s.lan.inbound.is_empty()
    });
    stream.echo(PATIENCE).unwrap();
    lab.sensor.verdict();
}
