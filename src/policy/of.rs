//! From configuration and observed uplink to a policy. Refuses here what configuration alone could
//! not know.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use super::verdict::{DNS_PORTS, DOCKER_RESOLVER, MAPPING_PORTS};
use super::{Hole, Policy, TunnelPolicy, UplinkPolicy};
use crate::config::{Config, Inbound, Outbound};
use crate::net::networks::{METADATA, MULTICAST, masked};
use crate::net::{IfName, Port, Transport, Uplink};

/// The UDP flows of our own that are open now. `Default` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holes {
    /// To the VPN server in use.
    pub endpoint: Option<Hole>,
    /// To the resolver of the uplink, while the endpoint's name is looked up.
    pub resolver: Option<Hole>,
}

impl Policy {
    /// The policy for this configuration on this uplink with these holes open.
    ///
    /// # Errors
    ///
    /// A permission that would open more than it says: an endpoint inside a LAN exception or the
    /// tunnel, an exception that overlaps the tunnel, an address that is no single host.
    pub fn of(config: &Config, uplink: &Uplink, holes: Holes) -> Result<Self, PolicyError> {
        let tunnel = TunnelPolicy::of(config);
        check_uplink(uplink, &tunnel)?;
        if let Some(hole) = &holes.endpoint {
            check_endpoint(hole, uplink, &tunnel, config)?;
        }
        if let Some(hole) = &holes.resolver {
            check_resolver(hole, uplink, &tunnel)?;
        }
        for rule in &config.lan.inbound {
            check_inbound(rule, &tunnel)?;
        }
        for rule in &config.lan.outbound {
            check_outbound(rule, Some(uplink), &tunnel)?;
        }
        Ok(Self {
            uplink: Some(UplinkPolicy {
                device: uplink.device.clone(),
                address: uplink.address.ip(),
                endpoint: holes.endpoint,
                resolver: holes.resolver,
                inbound: config.lan.inbound.clone(),
                outbound: config.lan.outbound.clone(),
            }),
            tunnel: Some(tunnel),
        })
    }

    /// The policy of a namespace that never has an uplink. Its LAN exceptions are sockets that are handed
    /// over, and open nothing here, but must overlap the tunnel no more than others.
    ///
    /// # Errors
    ///
    /// A LAN exception that would open more than it says, or that is no TCP: only connections can be handed
    /// over.
    pub fn sealed(config: &Config) -> Result<Self, PolicyError> {
        let tunnel = TunnelPolicy::of(config);
        let over_udp = |port: Port| port.transport == Transport::Udp;
        for rule in &config.lan.inbound {
            if over_udp(rule.to) {
                return Err(PolicyError::SealedUdp(inbound_text(rule)));
            }
            check_inbound(rule, &tunnel)?;
        }
        for rule in &config.lan.outbound {
            if over_udp(rule.port) {
                return Err(PolicyError::SealedUdp(outbound_text(rule)));
            }
            check_outbound(rule, None, &tunnel)?;
        }
        Ok(Self {
            uplink: None,
            tunnel: Some(tunnel),
        })
    }

    /// The policy while there is no uplink: the tunnel device keeps its permissions, nothing leaves.
    pub fn without_uplink(config: &Config) -> Self {
        Self {
            uplink: None,
            tunnel: Some(TunnelPolicy::of(config)),
        }
    }
}

impl TunnelPolicy {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            device: config.tunnel.device.clone(),
            addresses: config.tunnel.addresses.clone(),
            dns: config.tunnel.dns.clone(),
            private: config.tunnel.private.clone(),
            forward: config.forward.clone(),
        }
    }
}

fn check_uplink(uplink: &Uplink, tunnel: &TunnelPolicy) -> Result<(), PolicyError> {
    if uplink.device == tunnel.device || uplink.device.as_str() == "lo" {
        return Err(PolicyError::UplinkDevice(uplink.device.clone()));
    }
    let address = uplink.address.ip();
    if let Some(what) = no_host(address) {
        return Err(PolicyError::UplinkAddress(address, what));
    }
    let clash = |net: &Ipv4Network| net.contains(address) || uplink.address.contains(net.ip());
    match tunnel.addresses.iter().copied().find(clash) {
        Some(net) => Err(PolicyError::UplinkInTunnel(uplink.address, net)),
        None => Ok(()),
    }
}

fn check_endpoint(
    hole: &Hole,
    uplink: &Uplink,
    tunnel: &TunnelPolicy,
    config: &Config,
) -> Result<(), PolicyError> {
    check_remote(hole, uplink, tunnel).map_err(|(ip, why)| PolicyError::Endpoint(ip, why))?;
    let ip = *hole.remote.ip();
    let refuse = |rule: String| Err(PolicyError::EndpointInLan { ip, rule });
    if let Some(rule) = config.lan.inbound.iter().find(|r| r.from.contains(ip)) {
        return refuse(inbound_text(rule));
    }
    if let Some(rule) = config.lan.outbound.iter().find(|r| r.to == ip) {
        return refuse(outbound_text(rule));
    }
    Ok(())
}

fn check_resolver(hole: &Hole, uplink: &Uplink, tunnel: &TunnelPolicy) -> Result<(), PolicyError> {
    check_remote(hole, uplink, tunnel).map_err(|(ip, why)| PolicyError::Resolver(ip, why))?;
    if hole.remote.port() != 53 {
        return Err(PolicyError::ResolverPort(hole.remote.port()));
    }
    Ok(())
}

/// What both holes have in common: one host outside the tunnel that is not ourselves.
fn check_remote(
    hole: &Hole,
    uplink: &Uplink,
    tunnel: &TunnelPolicy,
) -> Result<(), (Ipv4Addr, &'static str)> {
    let ip = *hole.remote.ip();
    let own = uplink.address.ip() == ip || tunnel.addresses.iter().any(|a| a.ip() == ip);
    let why = if let Some(what) = no_host(ip) {
        what
    } else if own {
        "is our own address"
    } else if tunnel.addresses.iter().any(|net| net.contains(ip)) {
        "is inside the prefix of the tunnel's address"
    } else if tunnel.private.iter().any(|net| net.contains(ip)) {
        "is inside a network of [tunnel] private"
    } else if tunnel.dns.contains(&ip) {
        "is one of the tunnel's resolvers"
    } else if is_edge(uplink.address, ip) {
        "is the network or broadcast address of the uplink"
    } else if hole.remote.port() == 0 || hole.source_port == 0 {
        "has port 0"
    } else if hole.mark.0 == 0 {
        "has no mark, so every program's packets would match"
    } else {
        return Ok(());
    };
    Err((ip, why))
}

fn check_inbound(rule: &Inbound, tunnel: &TunnelPolicy) -> Result<(), PolicyError> {
    let refuse = |why| {
        Err(PolicyError::Lan {
            rule: inbound_text(rule),
            why,
        })
    };
    let from = masked(rule.from);
    if from.prefix() == 0 {
        return refuse("names every address");
    }
    if from.overlaps(MULTICAST) {
        return refuse("holds multicast or broadcast addresses");
    }
    if from.ip().is_loopback() {
        return refuse("holds loopback addresses");
    }
    if METADATA.contains(&from) {
        return refuse("is a metadata service");
    }
    match tunnel_overlap(from, tunnel) {
        Some(why) => refuse(why),
        None => Ok(()),
    }
}

fn check_outbound(
    rule: &Outbound,
    uplink: Option<&Uplink>,
    tunnel: &TunnelPolicy,
) -> Result<(), PolicyError> {
    let refuse = |why| {
        Err(PolicyError::Lan {
            rule: outbound_text(rule),
            why,
        })
    };
    if let Some(what) = no_host(rule.to) {
        return refuse(what);
    }
    if let Some(uplink) = uplink {
        if rule.to == uplink.address.ip() {
            return refuse("is our own address");
        }
        if is_edge(uplink.address, rule.to) {
            return refuse("is the network or broadcast address of the uplink");
        }
    }
    if DNS_PORTS.contains(&rule.port.number) {
        return refuse("is DNS past the tunnel");
    }
    if MAPPING_PORTS.contains(&rule.port.number) {
        return refuse("is UPnP, NAT-PMP or PCP, which opens ports past the tunnel");
    }
    match tunnel_overlap(Ipv4Network::from(rule.to), tunnel) {
        Some(why) => refuse(why),
        None => Ok(()),
    }
}

fn tunnel_overlap(net: Ipv4Network, tunnel: &TunnelPolicy) -> Option<&'static str> {
    if tunnel.addresses.iter().any(|a| a.overlaps(net)) {
        Some("overlaps the prefix of the tunnel's address")
    } else if tunnel.dns.iter().any(|ip| net.contains(*ip)) {
        Some("holds one of the tunnel's resolvers")
    } else if tunnel.private.iter().any(|p| p.overlaps(net)) {
        Some("overlaps a network of [tunnel] private")
    } else {
        None
    }
}

/// Why an address is not that of one other host, if it is not.
fn no_host(ip: Ipv4Addr) -> Option<&'static str> {
    if ip == DOCKER_RESOLVER {
        Some("is Docker's resolver")
    } else if ip.is_loopback() {
        Some("is a loopback address")
    } else if ip.octets()[0] == 0 {
        Some("is not an address of a host")
    } else if MULTICAST.contains(ip) {
        Some("is a multicast, reserved or broadcast address")
    } else if METADATA.iter().any(|net| net.contains(ip)) {
        Some("is a metadata service")
    } else {
        None
    }
}

/// Whether it is the first or last address of a link that has such (RFC 3021: a /31 has none).
fn is_edge(link: Ipv4Network, ip: Ipv4Addr) -> bool {
    link.prefix() < 31 && (ip == link.network() || ip == link.broadcast())
}

fn inbound_text(rule: &Inbound) -> String {
    format!("{{ from = \"{}\", to = \"{}\" }}", rule.from, rule.to)
}

fn outbound_text(rule: &Outbound) -> String {
    let port: Port = rule.port;
    format!("{{ to = \"{}\", port = \"{port}\" }}", rule.to)
}

/// A permission that would open more than it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The uplink cannot be this device.
    #[error(
        "the uplink cannot be `{0}`: set [uplink] device to the device that leads to the Internet"
    )]
    UplinkDevice(IfName),
    /// The uplink's own address is no host address.
    #[error("the uplink's address {0} {1}: give the uplink an address of its network")]
    UplinkAddress(Ipv4Addr, &'static str),
    /// Uplink and tunnel share addresses.
    #[error(
        "the uplink's network {0} and the tunnel's address {1} overlap: move the uplink to another network"
    )]
    UplinkInTunnel(Ipv4Network, Ipv4Network),
    /// The endpoint is not one host outside the tunnel.
    #[error("the endpoint {0} {1}: it must be one host reached by the uplink")]
    Endpoint(Ipv4Addr, &'static str),
    /// A LAN exception holds the endpoint.
    #[error("the endpoint {ip} is inside the LAN exception {rule}: narrow the exception")]
    EndpointInLan {
        /// The endpoint.
        ip: Ipv4Addr,
        /// The exception, as it stands in the configuration.
        rule: String,
    },
    /// The resolver is not one host outside the tunnel.
    #[error("the resolver {0} {1}: it must be one host reached by the uplink")]
    Resolver(Ipv4Addr, &'static str),
    /// The resolver is asked on another port than DNS has.
    #[error("the resolver's port is {0}: it must be 53")]
    ResolverPort(u16),
    /// A LAN exception of another transport than TCP in the sealed topology.
    #[error(
        "the LAN exception {0} is for UDP, and the sealed topology hands over TCP connections only: remove it, or use the shared topology"
    )]
    SealedUdp(String),
    /// A LAN exception reaches where none may.
    #[error("the LAN exception {rule} {why}: remove or narrow it")]
    Lan {
        /// The exception, as it stands in the configuration.
        rule: String,
        /// What is wrong with it.
        why: &'static str,
    },
}
