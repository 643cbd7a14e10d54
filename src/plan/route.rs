//! Routes and policy rules, written as `ip` writes them.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnetwork::Ipv4Network;

use super::MARKED;
use crate::net::{Fwmark, IfName, Transport, networks};
use crate::policy::Hole;

/// The main table (`RT_TABLE_MAIN`, linux/rtnetlink.h).
pub const MAIN: u32 = 254;

/// Marks the routes we add (`rtm_protocol`; numbers over 4 that linux/rtnetlink.h does not assign are
/// free).
pub const PROTOCOL: u8 = 30;

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

    /// Where it stands: adding one in the place of another replaces it (`fib_find_alias`, net/ipv4/fib_trie.c).
    pub(super) fn spot(&self) -> Spot {
        (self.table, self.destination, self.metric, self.tos)
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

/// One policy rule: which packets are routed by which table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Lower is tried first.
    pub priority: u32,
    /// Only packets with this mark.
    pub mark: Option<Fwmark>,
    /// The bits of the mark that count; all of them in ours.
    pub mask: u32,
    /// Only packets of this flow.
    pub flow: Option<Flow>,
    /// The table that is asked.
    pub table: u32,
    /// Whether it has conditions or an action that none of ours has.
    pub other: bool,
}

/// One UDP flow, seen from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Our port.
    pub source_port: u16,
    /// The other end.
    pub remote: SocketAddrV4,
}

impl Rule {
    /// Packets that carry our mark.
    pub(super) fn marked(priority: u32, mark: Fwmark) -> Self {
        Self {
            priority,
            mark: Some(mark),
            mask: u32::MAX,
            flow: None,
            table: MARKED,
            other: false,
        }
    }

    /// The one flow that is open. A strict reverse path filter (rp_filter = 1) asks by which device a
    /// reply's source would be reached, without our mark unless `src_valid_mark` is set, but with the
    /// ports (`__fib_validate_source`, net/ipv4/fib_frontend.c): without this rule it drops every reply.
    pub(super) fn flow(priority: u32, hole: &Hole) -> Self {
        Self {
            priority,
            mark: None,
            mask: u32::MAX,
            flow: Some(Flow {
                source_port: hole.source_port,
                remote: hole.remote,
            }),
            table: MARKED,
            other: false,
        }
    }
}

impl Rule {
    /// Whether a packet with this mark may fall under it, its other conditions aside.
    pub(super) fn takes(&self, packet: Fwmark) -> bool {
        self.mark.is_none_or(|mark| packet.0 & self.mask == mark.0)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "priority {}", self.priority)?;
        if let Some(mark) = self.mark {
            write!(f, " fwmark {mark}")?;
            if self.mask != u32::MAX {
                write!(f, "/{:#x}", self.mask)?;
            }
        }
        if let Some(Flow {
            source_port,
            remote,
        }) = self.flow
        {
            let (to, port, transport) = (remote.ip(), remote.port(), Transport::Udp);
            write!(
                f,
                " to {to} ipproto {transport} sport {source_port} dport {port}"
            )?;
        }
        write!(f, " lookup {}", self.table)
    }
}
