//! LAN exceptions: what may never be one, and what it must not overlap.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use super::Host;
use super::diagnostic::{Notes, Problem};
use super::layer::Layer;
use super::place::{At, Place};
use super::tunnel::WgQuick;
use crate::net::networks::{LINK_LOCAL, PRIVATE};

/// Where clouds tell a machine its credentials: most of them, and Alibaba.
const METADATA: [Ipv4Addr; 2] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
];

/// Ports that give away names or open the router: DNS (RFC 1035), NetBIOS names (RFC 1002), DNS over
/// TLS (RFC 7858), UPnP discovery (UPnP 1.1), NAT-PMP and PCP (RFC 6886, 6887), multicast DNS
/// (RFC 6762), LLMNR (RFC 4795).
const REFUSED: [(u16, &str); 8] = [
    (53, "DNS"),
    (137, "NetBIOS names"),
    (853, "DNS over TLS"),
    (1900, "UPnP"),
    (5350, "NAT-PMP"),
    (5351, "NAT-PMP"),
    (5353, "multicast DNS"),
    (5355, "LLMNR"),
];

/// Exceptions that there may be: each is a few rules and a route, which the kernel takes and hands out whole. The messages
/// between the two halves have room for several times as many.
pub const MOST_EXCEPTIONS: usize = 16_384;

const RIGHT: &str = "name hosts in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10 or \
    169.254.0.0/16";

/// Notes what is wrong with each exception.
pub(super) fn check(layer: &Layer, tunnel: &WgQuick, notes: &mut Notes) {
    count(layer, notes);
    let inbound = layer.inbound.iter().flat_map(|list| &list.value);
    for At { value, place } in inbound.filter_map(|one| one.from.as_ref()) {
        if is_local(*value, place, notes) {
            overlaps(*value, place, layer, tunnel, notes);
        }
    }
    for exception in layer.outbound.iter().flat_map(|list| &list.value) {
        if let Some(At { value, place }) = &exception.to {
            let host = Ipv4Network::from(*value);
            if is_local(host, place, notes) {
                overlaps(host, place, layer, tunnel, notes);
            }
        }
        if let Some(At { value, place }) = &exception.port {
            refused(value.number, place, notes);
        }
    }
}

fn count(layer: &Layer, notes: &mut Notes) {
    let inbound = layer
        .inbound
        .as_ref()
        .map(|list| (list.value.len(), &list.place));
    let outbound = layer
        .outbound
        .as_ref()
        .map(|list| (list.value.len(), &list.place));
    let lists = || [inbound, outbound].into_iter().flatten();
    let all: usize = lists().map(|(length, _)| length).sum();
    let longest = lists().max_by_key(|(length, _)| *length);
    if let Some((_, place)) = longest.filter(|_| all > MOST_EXCEPTIONS) {
        let wrong = format!("there are {all} LAN exceptions, and {MOST_EXCEPTIONS} is the most");
        let right = "name networks in the place of single hosts: a network is one exception";
        notes.error(place, Problem::new(wrong, right));
    }
}

fn refused(number: u16, place: &Place, notes: &mut Notes) {
    if let Some((_, name)) = REFUSED.iter().find(|(port, _)| *port == number) {
        let wrong = format!("port {number} is {name}, which is refused on the LAN");
        let right = "remove the exception: names are looked up through the tunnel";
        notes.error(place, Problem::new(wrong, right));
    }
}

fn is_local(network: Ipv4Network, place: &Place, notes: &mut Notes) -> bool {
    let shown = shown(network);
    let metadata = METADATA
        .into_iter()
        .find(|address| network.contains(*address));
    let mut allowed = PRIVATE.iter().chain([&LINK_LOCAL]);
    let private = allowed.any(|net| network.is_subnet_of(*net));
    let problem = match metadata {
        _ if network.prefix() < 8 => {
            let wrong = format!("`{shown}` is wider than any private network, and would leak");
            Problem::new(wrong, RIGHT)
        }
        _ if network.ip().is_multicast() => {
            Problem::new(format!("`{shown}` is multicast, which is refused"), RIGHT)
        }
        _ if network.ip().is_broadcast() => {
            Problem::new(format!("`{shown}` is broadcast, which is refused"), RIGHT)
        }
        _ if !private => Problem::new(format!("`{shown}` is not on a private network"), RIGHT),
        Some(address) if network.prefix() == 32 => {
            let wrong = format!("`{address}` is a cloud's metadata address, which is refused");
            Problem::new(wrong, "remove the exception")
        }
        Some(address) => {
            let wrong = format!("`{address}`, a cloud's metadata address, stays refused");
            notes.warn(place, Problem::new(wrong, ""));
            return true;
        }
        None => return true,
    };
    notes.error(place, problem);
    false
}

/// A destination is reached through the tunnel or on the LAN, never both.
fn overlaps(lan: Ipv4Network, place: &Place, layer: &Layer, tunnel: &WgQuick, notes: &mut Notes) {
    let mut clash = |other: Ipv4Network, what: &str, at: &Place| {
        if lan.overlaps(other) {
            let (lan, other) = (shown(lan), shown(other));
            let wrong = format!("`{lan}` overlaps {what} `{other}` ({})", at.origin());
            let right = "name a smaller network, or the single hosts that are meant";
            notes.error(place, Problem::new(wrong, right));
        }
    };
    for at in &tunnel.interface.addresses {
        clash(at.value, "the tunnel's address", &at.place);
    }
    for at in &tunnel.interface.dns {
        clash(at.value.into(), "the tunnel's resolver", &at.place);
    }
    for at in layer.private.iter().flat_map(|list| &list.value) {
        clash(at.value, "the tunnel's private network", &at.place);
    }
    for At { value, place } in tunnel
        .peers
        .iter()
        .filter_map(|peer| peer.endpoint.as_ref())
    {
        match value.host {
            Host::Address(address) => clash(address.into(), "the endpoint", place),
            // What a name resolves to is known only when it is looked up.
            Host::Name(_) => {}
        }
    }
}

/// A single host without its prefix.
fn shown(network: Ipv4Network) -> String {
    match network.prefix() {
        32 => network.ip().to_string(),
        _ => network.to_string(),
    }
}
