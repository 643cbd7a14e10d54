//! Gives a tunnel the servers of its provider, and what all customers of that share.

use std::collections::btree_map::Entry;
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use super::super::diagnostic::{Notes, Problem};
use super::super::field::Field;
use super::super::place::{At, Place, Source, quiet};
use super::super::tunnel::{PeerDraft, WgQuick};
use super::super::value;
use super::super::{Endpoint, Host};
use super::choose::{Choice, Chosen, choose, port};
use super::list::{self, Server};
use super::surroundings::Surroundings;
use super::table::{Preshared, Provider};
use super::wanted::Wanted;

/// Servers that become alternatives at most: a provider has thousands, and the gateway gives each its 15 seconds.
pub const MOST_ALTERNATIVES: usize = 64;

/// Stands for the address in a configuration that is refused (RFC 5737).
const STAND_IN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Gives the tunnel the servers of the provider that is named, unless it has a server already, and the address that all
/// customers share. `filtered` is whether what was asked of servers has been heeded.
pub(in crate::config) fn complete(
    tunnel: &mut WgQuick,
    wanted: &mut Wanted,
    filtered: bool,
    around: &Surroundings,
    notes: &mut Notes,
) {
    let Some(provider) = wanted.provider.clone() else {
        match &wanted.named {
            // What was named is none; that has been noted, and the servers are not missing besides.
            Some(place) if !tunnel.describes_a_peer() => stand_in(tunnel, place),
            Some(_) | None if !filtered => idle(wanted, "no provider is named", notes),
            Some(_) | None => {}
        }
        return;
    };
    address(tunnel, &provider, notes);
    if let Some(described) = described(tunnel) {
        if !filtered {
            idle(
                wanted,
                &format!("the server is the one of {described}"),
                notes,
            );
        }
        return;
    }
    let template = tunnel.peers.first().cloned();
    preshared(&provider, template.as_ref(), notes);
    match servers(&provider, wanted, around, template.as_ref(), notes) {
        Some(peers) => tunnel.peers = peers,
        None => stand_in(tunnel, &provider.place),
    }
}

/// Where the public key of the tunnel's server stands.
fn described(tunnel: &WgQuick) -> Option<String> {
    let mut peers = tunnel.peers.iter();
    peers.find_map(|peer| Some(peer.given.get(&Field::PublicKey)?.origin()))
}

/// Says of everything that chooses servers that it does not.
fn idle(wanted: &Wanted, why: &str, notes: &mut Notes) {
    for place in wanted.choosers() {
        let wrong = format!("it chooses nothing: {why}");
        let right = "unset it, or name a provider and leave the choice of the server to it";
        notes.warn(place, Problem::new(wrong, right));
    }
}

/// The address that all customers share, or an error where each has one of his own and none is set.
fn address(tunnel: &mut WgQuick, provider: &At<Provider>, notes: &mut Notes) {
    let interface = &mut tunnel.interface;
    if interface.given.contains_key(&Field::Address) {
        return;
    }
    let address = provider.value.address().unwrap_or_else(|| {
        let missing = missing(provider, "an address", Field::Address);
        notes.error(&provider.place, missing);
        STAND_IN
    });
    let place = default();
    interface.given.insert(Field::Address, place.clone());
    interface.addresses.push(At {
        value: address.into(),
        place,
    });
}

fn preshared(provider: &At<Provider>, template: Option<&PeerDraft>, notes: &mut Notes) {
    let given = template.is_some_and(|peer| peer.given.contains_key(&Field::PresharedKey));
    match provider.value.preshared() {
        Preshared::Needed if !given => {
            let missing = missing(provider, "a preshared key", Field::PresharedKey);
            notes.error(&provider.place, missing);
        }
        Preshared::Needed | Preshared::None => {}
    }
}

/// What each customer has of his own is not set.
fn missing(provider: &At<Provider>, what: &str, field: Field) -> Problem {
    let name = key(&provider.place, field);
    Problem::new(
        format!(
            "`{}` gives each customer {what}, and none is set",
            provider.value
        ),
        format!("set {name} to the one of the provider's WireGuard file"),
    )
}

/// The servers that are tried; `None` where it has been noted why there are none.
fn servers(
    provider: &At<Provider>,
    wanted: &mut Wanted,
    around: &Surroundings,
    template: Option<&PeerDraft>,
    notes: &mut Notes,
) -> Option<Vec<PeerDraft>> {
    let port = port(provider.value, wanted, notes);
    let choice = choose(provider, wanted, around, notes);
    let port = port?;
    match choice {
        Choice::Noted => None,
        Choice::NoList => by_hand(wanted, port, template).or_else(|| {
            notes.error(&provider.place, no_list(provider));
            None
        }),
        Choice::Servers(chosen) => {
            if let Some(key) = &wanted.key {
                let wrong = "it is not needed: the list has the key of each server";
                notes.warn(&key.place, Problem::new(wrong, "unset it"));
            }
            let peers = alternatives(&chosen, port, template, notes)?;
            say(&chosen, peers.len(), notes);
            wanted.list.get_or_insert_with(|| At {
                value: chosen.list.clone(),
                place: default(),
            });
            Some(peers)
        }
    }
}

fn no_list(provider: &At<Provider>) -> Problem {
    let wrong = format!(
        "there is no list of its servers: neither /gluetun/servers/{name}.json nor /gluetun/servers.json is there",
        name = provider.value
    );
    let right = match how(&provider.place) {
        How::Gluetun => {
            "mount the folder at /gluetun in which gluetun left its list; or put WireGuard files of the provider into \
             /gluetun/wireguard; or set WIREGUARD_ENDPOINT_IP and WIREGUARD_PUBLIC_KEY to what such a file says"
        }
        How::Variables => {
            "name a list that gluetun wrote by VPNGW_PROVIDER_LIST, or put WireGuard files of the provider into \
             /gluetun/wireguard"
        }
        How::File => {
            "name a list that gluetun wrote by `list = \"…\"`, or put WireGuard files of the provider into \
             /gluetun/wireguard"
        }
    };
    Problem::new(wrong, right)
}

/// In which words the operator names a provider.
enum How {
    Gluetun,
    Variables,
    File,
}

fn how(place: &Place) -> How {
    match place.source() {
        Source::Variable(name) if name.starts_with("VPNGW_") => How::Variables,
        Source::Variable(_) => How::Gluetun,
        Source::File(_) | Source::Default => How::File,
    }
}

/// What a field of the tunnel is called there.
fn key(place: &Place, field: Field) -> String {
    let list = if field == Field::Address { "es" } else { "" };
    let name = field.snake();
    let variable = format!("WIREGUARD_{}{}", name, list).to_ascii_uppercase();
    match how(place) {
        How::Gluetun => variable,
        How::Variables => format!("VPNGW_{variable}"),
        How::File if field.of_peer() => format!("VPNGW_{variable}"),
        How::File => format!("`{name}` below [wireguard]"),
    }
}

/// The server that variables name by address and key, for somebody who has no list.
fn by_hand(wanted: &Wanted, port: u16, template: Option<&PeerDraft>) -> Option<Vec<PeerDraft>> {
    let (address, key) = (wanted.address.as_ref()?, wanted.key.as_ref()?);
    let mut peer = draft(template, &address.place);
    peer.given.insert(Field::PublicKey, key.place.clone());
    peer.public_key = Some(key.clone());
    peer.endpoint = Some(At {
        value: endpoint(address.value, port),
        place: address.place.clone(),
    });
    Some(vec![peer])
}

/// The first address of each server, then the second of each that has two, and so on: a server that is down is not asked
/// again before the others were.
fn alternatives(
    chosen: &Chosen,
    port: u16,
    template: Option<&PeerDraft>,
    notes: &mut Notes,
) -> Option<Vec<PeerDraft>> {
    let place = list::whole(&chosen.list);
    let most = chosen
        .servers
        .iter()
        .map(|server| server.addresses.len())
        .max()?;
    let rounds = (0..most).flat_map(|round| {
        let each = chosen.servers.iter();
        each.filter_map(move |server| Some((server, *server.addresses.get(round)?)))
    });
    let mut peers = Vec::new();
    for (server, address) in rounds.take(MOST_ALTERNATIVES) {
        let name = quiet(server.title());
        let public = value::public_key(&server.key.to_string());
        let public = public.map_err(|Problem { wrong, .. }| {
            let right = "choose other servers, or let gluetun write the list anew";
            Problem::new(format!("the key of `{name}`: {wrong}"), right)
        });
        let public = notes.keep(&place, public)?;
        let mut peer = draft(template, &place);
        peer.name = Some(described_name(server, &name));
        peer.public_key = Some(public);
        peer.endpoint = Some(At {
            value: endpoint(address, port),
            place: place.clone(),
        });
        peers.push(peer);
    }
    Some(peers)
}

/// The name, for people: with the city and the country, as far as they are known.
fn described_name(server: &Server, name: &str) -> String {
    let place: Vec<_> = [&server.city, &server.country]
        .into_iter()
        .filter(|text| !text.is_empty())
        .map(|text| quiet(text))
        .collect();
    match (name, place.is_empty()) {
        ("", _) => place.join(", "),
        (name, true) => name.to_owned(),
        (name, false) => format!("{name} ({})", place.join(", ")),
    }
}

fn say(chosen: &Chosen, tried: usize, notes: &mut Notes) {
    let (fit, total) = (chosen.servers.len(), chosen.total);
    let wrong = match fit {
        1 => format!("one server fits, of {total}"),
        _ if tried >= MOST_ALTERNATIVES => {
            format!("{fit} of {total} servers fit; {tried} of their addresses are tried in turn")
        }
        _ => format!("{fit} of {total} servers fit, and are tried in turn"),
    };
    notes.notice(&list::whole(&chosen.list), Problem::new(wrong, ""));
}

/// A peer with what variables say of every server: preshared key, keepalive, AllowedIPs.
fn draft(template: Option<&PeerDraft>, place: &Place) -> PeerDraft {
    let mut peer = template
        .cloned()
        .unwrap_or_else(|| PeerDraft::new(place.clone()));
    peer.place = place.clone();
    for field in [Field::PublicKey, Field::Endpoint] {
        peer.given.insert(field, place.clone());
    }
    if let Entry::Vacant(entry) = peer.given.entry(Field::AllowedIps) {
        entry.insert(default());
        let everything = Ipv4Network::new(Ipv4Addr::UNSPECIFIED, 0).ok();
        peer.allowed_ips.extend(everything.map(|value| At {
            value,
            place: default(),
        }));
    }
    peer
}

/// Stands for the servers of a configuration that is refused, so that nobody is told besides that they are missing.
fn stand_in(tunnel: &mut WgQuick, place: &Place) {
    tunnel.peers = vec![draft(tunnel.peers.first(), place)];
}

fn endpoint(address: Ipv4Addr, port: u16) -> Endpoint {
    Endpoint {
        host: Host::Address(address),
        port,
    }
}

fn default() -> Place {
    Place::whole(Source::Default, "")
}
