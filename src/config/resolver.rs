//! Every tunnel has a resolver: the one that is written, else the provider's, else a public one, which is asked through the
//! tunnel like any other. And one that cannot be reached there is refused.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use super::diagnostic::{Notes, Problem};
use super::gluetun;
use super::layer::Layer;
use super::place::{At, Place, Source};
use super::provider::Provider;
use super::tunnel::WgQuick;

/// Asked where nobody says whom to ask: Quad9's, which filters malicious names and keeps no addresses of those who ask, and
/// Cloudflare's, which gluetun asks.
const PUBLIC: [Ipv4Addr; 2] = [Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(1, 1, 1, 1)];

/// The private network of homes.
const HOMES: [u8; 4] = [192, 168, 0, 0];

/// Gives a tunnel without a resolver one, and says which.
pub(super) fn complete(tunnel: &mut WgQuick, provider: Option<Provider>, notes: &mut Notes) {
    let interface = &mut tunnel.interface;
    if !interface.dns.is_empty() {
        return;
    }
    let theirs = provider.map(Provider::resolvers).unwrap_or_default();
    let said = match provider {
        Some(provider) if !theirs.is_empty() => Problem::new(
            format!(
                "names are looked up by {}, the resolver of {provider}, through the tunnel",
                list(theirs)
            ),
            "",
        ),
        Some(_) | None => Problem::new(
            format!(
                "names are looked up by {} through the tunnel, since no resolver is named",
                list(&PUBLIC)
            ),
            "name the provider's own, and nobody else sees them: `DNS = …` in its file, DNS_ADDRESS or VPNGW_WIREGUARD_DNS",
        ),
    };
    let place = Place::whole(Source::Default, "");
    notes.notice(&place, said);
    let chosen = if theirs.is_empty() { &PUBLIC } else { theirs };
    interface.dns = chosen
        .iter()
        .map(|address| At {
            value: *address,
            place: place.clone(),
        })
        .collect();
}

fn list(addresses: &[Ipv4Addr]) -> String {
    let each: Vec<_> = addresses.iter().map(Ipv4Addr::to_string).collect();
    each.join(" and ")
}

/// Notes resolvers that never answer through the tunnel.
pub(super) fn check(layer: &Layer, tunnel: &WgQuick, notes: &mut Notes) {
    taken(tunnel, notes);
    for at in &tunnel.interface.dns {
        if !is_on_lan(at.value, layer, tunnel) {
            continue;
        }
        let inside = format!("set VPNGW_TUNNEL_PRIVATE={}/32", at.value);
        match at.place.source() {
            // gluetun asks it past the tunnel.
            Source::Variable(name) if gluetun::names_a_resolver(name) => {
                let wrong = format!(
                    "`{}` is an address of a LAN, and names are looked up through the tunnel only: a resolver on the \
                     LAN is never asked",
                    at.value
                );
                let right = format!(
                    "unset {name}; or, if this resolver is behind the VPN server, {inside}"
                );
                notes.error(&at.place, Problem::new(wrong, right));
            }
            // Whoever has a VPN server at home may well mean one behind it.
            Source::Variable(_) | Source::File(_) | Source::Default => {
                let wrong = format!(
                    "`{}` is asked through the tunnel: a resolver on this LAN is never asked",
                    at.value
                );
                let right = format!(
                    "name the provider's resolver; or, if this one is behind the VPN server, {inside}"
                );
                notes.warn(&at.place, Problem::new(wrong, right));
            }
        }
    }
}

/// Whether an address looks like one of the LAN: of the network of homes, or of one that gluetun reaches past the tunnel.
fn is_on_lan(address: Ipv4Addr, layer: &Layer, tunnel: &WgQuick) -> bool {
    let private = layer.private.iter().flat_map(|list| &list.value);
    let addresses = tunnel.interface.addresses.iter();
    let mut inside = private.chain(addresses).map(|at| at.value);
    let homes = Ipv4Network::new(HOMES.into(), 16);
    let is_home = homes.is_ok_and(|net| net.contains(address));
    let is_outside = layer.outside.iter().any(|net| net.contains(address));
    let mut providers = Provider::ALL.into_iter().flat_map(Provider::resolvers);
    let known = providers.any(|theirs| *theirs == address);
    (is_home || is_outside) && !known && !inside.any(|net| net.contains(address))
}

/// A resolver that the only peer does not take packets for never answers.
fn taken(tunnel: &WgQuick, notes: &mut Notes) {
    let [peer] = tunnel.peers.as_slice() else {
        return;
    };
    // Nothing valid at all is an error of its own.
    if peer.allowed_ips.is_empty() {
        return;
    }
    let takes = |address: Ipv4Addr| {
        let mut allowed = peer.allowed_ips.iter();
        allowed.any(|allowed| allowed.value.contains(address))
    };
    let dns = &tunnel.interface.dns;
    let none = !dns.iter().any(|at| takes(at.value));
    let left_out: Vec<_> = dns.iter().filter(|at| !takes(at.value)).collect();
    let Some(first) = left_out.first() else {
        return;
    };
    if none {
        let addresses: Vec<_> = dns.iter().map(|at| at.value).collect();
        let addresses = list(&addresses);
        let wrong = format!(
            "the peer's AllowedIPs hold no resolver ({addresses}), so no name would be looked up"
        );
        let right = "name a resolver that they hold, or add the address of one to them";
        let place = match first.place.source() {
            Source::Default => peer
                .allowed_ips
                .first()
                .map_or(&first.place, |at| &at.place),
            Source::File(_) | Source::Variable(_) => &first.place,
        };
        notes.error(place, Problem::new(wrong, right));
        return;
    }
    for at in left_out {
        let wrong = format!("the peer's AllowedIPs do not hold `{}`", at.value);
        let right = format!("add `{}/32` to them", at.value);
        notes.warn(&at.place, Problem::new(wrong, right));
    }
}
