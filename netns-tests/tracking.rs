//! The table of connections, which an ordinary user can fill.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use vpngw::control::api::State;
use vpngw::ruleset::attribute::{put, put_nested};
use vpngw::sys::netlink::Netlink;

use crate::lab::gateway::{Gateway, PATIENCE};
use crate::lab::tunnel::{Stream, assert_inside};
use crate::lab::{HOST, Lab, at, wait};

/// What makes the kernel track connections in a namespace without our rules.
const TRACKED: &str = "table ip witness {\n chain output {\n type filter hook output priority 0;\n \
                       ct state new counter\n }\n}\n";

/// A number of this namespace's, or of the machine's.
fn number(lab: &Lab, name: &str) -> u32 {
    let path = format!("/proc/sys/net/netfilter/{name}");
    let text = lab.ns.enter("app", || fs::read_to_string(path).unwrap());
    text.trim().parse().unwrap()
}

/// The message that makes one lasting flow be in the table (IPCTNL_MSG_CT_NEW; linux/netfilter/nfnetlink_conntrack.h).
fn entry(buffer: &mut Vec<u8>, number: u32) {
    const REQUEST_CREATE: u16 = 0x401;
    /// `IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED` (linux/netfilter/nf_conntrack_common.h).
    const ASSURED: u32 = 0x2 | 0x4 | 0x8;
    let ends = [
        (
            Ipv4Addr::from(0x7f01_0000 + number / 50_000),
            10_000 + (number % 50_000) as u16,
        ),
        (Ipv4Addr::LOCALHOST, 7777),
    ];
    let start = buffer.len();
    buffer.extend([0; 4]);
    buffer.extend((1_u16 << 8).to_ne_bytes());
    buffer.extend(REQUEST_CREATE.to_ne_bytes());
    buffer.extend([0; 8]);
    buffer.extend([2, 0, 0, 0]); // AF_INET
    for (kind, [from, to]) in [(1, ends), (2, [ends[1], ends[0]])] {
        put_nested(buffer, kind, |tuple| {
            put_nested(tuple, 1, |ip| {
                put(ip, 1, &from.0.octets());
                put(ip, 2, &to.0.octets());
            });
            put_nested(tuple, 2, |proto| {
                put(proto, 1, &[17]); // UDP
                put(proto, 2, &from.1.to_be_bytes());
                put(proto, 3, &to.1.to_be_bytes());
            });
        });
    }
    put(buffer, 3, &ASSURED.to_be_bytes());
    put(buffer, 7, &600_u32.to_be_bytes()); // seconds
    let length = (buffer.len() - start) as u32;
    buffer[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

/// Fills the table, as a flood would in ten seconds.
fn fill(lab: &Lab, most: u32) {
    lab.ns.enter("app", || {
        let mut netlink = Netlink::open(12).unwrap();
        for first in (0..most + 2_000).step_by(500) {
            let mut messages = Vec::new();
            (first..first + 500).for_each(|number| entry(&mut messages, number));
            netlink.send(&messages).unwrap();
            // Only errors are answered: there is no room.
            while netlink.receive().is_ok() {}
        }
    });
}

/// Makes so many flows from one socket to another, each answered, so that the kernel takes them for lasting: the
/// addresses of loopback are as many as one likes.
fn flows(lab: &Lab, count: u32) {
    lab.ns.enter("app", || {
        let asks = UdpSocket::bind("127.0.0.1:7777").unwrap();
        let quick = Some(Duration::from_secs(5));
        asks.set_read_timeout(quick).unwrap();
        for n in 0..count {
            let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + n % 65_536);
            let answers = 10_000 + (n / 65_536) as u16;
            // One socket for each flow is too slow; the answer comes from a socket of the address's own.
            let other = UdpSocket::bind(SocketAddrV4::new(address, answers)).unwrap();
            other.set_read_timeout(quick).unwrap();
            let mut buffer = [0; 8];
            asks.send_to(b"?", (address, answers)).unwrap();
            other.recv_from(&mut buffer).unwrap();
            other.send_to(b"!", "127.0.0.1:7777").unwrap();
            asks.recv_from(&mut buffer).unwrap();
        }
    });
}

/// Whoever may send over loopback, which is everybody, takes no room from others.
#[test]
fn flows_over_loopback_take_no_room_in_the_table_of_connections() {
    let count = 3_000;
    let lab = Lab::new();
    lab.ns.feed("app", "nft -f -", TRACKED);
    let before = number(&lab, "nf_conntrack_count");
    flows(&lab, count);
    let tracked = number(&lab, "nf_conntrack_count") - before;
    assert!(tracked >= count, "the control: {tracked}");
    let gateway = lab.connect(&lab.conf());
    let before = number(&lab, "nf_conntrack_count");
    flows(&lab, count);
    let more = number(&lab, "nf_conntrack_count").saturating_sub(before);
    assert!(more < 100, "{more} of {count} flows are in the table");
    // Nor is our own flow, and what programs do through the tunnel is.
    let listed = lab.ns.enter("app", || {
        fs::read_to_string("/proc/thread-self/net/nf_conntrack")
    });
    if let Ok(listed) = listed {
        assert!(!listed.contains("dport=51820"), "{listed}");
    }
    assert_inside(&lab.ns, 1);
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    stream.echo(PATIENCE).unwrap();
    assert_eq!(gateway.status().unwrap().state, State::Connected);
    lab.sensor.verdict();
}

/// However the table came to be full: the gateway connects, and an engine that was killed is back at once.
#[test]
fn a_full_table_of_connections_does_not_keep_the_gateway_from_connecting() {
    let lab = Lab::new();
    lab.ns.feed("app", "nft -f -", TRACKED);
    let most = number(&lab, "nf_conntrack_max");
    fill(&lab, most);
    assert!(number(&lab, "nf_conntrack_count") >= most, "the control");
    let refused = lab.ns.enter("app", || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"?", "172.30.0.50:7").is_err()
    });
    assert!(refused, "the control: a flow that is tracked finds no room");
    let gateway = lab.connect(&lab.conf());
    // One of them may meet other work of this machine.
    let mut took = [(); 3].map(|()| connects_again(&gateway));
    took.sort();
    println!("connected again after {took:?}");
    // A tracked flow takes 20 s.
    assert!(took[1] < Duration::from_secs(2), "{took:?}");
    assert!(
        number(&lab, "nf_conntrack_count") >= most * 9 / 10,
        "it is still full"
    );
    lab.sensor.verdict();
}

/// Kills the engine; how long it takes the next one to connect.
fn connects_again(gateway: &Gateway) -> Duration {
    kill_process(gateway.engine(), Signal::KILL).unwrap();
    let killed = Instant::now();
    wait("another engine connects", PATIENCE, || {
        let status = gateway.status()?;
        (status.state == State::Connected
            && status
                .handshake_age_seconds
                .is_some_and(|age| age < killed.elapsed().as_secs_f64()))
        .then_some(())
    });
    killed.elapsed()
}
