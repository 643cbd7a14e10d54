//! How long it takes to make, print and encode a ruleset: it happens at the first act of the process and at
//! each change.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use vpngw::config::{Inbound, Outbound};
use vpngw::net::{Fwmark, IfName};
use vpngw::policy::{Hole, Policy, TunnelPolicy, UplinkPolicy};
use vpngw::ruleset::{Hold, Kernel, Ruleset};

fn policy() -> Option<Policy> {
    let inbound = Inbound::new("192.168.1.0/24".parse().ok()?, "tcp/8080".parse().ok()?).ok()?;
    let outbound = Outbound::new("192.168.1.20".parse().ok()?, "tcp/445".parse().ok()?).ok()?;
    Some(Policy {
        uplink: Some(UplinkPolicy {
            device: "eth0".parse().ok()?,
            address: "172.30.0.2".parse().ok()?,
            endpoint: Some(Hole {
                mark: Fwmark(0x1234),
                source_port: 40000,
                remote: "198.51.100.10:51820".parse().ok()?,
            }),
            resolver: None,
            inbound: vec![inbound; 4],
            outbound: vec![outbound; 4],
        }),
        beside: Vec::new(),
        tunnel: Some(TunnelPolicy {
            device: "tun0".parse().ok()?,
            addresses: vec!["10.64.0.2/32".parse().ok()?],
            dns: vec!["10.64.0.1".parse().ok()?],
            private: Vec::new(),
            forward: vec![6881],
        }),
    })
}

fn ruleset(c: &mut Criterion) {
    let policy = policy().expect("every literal is valid");
    let devices: [IfName; 1] = ["eth0".parse().expect("a device name")];
    let bare = Kernel {
        log: false,
        reject: false,
        ..Kernel::FULL
    };
    c.bench_function("deny_all, encoded", |b| {
        b.iter(|| Ruleset::deny_all(black_box(&devices), bare).encode(Hold::Keep));
    });
    c.bench_function("policy to ruleset", |b| {
        b.iter(|| Ruleset::of(black_box(&policy), &devices, Kernel::FULL));
    });
    let connected = Ruleset::of(&policy, &devices, Kernel::FULL);
    c.bench_function("ruleset to netlink", |b| {
        b.iter(|| black_box(&connected).encode(Hold::Keep))
    });
    c.bench_function("ruleset to text", |b| {
        b.iter(|| black_box(&connected).to_string())
    });
}

criterion_group!(benches, ruleset);
criterion_main!(benches);
