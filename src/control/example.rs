//! Statuses for tests: one of each kind.

use super::api::{
    Dns, Ipv6, KillSwitch, Lan, Leaks, Line, Report, State, Status, Topology, Tunnel,
};
use crate::config::{Offload, PublicKey, example};
use crate::gateway::BlockReason;
use crate::leak::evidence::{Evidence, Found, Sensor};

pub(crate) fn all() -> [Status; 5] {
    [
        arming(),
        connecting(),
        connected(),
        blocked_by_operator(),
        blocked_by_leak(),
    ]
}

pub(crate) fn connected() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        topology: Topology::Shared,
        state: State::Connected,
        reason: String::new(),
        blocked_by: None,
        nothing_returns: false,
        since: "2026-11-24T06:02:11Z".to_owned(),
        since_seconds: 8_042.3,
        endpoint: Some("198.51.100.10:51820".parse().unwrap()),
        peer: Some("se-sto-wg-001".to_owned()),
        public_key: Some(PublicKey([7; 32])),
        handshake_age_seconds: Some(48.2),
        rx_bytes: 13_314_398_617,
        tx_bytes: 2_254_857_830,
        rx_bits_per_second: 94_120_000.0,
        tx_bits_per_second: 11_803_000.0,
        kill_switch: KillSwitch {
            armed: true,
            unconfirmed_seconds: None,
            armed_in_microseconds: 3184,
            raw_frames: true,
            lacks: Vec::new(),
            blocked_packets: 1284,
            blocked_by_reason: [("dns", 1031), ("ipv6", 201), ("private", 40), ("other", 12)]
                .map(|(reason, packets)| (reason.to_owned(), packets))
                .into(),
        },
        leaks: Leaks {
            watched: true,
            detected: 0,
            last: None,
            accounted: true,
            not_accounted: None,
            proof_age_seconds: Some(31.4),
            found: Vec::new(),
        },
        lan: Lan {
            inbound: vec![example::inbound("192.168.1.0/24", "tcp/8080")],
            outbound: vec![example::outbound("192.168.1.20", "tcp/445")],
        },
        ipv6: Ipv6::Off,
        dns: Dns {
            servers: vec!["10.64.0.1".parse().unwrap()],
            resolv_conf: true,
            problem: None,
        },
        tunnel: Tunnel {
            device: "tun0".parse().unwrap(),
            address: vec!["10.64.0.2/32".parse().unwrap()],
            mtu: 1420,
            offload: Offload::Auto,
            forward: vec![6881],
        },
        unheard: Vec::new(),
    }
}

pub(crate) fn connecting() -> Status {
    Status {
        state: State::Connecting,
        reason: "no answer from se-sto-wg-001 for 15 s; trying se-got-wg-002".to_owned(),
        since: "2026-11-24T08:15:55Z".to_owned(),
        since_seconds: 18.0,
        endpoint: Some("203.0.113.77:51820".parse().unwrap()),
        peer: Some("se-got-wg-002".to_owned()),
        handshake_age_seconds: None,
        rx_bits_per_second: 0.0,
        tx_bits_per_second: 0.0,
        ..connected()
    }
}

pub(crate) fn arming() -> Status {
    let mut status = Status {
        state: State::Arming,
        reason: "waiting for the kernel to confirm the rules".to_owned(),
        endpoint: None,
        peer: None,
        public_key: None,
        ..connecting()
    };
    status.kill_switch.armed = false;
    status.ipv6 = Ipv6::Unknown;
    status
}

pub(crate) fn blocked_by_operator() -> Status {
    Status {
        state: State::Blocked,
        reason: BlockReason::Operator.to_string(),
        blocked_by: Some(BlockReason::Operator),
        since: "2026-11-24T08:10:00Z".to_owned(),
        since_seconds: 373.0,
        handshake_age_seconds: None,
        rx_bits_per_second: 0.0,
        tx_bits_per_second: 0.0,
        ..connected()
    }
}

pub(crate) fn blocked_by_leak() -> Status {
    let what = "eth0 udp 172.30.0.2:51413 > 203.0.113.9:6881, 134 bytes, 8:12:30 UTC";
    let reason = BlockReason::Leak(what.to_owned());
    let mut status = Status {
        reason: reason.to_string(),
        blocked_by: Some(reason),
        ..blocked_by_operator()
    };
    status.leaks = Leaks {
        watched: true,
        detected: 1,
        last: Some(what.to_owned()),
        accounted: false,
        proof_age_seconds: None,
        not_accounted: Some("eth0: it has a queue (fq_codel)".to_owned()),
        found: vec![Found {
            sensor: Sensor::Frame,
            kind: "udp".to_owned(),
            leaked: true,
            count: 1,
        }],
    };
    status.kill_switch.raw_frames = false;
    status.ipv6 = Ipv6::Dropped;
    status.dns.resolv_conf = false;
    status.dns.problem = Some("/etc/resolv.conf is read-only".to_owned());
    status
}

pub(crate) fn evidence() -> Vec<Evidence> {
    let what = "udp 172.30.0.2:51413 > 203.0.113.9:6881 by eth0";
    let leak = Evidence::new(1_795_507_199_000, Sensor::Frame, "udp", what);
    vec![leak.with_frame(&[0x45, 0])]
}

/// What a torrent client, a resolver and a raw socket tried.
pub(crate) fn stopped() -> Report {
    let line = |reason: &str, protocol: &str, to: Option<&str>, port, uid, packets| Line {
        reason: reason.to_owned(),
        protocol: protocol.to_owned(),
        destination: to.map(|ip| ip.parse().unwrap()),
        from: None,
        port,
        uid,
        packets,
        first_seconds_ago: 8042.5,
        last_seconds_ago: packets as f64 / 4.0,
        other_destinations: None,
        more: false,
        own: false,
    };
    let (client, root) = (Some(1000), Some(0));
    Report {
        problem: None,
        omitted: 0,
        lost: 1208,
        lines: vec![
            line("other", "udp", Some("203.0.113.9"), Some(6881), client, 2),
            Line {
                other_destinations: Some(4213),
                ..line("other", "udp", None, None, client, 9731)
            },
            line("other", "tcp", Some("198.51.100.77"), Some(22), client, 4),
            line("dns", "udp", Some("8.8.8.8"), Some(53), Some(1001), 12),
            Line {
                own: true,
                ..line("other", "udp", Some("192.0.2.1"), Some(9), root, 20)
            },
            line("ipv6", "icmpv6", Some("ff02::2"), None, None, 30),
            line("ipv6", "tcp", Some("2001:db8::9"), Some(443), client, 31),
            Line {
                from: Some("172.30.0.50".parse().unwrap()),
                ..line("inbound", "tcp", None, Some(8080), None, 40)
            },
            line("raw", "ether-88b5", None, None, root, 400),
        ],
    }
}
