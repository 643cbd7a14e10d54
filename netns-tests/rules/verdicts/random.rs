//! Random policies and packets, from few values so that they meet.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use vpngw::config::{Inbound, Outbound};
use vpngw::net::{Fwmark, Port, Transport};
use vpngw::policy::{
    Device, DeviceKind, Direction, Flow, Hole, LanPolicy, Policy, Protocol, TunnelPolicy,
    UplinkPolicy,
};

use super::packet::{Packet, number, ports};

pub(super) const UPLINK: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);
pub(super) const TUNNEL: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 2);
const MARK: Fwmark = Fwmark(7);

const HOSTS: [[u8; 4]; 9] = [
    [10, 64, 0, 1],
    [10, 64, 9, 9],
    [172, 30, 0, 1],
    [172, 30, 0, 20],
    [192, 168, 1, 7],
    [198, 51, 100, 10],
    [1, 1, 1, 1],
    [169, 254, 169, 254],
    [100, 100, 100, 200],
];
const PORTS: [u16; 9] = [53, 853, 443, 1900, 5351, 8080, 6881, 40000, 51820];

/// A xorshift generator (Marsaglia 2003): the same seed, the same packets.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn host(&mut self) -> Ipv4Addr {
        self.of(&HOSTS).into()
    }

    fn port(&mut self) -> u16 {
        self.of(&PORTS)
    }

    fn transport_port(&mut self) -> Port {
        let transport = self.of(&[Transport::Tcp, Transport::Udp]);
        let number = self.port();
        Port { transport, number }
    }

    fn many<T>(&mut self, most: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| one(self)).collect()
    }

    fn maybe<T>(&mut self, one: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (!self.one_in(4)).then(|| one(self))
    }

    fn network(&mut self) -> ipnetwork::Ipv4Network {
        let (ip, prefix) = (self.host(), self.of(&[8, 12, 16, 24, 31, 32]));
        ipnetwork::Ipv4Network::new(ip, prefix).unwrap()
    }

    fn inbound(&mut self) -> Inbound {
        loop {
            if let Ok(rule) = Inbound::new(self.network(), self.transport_port()) {
                return rule;
            }
        }
    }

    fn outbound(&mut self) -> Outbound {
        loop {
            if let Ok(rule) = Outbound::new(self.host(), self.transport_port()) {
                return rule;
            }
        }
    }

    fn hole(&mut self) -> Hole {
        Hole {
            mark: MARK,
            source_port: self.port(),
            remote: SocketAddrV4::new(self.host(), self.port()),
        }
    }

    /// Any policy, sensible or not.
    pub(super) fn policy(&mut self) -> Policy {
        let uplink = self.maybe(|random| UplinkPolicy {
            device: "eth0".parse().unwrap(),
            address: UPLINK,
            endpoint: random.maybe(Self::hole),
            resolver: random.maybe(|random| Hole {
                remote: SocketAddrV4::new(random.host(), 53),
                ..random.hole()
            }),
            inbound: random.many(3, Self::inbound),
            outbound: random.many(3, Self::outbound),
        });
        let tunnel = self.maybe(|random| TunnelPolicy {
            device: "tun0".parse().unwrap(),
            addresses: vec![
                random
                    .of(&["10.64.0.2/32", "10.64.0.2/16"])
                    .parse()
                    .unwrap(),
            ],
            dns: random.many(2, Self::host),
            private: random.many(2, Self::network),
            forward: random.many(2, Self::port),
        });
        let beside = self.maybe(|random| LanPolicy {
            device: "eth1".parse().unwrap(),
            // The same on both cables: whether a packet passes is for the device to say.
            address: UPLINK,
            inbound: random.many(2, Self::inbound),
            outbound: random.many(2, Self::outbound),
        });
        Policy {
            uplink,
            beside: beside.into_iter().collect(),
            tunnel,
        }
    }

    /// Packets in all directions, no two of one connection.
    pub(super) fn packets(&mut self, policy: &Policy, many: usize) -> Vec<Packet> {
        let mut known = HashSet::new();
        let mut packets = Vec::new();
        while packets.len() < many {
            let packet = self.packet(policy);
            if known.insert(connection(&packet.flow)) {
                packets.push(packet);
            }
        }
        packets
    }

    /// Raw frames out of either cable.
    pub(super) fn frames(&mut self, policy: &Policy, many: usize) -> Vec<Packet> {
        let frame = |random: &mut Self| {
            let mut flow = random.out(policy);
            let device = if random.one_in(5) { "eth1" } else { "eth0" };
            flow.device = device_named(device);
            flow.reply = false;
            if random.one_in(2) {
                flow.source = UPLINK.into();
            }
            let fragment = random.one_in(6);
            Packet { flow, fragment }
        };
        (0..many).map(|_| frame(self)).collect()
    }

    fn packet(&mut self, policy: &Policy) -> Packet {
        let mut flow = if self.one_in(2) {
            self.out(policy)
        } else {
            self.into(policy)
        };
        let answers = matches!(
            flow.protocol,
            Protocol::Tcp { .. } | Protocol::Udp { .. } | Protocol::Icmp
        );
        flow.reply = answers && can_be_opened(&flow) && self.one_in(3);
        let fragment = false;
        Packet { flow, fragment }
    }

    fn protocol(&mut self) -> Protocol {
        let (source, destination) = (self.port(), self.port());
        match self.below(8) {
            0 => Protocol::Icmp,
            1 => Protocol::Other(253),
            2..=4 => Protocol::Tcp {
                source,
                destination,
            },
            _ => Protocol::Udp {
                source,
                destination,
                wireguard: self.one_in(2),
            },
        }
    }

    fn flow(
        &mut self,
        direction: Direction,
        device: &str,
        source: Ipv4Addr,
        destination: Ipv4Addr,
    ) -> Flow {
        Flow {
            direction,
            device: device_named(device),
            source: source.into(),
            destination: destination.into(),
            protocol: self.protocol(),
            mark: Fwmark(0),
            reply: false,
        }
    }

    /// Half of them begin as something that the policy permits.
    fn out(&mut self, policy: &Policy) -> Flow {
        let device = self.of(&["eth0", "eth0", "tun0", "tun0", "eth1", "lo"]);
        let own = if device == "tun0" { TUNNEL } else { UPLINK };
        let source = if self.one_in(5) {
            self.of(&[UPLINK, TUNNEL])
        } else {
            own
        };
        let destination = match device {
            "lo" => self
                .of(&[
                    [127, 0, 0, 1],
                    [127, 0, 0, 11],
                    [172, 30, 0, 2],
                    [10, 64, 0, 2],
                ])
                .into(),
            _ if self.one_in(8) => self
                .of(&[[239, 255, 255, 250], [255, 255, 255, 255]])
                .into(),
            _ => self.host(),
        };
        let mut flow = self.flow(Direction::Out, device, source, destination);
        flow.mark = if self.one_in(3) { MARK } else { Fwmark(0) };
        let Some(lan) = policy.lan_on(&flow.device.name).filter(|_| !self.one_in(3)) else {
            return flow;
        };
        match self.below(4) {
            0 | 1 => {
                let uplink = policy.uplink.as_ref();
                let holes = uplink.map_or([None; 2], |it| [it.endpoint, it.resolver]);
                let Some(hole) = self.of(&holes) else {
                    return flow;
                };
                flow.mark = if self.one_in(4) { Fwmark(0) } else { hole.mark };
                flow.destination = IpAddr::V4(*hole.remote.ip());
                flow.protocol = Protocol::Udp {
                    source: hole.source_port,
                    destination: if self.one_in(6) {
                        443
                    } else {
                        hole.remote.port()
                    },
                    wireguard: !self.one_in(3),
                };
            }
            2 => {
                let Some(rule) = lan.inbound.first() else {
                    return flow;
                };
                let port = self.port();
                flow.destination = client(rule).into();
                flow.protocol = ports(rule.to().transport, rule.to().number, port);
            }
            _ => {
                let Some(rule) = lan.outbound.first() else {
                    return flow;
                };
                let port = self.port();
                flow.destination = rule.to().into();
                flow.protocol = ports(rule.port().transport, port, rule.port().number);
            }
        }
        flow
    }

    fn into(&mut self, policy: &Policy) -> Flow {
        let device = self.of(&["eth0", "eth0", "tun0", "eth1"]);
        let own = if device == "tun0" { TUNNEL } else { UPLINK };
        let destination = match self.below(8) {
            0 => self.host(),
            1 => self.of(&[UPLINK, TUNNEL, Ipv4Addr::BROADCAST, Ipv4Addr::LOCALHOST]),
            _ => own,
        };
        let local = [UPLINK, TUNNEL, Ipv4Addr::BROADCAST, Ipv4Addr::LOCALHOST];
        let direction = if local.contains(&destination) {
            Direction::In
        } else {
            Direction::Forward
        };
        let source = self.host();
        let mut flow = self.flow(direction, device, source, destination);
        if self.one_in(3) {
            return flow;
        }
        if let Some(tunnel) = policy.tunnel.as_ref().filter(|_| device == "tun0") {
            if let Some(forward) = tunnel.forward.first() {
                let port = self.port();
                flow.protocol = ports(Transport::Tcp, port, *forward);
            }
        } else if let Some(lan) = policy.lan_on(&flow.device.name) {
            let (inbound, outbound) = (lan.inbound.first(), lan.outbound.first());
            let uplink = policy.uplink.as_ref();
            let hole = uplink.and_then(|uplink| uplink.endpoint.or(uplink.resolver));
            match (self.below(3), inbound, outbound, hole) {
                (0, Some(rule), _, _) => {
                    flow.source = client(rule).into();
                    flow.protocol = ports(rule.to().transport, self.port(), rule.to().number);
                }
                (1, _, Some(rule), _) => {
                    flow.source = rule.to().into();
                    flow.protocol = ports(rule.port().transport, rule.port().number, self.port());
                }
                (_, _, _, Some(hole)) => {
                    flow.source = IpAddr::V4(*hole.remote.ip());
                    flow.protocol = Protocol::Udp {
                        source: hole.remote.port(),
                        destination: hole.source_port,
                        wireguard: !self.one_in(3),
                    };
                }
                _ => {}
            }
        }
        flow
    }
}

/// The kernel tracks a connection between one of our addresses and a host, by any cable or the tunnel.
fn can_be_opened(flow: &Flow) -> bool {
    let own = [IpAddr::V4(UPLINK), IpAddr::V4(TUNNEL)];
    let host = |ip: &IpAddr| HOSTS.iter().any(|host| IpAddr::from(*host) == *ip);
    let cable = flow.device.kind != DeviceKind::Loopback;
    match flow.direction {
        Direction::Out => cable && own.contains(&flow.source) && host(&flow.destination),
        Direction::In => cable && own.contains(&flow.destination) && host(&flow.source),
        Direction::Forward => false,
    }
}

pub(super) fn device_named(text: &str) -> Device {
    Device {
        name: text.parse().unwrap(),
        kind: match text {
            "lo" => DeviceKind::Loopback,
            "tun0" => DeviceKind::Tun,
            _ => DeviceKind::Other,
        },
    }
}

type Ends = [(IpAddr, u16); 2];

fn connection(flow: &Flow) -> (u8, Ends) {
    let (_, from, to) = flow.protocol.ports().unwrap_or((Transport::Tcp, 0, 0));
    let mut ends = [(flow.source, from), (flow.destination, to)];
    ends.sort_unstable();
    (number(flow.protocol), ends)
}

/// A client of the exception.
fn client(rule: &Inbound) -> Ipv4Addr {
    let known = HOSTS.map(Ipv4Addr::from).into_iter();
    // Networks are made of these hosts.
    known
        .into_iter()
        .find(|ip| rule.from().contains(*ip))
        .unwrap()
}
