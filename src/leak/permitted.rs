//! Whether the policy permits a frame that left by a device: the frame sensor's judgement.
//!
//! It is made from the frame alone, not from the rules, so that rules that are gone, or say something
//! else than the policy, are found out.

use std::net::{IpAddr, SocketAddrV4};

use super::frame::Frame;
use crate::net::{Fwmark, IfName};
use crate::policy::{Device, DeviceKind, Direction, Flow, Policy, Protocol, verdict};

/// Whether `policy` permits `frame` to leave by `device`.
pub fn permitted(policy: &Policy, device: &IfName, frame: &Frame) -> bool {
    let udp = |from: SocketAddrV4, to: SocketAddrV4, wireguard| Protocol::Udp {
        source: from.port(),
        destination: to.port(),
        wireguard,
    };
    let tcp = |from: SocketAddrV4, to: SocketAddrV4| Protocol::Tcp {
        source: from.port(),
        destination: to.port(),
    };
    let judge = |from, to, protocol| judge(policy, device, from, to, protocol);
    match *frame {
        Frame::WireGuard { from, to, .. } => judge(from, to, udp(from, to, true)),
        Frame::Udp { from, to } => judge(from, to, udp(from, to, false)),
        Frame::Tcp { from, to } => judge(from, to, tcp(from, to)),
        Frame::Dns { from, to } => {
            judge(from, to, udp(from, to, false)) || judge(from, to, tcp(from, to))
        }
        Frame::Arp { from, .. } => {
            let lan = policy.lan_on(device);
            lan.is_some_and(|lan| lan.address == from)
        }
        Frame::Ipv6 { .. }
        | Frame::Icmp { .. }
        | Frame::Fragment { .. }
        | Frame::Ipv4 { .. }
        | Frame::Other { .. } => false,
    }
}

/// What the policy says of a packet like this. A frame tells neither the mark of its socket nor which side
/// opened its connection, so it is permitted if the policy permits it with one or another.
fn judge(
    policy: &Policy,
    device: &IfName,
    from: SocketAddrV4,
    to: SocketAddrV4,
    protocol: Protocol,
) -> bool {
    let uplink = policy.uplink.as_ref();
    let holes = uplink.into_iter().flat_map(|it| [it.endpoint, it.resolver]);
    let marks = holes.flatten().map(|hole| hole.mark).chain([Fwmark(0)]);
    let mut flow = Flow {
        direction: Direction::Out,
        device: Device {
            name: device.clone(),
            kind: DeviceKind::Other,
        },
        source: IpAddr::V4(*from.ip()),
        destination: IpAddr::V4(*to.ip()),
        protocol,
        mark: Fwmark(0),
        reply: false,
    };
    let mut ways = marks.flat_map(|mark| [(mark, false), (mark, true)]);
    ways.any(|(mark, reply)| {
        (flow.mark, flow.reply) = (mark, reply);
        verdict(policy, &flow).accept
    })
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
    fn what_an_exception_never_opens_is_a_leak() {
        let reply = |port: u16| Frame::Dns {
            from: at("172.30.0.2:8080"),
            to: SocketAddrV4::new("192.168.1.7".parse().unwrap(), port),
        };
        assert!(!judge(&reply(53)) && !judge(&reply(853)));
        for (from, to) in [
            ("172.30.0.2:8080", "192.168.1.7:5351"),
            ("172.30.0.2:50000", "224.0.0.251:5353"),
            ("172.30.0.2:50000", "169.254.169.254:445"),
        ] {
            let frame = Frame::Tcp {
                from: at(from),
                to: at(to),
            };
            assert!(!judge(&frame), "{frame}");
        }
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
