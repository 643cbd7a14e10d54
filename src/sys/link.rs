//! Network devices and their addresses.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enums of netlink are not ours and not exhaustive"
)]

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, Ipv4Network};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::rtnl::{Rtnl, RtnlError};
use crate::net::IfName;
use crate::plan::{Address, Tunnel};

/// One network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name.
    pub name: IfName,
    /// What `ip -d link` calls it: `veth`, `tun`, `wireguard`; `None` for hardware and loopback.
    pub kind: Option<String>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it is the loopback device.
    pub loopback: bool,
    /// Bytes of the largest packet.
    pub mtu: u32,
}

/// All devices of this network namespace.
///
/// # Errors
/// Where the kernel refuses, or its answer cannot be read.
pub fn devices() -> Result<Vec<Device>, RtnlError> {
    let what = "ip link show";
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let mut devices = Vec::new();
    for entry in Rtnl::open()?.dump(&request, what)? {
        if let RouteNetlinkMessage::NewLink(message) = entry {
            devices.push(device(&message).ok_or_else(|| RtnlError::Answer {
                what: what.to_owned(),
                why: format!("device {} has no usable name", message.header.index),
            })?);
        }
    }
    Ok(devices)
}

pub(super) fn device(message: &LinkMessage) -> Option<Device> {
    let LinkMessage {
        header, attributes, ..
    } = message;
    let name = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => name.parse().ok(),
        _ => None,
    })?;
    let mtu = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    let kind = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(kind.to_string()),
            _ => None,
        }),
        _ => None,
    });
    Some(Device {
        index: header.index,
        name,
        kind,
        up: header.flags.contains(LinkFlags::Up),
        loopback: header.flags.contains(LinkFlags::Loopback),
        mtu: mtu.unwrap_or_default(),
    })
}

/// IPv4 addresses of the devices that are up.
///
/// # Errors
/// Where the kernel refuses, or its answer cannot be read.
pub fn addresses() -> Result<Vec<Address>, RtnlError> {
    let devices = devices()?;
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Inet;
    let request = RouteNetlinkMessage::GetAddress(request);
    let entries = Rtnl::open()?.dump(&request, "ip -4 address show")?;
    let address = |entry: &RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewAddress(message) = entry else {
            return None;
        };
        let device = devices
            .iter()
            .find(|device| device.index == message.header.index && device.up)?;
        let ip = local(message)?;
        Some(Address {
            device: device.name.clone(),
            network: Ipv4Network::new(ip, message.header.prefix_len).ok()?,
        })
    };
    Ok(entries.iter().filter_map(address).collect())
}

/// Our end; `Address` is the other end on a point-to-point link (linux/if_addr.h).
pub(super) fn local(message: &AddressMessage) -> Option<Ipv4Addr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
            _ => None,
        })
}

/// The number of a device, by its name.
///
/// # Errors
/// `ENODEV` where there is none.
pub fn index(name: &IfName) -> Result<u32, RtnlError> {
    let found = || {
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            None,
        )?;
        rustix::net::netdevice::name_to_index(socket, name.as_str())
    };
    found().map_err(|errno| RtnlError::Refused {
        what: format!("ip link show dev {name}"),
        source: errno.into(),
    })
}

/// Sets a device up.
///
/// # Errors
/// Where the kernel refuses.
pub fn set_up(name: &IfName) -> Result<(), RtnlError> {
    let message = flags(index(name)?, LinkFlags::Up);
    set(message, &format!("ip link set dev {name} up"))
}

/// Sets a device down. Never the tunnel: its routes would go with it.
///
/// # Errors
/// Where the kernel refuses.
fn set_down(name: &IfName) -> Result<(), RtnlError> {
    let message = flags(index(name)?, LinkFlags::empty());
    set(message, &format!("ip link set dev {name} down"))
}

/// Sets every device but loopback down: the last resort when there is no firewall. Goes on after an
/// error, and returns the first one.
///
/// The names come from /proc/net/dev and only a request is sent, so that no answer of the kernel
/// has to be understood.
///
/// # Errors
/// Where the devices cannot be listed or one of them is still up.
pub fn all_down() -> Result<(), RtnlError> {
    let what = "read /proc/thread-self/net/dev";
    let table = std::fs::read_to_string("/proc/thread-self/net/dev");
    let table = table.map_err(|source| RtnlError::Refused {
        what: what.to_owned(),
        source,
    })?;
    let mut outcome = Ok(());
    for name in names(&table) {
        let down = match name.parse::<IfName>() {
            Ok(name) => set_down(&name),
            Err(error) => Err(RtnlError::Answer {
                what: what.to_owned(),
                why: error.to_string(),
            }),
        };
        outcome = outcome.and(down);
    }
    outcome
}

/// The devices of /proc/net/dev without loopback: two lines of headings, then `name: numbers`.
fn names(table: &str) -> impl Iterator<Item = &str> {
    let name = |line: &'_ str| line.rsplit_once(':').map(|(name, _)| name.len());
    table
        .lines()
        .skip(2)
        .filter_map(move |line| name(line).map(|length| line[..length].trim()))
        .filter(|name| *name != "lo")
}

/// Configures the tunnel device as planned and sets it up; addresses that are not planned go.
///
/// # Errors
/// Where the kernel refuses one of the steps.
pub fn configure(tunnel: &Tunnel) -> Result<(), RtnlError> {
    let Tunnel {
        device,
        mtu,
        tx_queue,
        addresses,
    } = tunnel;
    let index = index(device)?;
    no_link_local(index, device)?;
    let mut message = flags(index, LinkFlags::empty());
    message.header.change_mask = LinkFlags::empty();
    message.attributes = vec![
        LinkAttribute::Mtu(u32::from(*mtu)),
        LinkAttribute::TxQueueLen(*tx_queue),
    ];
    let what = format!("ip link set dev {device} mtu {mtu} txqueuelen {tx_queue}");
    set(message, &what)?;
    for address in addresses {
        change_address(index, device, *address, AddressChange::Replace)?;
    }
    set_up(device)?;
    // Only now does the list, which is of devices that are up, hold them.
    let stale = self::addresses()?
        .into_iter()
        .filter(|address| &address.device == device && !addresses.contains(&address.network));
    for address in stale {
        change_address(index, device, address.network, AddressChange::Remove)?;
    }
    Ok(())
}

/// Sets loopback up and makes `networks` local, whole, besides 127.0.0.0/8: every address in them is ours
/// (`fib_add_ifaddr`, net/ipv4/fib_frontend.c). Others go.
///
/// # Errors
/// Where the kernel refuses one of the steps.
pub fn localhost(networks: &[Ipv4Network]) -> Result<(), RtnlError> {
    let name: IfName = "lo".parse().map_err(|_| RtnlError::Answer {
        what: "ip link show dev lo".to_owned(),
        why: "it has no usable name".to_owned(),
    })?;
    let index = index(&name)?;
    set_up(&name)?;
    let own = |address: &Address| address.device == name && !address.network.ip().is_loopback();
    let present: Vec<_> = addresses()?.into_iter().filter(own).collect();
    for network in networks {
        if !present.iter().any(|address| address.network == *network) {
            change_address(index, &name, *network, AddressChange::Replace)?;
        }
    }
    for address in present {
        if !networks.contains(&address.network) {
            change_address(index, &name, address.network, AddressChange::Remove)?;
        }
    }
    Ok(())
}

/// `addrgenmode none`: no IPv6 address appears when the device goes up. Without IPv6 in the kernel
/// there is nothing to switch off.
fn no_link_local(index: u32, device: &IfName) -> Result<(), RtnlError> {
    let mut message = flags(index, LinkFlags::empty());
    message.header.change_mask = LinkFlags::empty();
    message.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
        vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)],
    )])];
    let what = format!("ip link set dev {device} addrgenmode none");
    match set(message, &what) {
        Err(error) if error.errno() == Some(libc::EAFNOSUPPORT) => Ok(()),
        other => other,
    }
}

#[derive(Clone, Copy)]
enum AddressChange {
    Replace,
    Remove,
}

fn change_address(
    index: u32,
    device: &IfName,
    address: Ipv4Network,
    change: AddressChange,
) -> Result<(), RtnlError> {
    let message = address_message(index, address.into());
    match change {
        AddressChange::Replace => Rtnl::open()?.change(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            &format!("ip -4 address replace {address} dev {device}"),
        ),
        AddressChange::Remove => Rtnl::open()?.change(
            RouteNetlinkMessage::DelAddress(message),
            0,
            &format!("ip -4 address del {address} dev {device}"),
        ),
    }
}

/// An address of this host; both ends are the same, as on any link with neighbours.
pub(super) fn address_message(index: u32, address: IpNetwork) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.ip());
    message.header.prefix_len = address.prefix();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    let ip = address.ip();
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn flags(index: u32, flags: LinkFlags) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = flags;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn set(message: LinkMessage, what: &str) -> Result<(), RtnlError> {
    Rtnl::open()?.change(RouteNetlinkMessage::SetLink(message), 0, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_but_loopback_is_named() {
        let table = "Inter-| Receive\n face |bytes\n    lo: 1 2\n  eth0: 3 4\ntun0:5 6\n";
        assert_eq!(names(table).collect::<Vec<_>>(), ["eth0", "tun0"]);
    }
}
