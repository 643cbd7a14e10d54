//! nft text, exactly as `nft list ruleset` (1.0.6) prints it, with every counter at zero.

use std::fmt;

use ipnetwork::Ipv4Network;

use super::{
    Chain, End, LOG_BYTES, LOG_CAPTURE, LOG_INPUT, Match, PROTOCOLS, Rule, Ruleset, TABLE, Table,
};

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tables.iter().try_for_each(|table| table.fmt(f))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {TABLE} {{", self.family.as_str())?;
        for (at, chain) in self.chains.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            chain.fmt(f)?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name())?;
        write!(f, "\t\ttype filter hook {} ", self.hook.as_str())?;
        match self.devices.as_slice() {
            [] => {}
            [device] => write!(f, "device \"{device}\" ")?,
            several => {
                let names: Vec<_> = several.iter().map(ToString::to_string).collect();
                write!(f, "devices = {{ {} }} ", names.join(", "))?;
            }
        }
        let priority = if self.hook.is_early() {
            "raw"
        } else {
            "filter"
        };
        let policy = if self.accept { "accept" } else { "drop" };
        writeln!(f, "priority {priority}; policy {policy};")?;
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        if self.counted {
            f.write_str("counter packets 0 bytes 0 ")?;
        }
        let reason = self.reason;
        if let Some(group) = self.log {
            write!(
                f,
                "log prefix \"{reason}\" group {group} snaplen {LOG_BYTES} "
            )?;
            if group != LOG_INPUT {
                write!(f, "log prefix \"{reason}\" group {LOG_CAPTURE} ")?;
            }
        }
        if self.untracked {
            f.write_str("notrack ")?;
        }
        write!(f, "{} comment \"{reason}\"", self.end)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
            Self::RejectProhibited => "reject with icmpx admin-prohibited",
            Self::RejectReset => "reject with tcp reset",
        })
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(name) => write!(f, "iifname \"{name}\""),
            Self::NotIn(name) => write!(f, "iifname != \"{name}\""),
            Self::Out(name) => write!(f, "oifname \"{name}\""),
            Self::NotOut(name) => write!(f, "oifname != \"{name}\""),
            Self::InKindTun => f.write_str("meta iifkind \"tun\""),
            Self::OutKindTun => f.write_str("meta oifkind \"tun\""),
            Self::Ipv4 => f.write_str("meta nfproto ipv4"),
            Self::Ipv6 => f.write_str("meta nfproto ipv6"),
            Self::Mark(mark) => write!(f, "meta mark {:#010x}", mark.0),
            Self::Source(net) => write!(f, "ip saddr {}", Net(*net)),
            Self::Destination(net) => write!(f, "ip daddr {}", Net(*net)),
            Self::Fragment => f.write_str("ip frag-off & 16383 != 0"),
            Self::NoOptions => f.write_str("ip hdrlength 5"),
            Self::Carries(number) => {
                let known = PROTOCOLS.iter().find(|(known, _)| known == number);
                match known {
                    Some((_, word)) => write!(f, "meta l4proto {word}"),
                    None => write!(f, "meta l4proto {number}"),
                }
            }
            Self::Opening => f.write_str("tcp flags syn / syn,ack"),
            Self::SourcePort(transport, port) => write!(f, "{transport} sport {port}"),
            Self::DestinationPort(transport, port) => write!(f, "{transport} dport {port}"),
            Self::WireGuard => f.write_str("@th,64,8 0x1-0x4 @th,72,24 0x0"),
            Self::TooBig {
                source_port,
                remote,
            } => {
                let (ip, port) = (u32::from(*remote.ip()), remote.port());
                write!(
                    f,
                    "icmp type destination-unreachable icmp code frag-needed @th,136,8 0x11 @th,192,32 {ip:#x} \
                     @th,224,16 {source_port:#x} @th,240,16 {port:#x}"
                )
            }
            Self::New => f.write_str("ct state new"),
            Self::Reply => f.write_str("ct direction reply"),
            Self::OriginalDestinationPort(port) => write!(f, "ct original proto-dst {port}"),
            Self::Established => f.write_str("ct state established"),
            Self::EstablishedOrRelated => f.write_str("ct state established,related"),
            Self::NoWayBack => f.write_str("fib saddr . iif oif missing"),
            Self::Ipv4Frame => f.write_str("@ll,96,16 0x800"),
            Self::Length(bytes) => write!(f, "meta length {bytes}"),
            Self::ArpFrame => f.write_str("@ll,96,16 0x806"),
            Self::ArpSource(ip) => write!(f, "arp saddr ip {ip}"),
            Self::ArpDestination(ip) => write!(f, "arp daddr ip {ip}"),
        }
    }
}

/// A network as nft prints it: a single host without its prefix.
struct Net(Ipv4Network);

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix() == 32 {
            write!(f, "{}", self.0.ip())
        } else {
            write!(f, "{}/{}", self.0.network(), self.0.prefix())
        }
    }
}
