//! gluetun's variables for a WireGuard server of the operator's own choice, so that a compose file that
//! was written for gluetun can keep them. Names and values are those of gluetun's wiki
//! (setup/providers/custom.md and setup/options). A `VPNGW_` variable wins over them.
//!
//! What gluetun opens to whole networks is not opened here: a warning says which line names the host
//! and the port. What vpngw does not do is an error where the tunnel depends on it, else a warning.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::Ipv4Network;

use super::Read;
use super::diagnostic::{Notes, Problem};
use super::env::{Settings, Target, content, set_field};
use super::field::Field;
use super::keys::Key;
use super::place::{Masking, Place, Source, Text, quiet};
use super::tunnel::PeerDraft;
use super::value;
use super::wgquick::items;

type Environment = BTreeMap<String, String>;

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
const RESOLVER: [&str; 1] = ["DNS_ADDRESS"];
const INBOUND: [&str; 1] = ["FIREWALL_INPUT_PORTS"];
const OUTBOUND: [&str; 2] = ["FIREWALL_OUTBOUND_SUBNETS", "EXTRA_SUBNETS"];
const PROVIDER: [&str; 2] = ["VPN_SERVICE_PROVIDER", "VPNSP"];
const TYPE: [&str; 1] = ["VPN_TYPE"];

/// The network of an example.
const LAN: &str = "192.168.1.0/24";

/// What is not done here: the variables that switch it on, what is wrong, and what would be right.
const NOT_DONE: [(&[&str], &str, &str); 4] = [
    (&["HTTPPROXY"], "vpngw has no HTTP proxy", PROXY),
    (&["SHADOWSOCKS"], "vpngw has no Shadowsocks proxy", PROXY),
    (&["SOCKS5_ENABLED"], "vpngw has no SOCKS proxy", PROXY),
    (
        &["VPN_PORT_FORWARDING", "PORT_FORWARDING"],
        "vpngw asks no provider for a port",
        "unset it, and name a port that the provider gave you in VPNGW_FORWARD_PORTS",
    ),
];

const PROXY: &str = "unset it; a program that joins the namespace needs no proxy, and a proxy for \
    others can join it as a program";

/// Every variable that is known.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let same = SAME.iter().flat_map(|(names, _)| *names);
    let not_done = NOT_DONE.iter().flat_map(|(names, ..)| *names);
    let others = [
        &HOST[..],
        &PORT,
        &RESOLVER,
        &INBOUND,
        &OUTBOUND,
        &PROVIDER,
        &TYPE,
    ];
    same.chain(not_done)
        .chain(others.into_iter().flatten())
        .copied()
}

/// Takes what the variables say.
pub(super) fn read(
    environment: &Environment,
    read: Read<'_>,
    settings: &mut Settings,
    notes: &mut Notes,
) {
    supported(environment, notes);
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
        } else {
            settings.set(target, name, &content, notes);
        }
    }
    endpoint(environment, settings, notes);
    resolver(environment, settings, notes);
    inbound(environment, notes);
    outbound(environment, notes);
    for (names, wrong, right) in NOT_DONE {
        for (name, _) in set(environment, names).filter(|(_, value)| !is_off(value)) {
            notes.warn(&whole(name), Problem::new(wrong, right));
        }
    }
}

/// Without a list of servers and without OpenVPN there is no tunnel to a named provider.
fn supported(environment: &Environment, notes: &mut Notes) {
    for (name, value) in set(environment, &PROVIDER) {
        if !value.eq_ignore_ascii_case("custom") {
            let wrong = format!(
                "`{}` is not supported: vpngw has no list of a provider's servers",
                quiet(value)
            );
            let right = "set it to `custom`; then put the provider's WireGuard file at \
                /gluetun/wireguard/wg0.conf, or set WIREGUARD_ENDPOINT_IP, WIREGUARD_ENDPOINT_PORT, \
                WIREGUARD_PUBLIC_KEY, WIREGUARD_PRIVATE_KEY and WIREGUARD_ADDRESSES to what it says";
            notes.error(&whole(name), Problem::new(wrong, right));
        }
    }
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

/// The variables that are set, in the order of their names. An empty one is not set, and quotes around a
/// value are no part of it: `- WIREGUARD_ADDRESSES="10.64.0.2/32"` in a list of compose keeps them.
fn set<'a>(
    environment: &'a Environment,
    names: &'a [&'static str],
) -> impl Iterator<Item = (&'static str, &'a str)> {
    let value = |name: &str| environment.get(name).map(|value| unquoted(value.trim()));
    let each = names
        .iter()
        .filter_map(move |name| Some((*name, value(name)?)));
    each.filter(|(_, value)| !value.is_empty())
}

fn unquoted(text: &str) -> &str {
    let inner = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(text).trim()
}

/// The variable that counts, if none of ours says the same; a warning for each that does not count.
fn chosen<'a>(
    environment: &'a Environment,
    names: &'a [&'static str],
    target: Target,
    notes: &mut Notes,
) -> Option<(&'static str, &'a str)> {
    let ours = target.variable();
    let forms = [ours.to_string(), format!("{ours}_FILE")];
    let ours = forms.iter().find(|form| environment.contains_key(*form));
    let mut given = set(environment, names);
    let first = if ours.is_none() { given.next() } else { None };
    let winner = ours
        .map(String::as_str)
        .or_else(|| first.map(|(name, _)| name));
    for (name, _) in given {
        let wrong = format!("`{}` is set too, and wins", winner.unwrap_or_default());
        notes.warn(&whole(name), Problem::new(wrong, "unset one of the two"));
    }
    first
}

/// A field whose value cannot be told is not missing.
fn given(settings: &mut Settings, target: Target, name: &str) {
    let Target::Field(field) = target else { return };
    let place = whole(name);
    let given = if field.of_peer() {
        &mut peer(settings, &place).given
    } else {
        let interface = &mut settings.tunnel.interface;
        interface.place.get_or_insert_with(|| place.clone());
        &mut interface.given
    };
    given.insert(field, place);
}

fn peer<'a>(settings: &'a mut Settings, place: &Place) -> &'a mut PeerDraft {
    let peers = &mut settings.tunnel.peers;
    if peers.is_empty() {
        peers.push(PeerDraft::new(place.clone()));
    }
    &mut peers[0]
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

/// A resolver reached through the tunnel, unless it is the one that gluetun itself is.
fn resolver(environment: &Environment, settings: &mut Settings, notes: &mut Notes) {
    let target = Target::Field(Field::Dns);
    let Some((name, value)) = chosen(environment, &RESOLVER, target, notes) else {
        return;
    };
    let address = value.parse::<IpAddr>();
    if address.is_ok_and(|address| address.is_loopback() || address.is_unspecified()) {
        let wrong = "it is ignored: vpngw is no resolver";
        let right = "write the provider's, such as `10.64.0.1`, which is asked through the tunnel";
        return notes.warn(&whole(name), Problem::new(wrong, right));
    }
    settings.set(target, name, value, notes);
}

/// gluetun lets everyone on the LAN reach these ports; who may is not in the variable.
fn inbound(environment: &Environment, notes: &mut Notes) {
    let target = Target::Key(Key::LanInbound);
    let Some((name, value)) = chosen(environment, &INBOUND, target, notes) else {
        return;
    };
    let ports = items(value).filter_map(|(_, item)| value::port_number(item).ok());
    let mut pairs: Vec<_> = ports.map(|port| format!("{LAN}=tcp/{port}")).collect();
    if pairs.is_empty() {
        pairs.push(format!("{LAN}=tcp/8080"));
    }
    let wrong = "nothing is opened by it: it does not say who may reach the ports";
    let right = format!(
        "set `{}={}` with the network of your LAN, and unset {name}",
        target.variable(),
        pairs.join(",")
    );
    notes.warn(&whole(name), Problem::new(wrong, right));
}

/// gluetun lets programs reach every port of these networks; which host and port is not in the variable.
fn outbound(environment: &Environment, notes: &mut Notes) {
    let target = Target::Key(Key::LanOutbound);
    let Some((name, value)) = chosen(environment, &OUTBOUND, target, notes) else {
        return;
    };
    let mut networks = items(value).filter_map(|(_, item)| item.parse::<Ipv4Network>().ok());
    let network = networks.next();
    let host = network.map_or_else(
        || "192.168.1.20".to_owned(),
        |network| network.nth(20).unwrap_or_else(|| network.ip()).to_string(),
    );
    let from = network.map_or_else(|| LAN.to_owned(), |network| network.to_string());
    let wrong = "nothing is opened by it: it names no host and no port";
    let right = format!(
        "set `{}={host}=tcp/445` with the host and the port that programs need, and unset {name}; a \
         web page of a program is seen from there by `{}={}=tcp/8080`",
        target.variable(),
        Key::LanInbound.variable(),
        from,
    );
    notes.warn(&whole(name), Problem::new(wrong, right));
}

/// As gluetun reads a switch.
fn is_off(value: &str) -> bool {
    let off = ["off", "no", "false", "0", "disabled"];
    off.iter().any(|word| value.eq_ignore_ascii_case(word))
}

fn whole(name: &str) -> Place {
    Place::whole(Source::Variable(name.to_owned()), name)
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
}
