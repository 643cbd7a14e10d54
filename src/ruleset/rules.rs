//! Which rules a policy becomes. Permissions only add rules that accept; what is refused by name is
//! refused so that a person can count it, since the end of each chain drops anyway.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use super::frames::{arp, egress};
use super::{
    Chain, End, Family, Hook, Kernel, LOG_INPUT, LOG_OUTPUT, Match, PROTOCOLS, Rule, Ruleset, Table,
};
use crate::net::networks::{DOCKER_RESOLVER, METADATA, MULTICAST, NOT_GLOBAL};
use crate::net::ports::{DNS_PORTS, MAPPING_PORTS};
use crate::net::{IfName, Transport};
use crate::policy::verdict::{impossible_sources, permitted};
use crate::policy::{Hole, OnLan, Policy, Reason, TunnelPolicy, UplinkPolicy};

pub(super) const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Udp];

impl Ruleset {
    /// Permits loopback and nothing else. `devices` get an egress chain that drops every frame.
    pub fn deny_all(devices: &[IfName], kernel: Kernel) -> Self {
        Self::of(&Policy::default(), devices, kernel)
    }

    /// Deny-all with an egress chain on loopback that passes everything: whether the kernel has that hook can be asked
    /// without any other device, and loopback is never gone.
    pub fn asking_for_egress() -> Self {
        let mut asking = Self::deny_all(&[], Kernel::FIRST);
        let chain = Chain {
            accept: true,
            devices: vec![lo()],
            ..chain(Hook::Egress, Vec::new())
        };
        let netdev = |table: &&mut Table| table.family == Family::Netdev;
        if let Some(table) = asking.tables.iter_mut().find(netdev) {
            table.chains.push(chain);
        }
        asking
    }

    /// The rules of this policy. `devices` are all but loopback and the tunnel; each gets the egress chain, where only
    /// the uplink has permissions. A kernel with [`Kernel::absent_devices`] puts it on `eth0` to `eth9` too, when they come.
    /// One without nf_tables gets none.
    pub fn of(policy: &Policy, devices: &[IfName], kernel: Kernel) -> Self {
        if !kernel.rules {
            return Self { tables: Vec::new() };
        }
        let mut inet = Vec::new();
        if policy.lans().next().is_some() || policy.tunnel.is_some() {
            inet.push(chain(Hook::Prerouting, prerouting(policy, kernel)));
            inet.push(chain(Hook::OutputRaw, output_raw(policy)));
        }
        inet.push(chain(Hook::Input, input(policy, kernel)));
        inet.push(chain(Hook::Forward, forward()));
        inet.push(chain(Hook::Output, output(policy, kernel)));
        let mut tables = vec![table(Family::Inet, inet)];
        if kernel.egress_hook {
            tables.push(table(Family::Netdev, egress(policy, devices, kernel)));
        }
        tables.push(table(Family::Arp, arp(policy)));
        Self { tables }
    }
}

fn table(family: Family, chains: Vec<Chain>) -> Table {
    Table { family, chains }
}

pub(super) fn chain(hook: Hook, rules: Vec<Rule>) -> Chain {
    Chain {
        hook,
        number: 0,
        accept: hook.is_early(),
        devices: Vec::new(),
        rules,
    }
}

fn rule<const N: usize>(reason: Reason, matches: [Match; N], end: End) -> Rule {
    Rule {
        matches: matches.into(),
        counted: true,
        log: None,
        untracked: false,
        end,
        reason,
    }
}

pub(super) fn accept<const N: usize>(reason: Reason, matches: [Match; N]) -> Rule {
    rule(reason, matches, End::Accept)
}

pub(super) fn drop<const N: usize>(reason: Reason, matches: [Match; N]) -> Rule {
    rule(reason, matches, End::Drop)
}

/// Past connection tracking, whose table whoever likes could fill otherwise. It is counted where it is
/// decided about.
fn untracked(rule: Rule) -> Rule {
    Rule {
        counted: false,
        untracked: true,
        ..rule
    }
}

/// Loopback is not counted: nothing is to be learnt from it.
fn loopback(device: Match) -> Rule {
    Rule {
        counted: false,
        ..accept(Reason::Loopback, [device])
    }
}

/// A refusal in `output`: a copy for the log, and the sender hears of it. A TCP connection that is being
/// opened hears of an ICMP error only when it tries again after a second (RFC 6298 section 2), of a reset at
/// once. One that is open must outlive a block, so it is never reset.
fn refuse<const N: usize>(reason: Reason, matches: [Match; N], kernel: Kernel) -> Rule {
    let end = match (kernel.reject, matches.contains(&Match::Opening)) {
        (false, _) => End::Drop,
        (true, true) => End::RejectReset,
        (true, false) => End::RejectProhibited,
    };
    Rule {
        log: kernel.log.then_some(LOG_OUTPUT),
        ..rule(reason, matches, end)
    }
}

fn lo() -> IfName {
    // Invariant: `lo` is a device name (net/core/dev.c, dev_valid_name).
    "lo".parse().expect("lo is a device name")
}

fn host(ip: Ipv4Addr) -> Ipv4Network {
    Ipv4Network::from(ip)
}

/// What cannot be true is dropped before anything looks at it. Replies of the endpoint and of the
/// resolver come by the uplink although the tunnel is where packets go, so they pass first. Neither they
/// nor loopback are tracked: each of their rules matches the packet alone.
fn prerouting(policy: &Policy, kernel: Kernel) -> Vec<Rule> {
    let mut rules = vec![untracked(loopback(Match::In(lo())))];
    if let Some(uplink) = &policy.uplink {
        let replies = hole_replies(uplink).into_iter();
        rules.extend(replies.chain(too_big(uplink)).map(untracked));
    }
    if let Some(tunnel) = &policy.tunnel {
        let device = &tunnel.device;
        // CVE-2019-14899: a neighbour finds out our tunnel address by sending to it.
        rules.extend(tunnel.addresses.iter().map(|address| {
            let not_lo = Match::NotIn(lo());
            let to = Match::Destination(host(address.ip()));
            drop(Reason::Spoofed, [not_lo, Match::NotIn(device.clone()), to])
        }));
        rules.extend(impossible_sources(policy).into_iter().map(|net| {
            let from = Match::Source(net);
            drop(Reason::Spoofed, [Match::In(device.clone()), from])
        }));
    }
    // A client beyond the router has no way back unless an exception is for it, and is no forger. Connection
    // tracking comes later.
    for lan in policy.lans() {
        let first = [Match::Opening, Match::Carries(Transport::Udp.number())];
        rules.extend(first.map(|first| {
            let mut rule = uninvited(lan, first, kernel);
            rule.matches.push(Match::NoWayBack);
            rule
        }));
    }
    // Strict reverse path, which the rp_filter sysctl would be if it could be written.
    let way_back = [Match::NotIn(lo()), Match::Ipv4, Match::NoWayBack];
    rules.push(drop(Reason::Spoofed, way_back));
    rules
}

/// The same on the way out. An ordinary user fills the table over loopback in seconds; a flow that is not
/// in it cannot be thrown out of it.
fn output_raw(policy: &Policy) -> Vec<Rule> {
    let ours = policy.uplink.as_ref().map(holes).unwrap_or_default();
    let mut rules = vec![untracked(loopback(Match::Out(lo())))];
    rules.extend(ours.into_iter().map(untracked));
    rules
}

fn input(policy: &Policy, kernel: Kernel) -> Vec<Rule> {
    let docker = host(DOCKER_RESOLVER);
    let mut rules = vec![
        drop(Reason::Ipv6, [Match::Ipv6, Match::NotIn(lo())]),
        // A raw frame on loopback has passed no output chain.
        drop(
            Reason::DockerResolver,
            [Match::In(lo()), Match::Destination(docker)],
        ),
        loopback(Match::In(lo())),
    ];
    if let Some(uplink) = &policy.uplink {
        rules.extend(hole_replies(uplink));
        rules.extend(too_big(uplink));
    }
    if let Some(tunnel) = &policy.tunnel {
        rules.extend(tunnel_input(tunnel));
    }
    for lan in policy.lans() {
        rules.extend(lan_input(lan));
        rules.extend(TRANSPORTS.map(|transport| {
            let mut rule = uninvited(lan, Match::Carries(transport.number()), kernel);
            rule.matches.push(Match::New);
            rule
        }));
    }
    rules.push(drop(Reason::Other, []));
    rules
}

fn hole_replies(uplink: &UplinkPolicy) -> Vec<Rule> {
    let from = |hole: &Hole, reason| {
        let matches = [
            Match::In(uplink.device.clone()),
            Match::Source(host(*hole.remote.ip())),
            Match::Destination(host(uplink.address)),
            Match::SourcePort(Transport::Udp, hole.remote.port()),
            Match::DestinationPort(Transport::Udp, hole.source_port),
        ];
        accept(reason, matches)
    };
    let mut rules = Vec::new();
    if let Some(hole) = &uplink.endpoint {
        let mut rule = from(hole, Reason::Endpoint);
        rule.matches.push(Match::WireGuard);
        rules.push(rule);
    }
    if let Some(hole) = &uplink.resolver {
        rules.push(from(hole, Reason::Resolver));
    }
    rules
}

/// A router on the way to the endpoint says that a datagram of ours is too long for it (RFC 1191). It may
/// have any address; the header that it quotes says whose datagram that was, since our flow is not tracked.
fn too_big(uplink: &UplinkPolicy) -> Option<Rule> {
    uplink.endpoint.map(|hole| {
        let about = Match::TooBig {
            source_port: hole.source_port,
            remote: hole.remote,
        };
        let to_us = Match::Destination(host(uplink.address));
        let device = Match::In(uplink.device.clone());
        accept(Reason::Endpoint, [device, to_us, about])
    })
}

/// Replies, and the ports that are forwarded to us.
fn tunnel_input(tunnel: &TunnelPolicy) -> Vec<Rule> {
    let mut rules = Vec::new();
    for address in &tunnel.addresses {
        let device = Match::In(tunnel.device.clone());
        let to = Match::Destination(host(address.ip()));
        rules.push(accept(
            Reason::Tunnel,
            [
                device.clone(),
                Match::InKindTun,
                to.clone(),
                Match::EstablishedOrRelated,
            ],
        ));
        for &port in &tunnel.forward {
            rules.extend(TRANSPORTS.map(|transport| {
                let port = Match::DestinationPort(transport, port);
                let matches = [device.clone(), Match::InKindTun, to.clone(), port];
                accept(Reason::ForwardedPort, matches)
            }));
        }
    }
    rules
}

fn lan_input(lan: OnLan<'_>) -> Vec<Rule> {
    let device = || Match::In(lan.device.clone());
    let to_us = || Match::Destination(host(lan.address));
    let inbound = lan.inbound.iter().map(|rule| {
        let from = Match::Source(rule.from());
        let port = Match::DestinationPort(rule.to().transport, rule.to().number);
        accept(Reason::LanInbound, [device(), from, to_us(), port])
    });
    let replies = lan.outbound.iter().map(|rule| {
        let from = Match::Source(host(rule.to()));
        let port = Match::SourcePort(rule.port().transport, rule.port().number);
        let (established, reply) = (Match::Established, Match::Reply);
        accept(
            Reason::LanOutbound,
            [device(), from, to_us(), port, established, reply],
        )
    });
    inbound.chain(replies).collect()
}

/// What comes from a LAN to open something here, and no exception is for it: a person will ask why.
fn uninvited(lan: OnLan<'_>, what: Match, kernel: Kernel) -> Rule {
    let device = Match::In(lan.device.clone());
    let to_us = Match::Destination(host(lan.address));
    Rule {
        log: kernel.log.then_some(LOG_INPUT),
        ..drop(Reason::Inbound, [device, to_us, what])
    }
}

fn forward() -> Vec<Rule> {
    vec![
        drop(Reason::Ipv6, [Match::Ipv6, Match::NotIn(lo())]),
        drop(Reason::Forward, []),
    ]
}

/// The flow that carries everything comes first, the tunnel next, LAN exceptions last.
fn output(policy: &Policy, kernel: Kernel) -> Vec<Rule> {
    let docker = Match::Destination(host(DOCKER_RESOLVER));
    let ipv6 = drop(Reason::Ipv6, [Match::Ipv6, Match::NotOut(lo())]);
    let mut rules = vec![
        Rule {
            log: kernel.log.then_some(LOG_OUTPUT),
            ..ipv6
        },
        refuse(Reason::DockerResolver, [docker], kernel),
        loopback(Match::Out(lo())),
    ];
    if let Some(uplink) = &policy.uplink {
        rules.extend(holes(uplink));
        rules.extend(
            policy
                .tunnel
                .iter()
                .flat_map(|tunnel| loops(uplink, tunnel)),
        );
    }
    rules.push(refuse(
        Reason::Multicast,
        [Match::Destination(MULTICAST)],
        kernel,
    ));
    rules.extend(METADATA.map(|net| refuse(Reason::Metadata, [Match::Destination(net)], kernel)));
    if let Some(tunnel) = &policy.tunnel {
        rules.extend(tunnel_dns(tunnel));
    }
    for port in DNS_PORTS {
        let [tcp, udp] = TRANSPORTS.map(|t| Match::DestinationPort(t, port));
        if kernel.reject {
            rules.push(refuse(Reason::Dns, [tcp.clone(), Match::Opening], kernel));
        }
        rules.extend([tcp, udp].map(|port| refuse(Reason::Dns, [port], kernel)));
    }
    if let Some(tunnel) = &policy.tunnel {
        rules.extend(tunnel_output(tunnel, kernel));
    }
    for lan in policy.lans() {
        rules.extend(MAPPING_PORTS.iter().flat_map(|port| {
            TRANSPORTS.map(|transport| {
                let device = Match::Out(lan.device.clone());
                let port = Match::DestinationPort(transport, *port);
                refuse(Reason::PortMapping, [device, port], kernel)
            })
        }));
        rules.extend(lan_replies(lan).into_iter().map(tracked));
        rules.extend(lan_output(lan));
    }
    if kernel.reject {
        rules.push(refuse(Reason::Other, [Match::Opening], kernel));
    }
    // Apart only to be counted by protocol.
    rules.extend(PROTOCOLS.map(|(p, _)| refuse(Reason::Other, [Match::Carries(p)], kernel)));
    rules.push(refuse(Reason::Other, [], kernel));
    rules
}

/// Our own UDP flows. The same at `output` and at `egress`.
pub(super) fn holes(uplink: &UplinkPolicy) -> Vec<Rule> {
    let to = |hole: &Hole, reason| {
        let matches = [
            Match::Out(uplink.device.clone()),
            Match::Mark(hole.mark),
            Match::Source(host(uplink.address)),
            Match::Destination(host(*hole.remote.ip())),
            Match::SourcePort(Transport::Udp, hole.source_port),
            Match::DestinationPort(Transport::Udp, hole.remote.port()),
        ];
        accept(reason, matches)
    };
    let mut rules = Vec::new();
    if let Some(hole) = &uplink.endpoint {
        let mut rule = to(hole, Reason::Endpoint);
        rule.matches.push(Match::WireGuard);
        rules.push(rule);
    }
    if let Some(hole) = &uplink.resolver {
        rules.push(to(hole, Reason::Resolver));
    }
    rules
}

/// Our own packets never enter the tunnel, whatever leads them there: each would make another.
fn loops(uplink: &UplinkPolicy, tunnel: &TunnelPolicy) -> Option<Rule> {
    let hole = uplink.endpoint.or(uplink.resolver)?;
    let device = Match::Out(tunnel.device.clone());
    Some(drop(Reason::Endpoint, [device, Match::Mark(hole.mark)]))
}

/// Name, kind and source: what a packet has that really goes into the tunnel.
fn into_tunnel(tunnel: &TunnelPolicy) -> impl Iterator<Item = [Match; 3]> {
    tunnel.addresses.iter().map(|address| {
        let device = Match::Out(tunnel.device.clone());
        [device, Match::OutKindTun, Match::Source(host(address.ip()))]
    })
}

fn tunnel_dns(tunnel: &TunnelPolicy) -> Vec<Rule> {
    let mut rules = Vec::new();
    for [device, kind, source] in into_tunnel(tunnel) {
        for &resolver in &tunnel.dns {
            for port in DNS_PORTS {
                rules.extend(TRANSPORTS.map(|transport| {
                    let to = Match::Destination(host(resolver));
                    let port = Match::DestinationPort(transport, port);
                    let start = (device.clone(), kind.clone(), source.clone());
                    accept(Reason::Tunnel, [start.0, start.1, start.2, to, port])
                }));
            }
        }
    }
    rules
}

fn tunnel_output(tunnel: &TunnelPolicy, kernel: Kernel) -> Vec<Rule> {
    let mut rules = Vec::new();
    for [device, kind, source] in into_tunnel(tunnel) {
        rules.extend(permitted(tunnel).map(|net| {
            let to = Match::Destination(net);
            let start = (device.clone(), kind.clone(), source.clone());
            accept(Reason::Tunnel, [start.0, start.1, start.2, to])
        }));
    }
    rules.extend(NOT_GLOBAL.map(|net| {
        let device = Match::Out(tunnel.device.clone());
        refuse(Reason::Private, [device, Match::Destination(net)], kernel)
    }));
    rules.extend(into_tunnel(tunnel).map(|matches| accept(Reason::Tunnel, matches)));
    rules
}

/// Answers to LAN clients, each with the port that was asked. Connection tracking does not exist at
/// `egress`, so there address and port decide, after `output` has looked at the direction.
pub(super) fn lan_replies(lan: OnLan<'_>) -> Vec<(Rule, u16)> {
    let replies = lan.inbound.iter().map(|rule| {
        let device = Match::Out(lan.device.clone());
        let from = Match::Source(host(lan.address));
        let to = Match::Destination(rule.from());
        let port = Match::SourcePort(rule.to().transport, rule.to().number);
        (
            accept(Reason::LanInbound, [device, from, to, port]),
            rule.to().number,
        )
    });
    replies.collect()
}

/// The same, and only against the direction in which the connection was opened.
fn tracked((mut rule, port): (Rule, u16)) -> Rule {
    rule.matches.push(Match::Reply);
    rule.matches.push(Match::OriginalDestinationPort(port));
    rule
}

pub(super) fn lan_output(lan: OnLan<'_>) -> Vec<Rule> {
    let rules = lan.outbound.iter().map(|rule| {
        let device = Match::Out(lan.device.clone());
        let from = Match::Source(host(lan.address));
        let to = Match::Destination(host(rule.to()));
        let port = Match::DestinationPort(rule.port().transport, rule.port().number);
        accept(Reason::LanOutbound, [device, from, to, port])
    });
    rules.collect()
}
