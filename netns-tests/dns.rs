//! Names are asked of the tunnel's resolver or not at all.

use std::net::UdpSocket;
use std::time::Duration;

use crate::lab::canary::{self, Canary};
use crate::lab::services::{Service, Services};
use crate::lab::tunnel::resolves;
use crate::lab::{HOST, INNER, Lab, ONES, at, settled, wait};
use crate::probes::{self, Family};

#[test]
fn nobody_else_is_asked_for_names() {
    let lab = Lab::new();
    probes::control(&lab, Family::Dns);
    let outside = || {
        (
            lab.inet.visits().len(),
            lab.lan.visits().len(),
            lab.router.visits().len(),
        )
    };
    let before = settled(outside);
    let _gateway = lab.connect(&lab.conf());
    probes::fire(&lab, Family::Dns);
    let answer = lab.ns.run("app", "getent ahostsv4 www.example.org");
    assert!(answer.starts_with(&HOST.to_string()), "{answer}");
    assert_eq!(outside(), before);
    for visit in lab.servers[0].services.visits() {
        assert_ne!(
            visit.service,
            at(ONES, 53),
            "a resolver that is not ours, in the tunnel"
        );
    }
    lab.sensor.verdict();
}

#[test]
fn a_resolver_in_the_tunnel_that_is_not_ours_is_not_asked() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    conf.dns = ONES.to_string();
    let gateway = lab.connect(&conf);
    let patience = Duration::from_secs(20);
    assert!(resolves(&lab.ns, at(ONES, 53), patience), "the control");
    drop(gateway);
    let _gateway = lab.connect(&lab.conf());
    let before = lab.servers[0].services.visits().len();
    assert!(resolves(&lab.ns, at(INNER, 53), patience));
    assert!(!resolves(&lab.ns, at(ONES, 53), Duration::from_secs(2)));
    let visits = lab.servers[0].services.visits();
    assert!(visits[before..].iter().all(|v| v.service != at(ONES, 53)));
    lab.sensor.verdict();
}

/// Docker's resolver listens inside the namespace, at 127.0.0.11 behind a translated port, and asks
/// from the host. Nothing of that crosses the uplink, so the witness is the resolver itself.
#[test]
fn dockers_resolver_is_not_asked() {
    let lab = Lab::new();
    let docker = Services::start(
        &lab.ns,
        "app",
        "docker",
        vec![
            Service::Udp("127.0.0.11:40053".parse().unwrap()),
            Service::Tcp("127.0.0.11:40053".parse().unwrap()),
        ],
    );
    lab.ns.feed("app", "nft -f -", DOCKER);
    let token = canary::fresh();
    wait(
        "without a gateway it is asked",
        Duration::from_secs(20),
        || {
            tell(&lab, &token);
            heard(&docker, &token).then_some(())
        },
    );
    let connects = || {
        lab.ns.enter("app", || {
            let to = "127.0.0.11:53".parse().unwrap();
            std::net::TcpStream::connect_timeout(&to, Duration::from_secs(2)).is_ok()
        })
    };
    assert!(connects(), "the control");

    let _gateway = lab.connect(&lab.conf());
    assert!(!connects());
    let token = canary::fresh();
    for _ in 0..20 {
        tell(&lab, &token);
    }
    lab.sensor.verdict();
    assert!(!heard(&docker, &token), "Docker's resolver was asked");
    let rules = lab.app("nft list ruleset");
    assert!(
        rules.contains("table ip docker"),
        "somebody else's table is gone:\n{rules}"
    );
}

fn tell(lab: &Lab, token: &Canary) {
    lab.ns.enter("app", || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let _ = socket.send_to(token, "127.0.0.11:53");
    });
}

fn heard(docker: &Services, token: &Canary) -> bool {
    docker.visits().iter().any(|visit| visit.bytes == token)
}

const DOCKER: &str = "\
table ip docker {
    chain output {
        type nat hook output priority -100; policy accept;
        ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40053
        ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:40053
    }
}
";
