//! How long it takes to read a configuration: a wg-quick file by its number of peers, and everything
//! that a start reads.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vpngw::config::{Sources, load, wgquick};

const INTERFACE: &str = "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n\
    Address = 10.64.0.2/32\nDNS = 10.64.0.1\n";

const PEER: &str = "[Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n\
    PresharedKey = FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=\nPersistentKeepalive = 25\n\
    AllowedIPs = 0.0.0.0/0\nEndpoint = 203.0.113.7:51820\n";

const REFERENCE: &str = include_str!("../profiles/reference.toml");

fn file(peers: usize) -> String {
    let mut text = String::from(INTERFACE);
    for peer in 0..peers {
        let _ = writeln!(text, "# server {peer}\n{PEER}");
    }
    text
}

fn wg_quick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wg-quick");
    for peers in [1, 10, 100, 1000] {
        let text = file(peers);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_with_input(
            BenchmarkId::from_parameter(peers),
            &text,
            |bencher, text| {
                bencher.iter(|| wgquick::parse(Path::new("wg0.conf"), black_box(text)));
            },
        );
    }
    group.finish();
}

fn start(criterion: &mut Criterion) {
    let tunnel = file(1);
    let sources = Sources {
        file: Some("vpngw.toml".into()),
        wireguard: vec!["wg0.conf".into()],
        environment: [("VPNGW_LAN_INBOUND".into(), "192.168.1.0/24=tcp/8080".into())].into(),
        ..Sources::default()
    };
    let read = |path: &Path| {
        let toml = path
            .extension()
            .is_some_and(|extension| extension == "toml");
        Ok(if toml {
            REFERENCE.to_owned()
        } else {
            tunnel.clone()
        })
    };
    criterion.bench_function("load", |bencher| {
        bencher.iter(|| load(black_box(&sources), &read))
    });
}

criterion_group!(benches, wg_quick, start);
criterion_main!(benches);
