//! The hole for the VPN server is for the gateway's own socket and for WireGuard, for nobody and
//! nothing else.

use std::time::Duration;

use crate::lab::server::Swallow;
use crate::lab::tunnel::{ask, assert_inside};
use crate::lab::{Lab, at, wait};
use crate::probes::{self, Family};

#[test]
fn nobody_else_reaches_the_endpoint_while_connected() {
    let lab = Lab::new();
    probes::control(&lab, Family::Endpoint);
    let _gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    probes::fire(&lab, Family::Endpoint);
    assert_inside(&lab.ns, 1);
    probes::fire(&lab, Family::Endpoint);
}

#[test]
fn nobody_else_reaches_the_endpoint_while_connecting() {
    let lab = Lab::new();
    probes::control(&lab, Family::Endpoint);
    lab.servers[0].swallow(Swallow::Everything);
    let _gateway = lab.start(&lab.conf());
    wait("a handshake is tried", Duration::from_secs(30), || {
        lab.sensor.handshakes().pop()
    });
    probes::fire(&lab, Family::Endpoint);
}

/// An authenticated message from elsewhere does not move the endpoint.
#[test]
fn the_endpoint_does_not_roam() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    // The server's answers come from another port from now on, as after a rebinding NAT.
    lab.servers[0].run("wg set wg1 listen-port 51821");
    let _ = ask(
        &lab.ns,
        "app",
        at(crate::lab::HOST, 7),
        Duration::from_secs(2),
    );
    let status = gateway.status().unwrap();
    assert_eq!(status.endpoint, Some(lab.servers[0].endpoint));
    lab.servers[0].run("wg set wg1 listen-port 51820");
    assert_inside(&lab.ns, 1);
    lab.sensor.verdict();
}
