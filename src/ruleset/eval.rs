//! Runs a ruleset over a packet as the kernel would, in plain code: for `vpngw explain`, and to hold the
//! rules against the specification.

use std::net::{IpAddr, Ipv4Addr};

use super::{Chain, End, Family, Hook, Match, Rule, Ruleset};
use crate::net::{IfName, Transport};
use crate::policy::{DeviceKind, Direction, Flow, Protocol};

/// The rule that decides about a packet, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Whether the packet passes all chains.
    pub accept: bool,
    /// The chain.
    pub hook: Hook,
    /// The rule; `None` is the policy of the chain.
    pub rule: Option<&'a Rule>,
}

impl Ruleset {
    /// What the `inet` chains do with `flow`. Its way back is taken as right (`fib`).
    pub fn decide(&self, flow: &Flow) -> Decision<'_> {
        let hooks: &[Hook] = match flow.direction {
            Direction::Out => &[Hook::OutputRaw, Hook::Output],
            Direction::In => &[Hook::Prerouting, Hook::Input],
            Direction::Forward => &[Hook::Prerouting, Hook::Forward],
        };
        let mut last = Decision {
            accept: false,
            hook: Hook::Output,
            rule: None,
        };
        for &hook in hooks {
            let Some(decision) = self.at(hook, flow) else {
                continue;
            };
            last = decision;
            if !last.accept {
                break;
            }
        }
        last
    }

    /// What the chain on this hook does, if there is one. `egress` is netdev's, and hangs on devices; all
    /// others are inet's.
    pub(super) fn at(&self, hook: Hook, flow: &Flow) -> Option<Decision<'_>> {
        let family = match hook {
            Hook::Egress => Family::Netdev,
            Hook::Prerouting | Hook::Input | Hook::Forward | Hook::OutputRaw | Hook::Output => {
                Family::Inet
            }
        };
        let table = self.tables.iter().find(|t| t.family == family)?;
        let here = |chain: &&Chain| {
            chain.hook == hook
                && (hook != Hook::Egress || chain.devices.contains(&flow.device.name))
        };
        let chain = table.chains.iter().find(here)?;
        let rule = chain.rules.iter().find(|rule| rule.applies(flow));
        let accept = rule.map_or(chain.accept, |rule| rule.end == End::Accept);
        Some(Decision { accept, hook, rule })
    }
}

impl Rule {
    fn applies(&self, flow: &Flow) -> bool {
        self.matches.iter().all(|condition| condition.holds(flow))
    }
}

impl Match {
    fn holds(&self, flow: &Flow) -> bool {
        let inwards = flow.direction != Direction::Out;
        let named = |name: &IfName| flow.device.name == *name;
        let tun = flow.device.kind == DeviceKind::Tun;
        match self {
            Self::In(name) => inwards && named(name),
            Self::NotIn(name) => inwards && !named(name),
            Self::Out(name) => !inwards && named(name),
            Self::NotOut(name) => !inwards && !named(name),
            Self::InKindTun => inwards && tun,
            Self::OutKindTun => !inwards && tun,
            Self::Ipv4 => source(flow).is_some(),
            Self::Ipv6 => source(flow).is_none(),
            Self::Mark(mark) => flow.mark == *mark,
            Self::Source(net) => source(flow).is_some_and(|ip| net.contains(ip)),
            Self::Destination(net) => destination(flow).is_some_and(|ip| net.contains(ip)),
            Self::Carries(number) => carries(flow) == *number,
            Self::Opening => ports(flow, Transport::Tcp).is_some() && !flow.reply,
            Self::SourcePort(t, port) => ports(flow, *t).is_some_and(|(from, _)| from == *port),
            Self::DestinationPort(t, port) => ports(flow, *t).is_some_and(|(_, to)| to == *port),
            Self::WireGuard => flow.protocol.wireguard(),
            Self::TooBig {
                source_port,
                remote,
            } => {
                flow.protocol
                    == Protocol::TooBig {
                        source_port: *source_port,
                        remote: *remote,
                    }
            }
            Self::New => !flow.reply,
            Self::Reply | Self::Established | Self::EstablishedOrRelated => flow.reply,
            // A reply comes from the port that its connection was opened to.
            Self::OriginalDestinationPort(port) => flow
                .protocol
                .ports()
                .is_some_and(|(_, from, _)| flow.reply && from == *port),
            // No flow describes a packet with options, or a frame that is not what its sender calls it.
            Self::NoOptions | Self::Ipv4Frame => source(flow).is_some(),
            // Nor a part of a packet.
            Self::Fragment
            | Self::NoWayBack
            | Self::ArpFrame
            | Self::Length(_)
            | Self::ArpSource(_)
            | Self::ArpDestination(_) => false,
        }
    }
}

/// Both addresses of a packet are of one family; what is not IPv4 is IPv6.
fn source(flow: &Flow) -> Option<Ipv4Addr> {
    match (flow.source, flow.destination) {
        (IpAddr::V4(source), IpAddr::V4(_)) => Some(source),
        (IpAddr::V6(_), _) | (_, IpAddr::V6(_)) => None,
    }
}

fn destination(flow: &Flow) -> Option<Ipv4Addr> {
    match (flow.source, flow.destination) {
        (IpAddr::V4(_), IpAddr::V4(destination)) => Some(destination),
        (IpAddr::V6(_), _) | (_, IpAddr::V6(_)) => None,
    }
}

fn carries(flow: &Flow) -> u8 {
    match flow.protocol {
        Protocol::Tcp { .. } => Transport::Tcp.number(),
        Protocol::Udp { .. } => Transport::Udp.number(),
        Protocol::Icmp | Protocol::TooBig { .. } => 1,
        Protocol::Other(number) => number,
    }
}

fn ports(flow: &Flow, transport: Transport) -> Option<(u16, u16)> {
    let (found, from, to) = flow.protocol.ports()?;
    (found == transport).then_some((from, to))
}
