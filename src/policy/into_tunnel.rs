//! What the tunnel device may carry outwards, once more and without a firewall: a raw frame into the device passes no
//! rule of `output`. [`verdict()`] is asked about every destination when the value is made, so the two cannot differ.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::Ipv4Network;

use super::verdict::permitted;
use super::{Device, DeviceKind, Direction, Flow, Policy, Protocol, TunnelPolicy, verdict};
use crate::config::Config;
use crate::net::Fwmark;
use crate::net::networks::{DOCKER_RESOLVER, METADATA, MULTICAST, NOT_GLOBAL};
use crate::net::ports::DNS_PORTS;

/// The first port that means nothing to a policy.
const ANY_PORT: u16 = 1;

/// The tunnel's part of a policy as a table of destinations. `Default` permits nothing.
///
/// It knows no marks. A packet of our own flow that was led into the tunnel is refused by the rules alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntoTunnel {
    sources: Vec<Ipv4Addr>,
    /// Every address once: each entry reaches from its first address to the next entry.
    destinations: Vec<(u32, Reach)>,
}

/// What a destination may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Nothing,
    AllButDns,
    Everything,
}

/// Why a packet does not enter the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotIntoTunnel {
    /// Its source is none of our addresses inside the tunnel.
    Source,
    /// It is DNS to another host than the tunnel's resolvers.
    Dns,
    /// Its destination is private and not configured, or one that nobody may be sent anything by.
    Destination,
}

impl IntoTunnel {
    /// What the tunnel of this configuration carries outwards.
    pub fn of(config: &Config) -> Self {
        Self::new(&TunnelPolicy::of(config))
    }

    /// What a tunnel with this policy carries outwards.
    pub fn new(tunnel: &TunnelPolicy) -> Self {
        let sources: Vec<_> = tunnel.addresses.iter().map(|a| a.ip()).collect();
        let Some(&source) = sources.first() else {
            return Self::default();
        };
        let policy = Policy {
            uplink: None,
            beside: Vec::new(),
            tunnel: Some(tunnel.clone()),
        };
        let passes = |destination: u32, port: u16| {
            let flow = Flow {
                direction: Direction::Out,
                device: Device {
                    name: tunnel.device.clone(),
                    kind: DeviceKind::Tun,
                },
                source: IpAddr::V4(source),
                destination: IpAddr::V4(destination.into()),
                protocol: Protocol::Udp {
                    source: ANY_PORT,
                    destination: port,
                    wireguard: false,
                },
                mark: Fwmark(0),
                reply: false,
            };
            verdict(&policy, &flow).accept
        };
        let mut destinations: Vec<(u32, Reach)> = Vec::new();
        for first in edges(tunnel) {
            let dns = DNS_PORTS.into_iter().all(|port| passes(first, port));
            let reach = match (passes(first, ANY_PORT), dns) {
                (true, true) => Reach::Everything,
                (true, false) => Reach::AllButDns,
                (false, _) => Reach::Nothing,
            };
            if destinations.last().is_none_or(|(_, last)| *last != reach) {
                destinations.push((first, reach));
            }
        }
        Self {
            sources,
            destinations,
        }
    }

    /// Judges an IPv4 packet by its addresses and, where TCP or UDP has one in it, its destination port.
    ///
    /// # Errors
    /// Why the packet does not enter the tunnel.
    pub fn judge(
        &self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        port: Option<u16>,
    ) -> Result<(), NotIntoTunnel> {
        if !self.sources.contains(&source) {
            return Err(NotIntoTunnel::Source);
        }
        let destination = u32::from(destination);
        let behind = self
            .destinations
            .partition_point(|(first, _)| *first <= destination);
        let entry = behind
            .checked_sub(1)
            .and_then(|at| self.destinations.get(at));
        let reach = entry.map_or(Reach::Nothing, |(_, reach)| *reach);
        match reach {
            Reach::Nothing => Err(NotIntoTunnel::Destination),
            Reach::AllButDns if port.is_some_and(|port| DNS_PORTS.contains(&port)) => {
                Err(NotIntoTunnel::Dns)
            }
            Reach::AllButDns | Reach::Everything => Ok(()),
        }
    }
}

/// Where the answer may change: the first address of each network that the policy speaks of, and the one after it.
fn edges(tunnel: &TunnelPolicy) -> Vec<u32> {
    let named = NOT_GLOBAL.into_iter().chain(METADATA).chain([MULTICAST]);
    let networks = named
        .chain([Ipv4Network::from(DOCKER_RESOLVER)])
        .chain(permitted(tunnel));
    let ends = networks.flat_map(|network| {
        let (first, last) = (network.network(), network.broadcast());
        [Some(u32::from(first)), u32::from(last).checked_add(1)]
    });
    let mut edges: Vec<_> = ends.flatten().chain([0]).collect();
    edges.sort_unstable();
    edges.dedup();
    edges
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::UplinkPolicy;
    use super::*;
    use crate::config::example;

    fn address() -> impl Strategy<Value = Ipv4Addr> {
        let known = prop::sample::select(vec![
            [10, 64, 0, 2],
            [10, 64, 0, 1],
            [10, 99, 0, 7],
            [127, 0, 0, 11],
            [169, 254, 169, 254],
            [192, 168, 1, 7],
            [198, 51, 100, 10],
            [1, 1, 1, 1],
            [0, 0, 0, 0],
            [255, 255, 255, 255],
        ]);
        prop_oneof![
            known.prop_map(Ipv4Addr::from),
            any::<u32>().prop_map(Ipv4Addr::from),
        ]
    }

    fn network() -> impl Strategy<Value = Ipv4Network> {
        (address(), 0..=32_u8).prop_map(|(ip, prefix)| Ipv4Network::new(ip, prefix).unwrap())
    }

    fn tunnel() -> impl Strategy<Value = TunnelPolicy> {
        (
            prop::collection::vec(network(), 0..3),
            prop::collection::vec(address(), 0..3),
            prop::collection::vec(network(), 0..4),
        )
            .prop_map(|(addresses, dns, private)| TunnelPolicy {
                device: "tun0".parse().unwrap(),
                addresses,
                dns,
                private,
                forward: vec![6881],
            })
    }

    fn protocol() -> impl Strategy<Value = Protocol> {
        let port = || prop_oneof![prop::sample::select(vec![53, 853, 443]), any::<u16>()];
        prop_oneof![
            (port(), port()).prop_map(|(source, destination)| Protocol::Tcp {
                source,
                destination
            }),
            (port(), port(), any::<bool>()).prop_map(|(source, destination, wireguard)| {
                Protocol::Udp {
                    source,
                    destination,
                    wireguard,
                }
            }),
            Just(Protocol::Icmp),
            any::<u8>().prop_map(Protocol::Other),
        ]
    }

    /// Addresses beside the edges of the policy's networks, where a mistake would be.
    fn near(tunnel: &TunnelPolicy, nth: usize, off: u32) -> Ipv4Addr {
        let edges = edges(tunnel);
        edges[nth % edges.len()]
            .wrapping_add(off)
            .wrapping_sub(1)
            .into()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn it_says_of_every_flow_into_the_tunnel_what_the_policy_says(
            tunnel in tunnel(), source in address(), own in 0..4_usize, far in address(), nth: usize, off in 0..3_u32,
            by_edge: bool, protocol in protocol(), uplink: bool, reply: bool,
        ) {
            let into = IntoTunnel::new(&tunnel);
            let source = tunnel.addresses.get(own).map_or(source, |network| network.ip());
            let destination = if by_edge { near(&tunnel, nth, off) } else { far };
            let flow = Flow {
                direction: Direction::Out,
                device: Device { name: "tun0".parse().unwrap(), kind: DeviceKind::Tun },
                source: source.into(),
                destination: destination.into(),
                protocol,
                mark: Fwmark(0),
                reply,
            };
            let uplink = uplink.then(|| UplinkPolicy {
                device: "eth0".parse().unwrap(),
                address: source,
                endpoint: None,
                resolver: None,
                inbound: Vec::new(),
                outbound: Vec::new(),
            });
            let judged = into.judge(source, destination, protocol.ports().map(|(_, _, port)| port));
            let said = verdict(&Policy { uplink, beside: Vec::new(), tunnel: Some(tunnel) }, &flow);
            prop_assert_eq!(judged.is_ok(), said.accept, "{:?} {:?}", judged, said);
        }
    }

    #[test]
    fn it_names_what_it_refuses() {
        let mut config = example::config();
        config.tunnel.addresses = vec!["10.64.0.2/16".parse().unwrap()];
        config.tunnel.dns = crate::config::Resolvers::new(vec!["10.66.0.1".parse().unwrap()]);
        config.tunnel.private = vec!["10.99.0.0/24".parse().unwrap()];
        let into = IntoTunnel::of(&config);
        let from = |source: &str, to: &str, port| {
            into.judge(source.parse().unwrap(), to.parse().unwrap(), port)
        };
        let ours = |to, port| from("10.64.0.2", to, port);
        assert_eq!(ours("203.0.113.9", Some(443)), Ok(()));
        assert_eq!(ours("203.0.113.9", None), Ok(()));
        assert_eq!(ours("10.66.0.1", Some(53)), Ok(()));
        assert_eq!(ours("10.99.0.7", Some(80)), Ok(()));
        for port in DNS_PORTS {
            assert_eq!(ours("1.1.1.1", Some(port)), Err(NotIntoTunnel::Dns));
            assert_eq!(ours("10.64.0.1", Some(port)), Err(NotIntoTunnel::Dns));
        }
        for to in [
            "192.168.1.1",
            "10.66.0.2",
            "169.254.169.254",
            "239.1.1.1",
            "127.0.0.11",
        ] {
            assert_eq!(ours(to, Some(443)), Err(NotIntoTunnel::Destination), "{to}");
        }
        let stranger = from("172.30.0.2", "203.0.113.9", Some(443));
        assert_eq!(stranger, Err(NotIntoTunnel::Source));
    }

    #[test]
    fn by_default_nothing_enters_the_tunnel() {
        let nothing = IntoTunnel::default();
        let (from, to) = (Ipv4Addr::new(10, 64, 0, 2), Ipv4Addr::new(203, 0, 113, 9));
        nothing.judge(from, to, None).unwrap_err();
    }
}
