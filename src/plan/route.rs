//! Routes, written as `ip` writes them.

use std::fmt;
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use crate::net::{IfName, networks};

/// The main table (`RT_TABLE_MAIN`, linux/rtnetlink.h).
pub const MAIN: u32 = 254;

/// Marks the routes we add (`rtm_protocol`; numbers over 4 that linux/rtnetlink.h does not assign are
/// free).
pub const PROTOCOL: u8 = 30;

/// `RTPROT_KERNEL` and `RTPROT_STATIC` (linux/rtnetlink.h): made by the kernel for an address, and set by an
/// administrator.
pub(super) const KERNEL: u8 = 2;
pub(super) const STATIC: u8 = 4;

/// One IPv4 route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Number of the table.
    pub table: u32,
    /// What becomes of the packet.
    pub kind: Kind,
    /// Where it goes; the address has no host bits.
    pub destination: Ipv4Network,
    /// The router on the way.
    pub gateway: Option<Ipv4Addr>,
    /// The device it leaves by.
    pub device: Option<IfName>,
    /// The source address of a packet that has none yet.
    pub source: Option<Ipv4Addr>,
    /// Lower is tried first.
    pub metric: u32,
    /// How far the destination is.
    pub scope: Scope,
    /// Whether the router is taken to be on the link, no matter what other routes say.
    pub onlink: bool,
    /// Who added it; [`PROTOCOL`] if we did.
    pub protocol: u8,
    /// The type of service that it is for; ours are for all (0).
    pub tos: u8,
    /// The number of the nexthop object that says where it leads (`ip nexthop`); ours have none.
    pub nexthop: Option<u32>,
}

/// What a route does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It is sent on.
    Unicast,
    /// It is refused with "no route to host".
    Unreachable,
    /// Another kind, by its number (`RTN_*`, linux/rtnetlink.h).
    Other(u8),
}

/// How far a destination is (`rt_scope_t`, linux/rtnetlink.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Behind a router.
    Global,
    /// On the link.
    Link,
    /// Another scope, by its number.
    Other(u8),
}

/// Table, destination, metric, type of service.
pub(super) type Spot = (u32, Ipv4Network, u32, u8);

impl Route {
    /// `DESTINATION dev DEVICE scope link`
    pub(super) fn on_link(
        table: u32,
        destination: Ipv4Network,
        device: &IfName,
        source: Option<Ipv4Addr>,
    ) -> Self {
        Self {
            table,
            kind: Kind::Unicast,
            destination,
            gateway: None,
            device: Some(device.clone()),
            source,
            metric: 0,
            scope: Scope::Link,
            onlink: false,
            protocol: PROTOCOL,
            tos: 0,
            nexthop: None,
        }
    }

    /// `default dev DEVICE scope global`: everything, but not the way to a router. Whoever adds a route by a router
    /// makes the kernel look up a route to it that is on a link (`fib_check_nh`, net/ipv4/fib_semantics.c). This
    /// one does not count there, so the router is found on its own link.
    pub(super) fn into_tunnel(table: u32, device: &IfName, metric: u32) -> Self {
        Self {
            scope: Scope::Global,
            metric,
            ..Self::on_link(table, networks::ALL, device, None)
        }
    }

    /// `DESTINATION via GATEWAY dev DEVICE onlink`
    pub(super) fn by_router(
        table: u32,
        destination: Ipv4Network,
        gateway: Ipv4Addr,
        device: &IfName,
        source: Option<Ipv4Addr>,
    ) -> Self {
        Self {
            gateway: Some(gateway),
            scope: Scope::Global,
            onlink: true,
            ..Self::on_link(table, destination, device, source)
        }
    }

    /// `unreachable default metric METRIC`
    pub(super) fn unreachable(table: u32, metric: u32) -> Self {
        Self {
            table,
            kind: Kind::Unreachable,
            destination: networks::ALL,
            gateway: None,
            device: None,
            source: None,
            metric,
            scope: Scope::Global,
            onlink: false,
            protocol: PROTOCOL,
            tos: 0,
            nexthop: None,
        }
    }

    /// Whether everything goes by it.
    pub fn is_default(&self) -> bool {
        self.destination.prefix() == 0
    }

    /// Whether it is what the kernel makes for an address of a device: the network of that address.
    pub(super) fn is_of_address(&self) -> bool {
        self.protocol == KERNEL
            && self.gateway.is_none()
            && self.nexthop.is_none()
            && !self.is_default()
    }

    /// Where it stands: adding one in the place of another replaces it (`fib_find_alias`, net/ipv4/fib_trie.c).
    pub(super) fn spot(&self) -> Spot {
        (self.table, self.destination, self.metric, self.tos)
    }

    /// Whether adding one replaces the other.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        self.spot() == other.spot()
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Unicast => {}
            Kind::Unreachable => f.write_str("unreachable ")?,
            Kind::Other(number) => write!(f, "type {number} ")?,
        }
        match self.destination.prefix() {
            0 => f.write_str("default")?,
            32 => write!(f, "{}", self.destination.ip())?,
            _ => write!(f, "{}", self.destination)?,
        }
        if self.tos != 0 {
            write!(f, " tos {:#x}", self.tos)?;
        }
        if let Some(nexthop) = self.nexthop {
            write!(f, " nhid {nexthop}")?;
        }
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(device) = &self.device {
            write!(f, " dev {device}")?;
        }
        match (self.kind, self.scope) {
            (Kind::Unicast, Scope::Link) => f.write_str(" scope link")?,
            (Kind::Unicast, Scope::Other(number)) => write!(f, " scope {number}")?,
            // `ip` takes a route without a router for one of the link.
            (Kind::Unicast, Scope::Global) if self.gateway.is_none() && self.nexthop.is_none() => {
                f.write_str(" scope global")?;
            }
            (Kind::Unicast, Scope::Global) | (Kind::Unreachable | Kind::Other(_), _) => {}
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        if self.onlink {
            f.write_str(" onlink")?;
        }
        write!(f, " proto {}", self.protocol)?;
        if self.table != MAIN {
            write!(f, " table {}", self.table)?;
        }
        Ok(())
    }
}
