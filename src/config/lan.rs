//! LAN exceptions: what is wrong with each, and where it stands. What may be one is decided by
//! [`Inbound`](super::Inbound) and [`Outbound`](super::Outbound).

use ipnetwork::Ipv4Network;

use super::Host;
use super::clients::Clients;
use super::diagnostic::{Notes, Problem};
use super::layer::Layer;
use super::load::Topology;
use super::place::{At, Place};
use super::taken::Taken;
use super::tunnel::WgQuick;
use crate::net::lan::{self, LanError};
use crate::net::networks::shown;
use crate::net::{Port, Transport};

/// Exceptions that there may be: each is a few rules and a route, which the kernel takes and hands out whole. The messages
/// between the two halves have room for several times as many.
pub const MOST_EXCEPTIONS: usize = 16_384;

/// Notes what is wrong with each exception.
pub(super) fn check(layer: &Layer, tunnel: &WgQuick, topology: Topology, notes: &mut Notes) {
    count(layer, notes);
    let taken = Taken::of(layer, tunnel);
    for exception in layer.inbound.iter().flat_map(|list| &list.value) {
        if let Some(At {
            value: Clients::Network(value),
            place,
        }) = &exception.from
            && kept(lan::clients(*value), place, notes)
        {
            metadata(*value, place, notes);
            overlaps(*value, place, &taken, tunnel, notes);
        }
        if let Some(At { value, place }) = &exception.to {
            transport(*value, place, topology, notes);
        }
    }
    for exception in layer.outbound.iter().flat_map(|list| &list.value) {
        if let Some(At { value, place }) = &exception.to
            && kept(lan::lan_host(*value), place, notes)
        {
            overlaps((*value).into(), place, &taken, tunnel, notes);
        }
        if let Some(At { value, place }) = &exception.port
            && kept(lan::lan_port(*value), place, notes)
        {
            transport(*value, place, topology, notes);
        }
    }
}

fn kept<T>(checked: Result<T, LanError>, place: &Place, notes: &mut Notes) -> bool {
    let Err(error) = checked else { return true };
    let right = match &error {
        LanError::TooWide(_) | LanError::NotPrivate(_) => {
            "name hosts in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10 or 169.254.0.0/16"
        }
        LanError::NoHost(..) => "remove the exception, or name the host that is meant",
        LanError::Port(..) => "remove the exception: names are looked up through the tunnel",
    };
    notes.error(place, Problem::new(error.to_string(), right));
    false
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

fn metadata(network: Ipv4Network, place: &Place, notes: &mut Notes) {
    if let Some(address) = lan::metadata_in(network) {
        let wrong = format!("`{address}`, a cloud's metadata address, stays refused");
        notes.warn(place, Problem::new(wrong, ""));
    }
}

fn transport(port: Port, place: &Place, topology: Topology, notes: &mut Notes) {
    if topology == Topology::Sealed && port.transport == Transport::Udp {
        let wrong =
            format!("`{port}` is UDP, and the sealed topology hands over TCP connections only");
        let right = "remove the exception, or use the shared topology";
        notes.error(place, Problem::new(wrong, right));
    }
}

/// A destination is reached through the tunnel or on the LAN, never both.
fn overlaps(
    network: Ipv4Network,
    place: &Place,
    taken: &Taken,
    tunnel: &WgQuick,
    notes: &mut Notes,
) {
    let mut clash = |what: &str, origin: &str| {
        let wrong = format!("`{}` overlaps {what} ({origin})", shown(network));
        let right = "name a smaller network, or the single hosts that are meant";
        notes.error(place, Problem::new(wrong, right));
    };
    for (what, origin) in taken.overlaps(network) {
        clash(&what, &origin);
    }
    let endpoints = tunnel
        .peers
        .iter()
        .filter_map(|peer| peer.endpoint.as_ref());
    for At { value, place } in endpoints {
        match value.host {
            Host::Address(ip) if network.contains(ip) => {
                clash(&format!("the endpoint `{ip}`"), &place.origin());
            }
            // What a name resolves to is known only when it is looked up.
            Host::Address(_) | Host::Name(_) => {}
        }
    }
}
