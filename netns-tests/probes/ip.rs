//! What any program can do: TCP, UDP, ICMP, and the raw protocols of IP.

use std::net::Ipv4Addr;

use super::{Probe, ipv4_udp, raw, send, syn, tcp, udp};
use crate::lab::{BEHIND, HOST, at};

/// Everything here.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "TCP connect",
        send: |_| syn(&tcp()?, at(HOST, 80)),
    },
    Probe {
        name: "UDP",
        send: |token| send(&udp()?, token, at(HOST, 9)),
    },
    Probe {
        name: "UDP to a private address that is not on the link",
        send: |token| send(&udp()?, token, at(BEHIND, 9)),
    },
    Probe {
        name: "UDP in fragments",
        send: |token| {
            let mut large = token.to_vec();
            large.resize(3000, 0);
            udp()?.send_to(&large, &at(HOST, 9).into())?;
            Ok(None)
        },
    },
    Probe {
        name: "UDP with TTL 1",
        send: |token| {
            let socket = udp()?;
            socket.set_ttl_v4(1)?;
            send(&socket, token, at(HOST, 9))
        },
    },
    Probe {
        name: "ICMP echo",
        send: |token| {
            let mut echo = vec![8, 0, 0, 0, 0, 1, 0, 1];
            echo.extend(token);
            raw(1)?.send_to(&echo, &at(HOST, 0).into())?;
            Ok(None)
        },
    },
    Probe {
        name: "IP protocol 41 (6in4)",
        send: |token| send(&raw(41)?, token, at(HOST, 0)),
    },
    Probe {
        name: "IP protocol 47 (GRE)",
        send: |token| send(&raw(47)?, token, at(HOST, 0)),
    },
    Probe {
        name: "IP protocol 50 (ESP)",
        send: |token| send(&raw(50)?, token, at(HOST, 0)),
    },
    Probe {
        name: "IP protocol 132 (SCTP)",
        send: |token| send(&raw(132)?, token, at(HOST, 0)),
    },
    Probe {
        name: "IP protocol 253 (experiments)",
        send: |token| send(&raw(253)?, token, at(HOST, 0)),
    },
    Probe {
        name: "raw IP header with another source",
        send: |token| {
            let spoofed = (Ipv4Addr::new(172, 30, 0, 77), 4000);
            let packet = ipv4_udp(spoofed, (HOST, 9), token);
            raw(255)?.send_to(&packet, &at(HOST, 0).into())?;
            Ok(None)
        },
    },
];
