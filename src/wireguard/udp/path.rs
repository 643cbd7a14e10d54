//! The path to the endpoint: how long a datagram may be.
//!
//! The kernel hears the routers (RFC 1191) for a connected socket, forgets what they said after ten minutes
//! (`net.ipv4.route.mtu_expires`; RFC 1191 section 6.3), and knows the MTU of the device.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::rc::Rc;

use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery};

use crate::net::mtu;

/// Bytes of the IPv4 and the UDP header.
const HEADERS: usize = 28;

/// The way of one socket to one endpoint.
pub(in crate::wireguard) struct Path {
    socket: Rc<UdpSocket>,
    remote: SocketAddrV4,
    connected: bool,
    /// Bytes of the longest IPv4 packet that arrives; `None` where the kernel has no route to look at.
    mtu: Option<u32>,
    discovery: Option<Ipv4PathMtuDiscovery>,
}

impl Path {
    pub(super) fn new(socket: Rc<UdpSocket>, remote: SocketAddrV4) -> Self {
        // Whoever used the socket before may have connected it, to somebody else or from another address. What
        // is not disconnected after all keeps its address.
        let _ = disconnect(&socket);
        let mut path = Self {
            socket,
            remote,
            connected: false,
            mtu: None,
            discovery: None,
        };
        path.look();
        path
    }

    /// Whether the kernel sends to the endpoint without being told where it is.
    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// Bytes of the longest IPv4 packet that arrives, as far as is known.
    pub(in crate::wireguard) fn mtu(&self) -> Option<u32> {
        self.mtu
    }

    /// Whether a datagram with this many bytes of payload is not too long, as far as is known.
    pub(super) fn fits(&self, payload: usize) -> bool {
        let longest = self.mtu.filter(|mtu| !mtu::is_absurd(*mtu));
        longest.is_none_or(|mtu| payload + HEADERS <= mtu as usize)
    }

    /// Asks the kernel again.
    pub(in crate::wireguard) fn look(&mut self) {
        // Without a route there is nothing to connect to yet; each datagram says where it goes meanwhile.
        self.connected = self.connected || self.socket.connect(self.remote).is_ok();
        // A route that was replaced is not known before the next datagram: what was true stays until then.
        if self.connected
            && let Ok(mtu) = sockopt::ip_mtu(&self.socket)
        {
            self.mtu = Some(mtu);
        }
        let absurd = self.mtu.is_some_and(mtu::is_absurd);
        let wanted = if absurd {
            // Heeds no router and lets it cut.
            Ipv4PathMtuDiscovery::INTERFACE
        } else {
            // DF on every packet.
            Ipv4PathMtuDiscovery::DO
        };
        if self.discovery != Some(wanted)
            && sockopt::set_ip_mtu_discover(&self.socket, wanted).is_ok()
        {
            self.discovery = Some(wanted);
        }
    }
}

/// Forgets whom the socket was connected to, and from which address; not its port.
fn disconnect(socket: &UdpSocket) -> std::io::Result<()> {
    if socket.peer_addr().is_err() {
        return Ok(());
    }
    let port = socket.local_addr()?.port();
    rustix::net::connect_unspec(socket)?;
    // The kernel keeps a port that was asked for by number (`__udp_disconnect`, net/ipv4/udp.c).
    if socket.local_addr()?.port() != port {
        rustix::net::bind(socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_was_connected_keeps_its_port_and_finds_another_endpoint() {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr();
        for asked in [0, free.unwrap().port()] {
            let socket = Rc::new(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, asked)).unwrap());
            let port = socket.local_addr().unwrap().port();
            for host in [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)] {
                let far = UdpSocket::bind((host, 0)).unwrap();
                let remote = SocketAddrV4::new(host, far.local_addr().unwrap().port());
                let path = Path::new(Rc::clone(&socket), remote);
                assert!(path.is_connected());
                // The loopback device's; the kernel's own limit.
                assert_eq!(path.mtu(), Some(65535));
                assert!(path.fits(65507) && !path.fits(65508));
                socket.send(b"hello").unwrap();
                let (_, from) = far.recv_from(&mut [0; 9]).unwrap();
                assert_eq!(from.port(), port);
            }
        }
    }
}
