//! What may leave by the uplink of the stage; everything else is a leak. Narrower than a policy: the only
//! ARP is between the client and its router, and any port of ours may speak WireGuard, since the gateway
//! picks one at random.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::leak::frame::Frame;

/// What a sensor takes for granted on the uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// The VPN server.
    pub(super) endpoint: SocketAddrV4,
    /// Our address on the uplink.
    pub(super) address: Ipv4Addr,
    /// The router.
    pub(super) router: Ipv4Addr,
}

impl Expected {
    /// Whether `frame`, sent by the gateway's side, is WireGuard to the endpoint or ARP between us
    /// and the router.
    pub(super) fn holds(&self, frame: &Frame) -> bool {
        match *frame {
            Frame::WireGuard { from, to, .. } => to == self.endpoint && *from.ip() == self.address,
            Frame::Arp { from, to, .. } => from == self.address && to == self.router,
            Frame::Ipv6 { .. }
            | Frame::Dns { .. }
            | Frame::Tcp { .. }
            | Frame::Udp { .. }
            | Frame::Icmp { .. }
            | Frame::Fragment { .. }
            | Frame::Ipv4 { .. }
            | Frame::Other { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leak::frame::Message;

    const US: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
    const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
    const EXPECTED: Expected = Expected {
        endpoint: SocketAddrV4::new(SERVER, 51820),
        address: US,
        router: ROUTER,
    };

    #[test]
    fn wireguard_to_the_endpoint_is_expected_and_elsewhere_is_not() {
        assert!(EXPECTED.holds(&wireguard(US, SERVER, 51820)));
        assert!(!EXPECTED.holds(&wireguard(US, ROUTER, 51820)));
        assert!(!EXPECTED.holds(&wireguard(US, SERVER, 51821)));
        assert!(!EXPECTED.holds(&wireguard(ROUTER, SERVER, 51820)));
    }

    #[test]
    fn arp_is_expected_between_us_and_the_router() {
        assert!(EXPECTED.holds(&arp(US, ROUTER)));
        assert!(!EXPECTED.holds(&arp(US, SERVER)));
        assert!(!EXPECTED.holds(&arp(SERVER, ROUTER)));
    }

    #[test]
    fn other_udp_to_the_endpoint_is_a_leak() {
        let from = SocketAddrV4::new(US, 51820);
        let to = EXPECTED.endpoint;
        assert!(!EXPECTED.holds(&Frame::Udp { from, to }));
        assert!(!EXPECTED.holds(&Frame::Tcp { from, to }));
    }

    fn wireguard(from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Frame {
        Frame::WireGuard {
            message: Message::Data,
            bytes: 48,
            from: SocketAddrV4::new(from, 40000),
            to: SocketAddrV4::new(to, port),
        }
    }

    fn arp(from: Ipv4Addr, to: Ipv4Addr) -> Frame {
        Frame::Arp {
            request: true,
            from,
            to,
        }
    }
}
