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

use super::{link, rtnl};
use crate::net::IfName;

/// Groups of NETLINK_ROUTE (`rtnetlink_groups`, linux/rtnetlink.h): links, then addresses, routes and rules
/// of IPv4 and of IPv6.
const ROUTE_GROUPS: [u32; 7] = [1, 5, 7, 8, 9, 11, 19];

/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const NFTABLES_GROUP: u32 = 7;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN` (linux/netfilter/nf_tables.h): ends each transaction.
const NEW_GENERATION: u16 = 10 << 8 | 15;

/// Bytes of a netlink header and of the header of nfnetlink after it.
const HEADERS: usize = 16 + 4;

/// One change. It says what to look at again, not what is there now: messages may be late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A device appeared, or changed: up, down, renamed.
    Link(IfName),
    /// A device went away.
    LinkGone(IfName),
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

fn network_changes(bytes: &[u8], changes: &mut Vec<Change>) {
    let Ok(messages) = rtnl::decode(bytes) else {
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
    let named =
        |message, change: fn(IfName) -> Change| link::named(message).map_or(Change::Lost, change);
    match message {
        RouteNetlinkMessage::NewLink(message) => named(message, Change::Link),
        RouteNetlinkMessage::DelLink(message) => named(message, Change::LinkGone),
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
    let message = bytes.get(..length).filter(|message| message.len() >= 16)?;
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

    #[test]
    fn what_cannot_be_read_is_not_nothing() {
        for bytes in [&[1_u8, 2, 3][..], &[200, 0, 0, 0, 1, 2, 3, 4]] {
            let mut changes = Vec::new();
            firewall_changes(bytes, &mut changes);
            network_changes(bytes, &mut changes);
            assert_eq!(changes, [Change::Lost, Change::Lost]);
        }
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
