//! gluetun's variables for WireGuard, so that a compose file that was written for gluetun can keep them. Names and values
//! are those of gluetun's wiki (setup/providers and setup/options) and of its `internal/configuration`. A `VPNGW_`
//! variable wins over them.
//!
//! [`rows`] and [`services`] say of every variable what becomes of it. What vpngw does not do is an error where the tunnel depends on it,
//! else a warning; what is not needed here is named once.

use std::net::Ipv4Addr;

use super::Read;
use super::diagnostic::{Notes, Problem};
use super::env::{Settings, Target, content, set_field};
use super::field::Field;
use super::keys::Key;
use super::place::{At, Masking, Text, quiet};
use super::provider;
use super::value;
use variable::{Environment, chosen, given, set, switch, whole};

mod dns;
mod fate;
mod lan;
mod rows;
mod servers;
mod services;
mod table;
mod variable;

pub(super) use dns::is_one as names_a_resolver;
pub use table::markdown;
pub(super) use table::names;

/// Ends the name of a variable that names a file with the value.
const FILE: &str = "_SECRETFILE";

/// The variables that say the same as one of ours, the first of which wins in gluetun too.
const SAME: [(&[&str], Target); 10] = [
    (&["WIREGUARD_CONF_SECRETFILE"], Target::Key(Key::Wireguard)),
    (
        &["WIREGUARD_PRIVATE_KEY_SECRETFILE", "WIREGUARD_PRIVATE_KEY"],
        Target::Field(Field::PrivateKey),
    ),
    (
        &[
            "WIREGUARD_ADDRESSES_SECRETFILE",
            "WIREGUARD_ADDRESSES",
            "WIREGUARD_ADDRESS",
        ],
        Target::Field(Field::Address),
    ),
    (&["WIREGUARD_PUBLIC_KEY"], Target::Field(Field::PublicKey)),
    (
        &[
            "WIREGUARD_PRESHARED_KEY_SECRETFILE",
            "WIREGUARD_PRESHARED_KEY",
        ],
        Target::Field(Field::PresharedKey),
    ),
    (&["WIREGUARD_ALLOWED_IPS"], Target::Field(Field::AllowedIps)),
    (&["WIREGUARD_MTU"], Target::Key(Key::TunnelMtu)),
    (&["VPN_INTERFACE"], Target::Key(Key::TunnelDevice)),
    (
        &["FIREWALL_VPN_INPUT_PORTS"],
        Target::Key(Key::ForwardPorts),
    ),
    (&[KEEPALIVE], Target::Field(Field::PersistentKeepalive)),
];

/// A duration as Go writes it.
const KEEPALIVE: &str = "WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL";

const HOST: [&str; 2] = ["WIREGUARD_ENDPOINT_IP", "VPN_ENDPOINT_IP"];
const PORT: [&str; 2] = ["WIREGUARD_ENDPOINT_PORT", "VPN_ENDPOINT_PORT"];
const PROVIDER: [&str; 2] = ["VPN_SERVICE_PROVIDER", "VPNSP"];
const TYPE: [&str; 1] = ["VPN_TYPE"];
const LEVEL: [&str; 1] = ["LOG_LEVEL"];
const GSO: [&str; 1] = ["WIREGUARD_GSO"];

/// Takes what the variables say.
pub(super) fn read(
    environment: &Environment,
    read: Read<'_>,
    settings: &mut Settings,
    notes: &mut Notes,
) {
    let meant = table::is_meant(environment);
    if meant {
        kind(environment, notes);
        named(environment, settings, notes);
        servers::read(environment, settings, notes);
        servers::forwarding(environment, settings);
        others(environment, settings, notes);
    }
    let provider = settings.layer.wanted.named.is_some();
    for (names, target) in SAME {
        let Some((name, value)) = chosen(environment, names, target, notes) else {
            continue;
        };
        // This one alone is the name of a file in vpngw.toml too.
        let is_file = name.ends_with(FILE) && target != Target::Key(Key::Wireguard);
        let Some(content) = content(name, value, is_file, read, notes) else {
            given(settings, target, name);
            continue;
        };
        if name == KEEPALIVE {
            keepalive(name, &content, settings, notes);
        } else if provider && target == Target::Field(Field::PublicKey) {
            // Of a provider's servers the list has the keys.
            let (text, start) = Text::variable(name, &content, Masking::Secret);
            let place = text.place(name, start..start + content.len());
            settings.layer.wanted.key = notes.keep(&place, value::public_key(content.trim()));
        } else {
            settings.set(target, name, &content, notes);
        }
    }
    if provider {
        one_server(environment, settings, notes);
    } else {
        endpoint(environment, settings, notes);
    }
    dns::read(environment, settings, notes);
    lan::inbound(environment, notes);
    lan::outbound(environment, settings, notes);
    if meant {
        table::say(environment, notes);
    }
}

/// Another protocol has no tunnel here.
fn kind(environment: &Environment, notes: &mut Notes) {
    for (name, value) in set(environment, &TYPE) {
        if !value.eq_ignore_ascii_case("wireguard") {
            let wrong = format!(
                "`{}` is not supported: vpngw speaks WireGuard only",
                quiet(value)
            );
            let right = "set it to `wireguard`, with a WireGuard file or key from the provider";
            notes.error(&whole(name), Problem::new(wrong, right));
        }
    }
}

/// The provider, unless it is the operator's own server.
fn named(environment: &Environment, settings: &mut Settings, notes: &mut Notes) {
    let target = Target::Key(Key::ProviderName);
    let Some((name, value)) = chosen(environment, &PROVIDER, target, notes) else {
        return;
    };
    if value.eq_ignore_ascii_case("custom") {
        return;
    }
    let wanted = &mut settings.layer.wanted;
    wanted.named = Some(whole(name));
    let known = provider::named(value).ok_or_else(|| {
        let names = provider::Provider::ALL.map(provider::Provider::name).join(", ");
        let wrong = format!("`{}` is not a provider whose servers are known here", quiet(value));
        let right = format!(
            "these are: {names}. Of any other set it to `custom`, and put the provider's WireGuard file at \
             /gluetun/wireguard/wg0.conf; or set WIREGUARD_ENDPOINT_IP, WIREGUARD_ENDPOINT_PORT, \
             WIREGUARD_PUBLIC_KEY, WIREGUARD_PRIVATE_KEY and WIREGUARD_ADDRESSES to what it says"
        );
        Problem::new(wrong, right)
    });
    wanted.provider = notes.keep(&whole(name), known);
}

/// Beside a provider an address says which of its servers is meant, and a port which of theirs.
fn one_server(environment: &Environment, settings: &mut Settings, notes: &mut Notes) {
    let target = Target::Key(Key::ProviderEndpointIp);
    if let Some((name, value)) = chosen(environment, &HOST, target, notes)
        && value.parse() != Ok(Ipv4Addr::UNSPECIFIED)
    {
        settings.set(target, name, value, notes);
    }
    let target = Target::Key(Key::ProviderEndpointPort);
    if let Some((name, value)) = chosen(environment, &PORT, target, notes)
        && value != "0"
    {
        settings.set(target, name, value, notes);
    }
}

/// What has a key of ours, and other words for its values.
fn others(environment: &Environment, settings: &mut Settings, notes: &mut Notes) {
    let target = Target::Key(Key::LogLevel);
    if let Some((name, value)) = chosen(environment, &LEVEL, target, notes) {
        let value = value.to_ascii_lowercase();
        let value = if value == "warning" { "warn" } else { &value };
        settings.set(target, name, value, notes);
    }
    let target = Target::Key(Key::TunnelOffload);
    if let Some((name, value)) = chosen(environment, &GSO, target, notes)
        && switch(value) == Some(false)
    {
        let place = whole(name);
        settings.layer.offload = Some(At {
            value: super::Offload::Off,
            place,
        });
    }
}

/// The address and the port stand in two variables. A name is good where gluetun wants an address.
fn endpoint(environment: &Environment, settings: &mut Settings, notes: &mut Notes) {
    let target = Target::Field(Field::Endpoint);
    let host = chosen(environment, &HOST, target, notes);
    let port = chosen(environment, &PORT, target, notes);
    let (name, (host, port)) = match (host, port) {
        (None, None) => return,
        (Some((host, address)), Some((port, number))) => ([host, port], (address, number)),
        (Some((name, _)), None) => {
            let right = format!("set {} too, such as `51820`", PORT[0]);
            notes.error(
                &whole(name),
                Problem::new("the server's port is missing", right),
            );
            return given(settings, target, name);
        }
        (None, Some((name, _))) => {
            let right = format!("set {} too, such as `203.0.113.7`", HOST[0]);
            let wrong = "the server's address is missing";
            notes.error(&whole(name), Problem::new(wrong, right));
            return given(settings, target, name);
        }
    };
    let text = format!("{host}:{port}");
    // An error is said of the one that is wrong; of a good endpoint both are the source.
    let place = if value::port_number(port).is_err() {
        whole(name[1])
    } else if value::endpoint(&text).is_err() {
        whole(name[0])
    } else {
        whole(&name.join(" and "))
    };
    let whole = |_: usize, _: usize| place.clone();
    set_field(&mut settings.tunnel, Field::Endpoint, &text, &whole, notes);
}

/// Go's `25s` and `1m30s`, and a bare number of seconds.
fn keepalive(name: &str, text: &str, settings: &mut Settings, notes: &mut Notes) {
    let (shown, start) = Text::variable(name, text, Masking::Plain);
    let place = |_: usize, _: usize| shown.place(name, start..start + text.len());
    let field = Field::PersistentKeepalive;
    match seconds(text) {
        Some(seconds) => {
            let seconds = seconds.to_string();
            set_field(&mut settings.tunnel, field, &seconds, &place, notes);
        }
        None => {
            let wrong = format!("`{}` is not a duration in whole seconds", quiet(text));
            notes.error(
                &place(0, 0),
                Problem::new(wrong, "write `25s`, or `0` for none"),
            );
            given(settings, Target::Field(field), name);
        }
    }
}

/// Hours, minutes and seconds as Go's time.ParseDuration takes them, without fractions.
fn seconds(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let (mut total, mut rest) = (0u64, text);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let unit = after.find(|c: char| c.is_ascii_digit());
        let (unit, after) = after.split_at(unit.unwrap_or(after.len()));
        let scale = match unit {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            // Text from outside: all else is no unit.
            _ => return None,
        };
        total = number
            .parse::<u64>()
            .ok()?
            .checked_mul(scale)?
            .checked_add(total)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_of_go_is_read_in_seconds() {
        assert_eq!(seconds("25s"), Some(25));
        assert_eq!(seconds("1h1m30s"), Some(3690));
        assert_eq!(seconds("25"), Some(25));
        assert_eq!(seconds("0"), Some(0));
        for bad in [
            "",
            "s",
            "1.5s",
            "500ms",
            "-25s",
            "25 s",
            "99999999999999999999h",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_variable_that_is_read_has_a_row() {
        let same = SAME.iter().flat_map(|(names, _)| *names);
        let places = servers::WHERE.iter().flat_map(|(names, _)| *names);
        let only = servers::ONLY.iter().flat_map(|(names, _)| *names);
        let others = [&HOST[..], &PORT, &PROVIDER, &TYPE, &LEVEL, &GSO];
        let of_servers = [&servers::FORWARDING[..], &servers::MODE, &servers::LIST];
        let beside = [
            &dns::ADDRESSES[..],
            &dns::NAMES,
            &lan::INBOUND,
            &lan::OUTBOUND,
        ];
        let lists = others.into_iter().chain(of_servers).chain(beside).flatten();
        for name in same.chain(places).chain(only).chain(lists) {
            assert!(names().any(|known| known == *name), "{name}");
        }
    }
}
