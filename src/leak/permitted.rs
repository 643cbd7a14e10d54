//! Whether the policy permits a frame that left by a device: the frame sensor's judgement.
//!
//! It is made from the frame alone, not from the rules, so that rules that are gone, or say something
//! else than the policy, are found out.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::frame::Frame;
use crate::net::{IfName, Transport};
use crate::policy::{Policy, UplinkPolicy};

/// Whether `policy` permits `frame` to leave by `device`.
pub fn permitted(policy: &Policy, device: &IfName, frame: &Frame) -> bool {
    let Some(uplink) = policy
        .uplink
        .as_ref()
        .filter(|uplink| uplink.device == *device)
    else {
        return false;
    };
    match *frame {
        Frame::WireGuard { from, to, .. } => {
            is_endpoint(uplink, from, to) || is_lan(uplink, Transport::Udp, from, to)
        }
        Frame::Arp { from, .. } => from == uplink.address,
        Frame::Dns { from, to } => is_resolver(uplink, from, to),
        Frame::Tcp { from, to } => is_lan(uplink, Transport::Tcp, from, to),
        Frame::Udp { from, to } => is_lan(uplink, Transport::Udp, from, to),
        Frame::Ipv6 { .. }
        | Frame::Icmp { .. }
        | Frame::Fragment { .. }
        | Frame::Ipv4 { .. }
        | Frame::Other { .. } => false,
    }
}

fn is_endpoint(uplink: &UplinkPolicy, from: SocketAddrV4, to: SocketAddrV4) -> bool {
    let hole = uplink.endpoint.as_ref();
    hole.is_some_and(|hole| to == hole.remote && from == ours(uplink, hole.source_port))
}

fn is_resolver(uplink: &UplinkPolicy, from: SocketAddrV4, to: SocketAddrV4) -> bool {
    let hole = uplink.resolver.as_ref();
    hole.is_some_and(|hole| to == hole.remote && from == ours(uplink, hole.source_port))
}

fn is_lan(
    uplink: &UplinkPolicy,
    transport: Transport,
    from: SocketAddrV4,
    to: SocketAddrV4,
) -> bool {
    let answers = uplink.inbound.iter().any(|exception| {
        exception.to.transport == transport
            && from == ours(uplink, exception.to.number)
            && exception.from.contains(*to.ip())
    });
    let asks = uplink.outbound.iter().any(|exception| {
        exception.port.transport == transport
            && *from.ip() == uplink.address
            && to == SocketAddrV4::new(exception.to, exception.port.number)
    });
    let group: Ipv4Addr = *to.ip();
    (answers || asks) && !group.is_multicast() && !group.is_broadcast()
}

fn ours(uplink: &UplinkPolicy, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(uplink.address, port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::example;
    use crate::leak::frame::Message;
    use crate::net::{Fwmark, Uplink};
    use crate::policy::{Hole, Holes};

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    fn policy() -> Policy {
        let uplink = Uplink {
            device: "eth0".parse().unwrap(),
            address: "172.30.0.2/24".parse().unwrap(),
            gateway: Some("172.30.0.1".parse().unwrap()),
        };
        let remote = at("198.51.100.10:51820");
        let hole = Hole {
            mark: Fwmark::DEFAULT,
            source_port: 40000,
            remote,
        };
        let holes = Holes {
            endpoint: Some(hole),
            resolver: None,
        };
        Policy::of(&example::config(), &uplink, holes).unwrap()
    }

    fn wireguard(from: &str, to: &str) -> Frame {
        Frame::WireGuard {
            message: Message::Data,
            bytes: 48,
            from: at(from),
            to: at(to),
        }
    }

    fn judge(frame: &Frame) -> bool {
        permitted(&policy(), &"eth0".parse().unwrap(), frame)
    }

    #[test]
    fn the_endpoints_flow_is_permitted_whole() {
        assert!(judge(&wireguard("172.30.0.2:40000", "198.51.100.10:51820")));
        assert!(!judge(&wireguard(
            "172.30.0.2:40001",
            "198.51.100.10:51820"
        )));
        assert!(!judge(&wireguard(
            "172.30.0.3:40000",
            "198.51.100.10:51820"
        )));
        assert!(!judge(&wireguard("172.30.0.2:40000", "198.51.100.10:53")));
        let (from, to) = (at("172.30.0.2:40000"), at("198.51.100.10:51820"));
        assert!(
            !judge(&Frame::Udp { from, to }),
            "not the form of a message"
        );
    }

    #[test]
    fn lan_exceptions_are_permitted_in_their_direction() {
        let tcp = |from: &str, to: &str| Frame::Tcp {
            from: at(from),
            to: at(to),
        };
        assert!(judge(&tcp("172.30.0.2:8080", "192.168.1.7:50000")));
        assert!(!judge(&tcp("172.30.0.2:50000", "192.168.1.7:8080")));
        assert!(!judge(&tcp("172.30.0.2:8080", "192.168.2.7:50000")));
        assert!(judge(&tcp("172.30.0.2:50000", "172.30.0.20:445")));
        assert!(!judge(&tcp("172.30.0.2:445", "172.30.0.20:50000")));
    }

    #[test]
    fn another_device_and_the_default_policy_permit_nothing() {
        let frame = wireguard("172.30.0.2:40000", "198.51.100.10:51820");
        assert!(!permitted(&policy(), &"eth1".parse().unwrap(), &frame));
        assert!(!permitted(
            &Policy::default(),
            &"eth0".parse().unwrap(),
            &frame
        ));
    }

    #[test]
    fn names_are_looked_up_only_while_the_resolver_is_open() {
        let frame = Frame::Dns {
            from: at("172.30.0.2:40000"),
            to: at("172.30.0.1:53"),
        };
        assert!(!judge(&frame));
    }
}
