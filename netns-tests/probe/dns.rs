//! Names asked of somebody other than the tunnel's resolver. Docker's resolver is not on the uplink: see
//! the tests.

use std::net::Ipv4Addr;

use crate::addresses::{LAN, ONES, ROUTER};
use crate::socket::{Probe, at, send, syn, tcp, to_device, udp};

/// Everything here.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "router-udp",
        send: |token| send(&udp()?, token, at(ROUTER, 53)),
    },
    Probe {
        name: "router-tcp",
        send: |token| syn(&tcp()?, token, at(ROUTER, 53)),
    },
    Probe {
        name: "router-udp-to-device",
        send: |token| send(&to_device(udp()?)?, token, at(ROUTER, 53)),
    },
    Probe {
        name: "public-udp",
        send: |token| send(&udp()?, token, at(ONES, 53)),
    },
    Probe {
        name: "public-tcp",
        send: |token| syn(&tcp()?, token, at(ONES, 53)),
    },
    Probe {
        name: "public-udp-to-device",
        send: |token| send(&to_device(udp()?)?, token, at(ONES, 53)),
    },
    Probe {
        name: "public-tls",
        send: |token| syn(&tcp()?, token, at(ONES, 853)),
    },
    Probe {
        name: "public-quic",
        send: |token| send(&udp()?, token, at(ONES, 853)),
    },
    Probe {
        name: "public-https",
        send: |token| syn(&tcp()?, token, at(ONES, 443)),
    },
    Probe {
        name: "public-https-to-device",
        send: |token| syn(&to_device(tcp()?)?, token, at(ONES, 443)),
    },
    Probe {
        name: "public-https-quic",
        send: |token| send(&udp()?, token, at(ONES, 443)),
    },
    Probe {
        name: "lan-udp",
        send: |token| send(&udp()?, token, at(LAN, 53)),
    },
    Probe {
        name: "lan-tcp",
        send: |token| syn(&tcp()?, token, at(LAN, 53)),
    },
    Probe {
        name: "lan-tls",
        send: |token| syn(&tcp()?, token, at(LAN, 853)),
    },
    Probe {
        name: "lan-mdns",
        send: |token| send(&udp()?, token, at(LAN, 5353)),
    },
    Probe {
        name: "lan-llmnr",
        send: |token| send(&udp()?, token, at(LAN, 5355)),
    },
    Probe {
        name: "lan-netbios",
        send: |token| send(&udp()?, token, at(LAN, 137)),
    },
    Probe {
        name: "neighbour-udp",
        send: |token| send(&udp()?, token, at(NEIGHBOUR, 53)),
    },
    Probe {
        name: "neighbour-tcp",
        send: |token| syn(&tcp()?, token, at(NEIGHBOUR, 53)),
    },
];

/// In the tunnel's prefix, but not its resolver.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 7);
