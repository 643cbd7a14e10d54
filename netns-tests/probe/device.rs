//! Sockets that insist on the uplink, as `curl --interface eth0` and torrent clients do, and marks.

use std::io;

use socket2::Socket;

use crate::addresses::{APP, HOST, LAN};
use crate::canary::Canary;
use crate::message::{Control, send_with};
use crate::raw::set_option;
use crate::socket::{
    Probe, Sent, at, echo, raw, send, syn, syn_from, tcp, to_device, traceroute, udp,
};

/// Everything here.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "udp",
        send: |token| send(&to_device(udp()?)?, token, at(HOST, 9)),
    },
    Probe {
        name: "tcp",
        send: |token| syn(&to_device(tcp()?)?, token, at(HOST, 80)),
    },
    Probe {
        name: "icmp-echo",
        send: |token| send(&to_device(raw(1)?)?, &echo(8, token), at(HOST, 0)),
    },
    Probe {
        name: "protocol-253",
        send: |token| send(&to_device(raw(253)?)?, token, at(HOST, 0)),
    },
    Probe {
        name: "udp-from-address",
        send: |token| send(&to_address(udp()?)?, token, at(HOST, 9)),
    },
    Probe {
        name: "tcp-from-address",
        send: |token| syn_from(&tcp()?, token, APP.into(), at(HOST, 80)),
    },
    Probe {
        name: "udp-and-from-address",
        send: |token| send(&to_address(to_device(udp()?)?)?, token, at(HOST, 9)),
    },
    Probe {
        name: "tcp-and-from-address",
        send: |token| syn_from(&to_device(tcp()?)?, token, APP.into(), at(HOST, 80)),
    },
    Probe {
        name: "udp-ttl-1",
        send: |token| traceroute(to_device(udp()?)?, 1, token),
    },
    Probe {
        name: "udp-ttl-2",
        send: |token| traceroute(to_device(udp()?)?, 2, token),
    },
    Probe {
        name: "udp-ttl-3",
        send: |token| traceroute(to_device(udp()?)?, 3, token),
    },
    Probe {
        name: "udp-ttl-4",
        send: |token| traceroute(to_device(udp()?)?, 4, token),
    },
    Probe {
        name: "udp-pktinfo",
        send: |token| pktinfo(token, index()?, None),
    },
    Probe {
        name: "udp-pktinfo-source",
        send: |token| pktinfo(token, 0, Some(APP)),
    },
    Probe {
        name: "udp-pktinfo-both",
        send: |token| pktinfo(token, index()?, Some(APP)),
    },
    Probe {
        name: "udp-unicast-if",
        send: |token| {
            let socket = udp()?;
            let index = index()?.to_be_bytes();
            set_option(&socket, libc::IPPROTO_IP, libc::IP_UNICAST_IF, &index)?;
            send(&socket, token, at(HOST, 9))
        },
    },
    Probe {
        name: "udp-dontroute",
        send: |token| {
            let socket = to_device(udp()?)?;
            let on = 1_i32.to_ne_bytes();
            set_option(&socket, libc::SOL_SOCKET, libc::SO_DONTROUTE, &on)?;
            // On-link, since the router is not used.
            send(&socket, token, at(LAN, 9))
        },
    },
    Probe {
        name: "mark-1",
        send: |token| marked(1, token),
    },
    Probe {
        name: "mark-of-wg-quick",
        send: |token| marked(0xca6c, token),
    },
    Probe {
        name: "mark-all-ones",
        send: |token| marked(u32::MAX, token),
    },
    Probe {
        name: "mark-own",
        send: |token| marked(OURS, token),
    },
    Probe {
        name: "mark-own-to-device",
        send: |token| {
            let socket = to_device(udp()?)?;
            socket.set_mark(OURS)?;
            send(&socket, token, at(HOST, 9))
        },
    },
    Probe {
        name: "mark-own-by-message",
        send: |token| {
            send_with(&udp()?, token, Control::Mark(OURS), host())?;
            Ok(None)
        },
    },
    Probe {
        name: "mark-own-by-message-to-device",
        send: |token| {
            send_with(&to_device(udp()?)?, token, Control::Mark(OURS), host())?;
            Ok(None)
        },
    },
];

/// The mark of the gateway's own packets, which is no secret.
const OURS: u32 = vpngw::net::Fwmark::DEFAULT.0;

fn host() -> std::net::SocketAddrV4 {
    std::net::SocketAddrV4::new(HOST, 9)
}

fn marked(mark: u32, token: &Canary) -> Sent {
    let socket = udp()?;
    socket.set_mark(mark)?;
    send(&socket, token, at(HOST, 9))
}

fn pktinfo(token: &Canary, device: u32, source: Option<std::net::Ipv4Addr>) -> Sent {
    let control = Control::Source { device, source };
    send_with(&udp()?, token, control, host())?;
    Ok(None)
}

fn to_address(socket: Socket) -> io::Result<Socket> {
    socket.bind(&at(APP, 0).into())?;
    Ok(socket)
}

/// The number of the uplink.
pub fn index() -> io::Result<u32> {
    Ok(rustix::net::netdevice::name_to_index(&udp()?, "eth0")?)
}
