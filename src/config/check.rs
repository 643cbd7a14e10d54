//! What must hold between values, each of which is valid by itself.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::Ipv4Network;

use super::Host;
use super::diagnostic::{Notes, Problem};
use super::lan;
use super::layer::Layer;
use super::load::Topology;
use super::peers;
use super::place::{At, Place};
use super::resolve::DEVICE;
use super::resolver;
use super::taken::Taken;
use super::tunnel::{PeerDraft, WgQuick};
use crate::net::IfName;
use crate::net::networks::PRIVATE;

/// Notes every contradiction.
pub(super) fn check(layer: &Layer, tunnel: &WgQuick, topology: Topology, notes: &mut Notes) {
    devices(layer, notes);
    private(layer, notes);
    listener(layer, tunnel, notes);
    alternatives(&tunnel.peers, notes);
    peers::check(tunnel, notes);
    resolver::check(layer, tunnel, notes);
    outside(layer, tunnel, notes);
    lan::check(layer, tunnel, topology, notes);
}

fn devices(layer: &Layer, notes: &mut Notes) {
    // `all` and `default` are folders of /proc/sys/net/ipv4/conf beside those of the devices.
    let reserved = |name: &IfName| ["lo", "all", "default"].contains(&name.as_str());
    for device in [&layer.device, &layer.uplink].into_iter().flatten() {
        if reserved(&device.value) {
            let wrong = format!("`{}` is not a device that can be used here", device.value);
            notes.error(
                &device.place,
                Problem::new(wrong, "name another, such as `tun0` or `eth0`"),
            );
        }
    }
    match (&layer.device, &layer.uplink) {
        (Some(tunnel), Some(uplink)) if tunnel.value == uplink.value => {
            let wrong = format!("`{}` is the uplink's device too", tunnel.value);
            notes.error(
                &tunnel.place,
                Problem::new(wrong, "name the tunnel's device `tun0`"),
            );
        }
        (None, Some(uplink)) if uplink.value.as_str() == DEVICE => {
            let wrong = format!("`{DEVICE}` is the tunnel's own device");
            let right = "name the device of the default route, or another device for the tunnel";
            notes.error(&uplink.place, Problem::new(wrong, right));
        }
        (Some(_) | None, Some(_) | None) => {}
    }
}

fn private(layer: &Layer, notes: &mut Notes) {
    for at in layer.private.iter().flat_map(|list| &list.value) {
        if !PRIVATE.iter().any(|net| at.value.is_subnet_of(*net)) {
            let wrong = format!("`{}` is not private", at.value);
            let right = "name networks in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or \
                100.64.0.0/10; public ones go through the tunnel anyway";
            notes.error(&at.place, Problem::new(wrong, right));
        }
    }
}

/// Nothing of ours may be reached through the tunnel.
fn listener(layer: &Layer, tunnel: &WgQuick, notes: &mut Notes) {
    let Some(at) = &layer.metrics else { return };
    let IpAddr::V4(address) = at.value.ip() else {
        return;
    };
    if tunnel
        .interface
        .addresses
        .iter()
        .any(|own| own.value.ip() == address)
    {
        let wrong = format!("`{address}` is our address inside the tunnel");
        let right = format!("write `127.0.0.1:{}`", at.value.port());
        notes.error(&at.place, Problem::new(wrong, right));
    }
    let forwarded = layer.forward.iter().flat_map(|list| &list.value);
    for port in forwarded.filter(|port| port.value == at.value.port() && address.is_unspecified()) {
        let wrong = "the metrics listen on this port, and would be reached through the tunnel";
        let right = "let `metrics.listen` name 127.0.0.1 or another port";
        notes.error(&port.place, Problem::new(wrong, right));
    }
}

/// Several peers are alternatives, one in use at a time, so each must take all traffic.
fn alternatives(peers: &[PeerDraft], notes: &mut Notes) {
    if peers.len() < 2 {
        return;
    }
    for peer in peers.iter().filter(|peer| !takes_all(&peer.allowed_ips)) {
        // Nothing valid at all is an error of its own.
        let Some(first) = peer.allowed_ips.first() else {
            continue;
        };
        let wrong = "several peers are alternatives, tried one at a time, and this one does not take \
            all traffic";
        let right = "write `AllowedIPs = 0.0.0.0/0` for each peer, or keep one peer; vpngw does not \
            split traffic between servers";
        notes.error(&first.place, Problem::new(wrong, right));
    }
}

/// The server, and the resolver that its name is looked up with, are reached by the uplink: never by an address
/// that belongs to the tunnel.
fn outside(layer: &Layer, tunnel: &WgQuick, notes: &mut Notes) {
    let taken = Taken::of(layer, tunnel);
    let mut named = false;
    for endpoint in tunnel
        .peers
        .iter()
        .filter_map(|peer| peer.endpoint.as_ref())
    {
        match endpoint.value.host {
            Host::Address(address) => {
                let right = "write the address that the server has outside the tunnel";
                inside(&taken, address, &endpoint.place, right, notes);
            }
            Host::Name(_) => named = true,
        }
    }
    // Without a name to look up it is never asked.
    if let Some(resolver) = layer.resolver.as_ref().filter(|_| named) {
        let right = "name a resolver outside the tunnel, such as the router";
        inside(&taken, resolver.value, &resolver.place, right, notes);
    }
}

fn inside(taken: &Taken, address: Ipv4Addr, place: &Place, right: &str, notes: &mut Notes) {
    if let Some((what, origin)) = taken.overlaps(address.into()).into_iter().next() {
        let wrong =
            format!("`{address}` is reached through the tunnel, because of {what} ({origin})");
        notes.error(place, Problem::new(wrong, right));
    }
}

/// `0.0.0.0/0`, or its two halves, which providers write to win over a default route.
fn takes_all(allowed: &[At<Ipv4Network>]) -> bool {
    let has = |first: [u8; 4], prefix: u8| {
        let first = Ipv4Addr::from(first);
        allowed
            .iter()
            .any(|at| at.value.network() == first && at.value.prefix() == prefix)
    };
    has([0, 0, 0, 0], 0) || (has([0, 0, 0, 0], 1) && has([128, 0, 0, 0], 1))
}
