//! What gluetun opens to whole networks is not opened here: a warning says which line names the host and the port.

use ipnetwork::Ipv4Network;

use super::super::diagnostic::{Notes, Problem};
use super::super::env::{Settings, Target};
use super::super::keys::Key;
use super::super::value;
use super::super::wgquick::items;
use super::variable::{Environment, chosen, set, whole};
use crate::net::networks::masked;

pub(super) const INBOUND: [&str; 1] = ["FIREWALL_INPUT_PORTS"];
pub(super) const OUTBOUND: [&str; 2] = ["FIREWALL_OUTBOUND_SUBNETS", "EXTRA_SUBNETS"];

/// The network of an example.
const LAN: &str = "192.168.1.0/24";

/// gluetun lets everyone on the LAN reach these ports; who may is not in the variable.
pub(super) fn inbound(environment: &Environment, notes: &mut Notes) {
    let target = Target::Key(Key::LanInbound);
    let Some((name, value)) = chosen(environment, &INBOUND, target, notes) else {
        return;
    };
    let ports = items(value).filter_map(|(_, item)| value::port_number(item).ok());
    let mut pairs: Vec<_> = ports.map(|port| format!("tcp/{port}")).collect();
    if pairs.is_empty() {
        pairs.push("tcp/8080".to_owned());
    }
    let wrong = "nothing is opened by it: it does not say who may reach the ports";
    let right = format!(
        "set `{}={}`, which lets in whoever is in a private network, and unset {name}",
        target.variable(),
        pairs.join(",")
    );
    notes.warn(&whole(name), Problem::new(wrong, right));
}

/// gluetun lets programs reach every port of these networks; which host and port is not in the variable.
pub(super) fn outbound(environment: &Environment, settings: &mut Settings, notes: &mut Notes) {
    let all = set(environment, &OUTBOUND).flat_map(|(_, value)| items(value));
    let networks = all.filter_map(|(_, item)| item.parse::<Ipv4Network>().ok());
    let networks: Vec<_> = networks.map(masked).collect();
    let target = Target::Key(Key::LanOutbound);
    let chosen = chosen(environment, &OUTBOUND, target, notes);
    let first = networks.first();
    let host = first.and_then(|network| network.nth(20).or_else(|| network.nth(0)));
    let host = host.map_or_else(|| "192.168.1.20".to_owned(), |host| host.to_string());
    let from = if networks.is_empty() {
        vec![LAN.to_owned()]
    } else {
        networks.iter().map(Ipv4Network::to_string).collect()
    };
    settings.layer.outside = networks;
    let Some((name, _)) = chosen else { return };
    let pages: Vec<_> = from.iter().map(|from| format!("{from}=tcp/8080")).collect();
    let wrong = "nothing is opened by it: it names no host and no port";
    let right = format!(
        "set `{}={host}=tcp/445` with the host and the port that programs need, and unset {name}; a \
         web page of a program is seen from there by `{}={}`",
        target.variable(),
        Key::LanInbound.variable(),
        pages.join(","),
    );
    notes.warn(&whole(name), Problem::new(wrong, right));
}
