//! Sealing and opening one packet: what the data plane spends most of its time on.
#![allow(missing_docs)]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;

use boringtun::x25519;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vpngw::config::{PublicKey, Secret};
use vpngw::wireguard::PeerSetup;
use vpngw::wireguard::session::{OVERHEAD, Opened, PADDING, SMALLEST_BUFFER, Sealed, Session};

const MTU: usize = 1420;
const ROOM: usize = MTU + PADDING + OVERHEAD + SMALLEST_BUFFER;

fn session(own: u8, other: u8, now: Instant) -> Session {
    let key = x25519::StaticSecret::from([other; 32]);
    let peer = PeerSetup {
        private_key: Secret::new([own; 32]),
        public_key: PublicKey(x25519::PublicKey::from(&key).to_bytes()),
        preshared_key: None,
        keepalive: None,
        allowed_ips: Vec::new(),
    };
    Session::new(&peer, Ipv4Addr::LOCALHOST, now).expect("the system has random bytes")
}

/// Two sessions after a handshake.
fn connected(now: Instant) -> (Session, Session) {
    let (mut near, mut far) = (session(1, 2, now), session(2, 1, now));
    let (mut there, mut back) = ([0; ROOM], [0; ROOM]);
    let initiation = near.initiate(now, &mut there).expect("an initiation");
    let Opened::Reply(response) = far.open(now, &there[..initiation], &mut back) else {
        panic!("no response");
    };
    let Opened::Reply(keepalive) = near.open(now, &back[..response], &mut there) else {
        panic!("no keepalive");
    };
    far.open(now, &there[..keepalive], &mut back);
    (near, far)
}

fn benches(criterion: &mut Criterion) {
    let now = Instant::now();
    for len in [100, MTU] {
        let (mut near, mut far) = connected(now);
        let mut packet = [0x5a; MTU + PADDING];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        let (mut sealed, mut opened) = ([0; ROOM], [0; ROOM]);
        let mut group = criterion.benchmark_group(format!("{len} bytes"));
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function("seal", |bencher| {
            bencher.iter(|| near.seal(now, black_box(&mut packet), len, MTU, &mut sealed));
        });
        // A datagram is opened once only, so each must be sealed anew.
        group.bench_function("seal and open", |bencher| {
            bencher.iter(|| {
                let Sealed::Send(size) = near.seal(now, &mut packet, len, MTU, &mut sealed) else {
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
