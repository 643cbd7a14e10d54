//! IPv4 networks that mean something of their own, by the registers of IANA (RFC 6890).

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

/// Every address: the destination of a default route.
pub const ALL: Ipv4Network = network([0, 0, 0, 0], 0);

/// Loopback (RFC 1122, section 3.2.1.3).
pub const LOOPBACK: Ipv4Network = network([127, 0, 0, 0], 8);

/// Link-local (RFC 3927).
pub const LINK_LOCAL: Ipv4Network = network([169, 254, 0, 0], 16);

/// Multicast (224.0.0.0/4), reserved (240.0.0.0/4) and limited broadcast (255.255.255.255): RFC 5771,
/// RFC 1112 section 4, RFC 919.
pub const MULTICAST: Ipv4Network = network([224, 0, 0, 0], 3);

/// The private networks of the Internet (RFC 1918) and of carriers (RFC 6598).
pub const PRIVATE: [Ipv4Network; 4] = [
    network([10, 0, 0, 0], 8),
    network([100, 64, 0, 0], 10),
    network([172, 16, 0, 0], 12),
    network([192, 168, 0, 0], 16),
];

/// Destinations that mean another host to everybody who reads them (RFC 6890): told to a VPN provider
/// only if configured.
pub const NOT_GLOBAL: [Ipv4Network; 7] = [
    network([0, 0, 0, 0], 8),
    PRIVATE[0],
    PRIVATE[1],
    LOOPBACK,
    LINK_LOCAL,
    PRIVATE[2],
    PRIVATE[3],
];

/// Addresses where clouds answer with credentials: AWS, GCP, Azure, OpenStack; AWS ECS tasks; Alibaba;
/// Oracle; Azure's WireServer.
pub const METADATA: [Ipv4Network; 5] = [
    network([169, 254, 169, 254], 32),
    network([169, 254, 170, 2], 32),
    network([100, 100, 100, 200], 32),
    network([192, 0, 0, 192], 32),
    network([168, 63, 129, 16], 32),
];

/// The network with the host bits cleared, as rules and routes are written.
pub fn masked(network: Ipv4Network) -> Ipv4Network {
    // The prefix is that of a network, so it is never refused.
    Ipv4Network::new_checked(network.network(), network.prefix()).unwrap_or(network)
}

const fn network(octets: [u8; 4], prefix: u8) -> Ipv4Network {
    let [a, b, c, d] = octets;
    match Ipv4Network::new_checked(Ipv4Addr::new(a, b, c, d), prefix) {
        Some(network) => network,
        None => panic!("a prefix is at most 32"),
    }
}
