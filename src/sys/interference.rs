//! Looks for what cuts the network of joined programs, and undoes it. What it is, [`crate::plan::interference`] says.
//!
//! One look is three lists of the kernel and some files below /proc/sys; none of them waits for anybody.

use std::fs;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;

use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::tc::TcMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::Netlink;
use super::rtnl::{Rtnl, RtnlError};
use crate::net::{IfName, Uplink};
use crate::plan::departed::{FarEnd, Whereabouts};
use crate::plan::interference::{
    Discipline, Fixed, Guarded, Of, Parameter, Role, Seen, Undo, Values,
};
use crate::ruleset::attribute::{find, find_name, find_str, put};

/// Requests (linux/rtnetlink.h) and bytes of the headers that they and their answers begin with: `ifinfomsg`, `tcmsg`,
/// `ndmsg`.
const GETLINK: u16 = 18;
const GETNEIGH: u16 = 30;
const GETQDISC: u16 = 38;
const IFINFO: usize = 16;
const TCMSG: usize = 20;
const NDMSG: usize = 12;

/// Attributes of a device (linux/if_link.h).
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_CARRIER: u16 = 33;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_TARGET_NETNSID: u16 = 46;

/// `IFF_NOARP` (linux/if.h).
const NOARP: u32 = 0x80;

/// `TCA_KIND` (linux/rtnetlink.h).
const TCA_KIND: u16 = 1;

/// States, kind and attributes of a neighbour (linux/neighbour.h, `RTN_UNICAST` in linux/rtnetlink.h).
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const UNICAST: u8 = 1;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

/// Where the parameters are. `/proc/sys/net` shows those of the reader's namespace.
const ROOT: &str = "/proc/sys";

/// A step did not undo what it should.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// The kernel refused, or its answer cannot be read.
    #[error(transparent)]
    Rtnl(#[from] RtnlError),
    /// A parameter could not be written.
    #[error(
        "the kernel parameter {parameter} could not be given back `{value}`: {source}; write it by `nsenter` from the \
         machine, or start the gateway where /proc/sys can be written to"
    )]
    Parameter {
        /// Which.
        parameter: Parameter,
        /// What it was to be.
        value: String,
        /// Why not.
        source: io::Error,
    },
}

/// Looks at the uplink, the tunnel device and the kernel parameters. A device that is not there is not among what was
/// seen, and neither is a parameter that the kernel does not have.
///
/// # Errors
/// Where the kernel refuses a list, or its answer cannot be read.
pub fn look(uplink: Option<&Uplink>, tunnel: &IfName) -> Result<Seen, RtnlError> {
    let name = uplink.map(|it| &it.device);
    let role = |it: &IfName| match () {
        () if Some(it) == name => Some(Role::Uplink),
        () if it == tunnel => Some(Role::Tunnel),
        () => None,
    };
    let mut devices = list("ip link show", GETLINK, &[0; IFINFO], |it| {
        device(it, &role)
    })?;
    let queues = list("tc qdisc show", GETQDISC, &[0; TCMSG], discipline)?;
    let mut body = [0; NDMSG];
    body[0] = u8::from(AddressFamily::Inet);
    let neighbours = list("ip -4 neigh show", GETNEIGH, &body, fixed)?;
    for device in &mut devices {
        let index = device.index;
        let own = queues.iter().filter(|it| it.0 == index);
        device.disciplines = own.map(|it| it.1.clone()).collect();
        // On a link without a router every destination is a neighbour.
        let router = uplink.and_then(|it| it.gateway);
        let matters = |it: &Fixed| router.is_none_or(|router| it.address == router);
        let own = neighbours
            .iter()
            .filter(|it| it.0 == index && matters(&it.1));
        if device.role == Role::Uplink {
            device.fixed = own.map(|it| it.1.clone()).collect();
        }
    }
    Ok(Seen {
        devices,
        values: values(Path::new(ROOT), name),
    })
}

/// Does one step. What is undone already, or belongs to a device that is gone, is no error.
///
/// # Errors
/// Where the kernel refuses it.
pub fn undo(step: &Undo) -> Result<(), UndoError> {
    let what = step.to_string();
    let done = match step {
        Undo::Write(parameter, value) => return write(Path::new(ROOT), parameter, value),
        Undo::Release(of) => set(of, vec![LinkAttribute::Controller(0)], &what),
        Undo::Ask(of) => {
            let mut message = message(of);
            message.header.change_mask = LinkFlags::Noarp;
            change(RouteNetlinkMessage::SetLink(message), &what)
        }
        Undo::Carrier(of) => set(of, vec![LinkAttribute::Carrier(1)], &what),
        Undo::Queue(of, length) => set(of, vec![LinkAttribute::TxQueueLen(*length)], &what),
        Undo::Unshape(of, parent) => {
            let index = i32::try_from(of.index).unwrap_or_default();
            let mut message = TcMessage::with_index(index);
            message.header.parent = (*parent).into();
            change(RouteNetlinkMessage::DelQueueDiscipline(message), &what)
        }
        Undo::Forget(of, address) => {
            let mut message = NeighbourMessage::default();
            message.header.family = AddressFamily::Inet;
            message.header.ifindex = of.index;
            let address = NeighbourAddress::Inet(*address);
            message.attributes = vec![NeighbourAttribute::Destination(address)];
            change(RouteNetlinkMessage::DelNeighbour(message), &what)
        }
    };
    match done {
        Err(error) if matches!(error.errno(), Some(libc::ENODEV | libc::ENOENT)) => Ok(()),
        other => Ok(other?),
    }
}

/// Where a device is that vanished, by what its other end says. `None` for one that had no other end that is known.
pub fn whereabouts(far_end: Option<FarEnd>) -> Whereabouts {
    let Some(FarEnd { namespace, index }) = far_end else {
        return Whereabouts::Unknown;
    };
    let mut body = vec![0; IFINFO];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    put(&mut body, IFLA_TARGET_NETNSID, &namespace.to_ne_bytes());
    let answer = Netlink::open(NETLINK_ROUTE).and_then(|mut netlink| netlink.get(GETLINK, &body));
    match answer {
        Ok(entry) => {
            let attributes = entry.get(IFINFO..).unwrap_or_default();
            // Told where the two ends are in different namespaces (`rtnl_fill_link_netnsid`, net/core/rtnetlink.c).
            match find(attributes, IFLA_LINK_NETNSID) {
                Some(_) => Whereabouts::Elsewhere,
                None => Whereabouts::Home,
            }
        }
        // A pair ends together, and a namespace with all that is in it.
        Err(error) => match error.raw_os_error() {
            Some(libc::ENODEV | libc::EINVAL) => Whereabouts::Removed,
            Some(_) | None => Whereabouts::Unknown,
        },
    }
}

fn list<T>(
    what: &str,
    kind: u16,
    body: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<T>, RtnlError> {
    let mut found = Vec::new();
    let listed = Netlink::open(NETLINK_ROUTE).and_then(|mut netlink| {
        netlink.dump(kind, body, |message| match message {
            None => found.clear(),
            Some(message) => found.extend(read(message.payload)),
        })
    });
    listed.map_err(|source| RtnlError::Refused {
        what: what.to_owned(),
        source,
    })?;
    Ok(found)
}

/// One device, if it has a role: `ifinfomsg` (family, type, index, flags, mask), then attributes.
fn device(entry: &[u8], role: &impl Fn(&IfName) -> Option<Role>) -> Option<Guarded> {
    let attributes = entry.get(IFINFO..)?;
    let name = IfName::from_bytes(find_name(attributes, IFLA_IFNAME)?).ok()?;
    let of = |kind| number(find(attributes, kind)?, 0);
    let far_end = of(IFLA_LINK_NETNSID).zip(of(IFLA_LINK));
    Some(Guarded {
        role: role(&name)?,
        name,
        index: number(entry, 4)?,
        arp: number(entry, 8)? & NOARP == 0,
        carrier: find(attributes, IFLA_CARRIER).is_none_or(|it| it != [0]),
        queue: of(IFLA_TXQLEN).unwrap_or_default(),
        master: of(IFLA_MASTER),
        far_end: far_end.map(|(namespace, index)| FarEnd {
            namespace: namespace.cast_signed(),
            index,
        }),
        disciplines: Vec::new(),
        fixed: Vec::new(),
    })
}

/// `tcmsg` (family, padding, index, handle, parent, info), then attributes. The number is that of the device.
fn discipline(entry: &[u8]) -> Option<(u32, Discipline)> {
    let kind = find_str(entry.get(TCMSG..)?, TCA_KIND)?;
    let discipline = Discipline {
        kind: kind.to_owned(),
        handle: number(entry, 8)?,
        parent: number(entry, 12)?,
    };
    Some((number(entry, 4)?, discipline))
}

/// `ndmsg` (family, padding, index, state, flags, kind), then attributes. The number is that of the device.
fn fixed(entry: &[u8]) -> Option<(u32, Fixed)> {
    let attributes = entry.get(NDMSG..)?;
    let state = u16::from_ne_bytes(entry.get(8..10)?.try_into().ok()?);
    // Those of broadcast and multicast are made by the kernel and never asked for.
    if state & (NUD_PERMANENT | NUD_NOARP) == 0 || *entry.get(11)? != UNICAST {
        return None;
    }
    let address: [u8; 4] = find(attributes, NDA_DST)?.try_into().ok()?;
    let link_address = find(attributes, NDA_LLADDR).unwrap_or_default();
    let fixed = Fixed {
        address: Ipv4Addr::from(address),
        link_address: link_address.to_vec(),
    };
    Some((number(entry, 4)?, fixed))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn values(root: &Path, uplink: Option<&IfName>) -> Values {
    let value = |parameter: Parameter| {
        let text = fs::read_to_string(root.join(parameter.path())).ok()?;
        Some((parameter, text.trim_end().to_owned()))
    };
    Parameter::all(uplink)
        .into_iter()
        .filter_map(value)
        .collect()
}

/// Writes a parameter. A list that is to be empty takes a line that is (`proc_do_large_bitmap`, kernel/sysctl.c).
fn write(root: &Path, parameter: &Parameter, value: &str) -> Result<(), UndoError> {
    let path = root.join(parameter.path());
    // Not create: a file that is not there must not appear in a test's folder or anywhere.
    let written = fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(format!("{value}\n").as_bytes()));
    match written {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(UndoError::Parameter {
            parameter: parameter.clone(),
            value: value.to_owned(),
            source,
        }),
        Ok(()) => Ok(()),
    }
}

fn message(of: &Of) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = of.index;
    message
}

fn set(of: &Of, attributes: Vec<LinkAttribute>, what: &str) -> Result<(), RtnlError> {
    let mut message = message(of);
    message.attributes = attributes;
    change(RouteNetlinkMessage::SetLink(message), what)
}

fn change(message: RouteNetlinkMessage, what: &str) -> Result<(), RtnlError> {
    Rtnl::open()?.change(message, 0, what)
}
