//! Network devices and their addresses.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enums of netlink are not ours and not exhaustive"
)]

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, Ipv4Network};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::Netlink;
use super::rtnl::{Rtnl, RtnlError};
use crate::net::IfName;
use crate::net::beside::Link;
use crate::plan::Tunnel;
use crate::ruleset::attribute::{find, find_name, find_str, put_name};

/// `RTM_GETLINK` (linux/rtnetlink.h) and bytes of `ifinfomsg`.
const GETLINK: u16 = 18;
const IFINFO: usize = 16;
/// `IFLA_IFNAME`, `IFLA_MTU`, `IFLA_QDISC`, `IFLA_LINKINFO`, `IFLA_STATS64`, and `IFLA_INFO_KIND` inside it (linux/if_link.h).
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_QDISC: u16 = 6;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
/// `IFLA_GSO_MAX_SEGS`, `IFLA_GSO_MAX_SIZE`.
const IFLA_GSO_MAX_SEGS: u16 = 40;
const IFLA_GSO_MAX_SIZE: u16 = 41;
const IFLA_INFO_KIND: u16 = 1;

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
    /// Whether frames can leave by it: it is neither loopback nor TUN. TAP leads out.
    pub leads_out: bool,
    /// Bytes of the largest packet.
    pub mtu: u32,
}

/// All devices of this network namespace. Read by hand: a name need not be UTF-8, and one device with
/// an odd name must not hide the others.
///
/// # Errors
/// Where the kernel refuses, or its answer cannot be read.
pub fn devices() -> Result<Vec<Device>, RtnlError> {
    list("ip link show", listed)
}

/// Reads the list of devices; an entry that `read` cannot use makes the whole of it unreadable.
fn list<T>(what: &str, read: fn(&[u8]) -> Option<T>) -> Result<Vec<T>, RtnlError> {
    let (mut found, mut unreadable) = (Vec::new(), false);
    let listed = Netlink::open(NETLINK_ROUTE).and_then(|mut netlink| {
        netlink.dump(GETLINK, &[0; IFINFO], |message| match message {
            None => (found, unreadable) = (Vec::new(), false),
            Some(message) => match read(message.payload) {
                Some(entry) => found.push(entry),
                None => unreadable = true,
            },
        })
    });
    listed.map_err(|source| RtnlError::Refused {
        what: what.to_owned(),
        source,
    })?;
    if unreadable {
        return Err(RtnlError::Answer {
            what: what.to_owned(),
            why: "a device has no usable name".to_owned(),
        });
    }
    Ok(found)
}

/// One entry: `ifinfomsg` (family, type, index, flags), then attributes.
fn listed(entry: &[u8]) -> Option<Device> {
    let word = |at: usize| Some(u32::from_ne_bytes(entry.get(at..at + 4)?.try_into().ok()?));
    let attributes = entry.get(IFINFO..)?;
    let flags = LinkFlags::from_bits_retain(word(8)?);
    let info = find(attributes, IFLA_LINKINFO).unwrap_or_default();
    let mtu =
        find(attributes, IFLA_MTU).and_then(|mtu| Some(u32::from_ne_bytes(mtu.try_into().ok()?)));
    Some(Device {
        index: word(4)?,
        name: IfName::from_bytes(find_name(attributes, IFLA_IFNAME)?).ok()?,
        kind: find_str(info, IFLA_INFO_KIND).map(str::to_owned),
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
        leads_out: super::nft::leads_out(entry) != Some(false),
        mtu: mtu.unwrap_or_default(),
    })
}

/// IPv4 addresses of the devices that are up.
///
/// # Errors
/// Where the kernel refuses, or its answer cannot be read.
pub fn addresses() -> Result<Vec<Link>, RtnlError> {
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
        Some(Link {
            device: device.name.clone(),
            address: Ipv4Network::new(ip, message.header.prefix_len).ok()?,
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

/// What a device sent, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// The device's number in this namespace.
    pub index: u32,
    /// Its name.
    pub name: IfName,
    /// What `ip -d link` calls it.
    pub kind: Option<String>,
    /// Its root queueing discipline: `noqueue`, `fq_codel`.
    pub queue: String,
    /// Frames it sent or gave up since it exists.
    pub sent: u64,
    /// Bytes and segments of the largest packet that it cuts into frames itself.
    pub gso_max: (u32, u32),
}

/// What the devices of this network namespace sent.
///
/// # Errors
/// Where the kernel refuses, or its answer cannot be read.
pub fn traffic() -> Result<Vec<Traffic>, RtnlError> {
    list("ip -s link show", counted)
}

/// `IFLA_STATS64` is `struct rtnl_link_stats64`: numbers of 8 bytes, the second the packets sent, the
/// eighth those that could not be (linux/if_link.h).
fn counted(entry: &[u8]) -> Option<Traffic> {
    let Device {
        index, name, kind, ..
    } = listed(entry)?;
    let attributes = entry.get(IFINFO..)?;
    let counts = find(attributes, IFLA_STATS64)?;
    let count = |at: usize| {
        let bytes = counts.get(at * 8..at * 8 + 8)?.try_into().ok()?;
        Some(u64::from_ne_bytes(bytes))
    };
    let most = |kind| {
        let bytes = find(attributes, kind).and_then(|it| it.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    };
    Some(Traffic {
        index,
        name,
        kind,
        queue: find_str(attributes, IFLA_QDISC)
            .unwrap_or_default()
            .to_owned(),
        sent: count(1)?.saturating_add(count(7)?),
        gso_max: (most(IFLA_GSO_MAX_SIZE), most(IFLA_GSO_MAX_SEGS)),
    })
}

/// The number of a device, by its name.
///
/// # Errors
/// `ENODEV` where there is none.
pub fn index(name: &IfName) -> Result<u32, RtnlError> {
    let mut body = vec![0; IFINFO];
    put_name(&mut body, IFLA_IFNAME, &name.bytes());
    let found = Netlink::open(NETLINK_ROUTE).and_then(|mut netlink| netlink.get(GETLINK, &body));
    let index = |entry: &[u8]| Some(u32::from_ne_bytes(entry.get(4..8)?.try_into().ok()?));
    found
        .and_then(|entry| index(&entry).ok_or_else(|| io::ErrorKind::InvalidData.into()))
        .map_err(|source| RtnlError::Refused {
            what: format!("ip link show dev {name}"),
            source,
        })
}

/// Gives a device another name.
///
/// # Errors
/// Where the kernel refuses; before Linux 6.2 a device that is up keeps its name.
pub fn rename(from: &IfName, to: &IfName) -> Result<(), RtnlError> {
    let mut message = flags(index(from)?, LinkFlags::empty());
    message.header.change_mask = LinkFlags::empty();
    message.attributes = vec![LinkAttribute::IfName(to.to_string())];
    set(message, &format!("ip link set dev {from} name {to}"))
}

/// Sets a device up.
///
/// # Errors
/// Where the kernel refuses.
pub fn set_up(name: &IfName) -> Result<(), RtnlError> {
    let message = flags(index(name)?, LinkFlags::Up);
    set(message, &format!("ip link set dev {name} up"))
}

/// Sets the MTU of a device, in bytes.
///
/// # Errors
/// Where the kernel refuses.
pub fn set_mtu(name: &IfName, mtu: u16) -> Result<(), RtnlError> {
    let mut message = flags(index(name)?, LinkFlags::empty());
    message.header.change_mask = LinkFlags::empty();
    message.attributes = vec![LinkAttribute::Mtu(mtu.into())];
    set(message, &format!("ip link set dev {name} mtu {mtu}"))
}

/// Sets a device down. Never the tunnel: its routes would go with it.
///
/// # Errors
/// Where the kernel refuses.
pub fn set_down(name: &IfName) -> Result<(), RtnlError> {
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
    let table = std::fs::read("/proc/thread-self/net/dev");
    let table = table.map_err(|source| RtnlError::Refused {
        what: what.to_owned(),
        source,
    })?;
    let mut outcome = Ok(());
    for name in names(&table) {
        let down = match IfName::from_bytes(name) {
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
fn names(table: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = table.split(|byte| *byte == b'\n').skip(2);
    let name = |line: &'_ [u8]| line.iter().position(|byte| *byte == b':');
    lines
        .filter_map(move |line| name(line).map(|length| line[..length].trim_ascii_start()))
        .filter(|name| *name != b"lo")
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
    let mut rtnl = Rtnl::open()?;
    for address in addresses {
        change_address(&mut rtnl, index, device, *address, AddressChange::Replace)?;
    }
    set_up(device)?;
    // Only now does the list, which is of devices that are up, hold them.
    let stale = self::addresses()?
        .into_iter()
        .filter(|link| &link.device == device && !addresses.contains(&link.address));
    for link in stale {
        change_address(
            &mut rtnl,
            index,
            device,
            link.address,
            AddressChange::Remove,
        )?;
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
    let own = |link: &Link| link.device == name && !link.address.ip().is_loopback();
    let present = addresses()?.into_iter().filter(own);
    let present: HashSet<_> = present.map(|link| link.address).collect();
    let wanted: HashSet<_> = networks.iter().copied().collect();
    let mut rtnl = Rtnl::open()?;
    for network in networks.iter().filter(|it| !present.contains(it)) {
        change_address(&mut rtnl, index, &name, *network, AddressChange::Replace)?;
    }
    for network in present.difference(&wanted) {
        change_address(&mut rtnl, index, &name, *network, AddressChange::Remove)?;
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
    rtnl: &mut Rtnl,
    index: u32,
    device: &IfName,
    address: Ipv4Network,
    change: AddressChange,
) -> Result<(), RtnlError> {
    let message = address_message(index, address.into());
    match change {
        AddressChange::Replace => rtnl.change(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            &format!("ip -4 address replace {address} dev {device}"),
        ),
        AddressChange::Remove => rtnl.change(
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
        let table = b"Inter-| Receive\n face |bytes\n    lo: 1 2\n  eth0: 3 4\n   \xff\xfe:5 6\n";
        let expected = [&b"eth0"[..], b"\xff\xfe"];
        assert_eq!(names(table).collect::<Vec<_>>(), expected);
    }
}
