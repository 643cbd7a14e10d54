//! Networks beside the uplink's. A LAN exception works on the device that its network is on; nothing else does
//! there.

use ipnetwork::Ipv4Network;

use super::inside::Inside;
use super::lan::{Inbound, Lan};
use super::networks::{host, is_edge, masked};
use super::{IfName, Uplink};

/// A device that is up, and our address on it with the prefix of its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The device.
    pub device: IfName,
    /// Our address.
    pub address: Ipv4Network,
}

/// The LAN exceptions that work on one link beside the uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The link.
    pub link: Link,
    /// What is excepted there: clients and hosts of its own network only, since no router is known on it.
    pub lan: Lan,
}

/// LAN exceptions, by the device that each works on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// What is left for the uplink.
    pub uplink: Lan,
    /// What links beside it have. Each has an exception, and no two have the same network.
    pub beside: Vec<Share>,
}

impl Shares {
    /// Shares `lan` out. A link whose network is the uplink's, or a part of the tunnel, gets nothing: which of the two
    /// is meant could not be told.
    pub fn of(
        lan: &Lan,
        uplink: Option<&Uplink>,
        tunnel: &IfName,
        inside: Inside<'_>,
        links: &[Link],
    ) -> Self {
        let mut beside: Vec<Share> = Vec::new();
        for link in links {
            let network = masked(link.address);
            let taken = beside
                .iter()
                .any(|share| share.link.address.overlaps(network));
            if taken || !fits(link, uplink, tunnel, inside) {
                continue;
            }
            let lan = within(lan, link);
            if lan != Lan::default() {
                let link = link.clone();
                beside.push(Share { link, lan });
            }
        }
        let elsewhere = |network: Ipv4Network| {
            let mut links = beside.iter().map(|share| masked(share.link.address));
            links.any(|link| network.is_subnet_of(link))
        };
        let inbound = lan.inbound.iter().filter(|rule| !elsewhere(rule.from()));
        let outbound = lan.outbound.iter();
        let outbound = outbound.filter(|rule| !elsewhere(rule.to().into()));
        let uplink = Lan {
            inbound: inbound.copied().collect(),
            outbound: outbound.copied().collect(),
        };
        Self { uplink, beside }
    }
}

fn fits(link: &Link, uplink: Option<&Uplink>, tunnel: &IfName, inside: Inside<'_>) -> bool {
    let network = masked(link.address);
    let other =
        |uplink: &Uplink| uplink.device != link.device && !masked(uplink.address).overlaps(network);
    link.device != *tunnel
        && link.device.as_str() != "lo"
        && network.prefix() < 32
        && host(link.address.ip()).is_ok()
        && uplink.is_none_or(other)
        && inside.overlaps(network).next().is_none()
}

/// What of the exceptions is about hosts of this link.
fn within(lan: &Lan, link: &Link) -> Lan {
    let network = masked(link.address);
    let clients = |rule: &Inbound| {
        if rule.from().is_subnet_of(network) {
            Some(*rule)
        } else if network.is_subnet_of(rule.from()) {
            // A part of what an exception may hold may be held.
            Inbound::new(network, rule.to()).ok()
        } else {
            None
        }
    };
    let hosts = lan.outbound.iter().copied().filter(|rule| {
        let to = rule.to();
        network.contains(to) && to != link.address.ip() && !is_edge(link.address, to)
    });
    Lan {
        inbound: lan.inbound.iter().filter_map(clients).collect(),
        outbound: hosts.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::lan::Outbound;

    fn lan() -> Lan {
        let inbound = |from: &str| {
            let port = "tcp/8080".parse().unwrap();
            Inbound::new(from.parse().unwrap(), port).unwrap()
        };
        let outbound = |to: &str| {
            let port = "tcp/8989".parse().unwrap();
            Outbound::new(to.parse().unwrap(), port).unwrap()
        };
        Lan {
            inbound: ["172.30.0.0/24", "172.31.0.0/24", "172.16.0.0/12"]
                .map(inbound)
                .to_vec(),
            outbound: ["172.31.0.9", "172.30.0.9", "172.31.0.2", "172.31.0.255"]
                .map(outbound)
                .to_vec(),
        }
    }

    fn link(device: &str, address: &str) -> Link {
        Link {
            device: device.parse().unwrap(),
            address: address.parse().unwrap(),
        }
    }

    fn shares(lan: &Lan, links: &[Link]) -> Shares {
        let uplink = Uplink {
            device: "eth0".parse().unwrap(),
            address: "172.30.0.2/24".parse().unwrap(),
            gateway: Some("172.30.0.1".parse().unwrap()),
        };
        let inside = Inside {
            addresses: &["10.64.0.2/16".parse().unwrap()],
            ..Inside::default()
        };
        let tunnel = "tun0".parse().unwrap();
        Shares::of(lan, Some(&uplink), &tunnel, inside, links)
    }

    fn shown(lan: &Lan) -> Vec<String> {
        let inbound = lan.inbound.iter().map(|rule| rule.from().to_string());
        let outbound = lan.outbound.iter().map(|rule| rule.to().to_string());
        inbound.chain(outbound).collect()
    }

    #[test]
    fn an_exception_works_where_its_network_is() {
        let shares = shares(&lan(), &[link("eth1", "172.31.0.2/24")]);
        assert_eq!(
            shown(&shares.uplink),
            ["172.30.0.0/24", "172.16.0.0/12", "172.30.0.9"]
        );
        let [beside] = &shares.beside[..] else {
            panic!("{shares:?}");
        };
        assert_eq!(beside.link, link("eth1", "172.31.0.2/24"));
        // Of the wide one it gets its own network; our own address and the broadcast address are nobody's.
        assert_eq!(
            shown(&beside.lan),
            ["172.31.0.0/24", "172.31.0.0/24", "172.31.0.9"]
        );
    }

    #[test]
    fn a_link_that_could_be_taken_for_another_gets_nothing() {
        for (device, address) in [
            ("eth0", "172.31.0.2/24"),
            ("tun0", "172.31.0.2/24"),
            ("lo", "172.31.0.2/24"),
            ("eth1", "172.30.0.7/24"),
            ("eth1", "172.30.0.7/16"),
            ("eth1", "10.64.3.2/24"),
            ("eth1", "172.31.0.2/32"),
            ("eth1", "192.168.7.2/24"),
        ] {
            let shares = shares(&lan(), &[link(device, address)]);
            assert_eq!(shares.beside, [], "{device} {address}");
            assert_eq!(shares.uplink, lan(), "{device} {address}");
        }
        let twice = [link("eth1", "172.31.0.2/24"), link("eth2", "172.31.0.3/24")];
        let shares = shares(&lan(), &twice);
        assert_eq!(shares.beside.len(), 1);
        assert_eq!(shares.beside[0].link, twice[0]);
    }

    #[test]
    fn without_an_uplink_a_link_keeps_what_it_has() {
        let tunnel = "tun0".parse().unwrap();
        let links = [link("eth1", "172.31.0.2/24")];
        let shares = Shares::of(&lan(), None, &tunnel, Inside::default(), &links);
        assert_eq!(shares.beside.len(), 1);
    }
}
