//! The server goes silent, comes back, or never was there.

use std::time::{Duration, SystemTime};

use vpngw::control::api::State;

use crate::connect::permit_resolver;
use crate::lab::conf::Conf;
use crate::lab::flood::Flood;
use crate::lab::server::Swallow;
use crate::lab::tunnel::{Stream, ask, assert_inside, ifindex};
use crate::lab::{HOST, Lab, at, wait};
use crate::probes::{self, Family};

/// Back-off is capped at 60 s; a handshake is given 15 s.
const PATIENCE: Duration = Duration::from_secs(100);

/// After the server died only handshake initiations leave, at most one in five seconds (whitepaper,
/// section 6.1: REKEY_TIMEOUT).
#[test]
fn a_dead_server_is_asked_slowly_and_found_again() {
    let lab = Lab::new();
    probes::control(&lab, Family::Ip);
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    lab.servers[0].kill();
    let died = SystemTime::now();
    let flood = Flood::start(&lab);
    let asked = || {
        let all = lab.sensor.handshakes();
        let mut asked: Vec<_> = all
            .iter()
            .filter(|h| h.message.kind == 1 && h.at > died)
            .collect();
        asked.sort_by_key(|h| h.at);
        asked.iter().map(|h| h.at).collect::<Vec<_>>()
    };
    wait("it asks four times", Duration::from_secs(120), || {
        (asked().len() >= 4).then_some(())
    });
    probes::fire(&lab, Family::Ip);
    for pair in asked().windows(2) {
        let gap = pair[1].duration_since(pair[0]).unwrap();
        assert!(
            gap > Duration::from_millis(4500),
            "asked again after {gap:?}"
        );
    }
    lab.servers[0].up();
    stream.echo(PATIENCE).unwrap();
    gateway.wait_connected();
    flood.goes_on(100);
    lab.sensor.verdict();
}

#[test]
fn a_connection_survives_an_outage_of_twenty_seconds() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let device = ifindex(&lab.ns, "app", "tun0");
    lab.servers[0].swallow(Swallow::Everything);
    let outage = Duration::from_secs(20);
    let answer = ask(&lab.ns, "app", at(HOST, 7), outage);
    assert_eq!(answer, None, "there is no outage");
    lab.servers[0].swallow(Swallow::Nothing);
    let took = stream.echo(PATIENCE).unwrap();
    println!("the connection went on {took:?} after the outage");
    assert_eq!(ifindex(&lab.ns, "app", "tun0"), device);
    gateway.wait_connected();
    lab.sensor.verdict();
}

#[test]
fn a_restarted_server_is_found_again() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    lab.servers[0].kill();
    lab.servers[0].up();
    let took = stream.echo(PATIENCE).unwrap();
    println!("the connection went on {took:?} after the restart");
    gateway.wait_connected();
    lab.sensor.verdict();
}

#[test]
fn the_next_server_is_tried_when_one_is_silent() {
    let lab = Lab::new();
    lab.servers[0].swallow(Swallow::Everything);
    let conf = Conf::new(&lab.keys, &[&lab.servers[0], &lab.servers[1]]);
    let flood = Flood::start(&lab);
    let gateway = lab.start(&conf);
    let second = lab.servers[1].endpoint;
    gateway.wait_for("it is at the second server", PATIENCE, |s| {
        s.state == State::Connected && s.endpoint == Some(second)
    });
    assert_inside(&lab.ns, 2);
    flood.goes_on(500);
    lab.sensor.verdict();
    let spans = lab.sensor.spans();
    let first = lab.servers[0].endpoint;
    assert!(
        spans[&first].1 <= spans[&second].0,
        "two servers at a time: {spans:?}"
    );
}

#[test]
fn the_next_server_is_tried_when_one_falls_silent() {
    let lab = Lab::new();
    let conf = Conf::new(&lab.keys, &[&lab.servers[0], &lab.servers[1]]);
    let gateway = lab.connect(&conf);
    assert_inside(&lab.ns, 1);
    lab.servers[0].swallow(Swallow::Everything);
    // Traffic is what shows that nobody answers.
    let _flood = Flood::start(&lab);
    gateway.wait_for("it is at the second server", PATIENCE, |s| {
        s.state == State::Connected && s.endpoint == Some(lab.servers[1].endpoint)
    });
    assert_inside(&lab.ns, 2);
    lab.sensor.verdict();
}

/// A server that moved is found by its name: it is looked up again, through the same narrow permission.
#[test]
fn a_silent_servers_name_is_looked_up_again() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    conf.peers[0].endpoint = "vpn.test:51820".into();
    lab.sensor.permit(permit_resolver);
    let gateway = lab.connect(&conf);
    let asked = lab.router.visits().len();
    assert!(asked > 0);
    lab.sensor.permit(|rules| rules.resolver_again = true);
    lab.servers[0].swallow(Swallow::Everything);
    let _flood = Flood::start(&lab);
    wait("the name is asked for again", PATIENCE, || {
        (lab.router.visits().len() > asked).then_some(())
    });
    lab.servers[0].swallow(Swallow::Nothing);
    gateway.wait_for("it is connected again", PATIENCE, |s| {
        s.state == State::Connected
    });
    assert_inside(&lab.ns, 1);
    lab.sensor.verdict();
}
