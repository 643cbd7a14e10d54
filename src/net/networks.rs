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

/// Docker's resolver: answers on loopback, asks from outside the namespace.
pub const DOCKER_RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Why an address is not that of one other host: whoever has it cannot be sent a packet, or must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHost {
    /// [`DOCKER_RESOLVER`].
    #[error("is Docker's resolver")]
    DockerResolver,
    /// In [`LOOPBACK`].
    #[error("is this machine itself")]
    Loopback,
    /// In 0.0.0.0/8 (RFC 1122, section 3.2.1.3).
    #[error("is no address of a host")]
    Nobody,
    /// In 224.0.0.0/4.
    #[error("is multicast")]
    Multicast,
    /// 255.255.255.255
    #[error("is broadcast")]
    Broadcast,
    /// The rest of 240.0.0.0/4.
    #[error("is reserved")]
    Reserved,
    /// In [`METADATA`].
    #[error("is a cloud's metadata address")]
    Metadata,
}

/// The address, if it is that of one other host that a packet can be sent to and answered from.
///
/// # Errors
///
/// Why it is not.
pub fn host(ip: Ipv4Addr) -> Result<Ipv4Addr, NoHost> {
    Err(if ip == DOCKER_RESOLVER {
        NoHost::DockerResolver
    } else if ip.is_loopback() {
        NoHost::Loopback
    } else if ip.octets()[0] == 0 {
        NoHost::Nobody
    } else if ip.is_multicast() {
        NoHost::Multicast
    } else if ip.is_broadcast() {
        NoHost::Broadcast
    } else if MULTICAST.contains(ip) {
        NoHost::Reserved
    } else if METADATA.iter().any(|net| net.contains(ip)) {
        NoHost::Metadata
    } else {
        return Ok(ip);
    })
}

/// Whether it is the first or last address of a network that has such (RFC 3021: a /31 has none).
pub fn is_edge(network: Ipv4Network, ip: Ipv4Addr) -> bool {
    network.prefix() < 31 && (ip == network.network() || ip == network.broadcast())
}

/// A network as people write it: a single host without its prefix.
pub fn shown(network: Ipv4Network) -> String {
    match network.prefix() {
        32 => network.ip().to_string(),
        _ => network.to_string(),
    }
}

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

/// What is left of `network` without `hole`: as few networks as possible, in their order.
pub fn without(network: Ipv4Network, hole: Ipv4Network) -> Vec<Ipv4Network> {
    let (network, hole) = (masked(network), masked(hole));
    if !network.overlaps(hole) {
        return vec![network];
    }
    if network.is_subnet_of(hole) {
        return Vec::new();
    }
    // Invariant: `hole` is a smaller part of it, so it has two halves.
    let prefix = network.prefix() + 1;
    let second = u32::from(network.ip()) | (1 << (32 - prefix));
    let halves = [network.ip(), Ipv4Addr::from(second)];
    let halves = halves
        .into_iter()
        .filter_map(|ip| Ipv4Network::new(ip, prefix).ok());
    halves.flat_map(|half| without(half, hole)).collect()
}

/// What is left of networks without these parts.
pub fn without_all(
    networks: Vec<Ipv4Network>,
    holes: impl Iterator<Item = Ipv4Network>,
) -> Vec<Ipv4Network> {
    holes.fold(networks, |left, hole| {
        let each = left.into_iter();
        each.flat_map(|network| without(network, hole)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_that_can_be_sent_a_packet_and_may_be() {
        for (ip, why) in [
            ("127.0.0.11", NoHost::DockerResolver),
            ("127.0.0.1", NoHost::Loopback),
            ("127.255.255.255", NoHost::Loopback),
            ("0.0.0.0", NoHost::Nobody),
            ("0.1.2.3", NoHost::Nobody),
            ("224.0.0.1", NoHost::Multicast),
            ("239.255.255.250", NoHost::Multicast),
            ("240.0.0.1", NoHost::Reserved),
            ("255.255.255.254", NoHost::Reserved),
            ("255.255.255.255", NoHost::Broadcast),
            ("169.254.169.254", NoHost::Metadata),
            ("169.254.170.2", NoHost::Metadata),
            ("168.63.129.16", NoHost::Metadata),
        ] {
            assert_eq!(host(ip.parse().unwrap()), Err(why), "{ip}");
        }
        for ip in ["1.1.1.1", "10.0.0.0", "169.254.1.1", "223.255.255.255"] {
            assert!(host(ip.parse().unwrap()).is_ok(), "{ip}");
        }
    }

    #[test]
    fn what_is_left_has_what_no_part_has() {
        let halves = ["0.0.0.0/1", "128.0.0.0/1"].map(|text| text.parse().unwrap());
        assert_eq!(without_all(vec![ALL], halves.into_iter()), []);
        let first = halves.into_iter().take(1);
        assert_eq!(without_all(vec![ALL], first), [halves[1]]);
    }
}
