//! The VPN server's address, which is outside the tunnel for one flow and for nothing else.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::lab::canary;
use crate::lab::flood::Flood;
use crate::lab::server::Swallow;

use crate::lab::tunnel::{Stream, ask, assert_inside};
use crate::lab::{ENDPOINT, LAN, Lab, at, wait};
use crate::probes::program::{Answer, Persona, Program};
use crate::probes::{self, Family};

const PATIENCE: Duration = Duration::from_secs(20);

/// Everybody may try to reach the server in clear, so that it, or who controls it, sees the user's address.
#[test]
fn mul_02_002_nobody_sends_cleartext_to_the_endpoint() {
    let lab = Lab::new();
    let mut able = Vec::new();
    for persona in Persona::JOINED {
        let mut program = Program::start(&lab.ns, persona);
        let mut names = Vec::new();
        for name in Family::Endpoint.names() {
            match program.fire(name, &canary::fresh()) {
                // Whoever may not even make the socket cannot send by it.
                Answer::Refused { errno, .. } if errno == libc::EPERM || errno == libc::EACCES => {}
                Answer::Sent(_) | Answer::Refused { .. } => names.push(name),
            }
        }
        probes::seen_without_a_gateway(&lab, &mut program, &names);
        able.push((persona, program, names));
    }
    let tried: usize = able.iter().map(|(_, _, names)| names.len()).sum();
    assert!(tried > 25, "{tried}");
    let mut all = |lab: &Lab| {
        let mut shots = Vec::new();
        for (persona, program, names) in &mut able {
            let fired = probes::shoot(lab, program, names.iter().copied());
            shots.extend(fired.into_iter().map(|shot| (*persona, shot)));
        }
        lab.sensor.drain();
        for (persona, shot) in shots {
            assert!(
                !shot.seen(lab),
                "leaked: {persona:?}, {}, {:?}",
                shot.name,
                shot.answer
            );
        }
        lab.sensor.verdict();
    };
    lab.servers[0].swallow(Swallow::Everything);
    let mut gateway = lab.start(&lab.conf());
    wait("a handshake is tried", PATIENCE, || {
        lab.sensor.handshakes().pop()
    });
    all(&lab);
    lab.servers[0].swallow(Swallow::Nothing);
    gateway.wait_for("it is connected", PATIENCE * 5, |status| status.ready());
    assert_inside(&lab.ns, 1);
    all(&lab);
    gateway.kill();
    all(&lab);
}

/// TunnelCrack, ServerIP: what programs send to the server's address goes out in clear, to any port.
#[test]
fn cve_2023_36671_the_servers_address_is_reached_through_the_tunnel() {
    let lab = Lab::new();
    let to = at(ENDPOINT, 7);
    let connect = || Stream::open(&lab.ns, "app", to, Duration::from_secs(5)).map(|s| s.greeting);
    assert_eq!(
        connect().ok().as_deref(),
        Some("inside1 172.30.0.2\n"),
        "the control"
    );
    let _gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    // Through the tunnel, and it works: being cut off would be the other half of the finding.
    assert_eq!(connect().ok().as_deref(), Some("inside1 10.64.0.2\n"));
    let other = at(ENDPOINT, 9);
    let _ = ask(&lab.ns, "app", other, Duration::from_millis(600));
    lab.sensor.verdict();
}

/// TunnelCrack, ServerIP, with a forged answer to the look-up of the server's name: the address of a host
/// that the user will want becomes the address that goes past the tunnel.
#[test]
fn cve_2023_36673_a_forged_address_of_the_server_takes_nothing_out_of_the_tunnel() {
    let lab = Lab::new();
    // This resolver says of every name that it is that host.
    let forged = Ipv4Addr::new(203, 0, 113, 10);
    probes::control(&lab, Family::Ip);
    let reach = |port| Stream::open(&lab.ns, "app", at(forged, port), Duration::from_secs(1));
    assert!(reach(7).is_ok(), "the control");
    let mut conf = lab.conf();
    conf.peers[0].endpoint = "vpn.test:51820".into();
    conf.peers[0].resolved = SocketAddrV4::new(forged, 51820);
    conf.toml = format!("[uplink]\nresolver = \"{LAN}\"");
    lab.sensor.permit(|rules| {
        rules.resolver = Some(SocketAddrV4::new(LAN, 53));
        rules.resolver_again = true;
        rules.arp.push(LAN);
    });
    let flood = Flood::start(&lab);
    let gateway = lab.start(&conf);
    wait("it tries the forged address", PATIENCE, || {
        let mut tried = lab.sensor.handshakes().into_iter();
        tried.find(|it| *it.message.remote.ip() == forged)
    });
    let before = lab.inet.visits().len();
    flood.goes_on(1000);
    probes::fire(&lab, Family::Ip);
    for port in [7, 443, 51820] {
        assert!(reach(port).is_err(), "port {port} of the forged address");
        let answer = ask(&lab.ns, "app", at(forged, port), Duration::from_secs(1));
        assert_eq!(answer, None);
    }
    assert!(
        !gateway.status().unwrap().ready(),
        "a handshake with somebody else"
    );
    assert_eq!(lab.inet.visits().len(), before);
    lab.sensor.verdict();
}

/// A computer is shut down while programs go on sending, again and again.
#[test]
fn mul22_02_nothing_leaves_while_it_shuts_down() {
    let lab = Lab::new();
    probes::control(&lab, Family::Packet);
    let flood = Flood::start(&lab);
    wait("without a gateway the flood is seen", PATIENCE, || {
        (lab.sensor.tally().before > 100).then_some(())
    });
    for round in 0..4 {
        let mut gateway = lab.connect(&lab.conf());
        assert_inside(&lab.ns, 1);
        if round % 2 == 0 {
            // As an init system does it: TERM to all, then KILL to all.
            let engine = gateway.engine();
            let _ = rustix::process::kill_process(engine, rustix::process::Signal::TERM);
        }
        assert!(gateway.stop().success());
        flood.goes_on(500);
        probes::fire(&lab, Family::Packet);
        gateway.kill();
        flood.goes_on(500);
    }
    lab.sensor.verdict();
}
