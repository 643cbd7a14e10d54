//! As many LAN exceptions and servers as nobody has: a gateway starts with them, takes them by a reload, gives them to the
//! next engine, and undoes what others change as soon as with none.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use vpngw::config::PublicKey;

use crate::lab::conf::{Conf, Peer};
use crate::lab::sealed::Sealed;
use crate::lab::{Lab, wait};

/// How soon a route that leads out is undone, with thousands of exceptions as with none.
const BOUND: Duration = Duration::from_secs(1);
/// For the steps around it, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn exceptions(count: usize) -> String {
    let mut toml = "[lan]\ninbound = [\n".to_owned();
    for at in 0..count {
        let (high, low) = (at / 250, at % 250 + 1);
        writeln!(
            toml,
            "{{ from = \"172.31.{high}.{low}/32\", to = \"tcp/8080\" }},"
        )
        .unwrap();
    }
    toml + "]\n"
}

/// The server that answers, and others that are alternatives.
fn servers(conf: &mut Conf, count: u8) {
    let first = conf.peers[0].clone();
    conf.peers.extend((1..count).flat_map(|at| {
        let of = |half: u8| Peer {
            public_key: PublicKey([at, half].repeat(16).try_into().unwrap()).to_string(),
            endpoint: format!("203.0.113.{at}:{}", 51820 + u16::from(half)),
            ..first.clone()
        };
        [of(0), of(1)]
    }));
}

#[test]
fn ten_thousand_exceptions_start_are_reloaded_and_undone_as_soon() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    servers(&mut conf, 200);
    let begun = Instant::now();
    let gateway = lab.start(&conf);
    gateway.wait_connected();
    conf.toml = exceptions(10_000);
    let reloaded = Instant::now();
    gateway.reload(&conf);
    gateway.wait_for("they are in force", PATIENCE, |s| {
        s.lan.inbound.len() == 10_000
    });
    println!(
        "started in {:?}, reloaded in {:?}",
        reloaded - begun,
        reloaded.elapsed()
    );
    let engine = gateway.engine();
    kill_process(engine, Signal::KILL).unwrap();
    gateway.wait_for("the next engine has them", PATIENCE, |s| {
        s.ready() && s.lan.inbound.len() == 10_000
    });
    assert_ne!(gateway.engine(), engine);
    drop(gateway);
    let started = Instant::now();
    let gateway = lab.start(&conf);
    gateway.wait_for("it starts with them", PATIENCE, |s| {
        s.ready() && s.lan.inbound.len() == 10_000
    });
    println!("started with them in {:?}", started.elapsed());
    // One of them may meet other work of this machine.
    let mut took = [0, 1, 2, 3, 4].map(|round| pushed(&lab, &format!("203.0.113.{round}")));
    took.sort();
    println!("pushed routes stood for {took:?}");
    assert!(took[2] < BOUND, "{took:?}");
    lab.sensor.verdict();
}

/// Somebody adds a route by the uplink; how long it stands.
fn pushed(lab: &Lab, host: &str) -> Duration {
    let line = format!("ip route add {host} via 172.30.0.66 dev eth0 onlink");
    lab.app(&line);
    let start = Instant::now();
    wait(&line, PATIENCE, || {
        let found = lab.app(&format!("ip route show {host}"));
        found.is_empty().then_some(())
    });
    start.elapsed()
}

#[test]
fn ten_thousand_exceptions_are_agreed_on_in_the_sealed_topology() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    servers(&mut conf, 200);
    conf.toml = exceptions(10_000);
    let mut sealed = Sealed::new(&lab, &conf);
    sealed.permit("[lan]\ninbound = [{ from = \"172.31.0.0/16\", to = \"tcp/8080\" }]\n");
    sealed.start_warden(&[]);
    sealed.start_engine();
    let has = |count: usize| {
        wait("they are agreed on", PATIENCE, || {
            let status = sealed.status()?;
            (status.ready() && status.lan.inbound.len() == count).then_some(())
        });
    };
    has(10_000);
    // Confined by now, it has more to say than a packet holds once more.
    conf.toml = exceptions(9_999);
    sealed.configure(&conf);
    sealed.signal(sealed.engine(), Signal::HUP);
    has(9_999);
    lab.sensor.verdict();
}
