//! Tells what others change: devices, addresses, routes, rules, firewall.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enums of netlink are not ours and not exhaustive"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};

use super::rtnl;
use crate::net::IfName;
use crate::ruleset::attribute::{find, find_name};

/// Groups of NETLINK_ROUTE (`rtnetlink_groups`, linux/rtnetlink.h): links, then addresses, routes and rules
/// of IPv4 and of IPv6.
const ROUTE_GROUPS: [u32; 7] = [1, 5, 7, 8, 9, 11, 19];

/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const NFTABLES_GROUP: u32 = 7;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN` (linux/netfilter/nf_tables.h): ends each transaction.
const NEW_GENERATION: u16 = 10 << 8 | 15;

/// Types of messages (linux/rtnetlink.h). Those of devices are read by hand, since a name need not be UTF-8.
const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;

/// Bytes of a netlink header, and of `ifinfomsg` after it (linux/rtnetlink.h).
const HEADER: usize = 16;
const IFINFO: usize = 16;

/// Attributes of a device (linux/if_link.h): its name, the number of its other end or of the device below it, the
/// namespace that this is in if it is another one, and where the device was moved to (Linux 4.15, 4.16).
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_NEW_NETNSID: u16 = 45;
const IFLA_NEW_IFINDEX: u16 = 49;

/// Bytes of a netlink header and of the header of nfnetlink after it.
const HEADERS: usize = 16 + 4;

/// One change. It says what to look at again, not what is there now: messages may be late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A device appeared, or changed: up, down, renamed.
    Link(IfName),
    /// A device went away: it was removed, or taken back by whoever has its other end.
    LinkGone(IfName),
    /// A device was taken into another network namespace. There our rules do not hold it, and it may be a way out.
    LinkMoved {
        /// Its name at that moment. Whoever takes a device may rename it first.
        device: IfName,
        /// The number that it had in this namespace.
        index: u32,
    },
    /// An address was added or removed.
    Address,
    /// A route was added or removed.
    Route,
    /// A policy rule was added or removed.
    Rule,
    /// Someone, us included, committed a transaction of nftables.
    Ruleset {
        /// Number of the ruleset after it, if the kernel said.
        generation: Option<u32>,
        /// Name of the program that did it, if the kernel said.
        program: Option<String>,
    },
    /// Messages were lost, or one could not be read: look at everything again.
    Lost,
}

/// A socket that becomes readable when something changes. Non-blocking.
pub struct Watch {
    socket: Socket,
    source: Source,
}

#[derive(Clone, Copy)]
enum Source {
    Route,
    Nftables,
}

impl Watch {
    /// Watches devices, addresses, routes and rules of this network namespace.
    ///
    /// # Errors
    /// Where the kernel gives no socket.
    pub fn network() -> io::Result<Self> {
        Self::open(NETLINK_ROUTE, &ROUTE_GROUPS, Source::Route)
    }

    /// Watches devices alone.
    ///
    /// # Errors
    /// Where the kernel gives no socket.
    pub fn links() -> io::Result<Self> {
        Self::open(NETLINK_ROUTE, &ROUTE_GROUPS[..1], Source::Route)
    }

    /// Watches the firewall of this network namespace. Takes NET_ADMIN.
    ///
    /// # Errors
    /// Where the kernel gives no socket.
    pub fn firewall() -> io::Result<Self> {
        Self::open(NETLINK_NETFILTER, &[NFTABLES_GROUP], Source::Nftables)
    }

    fn open(protocol: isize, groups: &[u32], source: Source) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        for group in groups {
            socket.add_membership(*group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket, source })
    }

    /// What changed since the last call; empty when nothing did.
    ///
    /// # Errors
    /// Where the socket is broken; the caller cannot tell what happens from then on.
    pub fn read(&self) -> io::Result<Vec<Change>> {
        let mut changes = Vec::new();
        loop {
            match self.socket.recv_from_full() {
                // Only the kernel, port 0, tells the truth (netlink(7)).
                Ok((bytes, from)) if from.port_number() == 0 => match self.source {
                    Source::Route => network_changes(&bytes, &mut changes),
                    Source::Nftables => firewall_changes(&bytes, &mut changes),
                },
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    changes.push(Change::Lost);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changes),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn network_changes(mut bytes: &[u8], changes: &mut Vec<Change>) {
    while !bytes.is_empty() {
        let Some((message, rest)) = split_message(bytes) else {
            changes.push(Change::Lost);
            return;
        };
        bytes = rest;
        let payload = message.get(HEADER..).unwrap_or_default();
        match u16::from_ne_bytes([message[4], message[5]]) {
            NEWLINK => changes.push(link_is_there(payload).unwrap_or(Change::Lost)),
            DELLINK => changes.push(link_is_gone(payload).unwrap_or(Change::Lost)),
            _ => other_changes(message, changes),
        }
    }
}

/// `ifinfomsg` (family, type, index, flags, mask), then attributes.
fn link_is_there(payload: &[u8]) -> Option<Change> {
    let name = find_name(payload.get(IFINFO..)?, IFLA_IFNAME)?;
    Some(Change::Link(IfName::from_bytes(name).ok()?))
}

/// Tells a device that was removed from one that is in another namespace now. What cannot be told counts as moved.
///
/// The kernel announces a move as the end of the device here, with the number of the namespace that it went to, which
/// it hands out for that (`__dev_change_net_namespace`, net/core/dev.c). Two moves are none of ours to mind:
///
/// - to the namespace that its other end is in. It takes NET_ADMIN there, so whoever did it could read and send by the
///   other end anyway. Docker does so before it deletes a device (`docker network disconnect`).
/// - of a device whose other end, or the device below it, is in this namespace: what it sends arrives here.
/// - of a TUN device: what it sends goes to the process that holds it.
fn link_is_gone(payload: &[u8]) -> Option<Change> {
    let Change::Link(device) = link_is_there(payload)? else {
        return None;
    };
    // A port that leaves its bridge is announced as the end of the port, not of the device (`br_ifinfo_notify`,
    // net/bridge/br_netlink.c): the family says so.
    if *payload.first()? != 0 {
        return Some(Change::Link(device));
    }
    let index = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
    let attributes = payload.get(IFINFO..)?;
    let other_end = find(attributes, IFLA_LINK_NETNSID);
    let to = find(attributes, IFLA_NEW_NETNSID);
    let moved = to.is_some() || find(attributes, IFLA_NEW_IFINDEX).is_some();
    let home = to.is_some() && other_end == to;
    let inside = other_end.is_none() && find(attributes, IFLA_LINK).is_some();
    let leads_out = super::nft::leads_out(payload) != Some(false);
    Some(if moved && leads_out && !home && !inside {
        Change::LinkMoved { device, index }
    } else {
        Change::LinkGone(device)
    })
}

fn other_changes(message: &[u8], changes: &mut Vec<Change>) {
    let Ok(messages) = rtnl::decode(message) else {
        changes.push(Change::Lost);
        return;
    };
    for message in messages {
        let NetlinkPayload::InnerMessage(message) = message.payload else {
            continue;
        };
        changes.push(network_change(&message));
    }
}

fn network_change(message: &RouteNetlinkMessage) -> Change {
    match message {
        RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => Change::Address,
        RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => Change::Route,
        RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => Change::Rule,
        // Foreign enum, non-exhaustive: a message of another group is one we do not understand.
        _ => Change::Lost,
    }
}

/// Reads the headers by hand: of the firewall's messages only the last of each transaction matters.
fn firewall_changes(mut bytes: &[u8], changes: &mut Vec<Change>) {
    while !bytes.is_empty() {
        let Some((message, rest)) = split_message(bytes) else {
            changes.push(Change::Lost);
            return;
        };
        bytes = rest;
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        if kind == NEW_GENERATION {
            changes.push(generation(message.get(HEADERS..).unwrap_or_default()));
        }
    }
}

/// The first message, at least a header long, and what follows its padding.
fn split_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let message = bytes
        .get(..length)
        .filter(|message| message.len() >= HEADER)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((message, rest))
}

/// Attributes `NFTA_GEN_ID` (1, big-endian) and `NFTA_GEN_PROC_NAME` (3).
fn generation(mut attributes: &[u8]) -> Change {
    let (mut generation, mut program) = (None, None);
    while let [low, high, kind_low, kind_high, ..] = *attributes {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let Some(value) = attributes.get(4..length) else {
            break;
        };
        match u16::from_ne_bytes([kind_low, kind_high]) {
            1 => generation = value.try_into().ok().map(u32::from_be_bytes),
            3 => {
                let text = String::from_utf8_lossy(value);
                program = Some(text.trim_end_matches('\0').to_owned());
            }
            _ => {}
        }
        attributes = attributes
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Change::Ruleset {
        generation,
        program,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::attribute::{put, put_name};

    #[test]
    fn what_cannot_be_read_is_not_nothing() {
        for bytes in [&[1_u8, 2, 3][..], &[200, 0, 0, 0, 1, 2, 3, 4]] {
            let mut changes = Vec::new();
            firewall_changes(bytes, &mut changes);
            network_changes(bytes, &mut changes);
            assert_eq!(changes, [Change::Lost, Change::Lost]);
        }
    }

    /// A message of the end of `eth0`, number 7, of a family, with these attributes.
    fn end_of(family: u8, more: &[(u16, i32)]) -> Vec<u8> {
        let mut payload = vec![0; IFINFO];
        payload[0] = family;
        payload[4] = 7;
        put_name(&mut payload, IFLA_IFNAME, b"eth0");
        for (kind, number) in more {
            put(&mut payload, *kind, &number.to_ne_bytes());
        }
        payload
    }

    #[test]
    fn a_device_that_was_taken_away_is_told_from_one_that_was_removed() {
        let device: IfName = "eth0".parse().unwrap();
        let moved = Change::LinkMoved {
            device: device.clone(),
            index: 7,
        };
        let gone = Change::LinkGone(device.clone());
        let (to, number) = ((IFLA_NEW_NETNSID, 1), (IFLA_NEW_IFINDEX, 3));
        let (end, link) = ((IFLA_LINK_NETNSID, 0), (IFLA_LINK, 4));
        for (more, expected) in [
            (&[][..], &gone),
            (&[end, link], &gone),
            (&[to, number, end, link], &moved),
            // The kernel could not hand out a number for the namespace.
            (&[(IFLA_NEW_NETNSID, -1), end, link], &moved),
            (&[number, end, link], &moved),
            // Hardware and TAP devices have no other end that the kernel knows of.
            (&[to, number], &moved),
            // Where its other end is.
            (&[(IFLA_NEW_NETNSID, 0), number, end, link], &gone),
            // Both ends were made here.
            (&[to, number, link], &gone),
        ] {
            assert_eq!(
                link_is_gone(&end_of(0, more)).as_ref(),
                Some(expected),
                "{more:?}"
            );
        }
        let of_bridge = end_of(7, &[to, number, end, link]);
        assert_eq!(link_is_gone(&of_bridge), Some(Change::Link(device)));
        assert_eq!(link_is_gone(&[0; 4]), None);
    }

    #[test]
    fn a_generation_is_read_with_its_program() {
        let attributes = b"\x08\0\x01\0\0\0\0\x07\x08\0\x03\0nft\0";
        let expected = Change::Ruleset {
            generation: Some(7),
            program: Some("nft".to_owned()),
        };
        assert_eq!(generation(attributes), expected);
    }
}
