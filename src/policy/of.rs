//! From configuration and observed uplink to a policy. Refuses here what configuration alone could
//! not know.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use super::{Hole, LanPolicy, Policy, TunnelPolicy, UplinkPolicy};
use crate::config::{Config, Lan};
use crate::net::beside::Shares;
use crate::net::inside::{Inside, Overlap};
use crate::net::networks::{self, NoHost, is_edge};
use crate::net::{IfName, Uplink};

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
    /// A permission that would open more than it says: an endpoint inside a LAN exception or the tunnel, an
    /// exception for what the uplink's own network does not have. Of a configuration that was loaded as a whole
    /// only what the uplink and a looked-up name decide can be wrong.
    pub fn of(config: &Config, uplink: &Uplink, holes: Holes) -> Result<Self, PolicyError> {
        let (tunnel, inside) = (TunnelPolicy::of(config), config.tunnel.inside());
        check_uplink(uplink, &tunnel)?;
        if let Some(hole) = &holes.endpoint {
            check_endpoint(hole, uplink, inside, &config.lan)?;
        }
        if let Some(hole) = &holes.resolver {
            check_resolver(hole, uplink, inside)?;
        }
        check_lan(&config.lan, inside)?;
        check_lan_on(uplink, &config.lan)?;
        Ok(Self {
            uplink: Some(UplinkPolicy {
                device: uplink.device.clone(),
                address: uplink.address.ip(),
                endpoint: holes.endpoint,
                resolver: holes.resolver,
                inbound: config.lan.inbound.clone(),
                outbound: config.lan.outbound.clone(),
            }),
            beside: Vec::new(),
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
        if let Some(rule) = config.lan.over_udp() {
            return Err(PolicyError::SealedUdp(rule));
        }
        check_lan(&config.lan, config.tunnel.inside())?;
        Ok(Self::without_uplink(config))
    }

    /// The policy while there is no uplink: the tunnel device keeps its permissions, nothing leaves.
    pub fn without_uplink(config: &Config) -> Self {
        Self {
            uplink: None,
            beside: Vec::new(),
            tunnel: Some(TunnelPolicy::of(config)),
        }
    }

    /// The same, with each LAN exception on the device that it works on.
    #[must_use]
    pub fn shared_out(mut self, shares: &Shares) -> Self {
        // All of them are on the uplink already.
        if shares.beside.is_empty() {
            return self;
        }
        if let Some(uplink) = &mut self.uplink {
            uplink.inbound.clone_from(&shares.uplink.inbound);
            uplink.outbound.clone_from(&shares.uplink.outbound);
        }
        let beside = shares.beside.iter().map(|share| LanPolicy {
            device: share.link.device.clone(),
            address: share.link.address.ip(),
            inbound: share.lan.inbound.clone(),
            outbound: share.lan.outbound.clone(),
        });
        self.beside = beside.collect();
        self
    }
}

impl TunnelPolicy {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            device: config.tunnel.device.clone(),
            addresses: config.tunnel.addresses.clone(),
            dns: config.tunnel.resolvers().to_vec(),
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
    networks::host(address).map_err(|why| PolicyError::UplinkAddress(address, why))?;
    let clash = |net: &Ipv4Network| net.contains(address) || uplink.address.contains(net.ip());
    match tunnel.addresses.iter().copied().find(clash) {
        Some(net) => Err(PolicyError::UplinkInTunnel(uplink.address, net)),
        None => Ok(()),
    }
}

fn check_endpoint(
    hole: &Hole,
    uplink: &Uplink,
    inside: Inside<'_>,
    lan: &Lan,
) -> Result<(), PolicyError> {
    let ip = *hole.remote.ip();
    check_remote(hole, uplink, inside).map_err(|why| PolicyError::Endpoint(ip, why))?;
    let inbound = lan.inbound.iter().find(|rule| rule.from().contains(ip));
    let outbound = lan.outbound.iter().find(|rule| rule.to() == ip);
    let rule = inbound
        .map(ToString::to_string)
        .or_else(|| outbound.map(ToString::to_string));
    match rule {
        Some(rule) => Err(PolicyError::EndpointInLan { ip, rule }),
        None => Ok(()),
    }
}

fn check_resolver(hole: &Hole, uplink: &Uplink, inside: Inside<'_>) -> Result<(), PolicyError> {
    let ip = *hole.remote.ip();
    check_remote(hole, uplink, inside).map_err(|why| PolicyError::Resolver(ip, why))?;
    if hole.remote.port() != 53 {
        return Err(PolicyError::ResolverPort(hole.remote.port()));
    }
    Ok(())
}

/// What both holes have in common: one host outside the tunnel that is not ourselves.
fn check_remote(hole: &Hole, uplink: &Uplink, inside: Inside<'_>) -> Result<(), Unfit> {
    let ip = *hole.remote.ip();
    networks::host(ip)?;
    if uplink.address.ip() == ip {
        return Err(Unfit::Own);
    }
    if is_edge(uplink.address, ip) {
        return Err(Unfit::Edge);
    }
    if let Some(overlap) = inside.overlaps(ip.into()).next() {
        return Err(Unfit::Inside(overlap));
    }
    if hole.remote.port() == 0 || hole.source_port == 0 {
        return Err(Unfit::NoPort);
    }
    if hole.mark.0 == 0 {
        return Err(Unfit::NoMark);
    }
    Ok(())
}

/// A destination is reached through the tunnel or on the LAN, never both.
fn check_lan(lan: &Lan, inside: Inside<'_>) -> Result<(), PolicyError> {
    let overlap = |network: Ipv4Network, rule: &dyn ToString| {
        let overlap = inside.overlaps(network).next()?;
        let rule = rule.to_string();
        Some(PolicyError::LanInTunnel { rule, overlap })
    };
    let mut inbound = lan.inbound.iter().map(|rule| overlap(rule.from(), rule));
    let mut outbound = lan
        .outbound
        .iter()
        .map(|rule| overlap(rule.to().into(), rule));
    match inbound
        .find_map(|it| it)
        .or_else(|| outbound.find_map(|it| it))
    {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// What only the uplink shows to be no host of the LAN.
fn check_lan_on(uplink: &Uplink, lan: &Lan) -> Result<(), PolicyError> {
    for rule in &lan.outbound {
        let why = if rule.to() == uplink.address.ip() {
            Unfit::Own
        } else if is_edge(uplink.address, rule.to()) {
            Unfit::Edge
        } else {
            continue;
        };
        let rule = rule.to_string();
        return Err(PolicyError::LanOnUplink { rule, why });
    }
    Ok(())
}

/// Why an address cannot be reached by the uplink, or must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is not that of one other host.
    #[error(transparent)]
    NoHost(#[from] NoHost),
    /// It is the uplink's own address.
    #[error("is our own address")]
    Own,
    /// It is the first or last address of the uplink's network.
    #[error("is the network or broadcast address of the uplink")]
    Edge,
    /// It is reached through the tunnel.
    #[error("is reached through the tunnel, because of {0}")]
    Inside(Overlap),
    /// Nothing listens at port 0.
    #[error("has port 0")]
    NoPort,
    /// Without a mark every program's packets would match.
    #[error("has no mark, so every program's packets would match")]
    NoMark,
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
    UplinkAddress(Ipv4Addr, NoHost),
    /// Uplink and tunnel share addresses.
    #[error(
        "the uplink's network {0} and the tunnel's address {1} overlap: move the uplink to another network"
    )]
    UplinkInTunnel(Ipv4Network, Ipv4Network),
    /// The endpoint is not one host outside the tunnel.
    #[error("the endpoint {0} {1}; it must be one host that the uplink reaches")]
    Endpoint(Ipv4Addr, Unfit),
    /// A LAN exception holds the endpoint.
    #[error("the endpoint {ip} is inside the LAN exception {rule}: narrow the exception")]
    EndpointInLan {
        /// The endpoint.
        ip: Ipv4Addr,
        /// The exception, as it stands in the configuration.
        rule: String,
    },
    /// The resolver is not one host outside the tunnel.
    #[error("the resolver {0} {1}; it must be one host that the uplink reaches")]
    Resolver(Ipv4Addr, Unfit),
    /// The resolver is asked on another port than DNS has.
    #[error("the resolver's port is {0}: it must be 53")]
    ResolverPort(u16),
    /// A LAN exception of another transport than TCP in the sealed topology.
    #[error(
        "the LAN exception {0} is for UDP, and the sealed topology hands over TCP connections only: remove it, or use the shared topology"
    )]
    SealedUdp(String),
    /// A LAN exception names what is reached through the tunnel.
    #[error("the LAN exception {rule} overlaps {overlap}: remove or narrow it")]
    LanInTunnel {
        /// The exception, as it stands in the configuration.
        rule: String,
        /// What of the tunnel.
        overlap: Overlap,
    },
    /// A LAN exception names what is no host of the uplink's network.
    #[error("the LAN exception {rule} {why}: remove it, or name another host")]
    LanOnUplink {
        /// The exception, as it stands in the configuration.
        rule: String,
        /// What is wrong with its host.
        why: Unfit,
    },
}
