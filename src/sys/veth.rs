//! Pairs of virtual Ethernet devices between two namespaces, and what a host needs at its end: an
//! address and a default route, of either IP version.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressHeaderFlags;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::link;
use super::rtnl::{Rtnl, RtnlError};
use crate::net::IfName;

/// One end of a pair.
pub struct End {
    /// Device name.
    pub name: IfName,
    /// Ethernet address.
    pub mac: [u8; 6],
}

/// Makes a pair: `here` in this network namespace, `there` in the one `namespace` refers to.
///
/// # Errors
/// EPERM, EEXIST, or EOPNOTSUPP where the kernel has no veth.
pub fn create(here: &End, there: &End, namespace: BorrowedFd<'_>) -> Result<(), RtnlError> {
    let named = |end: &End| {
        vec![
            LinkAttribute::IfName(end.name.to_string()),
            LinkAttribute::Address(end.mac.to_vec()),
        ]
    };
    let mut peer = LinkMessage::default();
    peer.attributes = named(there);
    peer.attributes
        .push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    let mut message = LinkMessage::default();
    message.attributes = named(here);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let what = format!(
        "ip link add {} type veth peer name {}",
        here.name, there.name
    );
    add(RouteNetlinkMessage::NewLink(message), &what)
}

/// Adds an address to a device, without duplicate address detection.
///
/// # Errors
/// EPERM, EEXIST; EACCES or EOPNOTSUPP where IPv6 is off.
pub fn add_address(device: &IfName, address: IpNetwork) -> Result<(), RtnlError> {
    let mut message = link::address_message(link::index(device)?, address);
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    let what = format!("ip address add {address} dev {device}");
    add(RouteNetlinkMessage::NewAddress(message), &what)
}

/// Adds a default route by a router that is reached on a device.
///
/// # Errors
/// EPERM, EEXIST, ENETUNREACH.
pub fn add_default_route(device: &IfName, router: IpAddr) -> Result<(), RtnlError> {
    let mut message = RouteMessage::default();
    message.header.address_family = link::family(router);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Gateway(RouteAddress::from(router)),
        RouteAttribute::Oif(link::index(device)?),
    ];
    let what = format!("ip route add default via {router} dev {device}");
    add(RouteNetlinkMessage::NewRoute(message), &what)
}

fn add(message: RouteNetlinkMessage, what: &str) -> Result<(), RtnlError> {
    Rtnl::open()?.change(message, NLM_F_CREATE | NLM_F_EXCL, what)
}
