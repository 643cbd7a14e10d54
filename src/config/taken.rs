//! What is reached through the tunnel, with the places where it is written.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use super::layer::Layer;
use super::place::At;
use super::tunnel::WgQuick;
use crate::net::inside::{Inside, Overlap};
use crate::net::networks::shown;

/// [`Inside`], as written.
pub(super) struct Taken {
    addresses: Vec<At<Ipv4Network>>,
    dns: Vec<At<Ipv4Addr>>,
    private: Vec<At<Ipv4Network>>,
}

impl Taken {
    pub(super) fn of(layer: &Layer, tunnel: &WgQuick) -> Self {
        let private = layer.private.iter().flat_map(|list| &list.value);
        Self {
            addresses: tunnel.interface.addresses.clone(),
            dns: tunnel.interface.dns.clone(),
            private: private.cloned().collect(),
        }
    }

    /// What `network` overlaps, in words, each with the place where it is written.
    pub(super) fn overlaps(&self, network: Ipv4Network) -> Vec<(String, String)> {
        let (addresses, dns, private) = (
            values(&self.addresses),
            values(&self.dns),
            values(&self.private),
        );
        let inside = Inside {
            addresses: &addresses,
            dns: &dns,
            private: &private,
        };
        let overlaps = inside.overlaps(network);
        overlaps
            .map(|overlap| {
                let (value, origin) = match overlap {
                    Overlap::Address(net) => (shown(net), origin(&self.addresses, net)),
                    Overlap::Resolver(ip) => (ip.to_string(), origin(&self.dns, ip)),
                    Overlap::Private(net) => (shown(net), origin(&self.private, net)),
                };
                (format!("{} `{value}`", overlap.what()), origin)
            })
            .collect()
    }
}

fn values<T: Copy>(items: &[At<T>]) -> Vec<T> {
    items.iter().map(|at| at.value).collect()
}

fn origin<T: Copy + PartialEq>(items: &[At<T>], value: T) -> String {
    let at = items.iter().find(|at| at.value == value);
    // Each value comes from one of these places.
    at.map_or_else(String::new, |at| at.place.origin())
}
