//! The decisions of the guard one by one, and in any order.

mod kernel;
mod orders;
mod single;

use std::time::Instant;

use super::*;
use crate::config::example;
use crate::net::beside::Link;
use crate::policy::Permit;

/// The example's server and the port of our socket.
const PORT: u16 = 40000;

fn uplink() -> Uplink {
    Uplink {
        device: "eth0".parse().unwrap(),
        address: "172.30.0.2/24".parse().unwrap(),
        gateway: Some("172.30.0.1".parse().unwrap()),
    }
}

/// With a second network, which the example's first exception names.
fn seen(uplink: Option<Uplink>) -> Seen {
    let links = vec![Link {
        device: "eth1".parse().unwrap(),
        address: "192.168.1.2/24".parse().unwrap(),
    }];
    Seen { uplink, links }
}

fn shared(now_uplink: Option<Uplink>) -> Guard {
    Guard::new(Start {
        config: example::config(),
        topology: Topology::Shared,
        former_resolver: None,
        seen: seen(now_uplink),
    })
}

fn sealed() -> Guard {
    let mut own = example::config();
    own.tunnel.addresses.clear();
    own.tunnel.dns = None;
    Guard::new(Start {
        config: own,
        topology: Topology::Sealed,
        former_resolver: None,
        seen: Seen::default(),
    })
}

/// The permission for the first peer of a configuration.
fn server(config: &Config) -> Permit {
    let endpoint = &config.peers[0].endpoint;
    let crate::config::Host::Address(ip) = endpoint.host else {
        panic!("the example's server is an address");
    };
    Permit::Endpoint {
        peer: 0,
        address: std::net::SocketAddrV4::new(ip, endpoint.port),
    }
}

/// A configuration whose server is another one.
fn elsewhere() -> Config {
    let mut config = example::config();
    config.peers[0].endpoint.port += 1;
    config
}

fn orders(doing: &[Do]) -> Vec<&Order> {
    let mut orders = Vec::new();
    for it in doing {
        if let Do::Enforce(order) = it {
            orders.push(order.as_ref());
        }
    }
    orders
}

fn answers(doing: &[Do]) -> Vec<Answer> {
    let mut answers = Vec::new();
    for it in doing {
        if let Do::Answer(answer) = it {
            answers.push(answer.clone());
        }
    }
    answers
}

fn confirm(guard: &mut Guard, doing: &[Do]) -> Vec<Do> {
    let number = orders(doing).last().expect("an order").number;
    let enforced = Enforced {
        number,
        routes: None,
        bare: Vec::new(),
    };
    guard.handle(Event::Enforced(enforced), Instant::now())
}

fn refuse(guard: &mut Guard, doing: &[Do]) -> Vec<Do> {
    let number = orders(doing).last().expect("an order").number;
    let refusal = Refusal::Refused("no memory".to_owned());
    guard.handle(Event::Refused { number, refusal }, Instant::now())
}

/// Asks for the way to the example's server.
fn ask(guard: &mut Guard, id: u64, now: Instant) -> Vec<Do> {
    let permit = server(guard.config());
    let port = Ok(PORT);
    guard.handle(Event::Asked { id, permit, port }, now)
}

/// A guard whose first order is in force, with the way to the server open.
fn open() -> Guard {
    let mut guard = shared(Some(uplink()));
    let now = Instant::now();
    let doing = guard.handle(Event::Look, now);
    confirm(&mut guard, &doing);
    let doing = ask(&mut guard, 1, now);
    let doing = confirm(&mut guard, &doing);
    assert!(matches!(
        answers(&doing)[..],
        [Answer::Granted { id: 1, .. }]
    ));
    guard
}

/// Whether a policy lets our own flow out.
fn is_open(policy: &Policy) -> bool {
    let uplink = policy.uplink.as_ref();
    uplink.is_some_and(|it| it.endpoint.is_some() || it.resolver.is_some())
}
