//! What is reached through the tunnel. A destination is reached through the tunnel or by the uplink, never
//! both.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use super::networks::shown;

/// The addresses that belong to the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inside<'a> {
    /// Our addresses in it, with their prefixes.
    pub addresses: &'a [Ipv4Network],
    /// Its resolvers.
    pub dns: &'a [Ipv4Addr],
    /// The networks of `[tunnel] private`.
    pub private: &'a [Ipv4Network],
}

/// What of the tunnel an address or a network overlaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// One of our addresses, or its prefix.
    Address(Ipv4Network),
    /// One of its resolvers.
    Resolver(Ipv4Addr),
    /// A network of `[tunnel] private`.
    Private(Ipv4Network),
}

impl Inside<'_> {
    /// All that `network` overlaps.
    pub fn overlaps(&self, network: Ipv4Network) -> impl Iterator<Item = Overlap> {
        let nets = |nets: &[Ipv4Network]| {
            let hit = nets.iter().filter(|net| net.overlaps(network));
            hit.copied().collect::<Vec<_>>()
        };
        let (addresses, private) = (nets(self.addresses), nets(self.private));
        let dns = self.dns.iter().filter(|ip| network.contains(**ip));
        let dns: Vec<_> = dns.copied().collect();
        let addresses = addresses.into_iter().map(Overlap::Address);
        let dns = dns.into_iter().map(Overlap::Resolver);
        let private = private.into_iter().map(Overlap::Private);
        addresses.chain(dns).chain(private)
    }
}

impl Overlap {
    /// What it is.
    pub fn what(self) -> &'static str {
        match self {
            Self::Address(_) => "the tunnel's address",
            Self::Resolver(_) => "the tunnel's resolver",
            Self::Private(_) => "the tunnel's private network",
        }
    }
}

impl std::fmt::Display for Overlap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let network = match self {
            Self::Address(network) | Self::Private(network) => *network,
            Self::Resolver(ip) => Ipv4Network::from(*ip),
        };
        write!(f, "{} {}", self.what(), shown(network))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlap_names_what_is_overlapped() {
        let inside = Inside {
            addresses: &["10.64.0.2/16".parse().unwrap()],
            dns: &["10.64.0.1".parse().unwrap(), "10.66.0.1".parse().unwrap()],
            private: &["10.99.0.0/24".parse().unwrap()],
        };
        let found = |net: &str| {
            let all = inside.overlaps(net.parse().unwrap());
            all.map(|one| one.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found("10.64.9.9/32"), ["the tunnel's address 10.64.0.2/16"]);
        assert_eq!(found("10.66.0.1/32"), ["the tunnel's resolver 10.66.0.1"]);
        assert_eq!(
            found("10.99.0.7/32"),
            ["the tunnel's private network 10.99.0.0/24"]
        );
        assert_eq!(found("10.0.0.0/8").len(), 4);
        assert_eq!(found("192.168.1.0/24").len(), 0);
    }
}
