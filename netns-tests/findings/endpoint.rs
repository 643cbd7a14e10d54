//! The VPN server's address, which is outside the tunnel for one flow and for nothing else.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::lab::canary::{self, Canary};
use crate::lab::flood::Flood;
use crate::lab::server::Swallow;

use crate::lab::tunnel::{Stream, ask, assert_inside};
use crate::lab::{LAN, Lab, at, wait};
use crate::probes::{self, Probe, endpoint, ip, packet};

const PATIENCE: Duration = Duration::from_secs(20);

/// Who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Persona {
    Nobody,
    /// Root with the capabilities that Docker gives (moby, oci/caps/defaults.go) that matter here.
    Docker,
    DockerWithoutRaw,
    DockerWithNetAdmin,
    RootWithoutCapabilities,
}

const PERSONAS: [Persona; 5] = [
    Persona::Nobody,
    Persona::Docker,
    Persona::DockerWithoutRaw,
    Persona::DockerWithNetAdmin,
    Persona::RootWithoutCapabilities,
];

impl Persona {
    fn capabilities(self) -> CapabilitySet {
        let (bind, raw, admin) = (
            CapabilitySet::NET_BIND_SERVICE,
            CapabilitySet::NET_RAW,
            CapabilitySet::NET_ADMIN,
        );
        match self {
            Self::Nobody | Self::RootWithoutCapabilities => CapabilitySet::empty(),
            Self::Docker => bind | raw,
            Self::DockerWithoutRaw => bind,
            Self::DockerWithNetAdmin => bind | raw | admin,
        }
    }

    /// Makes the calling thread this one, for good.
    fn become_it(self) {
        if self == Self::Nobody {
            let (user, group) = (Uid::from_raw(65534), Gid::from_raw(65534));
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(group, group, group).unwrap();
            set_thread_res_uid(user, user, user).unwrap();
        }
        let sets = CapabilitySets {
            effective: self.capabilities(),
            permitted: self.capabilities(),
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, sets).unwrap();
        assert_eq!(capabilities(None).unwrap().effective, self.capabilities());
    }

    /// Fires the probe as this one.
    fn fires(self, lab: &Lab, probe: &Probe, token: &Canary) -> Shot {
        lab.ns.enter("app", || {
            self.become_it();
            match (probe.send)(token) {
                Ok(flow) => Shot::Sent(flow),
                Err(why) => Shot::Failed(why.kind()),
            }
        })
    }
}

#[derive(Debug)]
enum Shot {
    Sent(Option<crate::lab::classify::Flow>),
    Failed(ErrorKind),
}

fn seen(lab: &Lab, token: &Canary, shot: &Shot) -> bool {
    let flow = match shot {
        Shot::Sent(flow) => *flow,
        Shot::Failed(_) => None,
    };
    lab.sensor.saw(token) || flow.is_some_and(|flow| lab.sensor.saw_flow(&flow))
}

/// Everybody may try to reach the server in clear, so that it, or who controls it, sees the user's address.
#[test]
fn mul_02_002_nobody_sends_cleartext_to_the_endpoint() {
    let lab = Lab::new();
    let mut able = Vec::new();
    for persona in PERSONAS {
        for probe in endpoint::PROBES {
            let needs_raw = probe.name.contains("ICMP") || probe.name.contains("raw");
            if needs_raw && !persona.capabilities().contains(CapabilitySet::NET_RAW) {
                let shot = persona.fires(&lab, probe, &canary::fresh());
                assert!(
                    matches!(shot, Shot::Failed(ErrorKind::PermissionDenied)),
                    "{persona:?}: {}",
                    probe.name
                );
                continue;
            }
            wait(
                &format!("without a gateway it is seen: {}", probe.name),
                PATIENCE,
                || {
                    let token = canary::fresh();
                    let shot = persona.fires(&lab, probe, &token);
                    lab.sensor.drain();
                    seen(&lab, &token, &shot).then_some(())
                },
            );
            able.push((persona, probe));
        }
    }
    assert!(able.len() > 25, "{}", able.len());
    let all = |lab: &Lab| {
        let shots: Vec<_> = able
            .iter()
            .map(|(persona, probe)| {
                let token = canary::fresh();
                let shot = persona.fires(lab, probe, &token);
                (persona, probe.name, token, shot)
            })
            .collect();
        lab.sensor.drain();
        for (persona, name, token, shot) in shots {
            assert!(
                !seen(lab, &token, &shot),
                "leaked: {persona:?}, {name}, {shot:?}"
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
    let to = at(endpoint::ENDPOINT, 7);
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
    let other = at(endpoint::ENDPOINT, 9);
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
    probes::control(&lab, ip::PROBES);
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
    let flood = Flood::start(&lab.ns);
    let gateway = lab.start(&conf);
    wait("it tries the forged address", PATIENCE, || {
        let mut tried = lab.sensor.handshakes().into_iter();
        tried.find(|it| *it.message.remote.ip() == forged)
    });
    let before = lab.inet.visits().len();
    flood.goes_on(1000);
    probes::fire(&lab, ip::PROBES);
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
    probes::control(&lab, packet::PROBES);
    let flood = Flood::start(&lab.ns);
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
        probes::fire(&lab, packet::PROBES);
        gateway.kill();
        flood.goes_on(500);
    }
    lab.sensor.verdict();
}
