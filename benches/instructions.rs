//! Work for callgrind to count, in packets. `scripts/bench --instructions` runs each kind twice with different
//! numbers; the difference is the work itself, whatever the machine's mood. Without words, or with those
//! that cargo adds, it does a little of each.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    reason = "parts of the data plane, as they are"
)]

use std::env;
use std::hint::black_box;
use std::time::Instant;

use vpngw::policy::{self, IntoTunnel, TunnelPolicy};
use vpngw::wireguard::session::{OVERHEAD, Sealed};

#[path = "../src/wireguard/admit.rs"]
mod admit;
#[path = "../src/wireguard/checksum.rs"]
mod checksum;
#[path = "../src/wireguard/coalesce.rs"]
mod coalesce;
#[path = "../src/wireguard/flow.rs"]
mod flow;
#[path = "../src/wireguard/header.rs"]
mod header;
#[path = "../src/wireguard/packets.rs"]
mod packets;
mod pair;
#[path = "../src/wireguard/split.rs"]
mod split;

mod counters {
    pub use vpngw::wireguard::DropReason;
}

mod session {
    pub use vpngw::wireguard::session::OVERHEAD;
}

use admit::admit;
use coalesce::Coalescer;
use flow::Joins;
use header::{Protocol, Virtio};
use packets::Packet;
use pair::{MTU, ROOM, connected, packet};
use split::Segments;

/// Payload of a TCP segment with timestamps, and of a datagram, at that MTU.
const SEGMENT: usize = 1368;
const DATAGRAM: usize = 1392;
/// Packets of one superpacket.
const BURST: usize = 40;

/// A kind of work: its name, and what does it to so many packets.
type Work = (&'static str, fn(usize));

const ALL: [Work; 9] = [
    ("admit", judge),
    ("seal-100", |packets| seal(packets, 100)),
    ("seal-1420", |packets| seal(packets, MTU)),
    ("open-100", |packets| open(packets, 100)),
    ("open-1420", |packets| open(packets, MTU)),
    ("split-tcp", |packets| split(packets, Protocol::Tcp)),
    ("split-udp", |packets| split(packets, Protocol::Udp)),
    ("coalesce-tcp", |packets| join(packets, Protocol::Tcp)),
    ("coalesce-udp", |packets| join(packets, Protocol::Udp)),
];

fn main() {
    let words: Vec<_> = env::args().skip(1).collect();
    let packets = words.get(1).and_then(|word| word.parse().ok());
    for (name, work) in ALL {
        let named = words.first().is_some_and(|word| word == name);
        if named || packets.is_none() {
            work(packets.unwrap_or(BURST));
        }
    }
}

fn seal(packets: usize, len: usize) {
    let now = Instant::now();
    let (mut near, _far) = connected(now);
    let (packet, mut sealed) = (packet(len), [0; ROOM]);
    for _ in 0..packets {
        near.seal(now, black_box(&packet), MTU, &mut sealed);
    }
}

/// What the policy costs: once a packet, or a superpacket.
fn judge(packets: usize) {
    let policy = TunnelPolicy {
        device: "tun0".parse().expect("a device name"),
        addresses: vec!["10.0.0.1/32".parse().expect("an address")],
        dns: vec!["10.64.0.1".parse().expect("an address")],
        private: vec!["10.0.0.0/24".parse().expect("a network")],
        forward: Vec::new(),
    };
    let (policy, packet) = (IntoTunnel::new(&policy), one(Protocol::Tcp, 0, SEGMENT));
    for _ in 0..packets {
        let admitted = admit(black_box(&policy), black_box(&packet));
        assert!(black_box(admitted).is_ok(), "the policy permits it");
    }
}

/// Sealing included: the script takes it away again.
fn open(packets: usize, len: usize) {
    let now = Instant::now();
    let (mut near, mut far) = connected(now);
    let (packet, mut sealed, mut opened) = (packet(len), [0; ROOM], [0; ROOM]);
    for _ in 0..packets {
        let Sealed::Send(size) = near.seal(now, &packet, MTU, &mut sealed) else {
            panic!("not sealed");
        };
        far.open(now, black_box(&sealed[..size]), &mut opened);
    }
}

fn payload(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => SEGMENT,
        Protocol::Udp => DATAGRAM,
    }
}

fn one(protocol: Protocol, nth: usize, len: usize) -> Vec<u8> {
    match protocol {
        Protocol::Tcp => Packet::tcp((nth * SEGMENT) as u32, len).build(),
        Protocol::Udp => Packet::udp(nth as u16, len).build(),
    }
}

fn split(packets: usize, protocol: Protocol) {
    let size = payload(protocol);
    let superpacket = one(protocol, 0, BURST * size);
    let mut work = superpacket.clone();
    let virtio = Virtio {
        segments: Some((protocol, size as u16)),
        checksum: Some((20, protocol.checksum_offset() as u16)),
        header_len: 0,
    };
    for _ in 0..packets.div_ceil(BURST) {
        // Headers stand over the ends of payloads afterwards, but the first one is whole again.
        work[..60].copy_from_slice(&superpacket[..60]);
        let Ok(mut segments) = Segments::new(virtio, black_box(&mut work)) else {
            panic!("malformed");
        };
        while let Some(range) = segments.next(&mut work) {
            black_box(range);
        }
    }
}

fn join(packets: usize, protocol: Protocol) {
    let burst: Vec<_> = (0..BURST)
        .map(|nth| one(protocol, nth, payload(protocol)))
        .collect();
    let mut coalescer = Coalescer::new(Joins {
        tcp: true,
        udp: true,
    });
    let mut write = |packet: &mut [u8]| {
        black_box(packet);
    };
    for _ in 0..packets.div_ceil(BURST) {
        for packet in &burst {
            // The copy stands for opening, which writes there too.
            let slot = coalescer.slot(packet.len() + OVERHEAD, &mut write);
            slot[..packet.len()].copy_from_slice(packet);
            coalescer.accept(packet.len(), &mut write);
        }
        coalescer.flush(&mut write);
    }
}
