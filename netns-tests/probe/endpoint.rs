//! The hole for the VPN server, used by somebody else.

use std::net::Ipv4Addr;

use crate::addresses::{APP, ENDPOINT, LISTEN};
use crate::forge::{initiation, ipv4_udp};
use crate::message::{Control, send_with};
use crate::socket::{Probe, at, echo, raw, send, syn, tcp, to_device, udp};

/// Everything here.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "udp",
        send: |token| send(&udp()?, token, at(ENDPOINT, 51820)),
    },
    Probe {
        name: "udp-handshake",
        send: |token| send(&udp()?, &initiation(token), at(ENDPOINT, 51820)),
    },
    Probe {
        name: "udp-handshake-to-device",
        send: |token| send(&to_device(udp()?)?, &initiation(token), at(ENDPOINT, 51820)),
    },
    Probe {
        name: "udp-handshake-marked",
        send: |token| {
            let mark = Control::Mark(vpngw::net::Fwmark::DEFAULT.0);
            let to = std::net::SocketAddrV4::new(ENDPOINT, 51820);
            send_with(&udp()?, &initiation(token), mark, to)?;
            Ok(None)
        },
    },
    Probe {
        name: "udp-another-port",
        send: |token| send(&to_device(udp()?)?, token, at(ENDPOINT, 53)),
    },
    Probe {
        name: "tcp",
        send: |token| syn(&to_device(tcp()?)?, token, at(ENDPOINT, 51820)),
    },
    Probe {
        name: "icmp-echo",
        send: |token| send(&to_device(raw(1)?)?, &echo(8, token), at(ENDPOINT, 0)),
    },
    Probe {
        name: "udp-own-port",
        send: |token| {
            let socket = udp()?;
            socket.set_reuse_port(true)?;
            socket.set_reuse_address(true)?;
            let socket = to_device(socket)?;
            socket.bind(&at(Ipv4Addr::UNSPECIFIED, LISTEN).into())?;
            send(&socket, token, at(ENDPOINT, 51820))
        },
    },
    Probe {
        name: "header-own-port",
        send: |token| {
            let packet = ipv4_udp((APP, LISTEN), (ENDPOINT, 51820), token);
            send(&to_device(raw(255)?)?, &packet, at(ENDPOINT, 0))
        },
    },
];
