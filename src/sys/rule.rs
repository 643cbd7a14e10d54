//! IPv4 policy rules.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enums of netlink are not ours and not exhaustive"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, Nla as _};
use netlink_packet_route::rule::{
    RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange,
};
use netlink_packet_route::{AddressFamily, IpProtocol, RouteNetlinkMessage};

use super::route::unless;
use super::rtnl::{Rtnl, RtnlError};
use crate::net::Fwmark;
use crate::plan::{Flow, PORTS, Packets, Rule, RuleChange};

/// `FRA_SPORT_MASK`, `FRA_DPORT_MASK` (linux/fib_rules.h).
const SPORT_MASK: u16 = 28;
const DPORT_MASK: u16 = 29;

/// All IPv4 policy rules.
///
/// # Errors
/// Where the kernel refuses, or its answer cannot be read.
pub fn rules() -> Result<Vec<Rule>, RtnlError> {
    let mut request = RuleMessage::default();
    request.header.family = AddressFamily::Inet;
    let request = RouteNetlinkMessage::GetRule(request);
    let entries = Rtnl::open()?.dump(&request, "ip -4 rule show")?;
    let rule = |entry: &RouteNetlinkMessage| match entry {
        RouteNetlinkMessage::NewRule(message) => Some(decode_rule(message)),
        _ => None,
    };
    Ok(entries.iter().filter_map(rule).collect())
}

/// Makes one step.
///
/// # Errors
/// Where the kernel refuses it.
pub(super) fn change_rule(change: &RuleChange) -> Result<(), RtnlError> {
    match change {
        RuleChange::Add(rule) => {
            let added = Rtnl::open()?.change(
                RouteNetlinkMessage::NewRule(encode_rule(rule)),
                NLM_F_CREATE | NLM_F_EXCL,
                &change.to_string(),
            );
            unless(added, libc::EEXIST)
        }
        RuleChange::Remove(rule) => {
            let removed = Rtnl::open()?.change(
                RouteNetlinkMessage::DelRule(encode_rule(rule)),
                0,
                &change.to_string(),
            );
            unless(removed, libc::ENOENT)
        }
    }
}

fn encode_rule(rule: &Rule) -> RuleMessage {
    let Rule {
        priority,
        inverted,
        mark,
        mask,
        packets,
        table,
        longer_than,
        other: _,
    } = rule;
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.action = RuleAction::ToTable;
    if *inverted {
        message.header.flags = RuleFlags::Invert;
    }
    message.attributes = vec![
        RuleAttribute::Priority(*priority),
        RuleAttribute::Table(*table),
    ];
    let suppress = longer_than.map(RuleAttribute::SuppressPrefixLen);
    message.attributes.extend(suppress);
    if let Some(Fwmark(mark)) = mark {
        message.attributes.push(RuleAttribute::FwMark(*mark));
        message.attributes.push(RuleAttribute::FwMask(*mask));
    }
    let udp = RuleAttribute::IpProtocol(IpProtocol::Udp);
    let range = |start, end| RulePortRange { start, end };
    let ports = range(*PORTS.start(), *PORTS.end());
    match packets {
        Packets::All => {}
        Packets::Udp => message.attributes.push(udp),
        Packets::WithoutSource => {
            let source = RuleAttribute::Source(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            message.header.src_len = 32;
            message.attributes.push(source);
        }
        Packets::UdpFromPort => {
            let from = RuleAttribute::SourcePortRange(ports);
            message.attributes.extend([udp, from]);
        }
        Packets::UdpToPort => {
            let to = RuleAttribute::DestinationPortRange(ports);
            message.attributes.extend([udp, to]);
        }
        Packets::Flow(Flow {
            source_port,
            remote,
        }) => {
            let only = |port| range(port, port);
            message.header.dst_len = 32;
            message.attributes.extend([
                RuleAttribute::Destination(IpAddr::V4(*remote.ip())),
                udp,
                RuleAttribute::SourcePortRange(only(*source_port)),
                RuleAttribute::DestinationPortRange(only(remote.port())),
            ]);
        }
    }
    message
}

fn decode_rule(message: &RuleMessage) -> Rule {
    let header = &message.header;
    let plain = header.tos == 0 && header.action == RuleAction::ToTable;
    let mut rule = Rule {
        priority: 0,
        inverted: header.flags.contains(RuleFlags::Invert),
        mark: None,
        mask: u32::MAX,
        packets: Packets::All,
        table: u32::from(header.table),
        longer_than: None,
        other: !plain,
    };
    let of = |attribute: &DefaultNla| {
        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        value
    };
    let mut from = None;
    let (mut to, mut from_ports, mut to_ports, mut protocol) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::FwMark(mark) => rule.mark = Some(Fwmark(*mark)),
            RuleAttribute::FwMask(mask) => rule.mask = *mask,
            RuleAttribute::Destination(IpAddr::V4(ip)) if header.dst_len == 32 => to = Some(*ip),
            RuleAttribute::Source(IpAddr::V4(ip)) if header.src_len == 32 => from = Some(*ip),
            RuleAttribute::SourcePortRange(range) => from_ports = Some((range.start, range.end)),
            RuleAttribute::DestinationPortRange(range) => to_ports = Some((range.start, range.end)),
            RuleAttribute::IpProtocol(number) => protocol = Some(*number),
            // What the kernel prints of every rule.
            RuleAttribute::Protocol(_) | RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            RuleAttribute::SuppressPrefixLen(prefix) => rule.longer_than = Some(*prefix),
            // All bits of the ports count (Linux 6.15).
            RuleAttribute::Other(it)
                if [SPORT_MASK, DPORT_MASK].contains(&it.kind()) && of(it) == [0xff; 2] => {}
            // Foreign enum, non-exhaustive: our rules have nothing else.
            _ => rule.other = true,
        }
    }
    let unknown = (header.dst_len > 0 && to.is_none()) || (header.src_len > 0 && from.is_none());
    let conditions = (protocol, from, to, from_ports, to_ports);
    let packets = packets(conditions).filter(|_| !unknown);
    rule.other |= packets.is_none();
    rule.packets = packets.unwrap_or(Packets::All);
    rule
}

/// Protocol, source, destination and ports of either end, each where the rule names it.
type Conditions = (
    Option<IpProtocol>,
    Option<Ipv4Addr>,
    Option<Ipv4Addr>,
    Option<(u16, u16)>,
    Option<(u16, u16)>,
);

/// `None` where none of our rules has such conditions.
fn packets(conditions: Conditions) -> Option<Packets> {
    let all = (*PORTS.start(), *PORTS.end());
    let udp = Some(IpProtocol::Udp);
    match conditions {
        (None, None, None, None, None) => Some(Packets::All),
        (None, Some(Ipv4Addr::UNSPECIFIED), None, None, None) => Some(Packets::WithoutSource),
        (protocol, None, None, None, None) if protocol == udp => Some(Packets::Udp),
        (protocol, None, None, Some(from), None) if protocol == udp && from == all => {
            Some(Packets::UdpFromPort)
        }
        (protocol, None, None, None, Some(to)) if protocol == udp && to == all => {
            Some(Packets::UdpToPort)
        }
        (protocol, None, Some(to), Some(from), Some(port))
            if protocol == udp && from.0 == from.1 && port.0 == port.1 =>
        {
            Some(Packets::Flow(Flow {
                source_port: from.0,
                remote: SocketAddrV4::new(to, port.0),
            }))
        }
        _ => None,
    }
}
