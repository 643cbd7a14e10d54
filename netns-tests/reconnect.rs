//! The server goes silent, comes back, or never was there.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use vpngw::control::api::{State, Status};

use crate::connect::permit_resolver;
use crate::lab::conf::Conf;
use crate::lab::flood::Flood;
use crate::lab::server::Swallow;
use crate::lab::tunnel::{Stream, ask, assert_inside, ifindex};
use crate::lab::{HOST, Lab, at, wait};
use crate::probes::{self, Family};

/// Back-off is capped at 60 s; a handshake is given 15 s.
const PATIENCE: Duration = Duration::from_secs(100);

/// After the server died only handshake initiations leave: one in two seconds while it may be alive, then at most one in
/// five (whitepaper, section 6.1: REKEY_TIMEOUT).
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
    // It is told apart from a bad line within 35 s.
    let noticed = Duration::from_secs(35);
    gateway.wait_for("it is noticed", noticed, |s| s.state == State::Connecting);
    let last = noticed + Duration::from_secs(5);
    let late = || asked().into_iter().filter(|at| *at > died + last);
    wait("it goes on asking", Duration::from_secs(120), || {
        (late().count() >= 4).then_some(())
    });
    probes::fire(&lab, Family::Ip);
    let gaps = |asked: Vec<SystemTime>, least: u64| {
        for pair in asked.windows(2) {
            let gap = pair[1].duration_since(pair[0]).unwrap();
            assert!(
                gap > Duration::from_millis(least),
                "asked again after {gap:?}"
            );
        }
    };
    gaps(asked(), 1900);
    gaps(late().collect(), 4500);
    lab.servers[0].up();
    stream.echo(PATIENCE).unwrap();
    gateway.wait_connected();
    flood.goes_on(100);
    lab.sensor.verdict();
}

/// An account that ended: handshakes are answered, and nothing is forwarded.
#[test]
fn a_server_that_forwards_nothing_gives_way_to_the_next() {
    let lab = Lab::new();
    let [first, second] = [&lab.servers[0], &lab.servers[1]];
    let gateway = lab.connect(&Conf::new(&lab.keys, &[first, second]));
    first.forwards(false);
    let _ping = Ping::start(&lab);
    let begun = Instant::now();
    let status = gateway.wait_for("the next server is of use", PATIENCE, |s| {
        s.ready() && s.endpoint == Some(second.endpoint)
    });
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(50), "{took:?}: {status:?}");
    assert!(took < Duration::from_secs(75), "{took:?}");
    assert_inside(&lab.ns, 2);
    lab.sensor.verdict();
}

/// There is no other server: health is red until something comes back.
#[test]
fn nothing_that_comes_back_is_not_healthy() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    lab.servers[0].forwards(false);
    let ping = Ping::start(&lab);
    gateway.wait_for("it is not healthy", PATIENCE, |s| s.nothing_returns);
    wait("it says so", PATIENCE, || {
        let said = gateway.ctl(&["healthcheck"]);
        let line = String::from_utf8_lossy(&said.stdout).into_owned();
        let red = said.status.code() == Some(1);
        (red && line.contains("nothing comes back through the tunnel")).then_some(())
    });
    drop(ping);
    lab.servers[0].forwards(true);
    // No program asks: the gateway does.
    gateway.wait_for("it is healthy again", PATIENCE, Status::ready);
    assert_inside(&lab.ns, 1);
    lab.sensor.verdict();
}

/// A program that sends and waits for answers.
struct Ping(Child);

impl Ping {
    fn start(lab: &Lab) -> Self {
        let mut command = Command::new("ping");
        command.args(["-q", "-i", "1", &HOST.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(lab.ns.start("app", &mut command))
    }
}

impl Drop for Ping {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
