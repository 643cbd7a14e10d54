//! What gluetun chooses servers by.

use std::path::Path;

use super::super::diagnostic::{Notes, Problem};
use super::super::env::{Settings, Target};
use super::super::keys::Key;
use super::super::place::{At, quiet};
use super::super::provider::{Attribute, Only, Provider};
use super::variable::{Environment, chosen, set, switch, whole};

/// The variable of each attribute, the newest name first.
pub(super) const WHERE: [(&[&str], Attribute); 8] = [
    (&["SERVER_COUNTRIES", "COUNTRY"], Attribute::Country),
    (&["SERVER_REGIONS", "REGION"], Attribute::Region),
    (&["SERVER_CITIES", "CITY"], Attribute::City),
    (
        &["SERVER_HOSTNAMES", "SERVER_HOSTNAME"],
        Attribute::Hostname,
    ),
    (&["SERVER_NAMES", "SERVER_NAME"], Attribute::Name),
    (&["SERVER_NUMBER"], Attribute::Number),
    (&["SERVER_CATEGORIES"], Attribute::Category),
    (&["ISP"], Attribute::Isp),
];

/// The variable of each switch.
pub(super) const ONLY: [(&[&str], Only); 8] = [
    (&["OWNED_ONLY", "OWNED"], Only::Owned),
    (&["FREE_ONLY"], Only::Free),
    (&["PREMIUM_ONLY"], Only::Premium),
    (&["STREAM_ONLY"], Only::Stream),
    (&["MULTIHOP_ONLY"], Only::MultiHop),
    (&[PORT_FORWARD_ONLY], Only::PortForward),
    (&["SECURE_CORE_ONLY"], Only::SecureCore),
    (&["TOR_ONLY"], Only::Tor),
];

const PORT_FORWARD_ONLY: &str = "PORT_FORWARD_ONLY";

/// What makes [`PORT_FORWARD_ONLY`] the default for Proton VPN.
pub(super) const FORWARDING: [&str; 3] = [
    "VPN_PORT_FORWARDING",
    "PORT_FORWARDING",
    "PRIVATE_INTERNET_ACCESS_VPN_PORT_FORWARDING",
];

pub(super) const MODE: [&str; 1] = ["SERVER_SELECTION_MODE"];
pub(super) const LIST: [&str; 2] = ["STORAGE_SERVERS_DIRECTORY_PATH", "STORAGE_FILEPATH"];

/// Where gluetun keeps its lists unless told otherwise: these places are looked at anyway.
const USUAL: [&str; 2] = ["/gluetun/servers", "/gluetun/servers.json"];

pub(super) fn read(environment: &Environment, settings: &mut Settings, notes: &mut Notes) {
    for (names, attribute) in &WHERE {
        let target = Target::Key(Key::ProviderWhere(*attribute));
        if let Some((name, value)) = chosen(environment, names, target, notes) {
            settings.set(target, name, value, notes);
        }
    }
    for (names, only) in &ONLY {
        let target = Target::Key(Key::ProviderOnly(*only));
        if let Some((name, value)) = chosen(environment, names, target, notes) {
            flag(name, value, *only, settings, notes);
        }
    }
    let target = Target::Key(Key::ProviderOrder);
    if let Some((name, value)) = chosen(environment, &MODE, target, notes) {
        settings.set(target, name, &value.to_ascii_lowercase(), notes);
    }
    list(environment, settings, notes);
}

fn flag(name: &str, value: &str, only: Only, settings: &mut Settings, notes: &mut Notes) {
    match switch(value) {
        Some(value) => {
            let place = whole(name);
            settings.layer.wanted.only.insert(only, At { value, place });
        }
        None => {
            let wrong = format!("`{}` is neither on nor off", quiet(value));
            notes.error(&whole(name), Problem::new(wrong, "write `on` or `off`"));
        }
    }
}

/// A folder ends in `/`, so that it is told from a file.
fn list(environment: &Environment, settings: &mut Settings, notes: &mut Notes) {
    let target = Target::Key(Key::ProviderList);
    let Some((name, value)) = chosen(environment, &LIST, target, notes) else {
        return;
    };
    let value = value.trim_end_matches('/');
    if USUAL
        .iter()
        .any(|usual| Path::new(usual) == Path::new(value))
    {
        return;
    }
    let end = if name == LIST[0] { "/" } else { "" };
    settings.set(target, name, &format!("{value}{end}"), notes);
}

/// With port forwarding gluetun takes of Proton VPN's servers those that forward ports, unless told otherwise.
pub(super) fn forwarding(environment: &Environment, settings: &mut Settings) {
    let wanted = &mut settings.layer.wanted;
    let proton = wanted
        .provider
        .as_ref()
        .is_some_and(|at| at.value == Provider::Protonvpn);
    let Some((name, _)) =
        set(environment, &FORWARDING).find(|(_, value)| switch(value) == Some(true))
    else {
        return;
    };
    if proton {
        let place = whole(name);
        wanted
            .only
            .entry(Only::PortForward)
            .or_insert(At { value: true, place });
    }
}
