//! Sockets that insist on the uplink, as `curl --interface eth0` and torrent clients do.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use socket2::Socket;

use super::{Probe, raw, send, syn, tcp, udp};
use crate::lab::raw::{send_with_pktinfo, set_option};
use crate::lab::{APP, HOST, at};

/// Everything here.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "UDP with SO_BINDTODEVICE eth0",
        send: |token| send(&to_device(udp()?)?, token, at(HOST, 9)),
    },
    Probe {
        name: "TCP with SO_BINDTODEVICE eth0",
        send: |_| syn(&to_device(tcp()?)?, at(HOST, 80)),
    },
    Probe {
        name: "raw protocol with SO_BINDTODEVICE eth0",
        send: |token| send(&to_device(raw(253)?)?, token, at(HOST, 0)),
    },
    Probe {
        name: "UDP bound to the uplink's address",
        send: |token| send(&to_address(udp()?)?, token, at(HOST, 9)),
    },
    Probe {
        name: "TCP bound to the uplink's address",
        send: |_| syn(&to_address(tcp()?)?, at(HOST, 80)),
    },
    Probe {
        name: "UDP with SO_BINDTODEVICE eth0 and bound to the uplink's address",
        send: |token| send(&to_address(to_device(udp()?)?)?, token, at(HOST, 9)),
    },
    Probe {
        name: "UDP with IP_PKTINFO eth0",
        send: |token| {
            let socket = OwnedFd::from(udp()?);
            let std::net::SocketAddr::V4(to) = at(HOST, 9) else {
                return Err(io::Error::other("not IPv4"));
            };
            send_with_pktinfo(&socket, token, index()?, to)?;
            Ok(None)
        },
    },
    Probe {
        name: "UDP with IP_UNICAST_IF eth0",
        send: |token| {
            let socket = udp()?;
            let index = index()?.to_be_bytes();
            set_option(&socket, libc::IPPROTO_IP, libc::IP_UNICAST_IF, &index)?;
            send(&socket, token, at(HOST, 9))
        },
    },
    Probe {
        name: "UDP with SO_DONTROUTE and SO_BINDTODEVICE",
        send: |token| {
            let socket = to_device(udp()?)?;
            let on = 1_i32.to_ne_bytes();
            set_option(&socket, libc::SOL_SOCKET, libc::SO_DONTROUTE, &on)?;
            // On-link, since the router is not used.
            send(&socket, token, at(crate::lab::LAN, 9))
        },
    },
    Probe {
        name: "UDP with SO_MARK 1",
        send: |token| send(&marked(1)?, token, at(HOST, 9)),
    },
    Probe {
        name: "UDP with SO_MARK 0xca6c, that of wg-quick",
        send: |token| send(&marked(0xca6c)?, token, at(HOST, 9)),
    },
    Probe {
        name: "UDP with SO_MARK 0xffffffff",
        send: |token| send(&marked(u32::MAX)?, token, at(HOST, 9)),
    },
];

/// A UDP socket with a mark.
pub fn marked(mark: u32) -> io::Result<Socket> {
    let socket = udp()?;
    socket.set_mark(mark)?;
    Ok(socket)
}

fn to_device(socket: Socket) -> io::Result<Socket> {
    socket.bind_device(Some(b"eth0"))?;
    Ok(socket)
}

fn to_address(socket: Socket) -> io::Result<Socket> {
    socket.bind(&at(APP, 0).into())?;
    Ok(socket)
}

fn index() -> io::Result<u32> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    Ok(rustix::net::netdevice::name_to_index(&socket, "eth0")?)
}
