//! What is accepted when it is read is not refused later, but for what only the uplink can show.

use std::net::SocketAddrV4;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config as Cases, RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::config::drawn::{Drawn, drawn};
use crate::config::{self, Config, Host};
use crate::net::Uplink;

/// How many configurations are drawn.
const DRAWN: usize = 4_000;

const UPLINKS: [(&str, &str); 6] = [
    ("eth0", "172.30.0.2/24"),
    ("eth0", "192.168.1.2/24"),
    ("eth0", "198.51.100.77/32"),
    ("wlan0", "10.0.0.5/8"),
    ("tun0", "172.30.0.2/24"),
    ("eth0", "127.0.0.5/8"),
];

/// Whether an error says what is wrong with the uplink, which no configuration knows.
fn is_of_the_uplink(error: &PolicyError) -> bool {
    match error {
        PolicyError::UplinkDevice(_)
        | PolicyError::UplinkAddress(..)
        | PolicyError::UplinkInTunnel(..)
        | PolicyError::LanOnUplink { .. } => true,
        PolicyError::Endpoint(_, why) | PolicyError::Resolver(_, why) => match why {
            Unfit::Own | Unfit::Edge => true,
            Unfit::NoHost(_) | Unfit::Inside(_) | Unfit::NoPort | Unfit::NoMark => false,
        },
        PolicyError::EndpointInLan { .. }
        | PolicyError::ResolverPort(_)
        | PolicyError::SealedUdp(_)
        | PolicyError::LanInTunnel { .. } => false,
    }
}

/// The holes that a gateway with this configuration opens, as far as it is known before a name is looked up.
fn holes(config: &Config) -> Vec<Holes> {
    let hole = |ip, port| Hole {
        mark: Fwmark(7),
        source_port: 40000,
        remote: SocketAddrV4::new(ip, port),
    };
    let mut all = vec![Holes::default()];
    let mut named = false;
    for peer in &config.peers {
        match peer.endpoint.host {
            Host::Address(ip) => all.push(Holes {
                endpoint: Some(hole(ip, peer.endpoint.port)),
                resolver: None,
            }),
            Host::Name(_) => named = true,
        }
    }
    let resolver = config.resolver.filter(|_| named);
    all.extend(resolver.map(|ip| Holes {
        endpoint: None,
        resolver: Some(hole(ip, 53)),
    }));
    all
}

fn each(mut look: impl FnMut(&Drawn)) {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Cases::default(), rng);
    for _ in 0..DRAWN {
        look(&drawn().new_tree(&mut runner).unwrap().current());
    }
}

#[test]
fn what_check_accepts_is_refused_only_because_of_the_uplink() {
    let (mut accepted, mut fits, mut refused) = (0, 0, 0);
    each(|drawn| {
        let Ok(loaded) = drawn.load(config::load) else {
            return;
        };
        accepted += 1;
        for (device, address) in UPLINKS {
            let uplink = Uplink {
                device: device.parse().unwrap(),
                address: address.parse().unwrap(),
                gateway: None,
            };
            for holes in holes(&loaded.config) {
                match Policy::of(&loaded.config, &uplink, holes) {
                    Ok(_) => fits += 1,
                    Err(error) => {
                        assert!(is_of_the_uplink(&error), "{error}\n{drawn:#?}");
                        refused += 1;
                    }
                }
            }
        }
    });
    // Neither side is empty.
    assert!(
        accepted > DRAWN / 10 && accepted < DRAWN / 10 * 9,
        "{accepted}"
    );
    assert!(fits > accepted && refused > accepted, "{fits} {refused}");
}

#[test]
fn check_and_the_sealed_policy_agree() {
    let (mut both, mut neither) = (0, 0);
    each(
        |drawn| match (drawn.load(config::load_sealed), drawn.load(config::load)) {
            (Ok(sealed), Ok(shared)) => {
                assert_eq!(sealed.config, shared.config);
                let policy = Policy::sealed(&sealed.config);
                assert_eq!(
                    policy,
                    Ok(Policy::without_uplink(&sealed.config)),
                    "{drawn:#?}"
                );
                both += 1;
            }
            (Err(_), Ok(shared)) => {
                let error = Policy::sealed(&shared.config).unwrap_err();
                assert!(
                    matches!(error, PolicyError::SealedUdp(_)),
                    "{error}\n{drawn:#?}"
                );
                neither += 1;
            }
            (Err(_), Err(_)) => {}
            (Ok(_), Err(error)) => panic!("sealed has what shared refuses: {error}\n{drawn:#?}"),
        },
    );
    assert!(
        both > DRAWN / 10 && neither > DRAWN / 100,
        "{both} {neither}"
    );
}
