//! Settings as one source gives them, each value with its place, to be laid over one another.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnetwork::Ipv4Network;

use super::clients::{Clients, clients};
use super::diagnostic::Notes;
use super::keys::Key;
use super::place::{At, Place};
use super::provider::{Wanted, written};
use super::tunnel::{WgQuick, Written};
use super::value::{self, Parsed};
use super::{LogFormat, LogLevel, Offload};
use crate::net::{IfName, Port};

/// Settings of one source; `None` is not given, or given and wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    pub(super) wireguard: Option<At<PathBuf>>,
    /// The tunnel of an inline table or of variables.
    pub(super) inline: Option<WgQuick>,
    pub(super) device: Option<At<IfName>>,
    pub(super) mtu: Option<At<u16>>,
    pub(super) offload: Option<At<Offload>>,
    pub(super) private: Option<At<Vec<At<Ipv4Network>>>>,
    pub(super) uplink: Option<At<IfName>>,
    pub(super) resolver: Option<At<Ipv4Addr>>,
    pub(super) inbound: Option<At<Vec<InboundAt>>>,
    pub(super) outbound: Option<At<Vec<OutboundAt>>>,
    pub(super) forward: Option<At<Vec<At<u16>>>>,
    pub(super) metrics: Option<At<SocketAddr>>,
    pub(super) control: Option<At<PathBuf>>,
    pub(super) sealed_socket: Option<At<PathBuf>>,
    pub(super) engine_user: Option<At<u32>>,
    pub(super) without_rules: Option<At<bool>>,
    pub(super) level: Option<At<LogLevel>>,
    pub(super) format: Option<At<LogFormat>>,
    pub(super) wanted: Wanted,
    /// Networks that gluetun would reach past the tunnel. Nothing is opened by them.
    pub(super) outside: Vec<Ipv4Network>,
}

/// A LAN exception inwards, as written; what is wrong is `None`.
#[derive(Clone, Debug)]
pub(super) struct InboundAt {
    pub(super) from: Option<At<Clients>>,
    pub(super) to: Option<At<Port>>,
}

/// A LAN exception outwards, as written; what is wrong is `None`.
#[derive(Clone, Debug)]
pub(super) struct OutboundAt {
    pub(super) to: Option<At<Ipv4Addr>>,
    pub(super) port: Option<At<Port>>,
}

/// A value as written, of the shape that the kind of its key wants.
pub(super) enum Raw<'a> {
    One(Written<'a>),
    List(Vec<Written<'a>>),
    Pairs(Vec<(Written<'a>, Written<'a>)>),
}

impl Layer {
    /// Takes the value of one key. The place is that of the value as a whole.
    pub(super) fn set(&mut self, key: Key, raw: Raw<'_>, place: &Place, notes: &mut Notes) {
        match key {
            Key::Wireguard => self.wireguard = raw.one(value::path, notes),
            Key::TunnelDevice => self.device = raw.one(value::device, notes),
            Key::TunnelMtu => self.mtu = raw.one(value::mtu, notes),
            Key::TunnelOffload => self.offload = raw.one(value::offload, notes),
            Key::UplinkDevice => self.uplink = raw.one(value::device, notes),
            Key::UplinkResolver => {
                let usable = |text: &str| value::address(text).and_then(value::reachable);
                self.resolver = raw.one(usable, notes);
            }
            Key::MetricsListen => self.metrics = raw.one(value::listen, notes),
            Key::ControlSocket => self.control = raw.one(value::socket, notes),
            Key::SealedSocket => self.sealed_socket = raw.one(value::socket, notes),
            Key::SealedEngineUser => self.engine_user = raw.one(value::user, notes),
            Key::SealedWithoutRules => self.without_rules = raw.one(value::flag, notes),
            Key::LogLevel => self.level = raw.one(value::level, notes),
            Key::LogFormat => self.format = raw.one(value::format, notes),
            Key::ProviderName => {
                self.wanted.named = Some(place.clone());
                self.wanted.provider = raw.one(written::provider, notes);
            }
            Key::ProviderWhere(attribute) => {
                let words = at(raw.list(written::word, notes), place);
                self.wanted.values.insert(attribute, words);
            }
            Key::ProviderOnly(only) => {
                let flag = raw.one(value::flag, notes);
                self.wanted.only.extend(flag.map(|at| (only, at)));
            }
            Key::ProviderEndpointIp => {
                let usable = |text: &str| value::address(text).and_then(value::reachable);
                self.wanted.address = raw.one(usable, notes);
            }
            Key::ProviderEndpointPort => self.wanted.port = raw.one(value::port_number, notes),
            Key::ProviderOrder => self.wanted.order = raw.one(written::order, notes),
            Key::ProviderList => self.wanted.list = raw.one(written::list, notes),
            Key::TunnelPrivate => self.private = Some(at(raw.list(value::network, notes), place)),
            Key::ForwardPorts => {
                self.forward = Some(at(raw.list(value::port_number, notes), place))
            }
            Key::LanInbound => {
                let make = |from, to| InboundAt { from, to };
                let pairs = raw.pairs(clients, value::port, make, notes);
                self.inbound = Some(at(pairs, place));
            }
            Key::LanOutbound => {
                let make = |to, port| OutboundAt { to, port };
                let pairs = raw.pairs(value::address, value::port, make, notes);
                self.outbound = Some(at(pairs, place));
            }
        }
    }

    /// The settings of this one, and where it has none those of `below`. The tunnel is not among
    /// them: it is merged field by field.
    pub(super) fn over(self, below: Self) -> Self {
        Self {
            wireguard: self.wireguard.or(below.wireguard),
            inline: self.inline.or(below.inline),
            device: self.device.or(below.device),
            mtu: self.mtu.or(below.mtu),
            offload: self.offload.or(below.offload),
            private: self.private.or(below.private),
            uplink: self.uplink.or(below.uplink),
            resolver: self.resolver.or(below.resolver),
            inbound: self.inbound.or(below.inbound),
            outbound: self.outbound.or(below.outbound),
            forward: self.forward.or(below.forward),
            metrics: self.metrics.or(below.metrics),
            control: self.control.or(below.control),
            sealed_socket: self.sealed_socket.or(below.sealed_socket),
            engine_user: self.engine_user.or(below.engine_user),
            without_rules: self.without_rules.or(below.without_rules),
            level: self.level.or(below.level),
            format: self.format.or(below.format),
            wanted: self.wanted.over(below.wanted),
            outside: self.outside,
        }
    }
}

impl Raw<'_> {
    fn one<T>(&self, parse: impl Fn(&str) -> Parsed<T>, notes: &mut Notes) -> Option<At<T>> {
        match self {
            Self::One(written) => keep(written, parse, notes),
            Self::List(_) | Self::Pairs(_) => None,
        }
    }

    fn list<T>(&self, parse: impl Fn(&str) -> Parsed<T>, notes: &mut Notes) -> Vec<At<T>> {
        match self {
            Self::List(list) => list.iter().filter_map(|w| keep(w, &parse, notes)).collect(),
            Self::One(_) | Self::Pairs(_) => Vec::new(),
        }
    }

    fn pairs<A, B, T>(
        &self,
        left: impl Fn(&str) -> Parsed<A>,
        right: impl Fn(&str) -> Parsed<B>,
        make: impl Fn(Option<At<A>>, Option<At<B>>) -> T,
        notes: &mut Notes,
    ) -> Vec<T> {
        let Self::Pairs(pairs) = self else {
            return Vec::new();
        };
        let each = pairs.iter();
        each.map(|(a, b)| make(keep(a, &left, notes), keep(b, &right, notes)))
            .collect()
    }
}

fn keep<T>(
    written: &Written<'_>,
    parse: impl Fn(&str) -> Parsed<T>,
    notes: &mut Notes,
) -> Option<At<T>> {
    notes.keep(&written.place, parse(written.text))
}

fn at<T>(value: T, place: &Place) -> At<T> {
    At {
        value,
        place: place.clone(),
    }
}
