//! Which rules a policy becomes below IP: frames about to leave, and address resolution.

use super::rules::{TRANSPORTS, accept, chain, drop, holes, lan_output, lan_replies};
use super::{Chain, Hook, Kernel, LOG_EGRESS, Match, PROTOCOLS, Rule};
use crate::net::IfName;
use crate::net::networks::{METADATA, MULTICAST};
use crate::net::ports::{DNS_PORTS, MAPPING_PORTS};
use crate::policy::{Policy, Reason};

/// Bytes of an ARP packet for IPv4 on Ethernet with its frame (RFC 826): with more behind it, it would carry
/// whatever its sender likes.
const ARP: u32 = 14 + 28;

/// How many devices one chain takes: fewer than `NFT_NETDEVICE_MAX`, which is 256 and refused with EFBIG
/// (nf_tables_parse_netdev_hooks, net/netfilter/nf_tables_api.c; seen on Linux 6.18).
const MOST_DEVICES: usize = 255;

/// How many devices are expected.
const EXPECTED: usize = 10;

/// The second layer: sees frames by AF_PACKET, which no chain above sees. Without a device there is
/// nothing to hang a chain on; many devices take several chains, which are the same but for that.
pub(super) fn egress(policy: &Policy, devices: &[IfName], kernel: Kernel) -> Vec<Chain> {
    let mut devices = devices.to_vec();
    if kernel.absent_devices {
        let tunnel = policy.tunnel.as_ref().map(|tunnel| &tunnel.device);
        devices.extend(expected().filter(|name| Some(name) != tunnel));
    }
    devices.sort();
    devices.dedup();
    if devices.is_empty() {
        return Vec::new();
    }
    let log = kernel.log.then_some(LOG_EGRESS);
    let raw = |matches: &[Match]| Rule {
        matches: matches.to_vec(),
        log,
        ..drop(Reason::Raw, [])
    };
    let mut rules = Vec::new();
    let lans: Vec<_> = policy.lans().collect();
    if !lans.is_empty() {
        // The kernel cuts packets after `output`. Only the first part has ports; the others would be dropped
        // below, and a part alone is of no use to whom it is sent.
        rules.push(raw(&[Match::Fragment]));
        let frame = |mut rule: Rule| {
            rule.matches.extend([Match::NoOptions, Match::Ipv4Frame]);
            rule
        };
        let ours = policy.uplink.iter().flat_map(holes);
        rules.extend(ours.map(frame));
        let exceptions = lans.iter().flat_map(|lan| {
            let replies = lan_replies(*lan).into_iter().map(|(rule, _)| rule);
            replies.chain(lan_output(*lan))
        });
        let exceptions: Vec<_> = exceptions.map(frame).collect();
        if !exceptions.is_empty() {
            rules.extend(never_to_the_lan(log));
        }
        rules.extend(exceptions);
        rules.extend(lans.iter().map(|lan| {
            let device = Match::Out(lan.device.clone());
            let from_us = Match::ArpSource(lan.address);
            let alone = Match::Length(ARP);
            let matches = [device, from_us, Match::ArpFrame, alone];
            accept(Reason::Arp, matches)
        }));
    }
    rules.extend(PROTOCOLS.map(|(p, _)| raw(&[Match::Carries(p)])));
    rules.push(raw(&[]));
    let parts = devices.chunks(MOST_DEVICES).enumerate();
    let part = |(number, devices): (usize, &[IfName])| Chain {
        number,
        devices: devices.to_vec(),
        ..chain(Hook::Egress, rules.clone())
    };
    parts.map(part).collect()
}

/// What Docker and Podman call the devices that they give to a container: a network that is connected while the gateway
/// runs is held before the first frame can leave by it.
fn expected() -> impl Iterator<Item = IfName> {
    // Invariant: these are device names (net/core/dev.c, dev_valid_name).
    (0..EXPECTED).map(|number| format!("eth{number}").parse().expect("a device name"))
}

/// What no exception opens. `output` has refused it already, but a raw frame has not been there.
fn never_to_the_lan(log: Option<u16>) -> impl Iterator<Item = Rule> {
    let ports = |ports: &'static [u16], reason| {
        let both = move |port: &u16| TRANSPORTS.map(|t| (reason, Match::DestinationPort(t, *port)));
        ports.iter().flat_map(both)
    };
    let networks = METADATA.map(|net| (Reason::Metadata, Match::Destination(net)));
    let refused = [(Reason::Multicast, Match::Destination(MULTICAST))];
    let refused = refused.into_iter().chain(networks);
    let refused = refused.chain(ports(&DNS_PORTS, Reason::Dns));
    let refused = refused.chain(ports(&MAPPING_PORTS, Reason::PortMapping));
    refused.map(move |(reason, what)| Rule {
        log,
        ..drop(reason, [what])
    })
}

/// Address resolution of our own address on each LAN, and of no other: a neighbour that asks for the
/// tunnel's address gets no answer (audit finding MLLVD-CR-24-03).
pub(super) fn arp(policy: &Policy) -> Vec<Chain> {
    let mut input = Vec::new();
    let mut output = Vec::new();
    for lan in policy.lans() {
        let device = || lan.device.clone();
        let (to, from) = (
            Match::ArpDestination(lan.address),
            Match::ArpSource(lan.address),
        );
        input.push(accept(Reason::Arp, [Match::In(device()), to]));
        output.push(accept(Reason::Arp, [Match::Out(device()), from]));
    }
    output.push(drop(Reason::Arp, []));
    vec![chain(Hook::Input, input), chain(Hook::Output, output)]
}
