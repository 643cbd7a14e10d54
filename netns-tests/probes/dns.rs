//! Names asked of somebody other than the tunnel's resolver.

use std::net::Ipv4Addr;

use super::{Probe, send, syn, tcp, udp};
use crate::lab::{LAN, ONES, ROUTER, at};

/// Everything that the uplink would show. Docker's resolver is not on the uplink: see the tests.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "DNS to the router, UDP",
        send: |token| send(&udp()?, token, at(ROUTER, 53)),
    },
    Probe {
        name: "DNS to the router, TCP",
        send: |_| syn(&tcp()?, at(ROUTER, 53)),
    },
    Probe {
        name: "DNS to a public resolver, UDP",
        send: |token| send(&udp()?, token, at(ONES, 53)),
    },
    Probe {
        name: "DNS to a public resolver, TCP",
        send: |_| syn(&tcp()?, at(ONES, 53)),
    },
    Probe {
        name: "DNS over TLS to a public resolver",
        send: |_| syn(&tcp()?, at(ONES, 853)),
    },
    Probe {
        name: "DNS over QUIC to a public resolver",
        send: |token| send(&udp()?, token, at(ONES, 853)),
    },
    Probe {
        name: "DNS to a LAN host, UDP",
        send: |token| send(&udp()?, token, at(LAN, 53)),
    },
    Probe {
        name: "DNS to a LAN host, TCP",
        send: |_| syn(&tcp()?, at(LAN, 53)),
    },
    Probe {
        name: "DNS over TLS to a LAN host",
        send: |_| syn(&tcp()?, at(LAN, 853)),
    },
    Probe {
        name: "DNS to another host of the tunnel, UDP",
        send: |token| send(&udp()?, token, at(NEIGHBOUR, 53)),
    },
    Probe {
        name: "DNS to another host of the tunnel, TCP",
        send: |_| syn(&tcp()?, at(NEIGHBOUR, 53)),
    },
];

/// In the tunnel's prefix, but not its resolver.
pub const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 7);
