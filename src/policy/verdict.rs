//! The executable specification: what becomes of one packet under one policy. The ruleset has to say
//! the same; a property test holds the two against each other.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnetwork::Ipv4Network;

use super::{DeviceKind, Direction, Flow, Hole, OnLan, Policy, Protocol, TunnelPolicy};
use crate::net::networks::{DOCKER_RESOLVER, LOOPBACK, METADATA, MULTICAST, NOT_GLOBAL, masked};
use crate::net::ports::{DNS_PORTS, MAPPING_PORTS};
use crate::net::{Port, Transport};

/// Why a packet passes or not. Each rule of the ruleset carries one as its comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// On the loopback device.
    Loopback,
    /// IPv6 off the loopback device.
    Ipv6,
    /// Docker's resolver at 127.0.0.11.
    DockerResolver,
    /// Our own WireGuard flow.
    Endpoint,
    /// Our own look-up of the endpoint's name.
    Resolver,
    /// Multicast, reserved or broadcast destination.
    Multicast,
    /// A cloud's metadata service.
    Metadata,
    /// DNS to anything but the tunnel's resolvers.
    Dns,
    /// A private destination through the tunnel.
    Private,
    /// Through the tunnel.
    Tunnel,
    /// A port forwarded by the VPN provider.
    ForwardedPort,
    /// A LAN client's connection to a joined program.
    LanInbound,
    /// A joined program's connection to a LAN host.
    LanOutbound,
    /// UPnP, NAT-PMP or PCP by the uplink.
    PortMapping,
    /// Addresses that cannot be true on the device they came by.
    Spoofed,
    /// Address resolution of our own address on a LAN.
    Arp,
    /// Neither from here nor to here.
    Forward,
    /// A connection or datagram that comes from a LAN, for which no exception is.
    Inbound,
    /// A frame that passed no rule of `output`: by AF_PACKET, or of no protocol we know.
    Raw,
    /// Nothing permits it.
    Other,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Loopback,
        Self::Ipv6,
        Self::DockerResolver,
        Self::Endpoint,
        Self::Resolver,
        Self::Multicast,
        Self::Metadata,
        Self::Dns,
        Self::Private,
        Self::Tunnel,
        Self::ForwardedPort,
        Self::LanInbound,
        Self::LanOutbound,
        Self::PortMapping,
        Self::Spoofed,
        Self::Arp,
        Self::Forward,
        Self::Inbound,
        Self::Raw,
        Self::Other,
    ];

    /// The word in rule comments, log prefixes and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Ipv6 => "ipv6",
            Self::DockerResolver => "docker-resolver",
            Self::Endpoint => "endpoint",
            Self::Resolver => "resolver",
            Self::Multicast => "multicast",
            Self::Metadata => "metadata",
            Self::Dns => "dns",
            Self::Private => "private",
            Self::Tunnel => "tunnel",
            Self::ForwardedPort => "forwarded-port",
            Self::LanInbound => "lan-inbound",
            Self::LanOutbound => "lan-outbound",
            Self::PortMapping => "port-mapping",
            Self::Spoofed => "spoofed",
            Self::Arp => "arp",
            Self::Forward => "forward",
            Self::Inbound => "inbound",
            Self::Raw => "raw",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let known = Self::ALL.into_iter().find(|r| r.as_str() == text);
        known.ok_or(())
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it passes.
    pub accept: bool,
    /// The comment of the rule that decides.
    pub rule: Reason,
}

const fn accept(rule: Reason) -> Verdict {
    Verdict { accept: true, rule }
}

const fn refuse(rule: Reason) -> Verdict {
    Verdict {
        accept: false,
        rule,
    }
}

/// Says what becomes of `flow` under `policy`. Which device a packet is routed to, and whether the
/// routes agree with its source (reverse path), is the kernel's matter and not seen here.
pub fn verdict(policy: &Policy, flow: &Flow) -> Verdict {
    let loopback = flow.device.kind == DeviceKind::Loopback;
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (flow.source, flow.destination) else {
        let forwarded = flow.direction == Direction::Forward;
        return if loopback && !forwarded {
            accept(Reason::Loopback)
        } else if loopback {
            refuse(Reason::Forward)
        } else {
            refuse(Reason::Ipv6)
        };
    };
    let packet = Packet {
        flow,
        source,
        destination,
    };
    match flow.direction {
        Direction::In | Direction::Forward if !loopback && packet.is_spoofed(policy) => {
            refuse(Reason::Spoofed)
        }
        Direction::Forward => refuse(Reason::Forward),
        Direction::Out | Direction::In if loopback && destination == DOCKER_RESOLVER => {
            refuse(Reason::DockerResolver)
        }
        Direction::Out | Direction::In if loopback => accept(Reason::Loopback),
        Direction::Out => output(policy, &packet),
        Direction::In => input(policy, &packet),
    }
}

/// An IPv4 flow.
struct Packet<'a> {
    flow: &'a Flow,
    source: Ipv4Addr,
    destination: Ipv4Addr,
}

fn output(policy: &Policy, packet: &Packet<'_>) -> Verdict {
    let uplink = policy.uplink.as_ref();
    let uplink = uplink.filter(|u| u.device == packet.flow.device.name);
    if packet.destination == DOCKER_RESOLVER {
        return refuse(Reason::DockerResolver);
    }
    if let Some(uplink) = uplink.filter(|u| u.address == packet.source) {
        if uplink
            .endpoint
            .is_some_and(|hole| packet.is_wireguard_to(&hole))
        {
            return accept(Reason::Endpoint);
        }
        if uplink.resolver.is_some_and(|hole| packet.is_from(&hole)) {
            return accept(Reason::Resolver);
        }
    }
    if packet.would_loop(policy) {
        return refuse(Reason::Endpoint);
    }
    if MULTICAST.contains(packet.destination) {
        return refuse(Reason::Multicast);
    }
    if METADATA.iter().any(|net| net.contains(packet.destination)) {
        return refuse(Reason::Metadata);
    }
    let tunnel = policy.tunnel.as_ref();
    let tunnel = tunnel.filter(|t| t.device == packet.flow.device.name);
    let ours = |t: &TunnelPolicy| {
        packet.flow.device.kind == DeviceKind::Tun
            && t.addresses.iter().any(|a| a.ip() == packet.source)
    };
    if let Some((_, _, port)) = packet.flow.protocol.ports()
        && DNS_PORTS.contains(&port)
    {
        let resolves = tunnel.is_some_and(|t| ours(t) && t.dns.contains(&packet.destination));
        return if resolves {
            accept(Reason::Tunnel)
        } else {
            refuse(Reason::Dns)
        };
    }
    if let Some(tunnel) = tunnel {
        if ours(tunnel) && permitted(tunnel).any(|net| net.contains(packet.destination)) {
            return accept(Reason::Tunnel);
        }
        if NOT_GLOBAL
            .iter()
            .any(|net| net.contains(packet.destination))
        {
            return refuse(Reason::Private);
        }
        if ours(tunnel) {
            return accept(Reason::Tunnel);
        }
    }
    let lan = policy.lan_on(&packet.flow.device.name);
    lan.map_or(refuse(Reason::Other), |lan| lan_output(lan, packet))
}

fn lan_output(lan: OnLan<'_>, packet: &Packet<'_>) -> Verdict {
    let Some((transport, from, to)) = packet.flow.protocol.ports() else {
        return refuse(Reason::Other);
    };
    if MAPPING_PORTS.contains(&to) {
        return refuse(Reason::PortMapping);
    }
    if lan.address != packet.source {
        return refuse(Reason::Other);
    }
    let at = |number| Port { transport, number };
    let remote = packet.destination;
    let answers = lan.inbound.iter().any(|rule| rule.admits(remote, at(from)));
    if packet.flow.reply && answers {
        return accept(Reason::LanInbound);
    }
    let asks = lan.outbound.iter().any(|rule| rule.admits(remote, at(to)));
    if asks {
        accept(Reason::LanOutbound)
    } else {
        refuse(Reason::Other)
    }
}

fn input(policy: &Policy, packet: &Packet<'_>) -> Verdict {
    let device = &packet.flow.device;
    if let Some(reason) = packet.hole_it_answers(policy) {
        return accept(reason);
    }
    if packet.is_too_big_for_the_path(policy) {
        return accept(Reason::Endpoint);
    }
    if let Some(tunnel) = policy.tunnel.as_ref().filter(|t| t.device == device.name)
        && device.kind == DeviceKind::Tun
        && packet.is_to(tunnel)
    {
        return tunnel_input(tunnel, packet);
    }
    let lan = policy.lan_on(&device.name);
    lan.map_or(refuse(Reason::Other), |lan| lan_input(lan, packet))
}

fn tunnel_input(tunnel: &TunnelPolicy, packet: &Packet<'_>) -> Verdict {
    if packet.flow.reply {
        return accept(Reason::Tunnel);
    }
    match packet.flow.protocol.ports() {
        Some((_, _, port)) if tunnel.forward.contains(&port) => accept(Reason::ForwardedPort),
        Some(_) | None => refuse(Reason::Other),
    }
}

fn lan_input(lan: OnLan<'_>, packet: &Packet<'_>) -> Verdict {
    let Some((transport, from, to)) = packet.flow.protocol.ports() else {
        return refuse(Reason::Other);
    };
    if lan.address != packet.destination {
        return refuse(Reason::Other);
    }
    let at = |number| Port { transport, number };
    let remote = packet.source;
    let asks = lan.inbound.iter().any(|rule| rule.admits(remote, at(to)));
    let answers = lan
        .outbound
        .iter()
        .any(|rule| rule.admits(remote, at(from)));
    if asks {
        accept(Reason::LanInbound)
    } else if answers && packet.flow.reply {
        accept(Reason::LanOutbound)
    } else if packet.flow.reply {
        refuse(Reason::Other)
    } else {
        refuse(Reason::Inbound)
    }
}

/// Private destinations that the tunnel may carry: the prefixes of our addresses, the resolvers, and
/// what is configured.
pub fn permitted(tunnel: &TunnelPolicy) -> impl Iterator<Item = Ipv4Network> {
    let wide = tunnel.addresses.iter().filter(|net| net.prefix() < 32);
    let prefixes = wide.copied().map(masked);
    let resolvers = tunnel.dns.iter().map(|&ip| Ipv4Network::from(ip));
    let private = tunnel.private.iter().copied().map(masked);
    prefixes.chain(resolvers).chain(private)
}

/// Sources that no host behind the tunnel can have: loopback, multicast, our own addresses, and
/// those that LAN exceptions speak of.
pub fn impossible_sources(policy: &Policy) -> Vec<Ipv4Network> {
    let mut found = vec![LOOPBACK, MULTICAST];
    if let Some(tunnel) = &policy.tunnel {
        found.extend(tunnel.addresses.iter().map(|a| Ipv4Network::from(a.ip())));
    }
    for lan in policy.lans() {
        found.push(Ipv4Network::from(lan.address));
        found.extend(lan.inbound.iter().map(|rule| rule.from()));
        found.extend(lan.outbound.iter().map(|r| Ipv4Network::from(r.to())));
    }
    found.sort_unstable();
    found.dedup();
    found
}

impl Packet<'_> {
    fn is_from(&self, hole: &Hole) -> bool {
        self.flow.mark == hole.mark
            && self.destination == *hole.remote.ip()
            && self.flow.protocol.ports()
                == Some((Transport::Udp, hole.source_port, hole.remote.port()))
    }

    fn is_wireguard_to(&self, hole: &Hole) -> bool {
        self.is_from(hole) && self.flow.protocol.wireguard()
    }

    /// One of our own packets, on its way into the tunnel that it carries.
    fn would_loop(&self, policy: &Policy) -> bool {
        let uplink = policy.uplink.as_ref();
        let hole = uplink.and_then(|uplink| uplink.endpoint.or(uplink.resolver));
        let tunnel = policy.tunnel.as_ref();
        tunnel.is_some_and(|tunnel| tunnel.device == self.flow.device.name)
            && hole.is_some_and(|hole| hole.mark == self.flow.mark)
    }

    fn answers(&self, hole: &Hole) -> bool {
        self.source == *hole.remote.ip()
            && self.flow.protocol.ports()
                == Some((Transport::Udp, hole.remote.port(), hole.source_port))
    }

    fn is_to(&self, tunnel: &TunnelPolicy) -> bool {
        let mut addresses = tunnel.addresses.iter();
        addresses.any(|address| address.ip() == self.destination)
    }

    fn hole_it_answers(&self, policy: &Policy) -> Option<Reason> {
        let uplink = policy.uplink.as_ref()?;
        let ours = uplink.device == self.flow.device.name && uplink.address == self.destination;
        let wireguard = self.flow.protocol.wireguard();
        if !ours {
            None
        } else if wireguard && uplink.endpoint.is_some_and(|hole| self.answers(&hole)) {
            Some(Reason::Endpoint)
        } else if uplink.resolver.is_some_and(|hole| self.answers(&hole)) {
            Some(Reason::Resolver)
        } else {
            None
        }
    }

    /// A router tells, by ICMP, that a datagram of ours to the endpoint did not fit. Any router on the way may
    /// say so, so the source says nothing.
    fn is_too_big_for_the_path(&self, policy: &Policy) -> bool {
        let Protocol::TooBig {
            source_port,
            remote,
        } = self.flow.protocol
        else {
            return false;
        };
        let uplink = policy.uplink.as_ref();
        let uplink = uplink.filter(|u| u.device == self.flow.device.name);
        uplink.is_some_and(|uplink| {
            let sent_by = |hole: Hole| (hole.source_port, hole.remote) == (source_port, remote);
            uplink.address == self.destination && uplink.endpoint.is_some_and(sent_by)
        })
    }

    /// To the tunnel's address from outside the tunnel, or inside it from where nobody can be.
    fn is_spoofed(&self, policy: &Policy) -> bool {
        let Some(tunnel) = &policy.tunnel else {
            return false;
        };
        if self.hole_it_answers(policy).is_some() {
            return false;
        }
        if tunnel.device != self.flow.device.name {
            return self.is_to(tunnel);
        }
        let mut impossible = impossible_sources(policy).into_iter();
        impossible.any(|net| net.contains(self.source))
    }
}
