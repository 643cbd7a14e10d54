//! From as written to as meant: every value or its default, and where it came from.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::PathBuf;

use super::clients::Clients;
use super::diagnostic::{Notes, Problem};
use super::field::Field;
use super::layer::{InboundAt, Layer, OutboundAt};
use super::load::Origin;
use super::place::{At, Place, Source, quiet};
use super::provider::{Order, Wanted};
use super::tunnel::{Interface, PeerDraft, WgQuick};
use super::{
    Config, Host, Inbound, Lan, Log, LogFormat, LogLevel, Offload, Outbound, Peer, Resolvers,
    Sealed, Secret, Tunnel,
};
use crate::net::IfName;
use crate::net::lan::private_clients;

/// Bytes of the largest inner packet, as in wg-quick(8) on an uplink of 1500.
const MTU: u16 = 1420;

/// Name of the tunnel device.
pub(super) const DEVICE: &str = "tun0";

/// Path of the control socket, unless somebody says otherwise.
pub const SOCKET: &str = "/run/vpngw/vpngw.sock";

/// Path of the socket between the halves of the sealed topology, unless somebody says otherwise.
pub const SEALED_SOCKET: &str = "/run/vpngw/warden.sock";

/// The user `nobody` of Debian, Alpine and Fedora, who owns nothing.
const NOBODY: u32 = 65534;

/// Everything in force, with its origins; `None` where something required is missing or wrong, which
/// has been noted as an error.
pub(super) fn resolve(
    layer: &Layer,
    wg: &WgQuick,
    wireguard: Option<&At<PathBuf>>,
) -> Option<(Config, Vec<Origin>)> {
    let (config, origins) = compose(layer, wg, wireguard)?;
    let allowed = config.peers.iter().all(|peer| !peer.allowed_ips.is_empty());
    let tunnel = &config.tunnel;
    let whole =
        allowed && !config.peers.is_empty() && !tunnel.addresses.is_empty() && tunnel.dns.is_some();
    whole.then_some((config, origins))
}

/// Everything but the tunnel: no key, no server, no address.
pub(super) fn without_tunnel(layer: &Layer) -> Option<(Config, Vec<Origin>)> {
    let nothing = At {
        value: Secret::NONE,
        place: Place::whole(Source::Default, ""),
    };
    let mut wg = WgQuick::default();
    wg.interface.private_key = Some(nothing);
    compose(layer, &wg, None)
}

fn compose(
    layer: &Layer,
    wg: &WgQuick,
    wireguard: Option<&At<PathBuf>>,
) -> Option<(Config, Vec<Origin>)> {
    let mut origins = Origins::default();
    if let Some(at) = wireguard {
        origins.push("wireguard", at.value.display(), Some(&at.place));
    }
    let tunnel = tunnel(layer, &wg.interface, &mut origins);
    provider(&layer.wanted, &mut origins);
    let peers = peers(layer, wg, &mut origins);
    let uplink = origins.optional(
        "uplink.device",
        layer.uplink.as_ref(),
        "(of the default route)",
    );
    let resolver = origins.optional(
        "uplink.resolver",
        layer.resolver.as_ref(),
        "(first of resolv.conf)",
    );
    let lan = lan(
        layer,
        tunnel.as_ref(),
        peers.as_deref().unwrap_or_default(),
        &mut origins,
    );
    let forward = origins.list("forward.ports", layer.forward.as_ref());
    let metrics = origins.optional("metrics.listen", layer.metrics.as_ref(), "(off)");
    let control = origins.path("control.socket", layer.control.as_ref(), SOCKET);
    let sealed = Sealed {
        socket: origins.path("sealed.socket", layer.sealed_socket.as_ref(), SEALED_SOCKET),
        engine_user: origins.value("sealed.engine_user", layer.engine_user.as_ref(), NOBODY),
        without_rules: origins.value("sealed.without_rules", layer.without_rules.as_ref(), false),
    };
    let log = Log {
        level: origins.choice("log.level", layer.level.as_ref(), LogLevel::Info, level),
        format: origins.choice("log.format", layer.format.as_ref(), LogFormat::Text, format),
    };
    let config = Config {
        tunnel: tunnel?,
        peers: peers?,
        uplink,
        resolver,
        lan,
        forward,
        metrics,
        control,
        sealed,
        log,
    };
    // The sort is stable: the tunnel first, the rest in its order.
    let mut origins = origins.0;
    origins.sort_by_key(|origin| !origin.key.starts_with("wireguard"));
    Some((config, origins))
}

/// The servers. Of those that were chosen from a list the first one is shown, and how many there are.
fn peers(layer: &Layer, wg: &WgQuick, origins: &mut Origins) -> Option<Vec<Peer>> {
    let mut each = wg.peers.iter().enumerate();
    let mut all = |count: usize, origins: &mut Origins| -> Option<Vec<_>> {
        let each = each.by_ref().take(count);
        each.map(|(index, draft)| peer(index, draft, origins))
            .collect()
    };
    let chosen = layer.wanted.provider.is_some() && layer.wanted.list.is_some();
    if !chosen || wg.peers.len() < 2 {
        return all(usize::MAX, origins);
    }
    let mut peers = all(1, origins)?;
    peers.extend(all(usize::MAX, &mut Origins::default())?);
    let rest = wg.peers.len() - 1;
    let key = format!("wireguard.peers[1..{}]", rest + 1);
    let place = wg.peers.last().map(|peer| &peer.place);
    origins.push(&key, format!("{rest} more, tried in turn"), place);
    Some(peers)
}

/// What servers are chosen by, as far as it is set.
fn provider(wanted: &Wanted, origins: &mut Origins) {
    let Some(provider) = &wanted.provider else {
        return;
    };
    origins.push("provider.name", provider.value, Some(&provider.place));
    for (attribute, at) in &wanted.values {
        let values = join(at.value.iter().map(|at| quiet(&at.value)));
        origins.push(attribute.path(), values, Some(&at.place));
    }
    for (only, at) in &wanted.only {
        origins.push(only.path(), at.value, Some(&at.place));
    }
    if let Some(at) = &wanted.address {
        origins.push("provider.endpoint_ip", at.value, Some(&at.place));
    }
    if let Some(at) = &wanted.port {
        origins.push("provider.endpoint_port", at.value, Some(&at.place));
    }
    let order = wanted.order.as_ref();
    origins.choice("provider.order", order, Order::Random, Order::name);
    if let Some(at) = &wanted.list {
        origins.push("provider.list", at.value.display(), Some(&at.place));
    }
}

/// Notes what is missing. What was given and wrong has been noted already.
pub(super) fn require(wg: &WgQuick, notes: &mut Notes) {
    if wg.foreign {
        return;
    }
    let interface = &wg.interface;
    let nowhere = Place::whole(Source::Default, "");
    let place = interface.place.as_ref().unwrap_or(&nowhere);
    if interface.given.is_empty() && wg.peers.is_empty() {
        let right = "put a wg-quick file at /config/wg0.conf, name one by `wireguard = \"…\"` in \
            vpngw.toml or by VPNGW_WIREGUARD, or set VPNGW_WIREGUARD_PRIVATE_KEY and the others";
        notes.error(place, Problem::new("no tunnel is configured", right));
        return;
    }
    if !interface.given.contains_key(&Field::PrivateKey) {
        let right = "write `PrivateKey = …` below [Interface], or set VPNGW_WIREGUARD_PRIVATE_KEY";
        notes.error(place, Problem::new("the tunnel has no private key", right));
    }
    if interface.addresses.is_empty() {
        let right = "write `Address = 10.64.0.2/32` with the address that the provider gave you";
        notes.error(place, Problem::new("the tunnel has no IPv4 address", right));
    }
    if wg.peers.is_empty() {
        let right = "write a `[Peer]` section, or set VPNGW_WIREGUARD_PUBLIC_KEY and the others";
        notes.error(place, Problem::new("the tunnel has no peer", right));
    }
    for peer in &wg.peers {
        if !peer.given.contains_key(&Field::PublicKey) {
            let right = "write `PublicKey = …` with the server's public key";
            notes.error(
                &peer.place,
                Problem::new("the peer has no public key", right),
            );
        }
        if !peer.given.contains_key(&Field::Endpoint) {
            let right = "write `Endpoint = 203.0.113.7:51820` with the server's address and port";
            notes.error(&peer.place, Problem::new("the peer has no endpoint", right));
        }
        if peer.allowed_ips.is_empty() {
            let right = "write `AllowedIPs = 0.0.0.0/0`";
            notes.error(
                &peer.place,
                Problem::new("the peer has no IPv4 AllowedIPs", right),
            );
        }
    }
}

fn tunnel(layer: &Layer, interface: &Interface, origins: &mut Origins) -> Option<Tunnel> {
    let key = interface.private_key.as_ref();
    origins.secret("wireguard.private_key", key);
    let addresses = origins.each("wireguard.address", &interface.addresses);
    let dns = origins.each("wireguard.dns", &interface.dns);
    let any = "(any)";
    let port = interface.listen_port.as_ref();
    let listen_port = origins.flat("wireguard.listen_port", port, any);
    let fwmark = origins.flat("wireguard.fwmark", interface.fwmark.as_ref(), any);
    let mtu = layer.mtu.as_ref().or(interface.mtu.as_ref());
    let device = layer.device.as_ref();
    Some(Tunnel {
        device: origins.value("tunnel.device", device, DEVICE.parse::<IfName>().ok()?),
        addresses,
        mtu: origins.value("tunnel.mtu", mtu, MTU),
        dns: Resolvers::new(dns),
        offload: origins.choice(
            "tunnel.offload",
            layer.offload.as_ref(),
            Offload::Auto,
            offload,
        ),
        private: origins.list("tunnel.private", layer.private.as_ref()),
        private_key: key?.value.clone(),
        listen_port,
        fwmark,
    })
}

fn peer(index: usize, draft: &PeerDraft, origins: &mut Origins) -> Option<Peer> {
    let key = |name: &str| format!("wireguard.peers[{index}].{name}");
    if let Some(name) = &draft.name {
        origins.push(&key("name"), quiet(name), Some(&draft.place));
    }
    let public = draft.public_key.as_ref();
    let shown = public.map(|at| at.value.to_string()).unwrap_or_default();
    origins.push(&key("public_key"), shown, public.map(|at| &at.place));
    let preshared = draft.preshared_key.as_ref();
    if preshared.is_some() {
        origins.secret(&key("preshared_key"), preshared);
    }
    let endpoint = draft.endpoint.as_ref();
    let shown = endpoint.map(|at| at.value.to_string()).unwrap_or_default();
    origins.push(&key("endpoint"), shown, endpoint.map(|at| &at.place));
    let keepalive = draft.keepalive.as_ref();
    let keepalive = origins.flat(&key("persistent_keepalive"), keepalive, "off");
    let allowed_ips = origins.each(&key("allowed_ips"), &draft.allowed_ips);
    Some(Peer {
        name: draft.name.clone(),
        public_key: public?.value,
        preshared_key: preshared.map(|at| at.value.clone()),
        endpoint: endpoint?.value.clone(),
        keepalive,
        allowed_ips,
    })
}

fn lan(layer: &Layer, tunnel: Option<&Tunnel>, peers: &[Peer], origins: &mut Origins) -> Lan {
    let inside = tunnel.map(Tunnel::inside).unwrap_or_default();
    let servers = peers.iter().filter_map(|peer| match peer.endpoint.host {
        Host::Address(ip) => Some(ip),
        Host::Name(_) => None,
    });
    let private = private_clients(inside, &servers.collect::<Vec<_>>());
    let inbound = |at: &InboundAt| {
        let (Some(from), Some(to)) = (&at.from, &at.to) else {
            return Vec::new();
        };
        let networks = match from.value {
            Clients::Private => private.clone(),
            Clients::Network(network) => vec![network],
        };
        // What is wrong with it has been noted.
        let rule = |network| Inbound::new(network, to.value).ok();
        networks.into_iter().filter_map(rule).collect()
    };
    let outbound = |at: &OutboundAt| {
        let rule = || Outbound::new(at.to.as_ref()?.value, at.port.as_ref()?.value).ok();
        rule().into_iter().collect()
    };
    let show_in = |one: &Inbound| format!("{} to {}", one.from(), one.to());
    let show_out = |one: &Outbound| format!("{} {}", one.to(), one.port());
    Lan {
        inbound: origins.shown("lan.inbound", layer.inbound.as_ref(), inbound, show_in),
        outbound: origins.shown("lan.outbound", layer.outbound.as_ref(), outbound, show_out),
    }
}

fn offload(offload: Offload) -> &'static str {
    match offload {
        Offload::Auto => "auto",
        Offload::Off => "off",
    }
}

fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}

fn format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

/// Collects where each value came from while handing it on.
#[derive(Default)]
struct Origins(Vec<Origin>);

impl Origins {
    fn push(&mut self, key: &str, value: impl Display, place: Option<&Place>) {
        let source = place.map_or_else(|| Source::Default.to_string(), Place::origin);
        self.0.push(Origin {
            key: key.to_owned(),
            value: value.to_string(),
            source,
        });
    }

    fn secret<T>(&mut self, key: &str, at: Option<&At<T>>) {
        self.push(key, "(secret)", at.map(|at| &at.place));
    }

    fn value<T: Clone + Display>(&mut self, key: &str, at: Option<&At<T>>, default: T) -> T {
        let value = at.map_or(default, |at| at.value.clone());
        self.push(key, &value, at.map(|at| &at.place));
        value
    }

    fn path(&mut self, key: &str, at: Option<&At<PathBuf>>, default: &str) -> PathBuf {
        let path = at.map_or_else(|| PathBuf::from(default), |at| at.value.clone());
        self.push(key, path.display(), at.map(|at| &at.place));
        path
    }

    fn choice<T: Copy>(
        &mut self,
        key: &str,
        at: Option<&At<T>>,
        default: T,
        show: fn(T) -> &'static str,
    ) -> T {
        let value = at.map_or(default, |at| at.value);
        self.push(key, show(value), at.map(|at| &at.place));
        value
    }

    fn optional<T: Clone + Display>(
        &mut self,
        key: &str,
        at: Option<&At<T>>,
        none: &str,
    ) -> Option<T> {
        let shown = at.map_or_else(|| none.to_owned(), |at| at.value.to_string());
        self.push(key, shown, at.map(|at| &at.place));
        at.map(|at| at.value.clone())
    }

    fn flat<T: Copy + Display>(
        &mut self,
        key: &str,
        at: Option<&At<Option<T>>>,
        none: &str,
    ) -> Option<T> {
        let value = at.and_then(|at| at.value);
        let shown = value.map_or_else(|| none.to_owned(), |value| value.to_string());
        self.push(key, shown, at.map(|at| &at.place));
        value
    }

    /// A list whose items stand in several places: a line for each source line.
    fn each<T: Copy + Display>(&mut self, key: &str, items: &[At<T>]) -> Vec<T> {
        if items.is_empty() {
            self.push(key, "(none)", None);
        }
        for group in items.chunk_by(|a, b| a.place.same_line(&b.place)) {
            let shown = join(group.iter().map(|at| at.value.to_string()));
            self.push(key, shown, Some(&group[0].place));
        }
        unique(items.iter().map(|at| at.value), T::to_string)
    }

    fn list<T: Copy + Display>(&mut self, key: &str, at: Option<&At<Vec<At<T>>>>) -> Vec<T> {
        self.shown(key, at, |at| vec![at.value], T::to_string)
    }

    fn shown<T, U>(
        &mut self,
        key: &str,
        at: Option<&At<Vec<T>>>,
        mean: impl Fn(&T) -> Vec<U>,
        show: impl Fn(&U) -> String,
    ) -> Vec<U> {
        let values = unique(
            at.into_iter().flat_map(|at| &at.value).flat_map(mean),
            &show,
        );
        let shown = if values.is_empty() {
            "(none)".to_owned()
        } else {
            join(values.iter().map(&show))
        };
        self.push(key, shown, at.map(|at| &at.place));
        values
    }
}

fn join(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(", ")
}

/// Without repetitions, in the order of the first of each.
fn unique<T>(items: impl Iterator<Item = T>, show: impl Fn(&T) -> String) -> Vec<T> {
    let mut seen = BTreeSet::new();
    items.filter(|item| seen.insert(show(item))).collect()
}
