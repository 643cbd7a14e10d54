//! Sealing and opening one packet: what the data plane spends most of its time on.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vpngw::wireguard::session::Sealed;

mod pair;

use pair::{MTU, ROOM, connected, packet};

fn benches(criterion: &mut Criterion) {
    let now = Instant::now();
    for len in [100, MTU] {
        let (mut near, mut far) = connected(now);
        let packet = packet(len);
        let (mut sealed, mut opened) = ([0; ROOM], [0; ROOM]);
        let mut group = criterion.benchmark_group(format!("{len} bytes"));
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function("seal", |bencher| {
            bencher.iter(|| near.seal(now, black_box(&packet), MTU, &mut sealed));
        });
        // A datagram is opened once only, so each must be sealed anew.
        group.bench_function("seal and open", |bencher| {
            bencher.iter(|| {
                let Sealed::Send(size) = near.seal(now, &packet, MTU, &mut sealed) else {
                    panic!("not sealed");
                };
                far.open(now, black_box(&sealed[..size]), &mut opened)
            });
        });
        group.finish();
    }
}

criterion_group!(session_benches, benches);
criterion_main!(session_benches);
