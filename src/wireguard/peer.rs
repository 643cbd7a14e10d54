//! Who is at the other end, and what it may send and be sent.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use crate::config::{PublicKey, Secret};

/// The keys and permissions of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSetup {
    /// Our key.
    pub private_key: Secret,
    /// The server's key.
    pub public_key: PublicKey,
    /// A key both share, mixed into the handshake.
    pub preshared_key: Option<Secret>,
    /// Seconds between keepalives; `None` is off.
    pub keepalive: Option<u16>,
    /// Inner addresses the server may send from and be sent to.
    pub allowed_ips: Vec<Ipv4Network>,
}

impl PeerSetup {
    /// Whether a session made for `other` may go on under this set-up: only what the session does
    /// not hold may differ.
    pub(super) fn same_session(&self, other: &Self) -> bool {
        let Self {
            private_key,
            public_key,
            preshared_key,
            keepalive,
            allowed_ips: _,
        } = self;
        *private_key == other.private_key
            && *public_key == other.public_key
            && *preshared_key == other.preshared_key
            && *keepalive == other.keepalive
    }
}

/// The networks of `AllowedIPs`, as masks.
#[derive(Debug)]
pub(super) struct Allowed {
    networks: Vec<(u32, u32)>,
}

impl Allowed {
    pub(super) fn new(networks: &[Ipv4Network]) -> Self {
        let mut networks: Vec<_> = networks
            .iter()
            .map(|n| (u32::from(n.network()), u32::from(n.mask())))
            .collect();
        // The widest first: a full tunnel is decided by one comparison.
        networks.sort_by_key(|(_, mask)| mask.count_ones());
        Self { networks }
    }

    pub(super) fn contains(&self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        let within = |(network, mask): &(u32, u32)| address & mask == *network;
        self.networks.iter().any(within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(networks: &[&str]) -> Allowed {
        let networks: Vec<_> = networks.iter().map(|n| n.parse().unwrap()).collect();
        Allowed::new(&networks)
    }

    #[test]
    fn an_address_is_allowed_by_any_network_that_holds_it() {
        let some = allowed(&["10.1.0.0/16", "192.0.2.7/32"]);
        for (address, within) in [
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
        ] {
            assert_eq!(some.contains(address.parse().unwrap()), within, "{address}");
        }
        assert!(allowed(&["0.0.0.0/0"]).contains(Ipv4Addr::new(203, 0, 113, 1)));
    }

    #[test]
    fn nothing_is_allowed_by_no_network() {
        assert!(!allowed(&[]).contains(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn host_bits_of_a_network_do_not_count() {
        assert!(allowed(&["10.1.2.3/16"]).contains(Ipv4Addr::new(10, 1, 9, 9)));
    }
}
