//! The lab itself: what the tests rely on is there, and the sensor sees what it must.

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::lab::server::wait_for_uapi;
use crate::lab::tunnel::{ask, assert_inside};
use crate::lab::{HOST, LISTEN, Lab, TUNNEL, at};
use crate::probes::{self, Family};

#[test]
fn the_lab_has_an_internet() {
    let lab = Lab::new();
    let answer = ask(&lab.ns, "app", at(HOST, 7), Duration::from_secs(5));
    assert_eq!(answer.as_deref(), Some("outside 172.30.0.2 hello"));
    lab.sensor.drain();
    assert!(lab.sensor.tally().frames > 0);
}

#[test]
#[should_panic(expected = "leaked")]
fn the_sensor_fails_a_test_that_leaks() {
    let lab = Lab::new();
    lab.sensor.arm(SystemTime::now());
    ask(&lab.ns, "app", at(HOST, 7), Duration::from_secs(5)).unwrap();
    lab.sensor.verdict();
}

/// A plain client without any kill switch: its handshake and data pass, and nothing else was sent.
#[test]
fn the_sensor_lets_wireguard_pass() {
    let lab = Lab::new();
    let endpoint = lab.servers[0].endpoint;
    lab.sensor
        .permit(|rules| rules.endpoints = vec![(endpoint, Some(LISTEN))]);
    lab.ns.enter("app", || {
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    });
    lab.app(&format!("ip route add {} via 172.30.0.1", endpoint.ip()));
    lab.sensor.arm(SystemTime::now());
    plain_client(&lab);
    assert_inside(&lab.ns, 1);
    let tally = lab.sensor.verdict();
    assert!(
        tally.wireguard >= 2 && lab.sensor.data_messages() > 0,
        "{tally}"
    );
    assert!(lab.servers[0].last_handshake() > 0);
}

fn plain_client(lab: &Lab) {
    let mut command = Command::new("wireguard-go");
    command
        .args(["-f", "plain0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut child = lab.ns.start("app", command.stderr(Stdio::null()));
    wait_for_uapi("plain0");
    let key = lab.folder.path().join("plain.key");
    std::fs::write(&key, &lab.keys.private).unwrap();
    let server = &lab.servers[0];
    lab.app(&format!(
        "wg set plain0 listen-port {LISTEN} private-key {} peer {} allowed-ips 0.0.0.0/0 endpoint {}",
        key.display(),
        server.keys.public,
        server.endpoint
    ));
    lab.app(&format!("ip addr add {TUNNEL}/24 dev plain0"));
    lab.app("ip link set plain0 up");
    lab.app("ip route replace default dev plain0");
    // Ends with the namespace; waited for so that nothing is left behind.
    std::thread::spawn(move || child.wait());
}

#[test]
fn every_probe_is_seen_without_a_gateway() {
    let lab = Lab::new();
    for family in Family::ALL {
        println!("{family:?}:");
        probes::control(&lab, family);
    }
}
