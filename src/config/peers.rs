//! What is wrong with servers, as far as their keys and networks show it.

use ipnetwork::Ipv4Network;

use super::PublicKey;
use super::diagnostic::{Notes, Problem};
use super::field::Field;
use super::place::At;
use super::tunnel::{PeerDraft, WgQuick};
use crate::net::networks::{ALL, MULTICAST, NOT_GLOBAL, shown, without_all};

/// So many networks are named; who reads them sees what they are about.
const NAMED: usize = 3;

/// Notes it.
pub(super) fn check(tunnel: &WgQuick, notes: &mut Notes) {
    let own = tunnel.interface.private_key.as_ref().map(|at| {
        let secret = x25519_dalek::StaticSecret::from(*at.value.expose());
        PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    });
    for peer in &tunnel.peers {
        if let Some(At { value, place }) = &peer.public_key
            && Some(*value) == own
        {
            let wrong = "it is the public key of our own PrivateKey, and nobody else has that";
            let right = "write the server's public key: the provider's file has it below `[Peer]`";
            notes.error(place, Problem::new(wrong, right));
        }
        left_out(peer, notes);
    }
}

/// What of the Internet no packet may go to: it would be dropped.
fn left_out(peer: &PeerDraft, notes: &mut Notes) {
    if peer.allowed_ips.is_empty() {
        return;
    }
    let missing = without_all(vec![ALL], peer.allowed_ips.iter().map(|at| at.value));
    let private = || NOT_GLOBAL.into_iter().chain([MULTICAST]);
    let is_public = |network: &Ipv4Network| !without_all(vec![*network], private()).is_empty();
    let missing: Vec<_> = missing.into_iter().filter(is_public).collect();
    if missing.is_empty() {
        return;
    }
    let named: Vec<_> = missing.iter().take(NAMED).copied().map(shown).collect();
    let more = missing.len().saturating_sub(NAMED);
    let more = if more > 0 {
        format!(" and {more} more networks")
    } else {
        String::new()
    };
    let wrong = format!(
        "a part of the Internet is left out, and no program reaches it: {}{more}",
        named.join(", ")
    );
    let place = peer.given.get(&Field::AllowedIps).unwrap_or(&peer.place);
    let right = "write `AllowedIPs = 0.0.0.0/0`, unless that is meant";
    notes.warn(place, Problem::new(wrong, right));
}
