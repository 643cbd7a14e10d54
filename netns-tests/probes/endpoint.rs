//! The hole for the VPN server, used by somebody else.

use std::net::Ipv4Addr;

use super::{Probe, initiation, ipv4_udp, raw, send, syn, tcp, udp};
use crate::lab::{APP, LISTEN, at};

/// Everything here.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "UDP to the endpoint",
        send: |token| send(&udp()?, token, at(ENDPOINT, 51820)),
    },
    Probe {
        name: "UDP to the endpoint on the uplink, shaped like a handshake",
        send: |token| {
            let socket = udp()?;
            socket.bind_device(Some(b"eth0"))?;
            socket.send_to(&initiation(token), &at(ENDPOINT, 51820).into())?;
            Ok(None)
        },
    },
    Probe {
        name: "UDP to another port of the endpoint",
        send: |token| {
            let socket = udp()?;
            socket.bind_device(Some(b"eth0"))?;
            send(&socket, token, at(ENDPOINT, 53))
        },
    },
    Probe {
        name: "TCP to the endpoint",
        send: |_| {
            let socket = tcp()?;
            socket.bind_device(Some(b"eth0"))?;
            syn(&socket, at(ENDPOINT, 51820))
        },
    },
    Probe {
        name: "ICMP to the endpoint",
        send: |token| {
            let mut echo = vec![8, 0, 0, 0, 0, 1, 0, 1];
            echo.extend(token);
            let socket = raw(1)?;
            socket.bind_device(Some(b"eth0"))?;
            socket.send_to(&echo, &at(ENDPOINT, 0).into())?;
            Ok(None)
        },
    },
    Probe {
        name: "UDP from the gateway's own port, shared by SO_REUSEPORT",
        send: |token| {
            let socket = udp()?;
            socket.set_reuse_port(true)?;
            socket.set_reuse_address(true)?;
            socket.bind_device(Some(b"eth0"))?;
            socket.bind(&at(Ipv4Addr::UNSPECIFIED, LISTEN).into())?;
            send(&socket, token, at(ENDPOINT, 51820))
        },
    },
    Probe {
        name: "raw header with the gateway's port and other bytes",
        send: |token| {
            let packet = ipv4_udp((APP, LISTEN), (ENDPOINT, 51820), token);
            let socket = raw(255)?;
            socket.bind_device(Some(b"eth0"))?;
            socket.send_to(&packet, &at(ENDPOINT, 0).into())?;
            Ok(None)
        },
    },
];

/// The first VPN server.
pub const ENDPOINT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
