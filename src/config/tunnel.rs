//! A tunnel as written: what a wg-quick file, an inline table or variables say about it, each value
//! with its place. Nothing is required yet, so that two sources can be laid over each other.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use super::diagnostic::{Notes, Problem};
use super::field::Field;
use super::place::{At, Place, quiet};
use super::value::{self, Family, Parsed};
use super::{Endpoint, PublicKey, Secret};
use crate::net::networks::masked;

/// A tunnel as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WgQuick {
    /// `[Interface]`.
    pub interface: Interface,
    /// Every `[Peer]`, in order.
    pub peers: Vec<PeerDraft>,
    /// The file is for another program. That was said, and nothing is missing besides.
    pub foreign: bool,
}

/// `[Interface]` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The section's header, or the text as a whole.
    pub place: Option<Place>,
    /// `PrivateKey`.
    pub private_key: Option<At<Secret>>,
    /// `Address`, IPv4 only.
    pub addresses: Vec<At<Ipv4Network>>,
    /// `DNS`, IPv4 addresses only.
    pub dns: Vec<At<Ipv4Addr>>,
    /// `MTU`.
    pub mtu: Option<At<u16>>,
    /// `ListenPort`; the inner `None` is 0, any port.
    pub listen_port: Option<At<Option<u16>>>,
    /// `FwMark`; the inner `None` is `off`.
    pub fwmark: Option<At<Option<u32>>>,
    /// What was given, valid or not, and where first.
    pub(super) given: BTreeMap<Field, Place>,
}

/// `[Peer]` as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerDraft {
    /// The section's header.
    pub place: Place,
    /// `# name` behind or below the header.
    pub name: Option<String>,
    /// `PublicKey`.
    pub public_key: Option<At<PublicKey>>,
    /// `PresharedKey`.
    pub preshared_key: Option<At<Secret>>,
    /// `Endpoint`.
    pub endpoint: Option<At<Endpoint>>,
    /// `PersistentKeepalive`, seconds; the inner `None` is `off`.
    pub keepalive: Option<At<Option<u16>>>,
    /// `AllowedIPs`, IPv4 only, without host bits.
    pub allowed_ips: Vec<At<Ipv4Network>>,
    /// What was given, valid or not, and where first.
    pub(super) given: BTreeMap<Field, Place>,
}

/// The text of one value, trimmed, and its place.
pub(super) struct Written<'a> {
    pub(super) text: &'a str,
    pub(super) place: Place,
}

impl Interface {
    /// Takes one value; of a list, one item.
    pub(super) fn set(&mut self, field: Field, written: &Written<'_>, notes: &mut Notes) {
        if !note_given(&mut self.given, field, &written.place, notes) {
            return;
        }
        let (text, place) = (written.text, &written.place);
        match field {
            Field::PrivateKey => self.private_key = notes.keep(place, value::secret(text)),
            Field::Address => {
                let network = either(value::either_network(text), "address", place, notes);
                self.addresses
                    .extend(network.filter(|at| valid_address(at, notes)));
            }
            Field::Dns => self.dns.extend(resolver(text, place, notes)),
            // wg-quick(8) takes an empty one for none.
            Field::Mtu if text.is_empty() => {}
            Field::Mtu => self.mtu = notes.keep(place, value::mtu(text)),
            Field::ListenPort => self.listen_port = notes.keep(place, value::listen_port(text)),
            Field::FwMark => self.fwmark = notes.keep(place, value::fwmark(text)),
            Field::Table => warn_table(text, place, notes),
            Field::SaveConfig => {
                let wrong = "it is ignored: vpngw never writes this file";
                notes.warn(place, Problem::new(wrong, ""));
            }
            Field::PreUp | Field::PostUp | Field::PreDown | Field::PostDown => {
                let wrong = "it is ignored: vpngw runs no command from a configuration";
                let right = "remove the line, or run the command beside vpngw";
                notes.warn(place, Problem::new(wrong, right));
            }
            Field::PublicKey
            | Field::PresharedKey
            | Field::Endpoint
            | Field::PersistentKeepalive
            | Field::AllowedIps => notes.error(place, misplaced(field, "[Peer]")),
        }
    }
}

impl PeerDraft {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            name: None,
            public_key: None,
            preshared_key: None,
            endpoint: None,
            keepalive: None,
            allowed_ips: Vec::new(),
            given: BTreeMap::new(),
        }
    }

    /// Takes one value.
    pub(super) fn set(&mut self, field: Field, written: &Written<'_>, notes: &mut Notes) {
        if !note_given(&mut self.given, field, &written.place, notes) {
            return;
        }
        let (text, place) = (written.text, &written.place);
        match field {
            Field::PublicKey => self.public_key = notes.keep(place, value::public_key(text)),
            Field::PresharedKey => self.preshared_key = notes.keep(place, value::secret(text)),
            Field::Endpoint => self.endpoint = notes.keep(place, value::endpoint(text)),
            Field::PersistentKeepalive => {
                self.keepalive = notes.keep(place, value::keepalive(text));
            }
            Field::AllowedIps => {
                let network = either(value::either_network(text), "network", place, notes);
                // wg(8) masks host bits without a word, so providers write them.
                self.allowed_ips.extend(network.map(|at| At {
                    value: masked(at.value),
                    ..at
                }));
            }
            Field::PrivateKey
            | Field::Address
            | Field::Dns
            | Field::Mtu
            | Field::ListenPort
            | Field::FwMark
            | Field::Table
            | Field::PreUp
            | Field::PostUp
            | Field::PreDown
            | Field::PostDown
            | Field::SaveConfig => notes.error(place, misplaced(field, "[Interface]")),
        }
    }

    /// The fields of this one, and where it has none those of `below`.
    fn over(self, below: Self) -> Self {
        let mut given = below.given;
        let allowed = given_or(
            &self.given,
            Field::AllowedIps,
            self.allowed_ips,
            below.allowed_ips,
        );
        given.extend(self.given);
        Self {
            place: below.place,
            name: self.name.or(below.name),
            public_key: self.public_key.or(below.public_key),
            preshared_key: self.preshared_key.or(below.preshared_key),
            endpoint: self.endpoint.or(below.endpoint),
            keepalive: self.keepalive.or(below.keepalive),
            allowed_ips: allowed,
            given,
        }
    }
}

impl WgQuick {
    /// Whether it names a server by its key.
    pub(super) fn describes_a_peer(&self) -> bool {
        self.peers
            .iter()
            .any(|peer| peer.given.contains_key(&Field::PublicKey))
    }

    /// Lays this one over `below`. A peer with a public key of its own replaces all peers below:
    /// their preshared keys belong to other servers. Without one it changes the only peer below.
    pub(super) fn over(self, below: Self, notes: &mut Notes) -> Self {
        let (top, mut under) = (self.interface, below.interface);
        let mut given = std::mem::take(&mut under.given);
        let addresses = given_or(&top.given, Field::Address, top.addresses, under.addresses);
        let dns = given_or(&top.given, Field::Dns, top.dns, under.dns);
        given.extend(top.given);
        let interface = Interface {
            place: under.place.or(top.place),
            private_key: top.private_key.or(under.private_key),
            addresses,
            dns,
            mtu: top.mtu.or(under.mtu),
            listen_port: top.listen_port.or(under.listen_port),
            fwmark: top.fwmark.or(under.fwmark),
            given,
        };
        Self {
            interface,
            peers: peers_over(self.peers, below.peers, notes),
            foreign: self.foreign || below.foreign,
        }
    }
}

fn peers_over(
    mut top: Vec<PeerDraft>,
    mut below: Vec<PeerDraft>,
    notes: &mut Notes,
) -> Vec<PeerDraft> {
    let describes = |peer: &PeerDraft| peer.given.contains_key(&Field::PublicKey);
    if top.is_empty() {
        return below;
    }
    if below.is_empty() || top.iter().any(describes) {
        return top;
    }
    if top.len() > 1 || below.len() > 1 {
        let wrong = format!(
            "it cannot be said which of the {} peers this changes",
            below.len()
        );
        let right = "set the public key too, which replaces them, or change the peer in its file";
        notes.error(&top[0].place, Problem::new(wrong, right));
        return below;
    }
    vec![top.remove(0).over(below.remove(0))]
}

fn given_or<T>(given: &BTreeMap<Field, Place>, field: Field, top: Vec<T>, below: Vec<T>) -> Vec<T> {
    if given.contains_key(&field) {
        top
    } else {
        below
    }
}

/// Remembers that a field was given; a second value for a field that holds one is an error.
fn note_given(
    given: &mut BTreeMap<Field, Place>,
    field: Field,
    place: &Place,
    notes: &mut Notes,
) -> bool {
    match given.get(&field) {
        Some(first) if !field.is_list() && !field.is_hook() => {
            let wrong = format!("it is given twice, first at {first}");
            notes.error(place, Problem::new(wrong, "remove one of the two"));
            false
        }
        Some(_) => true,
        None => {
            given.insert(field, place.clone());
            true
        }
    }
}

fn misplaced(field: Field, section: &str) -> Problem {
    let wrong = format!("`{}` does not belong here", field.name());
    Problem::new(wrong, format!("write it below {section}"))
}

fn either<T>(
    parsed: Parsed<Family<T>>,
    what: &str,
    place: &Place,
    notes: &mut Notes,
) -> Option<At<T>> {
    let at = notes.keep(place, parsed)?;
    match at.value {
        Family::V4(value) => Some(At {
            value,
            place: at.place,
        }),
        Family::V6 => {
            let wrong = format!("the IPv6 {what} is left out: IPv6 is off");
            notes.warn(place, Problem::new(wrong, ""));
            None
        }
    }
}

fn resolver(text: &str, place: &Place, notes: &mut Notes) -> Option<At<Ipv4Addr>> {
    if value::is_search_domain(text) {
        let wrong = format!("the search domain `{}` is ignored", quiet(text));
        notes.warn(place, Problem::new(wrong, "write full names instead"));
        return None;
    }
    let at = either(value::either_address(text), "resolver", place, notes)?;
    notes.keep(place, value::reachable(at.value))
}

fn valid_address(at: &At<Ipv4Network>, notes: &mut Notes) -> bool {
    let network = at.value;
    let inner = network.prefix() < 31 && network.prefix() > 0;
    let problem = match value::reachable(network.ip()) {
        Err(problem) => problem,
        Ok(_) if network.prefix() == 0 => {
            let right = format!("write `{}/32`", network.ip());
            Problem::new(
                "a prefix of 0 makes every address one of the tunnel's own",
                right,
            )
        }
        Ok(ip) if inner && (ip == network.network() || ip == network.broadcast()) => {
            let right = "write the address of this host, such as `10.64.0.2/32`";
            Problem::new(
                format!("`{network}` is a network, not the address of a host in it"),
                right,
            )
        }
        Ok(_) => return true,
    };
    notes.error(&at.place, problem);
    false
}

fn warn_table(text: &str, place: &Place, notes: &mut Notes) {
    if !text.eq_ignore_ascii_case("auto") && !text.eq_ignore_ascii_case("off") {
        let wrong = format!("`{}` is ignored: vpngw keeps its own routes", quiet(text));
        notes.warn(
            place,
            Problem::new(wrong, "remove the line, or write `auto`"),
        );
    }
}
