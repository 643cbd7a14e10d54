//! gluetun is a resolver itself and asks others for it; vpngw is none, and names resolvers that programs ask through the
//! tunnel.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::super::diagnostic::{Notes, Problem};
use super::super::env::{Settings, Target, set_field};
use super::super::field::Field;
use super::super::place::quiet;
use super::super::wgquick::items;
use super::variable::{Environment, chosen, given, set, whole};

pub(super) const ADDRESSES: [&str; 3] = [
    "DNS_UPSTREAM_PLAIN_ADDRESSES",
    "DNS_PLAINTEXT_ADDRESS",
    "DNS_ADDRESS",
];
pub(super) const NAMES: [&str; 2] = ["DNS_UPSTREAM_RESOLVERS", "DOT_PROVIDERS"];

/// Resolvers by gluetun's name for them, with the addresses that answer plain DNS (github.com/qdm12/dns, `pkg/provider`).
const KNOWN: [(&str, &[[u8; 4]]); 16] = [
    ("cira family", &[[149, 112, 121, 30], [149, 112, 122, 30]]),
    ("cira private", &[[149, 112, 121, 10], [149, 112, 122, 10]]),
    (
        "cira protected",
        &[[149, 112, 121, 20], [149, 112, 122, 20]],
    ),
    (
        "cleanbrowsing adult",
        &[[185, 228, 168, 10], [185, 228, 169, 11]],
    ),
    (
        "cleanbrowsing family",
        &[[185, 228, 168, 168], [185, 228, 169, 168]],
    ),
    (
        "cleanbrowsing security",
        &[[185, 228, 168, 9], [185, 228, 169, 9]],
    ),
    ("cloudflare", &[[1, 1, 1, 1], [1, 0, 0, 1]]),
    ("cloudflare family", &[[1, 1, 1, 3], [1, 0, 0, 3]]),
    ("cloudflare security", &[[1, 1, 1, 2], [1, 0, 0, 2]]),
    ("google", &[[8, 8, 8, 8], [8, 8, 4, 4]]),
    ("libredns", &[[88, 198, 92, 222]]),
    ("opendns", &[[208, 67, 222, 222], [208, 67, 220, 220]]),
    ("quad9", &[[9, 9, 9, 9], [149, 112, 112, 112]]),
    ("quad9 secured", &[[9, 9, 9, 9], [149, 112, 112, 9]]),
    ("quad9 unsecured", &[[9, 9, 9, 10], [149, 112, 112, 10]]),
    ("quadrant", &[[12, 159, 2, 159]]),
];

/// The resolvers that the variables name, by address before by name.
pub(super) fn read(environment: &Environment, settings: &mut Settings, notes: &mut Notes) {
    let target = Target::Field(Field::Dns);
    if let Some((name, value)) = chosen(environment, &ADDRESSES, target, notes) {
        // gluetun's own default, which means itself.
        let itself = items(value).all(|(_, item)| ip(item).is_some_and(is_itself));
        if !itself {
            addresses(name, value, settings, notes);
            for (other, _) in set(environment, &NAMES) {
                let wrong = format!("`{name}` is set too, and wins");
                notes.warn(&whole(other), Problem::new(wrong, "unset one of the two"));
            }
            return;
        }
    }
    if let Some((name, value)) = chosen(environment, &NAMES, target, notes) {
        names(name, value, settings, notes);
    }
}

/// Whether a resolver was named by one of these variables.
pub(in crate::config) fn is_one(variable: &str) -> bool {
    ADDRESSES.contains(&variable)
}

fn is_itself(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

/// An address, which may have a port.
fn ip(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().ok().map(|it| it.ip());
    text.parse().ok().or_else(with_port)
}

fn addresses(name: &str, value: &str, settings: &mut Settings, notes: &mut Notes) {
    let mut plain = Vec::new();
    for (_, item) in items(value) {
        match item.parse::<SocketAddr>() {
            Ok(at) if at.port() == 53 => plain.push(at.ip().to_string()),
            Ok(at) => {
                let wrong = format!("`{at}`: names are looked up at port 53 only");
                let right = format!("write `{}`", at.ip());
                notes.error(&whole(name), Problem::new(wrong, right));
                return given(settings, Target::Field(Field::Dns), name);
            }
            Err(_) => plain.push(item.to_owned()),
        }
    }
    settings.set(Target::Field(Field::Dns), name, &plain.join(","), notes);
}

fn names(name: &str, value: &str, settings: &mut Settings, notes: &mut Notes) {
    let mut found: Vec<String> = Vec::new();
    for (_, item) in items(value) {
        let known = KNOWN
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(item));
        let Some((_, addresses)) = known else {
            let names: Vec<_> = KNOWN.iter().map(|(known, _)| *known).collect();
            let wrong = format!("`{}` is no resolver that is known by name", quiet(item));
            let right = format!(
                "set DNS_ADDRESS to its address, or write one of {}",
                names.join(", ")
            );
            notes.error(&whole(name), Problem::new(wrong, right));
            return given(settings, Target::Field(Field::Dns), name);
        };
        found.extend(addresses.iter().map(|it| Ipv4Addr::from(*it).to_string()));
    }
    let list = found.join(", ");
    let place = whole(name);
    set_field(
        &mut settings.tunnel,
        Field::Dns,
        &list,
        &|_, _| place.clone(),
        notes,
    );
    let said = format!(
        "names are looked up by {list} through the tunnel, in plain DNS, which nobody before the VPN's exit sees"
    );
    notes.notice(&place, Problem::new(said, ""));
}
