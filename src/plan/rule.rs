//! Policy rules, written as `ip` writes them, and what is still to do about them.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::{Range, RangeInclusive};

use super::{MAIN, MARKED, PRIORITY, PROGRAMS, Plan, Route};
use crate::net::{Fwmark, Transport};
use crate::policy::Hole;

/// Priorities that are ours.
pub const OURS: Range<u32> = PRIORITY..PRIORITY + 10;

/// The ports that a rule can name: the kernel takes no range with 0 or 65535 in it
/// (`fib_rule_port_range_valid`, include/net/fib_rules.h).
pub const PORTS: RangeInclusive<u16> = 1..=65534;

/// One policy rule: which packets are routed by which table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Lower is tried first.
    pub priority: u32,
    /// Whether it is for all packets but those that the conditions name.
    pub inverted: bool,
    /// Only packets with this mark.
    pub mark: Option<Fwmark>,
    /// The bits of the mark that count; all of them in ours.
    pub mask: u32,
    /// Only these packets.
    pub packets: Packets,
    /// The table that is asked.
    pub table: u32,
    /// Only routes of the table with a longer prefix than this count (`suppress_prefixlength`).
    pub longer_than: Option<u32>,
    /// Whether it has conditions or an action that none of ours has.
    pub other: bool,
}

/// Which packets a rule is for, their mark aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packets {
    /// All.
    All,
    /// Those of UDP.
    Udp,
    /// Those of UDP that come from one of [`PORTS`].
    UdpFromPort,
    /// Those of UDP that go to one of [`PORTS`].
    UdpToPort,
    /// Those of one flow.
    Flow(Flow),
    /// Those that have no source address yet.
    WithoutSource,
}

/// One UDP flow, seen from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Our port.
    pub source_port: u16,
    /// The other end.
    pub remote: SocketAddrV4,
}

/// One step, in the order it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleChange {
    /// Add it.
    Add(Rule),
    /// Take it out.
    Remove(Rule),
}

impl Rule {
    /// All packets, by `table`.
    fn all(priority: u32, table: u32) -> Self {
        Self {
            priority,
            inverted: false,
            mark: None,
            mask: u32::MAX,
            packets: Packets::All,
            table,
            longer_than: None,
            other: false,
        }
    }

    /// Packets that carry our mark.
    fn marked(priority: u32, mark: Fwmark) -> Self {
        Self {
            mark: Some(mark),
            ..Self::all(priority, MARKED)
        }
    }

    /// The one flow that is open. A strict reverse path filter (rp_filter = 1) asks by which device a
    /// reply's source would be reached, without our mark unless `src_valid_mark` is set, but with the
    /// ports (`__fib_validate_source`, net/ipv4/fib_frontend.c): without this rule it drops every reply.
    fn flow(priority: u32, hole: &Hole) -> Self {
        let flow = Flow {
            source_port: hole.source_port,
            remote: hole.remote,
        };
        Self {
            packets: Packets::Flow(flow),
            ..Self::all(priority, MARKED)
        }
    }

    /// Whether a packet with this mark may fall under it, its other conditions aside.
    fn takes(&self, packet: Fwmark) -> bool {
        let marked = self.mark.is_none_or(|mark| packet.0 & self.mask == mark.0);
        let only_mark = self.packets == Packets::All && !self.other;
        match self.inverted {
            false => marked,
            // Conditions that are not met are as good as a mark that is not.
            true => !marked || !only_mark,
        }
    }
}

/// Our rules. A packet of a program asks [`PROGRAMS`] and nothing before it but `local`; that table ends in
/// `unreachable`, so nothing gets to the main table.
///
/// What is no packet asks the main table first, for the networks in it: by which link a router is reached that is to
/// be the next default route (Docker asks so before it sets one). The kernel takes such a question for UDP without
/// ports and source (`inet_rtm_getroute`, net/ipv4/route.c). The firewall asks for the way back of UDP without ports too,
/// but with a source (`nft_fib4_eval`, net/ipv4/netfilter/nft_fib_ipv4.c). A packet of UDP without ports is sent by a
/// raw socket only, and one from and to port 65535 cannot be told from it: those two may be routed to a network of
/// the main table, and the firewall refuses them there.
pub(super) fn rules(mark: Fwmark, hole: Option<&Hole>) -> Vec<Rule> {
    let mut rules = vec![Rule::marked(PRIORITY, mark)];
    rules.extend(hole.map(|hole| Rule::flow(PRIORITY + 1, hole)));
    let programs = |step: u32| Rule::all(PRIORITY + step, PROGRAMS);
    let of = |step: u32, packets: Packets| Rule {
        packets,
        ..programs(step)
    };
    rules.extend([
        Rule {
            inverted: true,
            ..of(2, Packets::Udp)
        },
        of(3, Packets::UdpFromPort),
        of(4, Packets::UdpToPort),
        Rule {
            inverted: true,
            ..of(5, Packets::WithoutSource)
        },
        Rule {
            longer_than: Some(0),
            ..Rule::all(PRIORITY + 6, MAIN)
        },
        programs(7),
    ]);
    rules
}

/// Steps from `current` to the rules of the plan. Rules at other priorities are not ours to touch, unless
/// they lead past the tunnel, or our own flow away from its way.
pub fn rule_changes(current: &[Rule], routes: &[Route], plan: &Plan) -> Vec<RuleChange> {
    let missing = |rule: &&Rule| !current.contains(rule);
    let added = plan.rules.iter().filter(missing);
    let unwanted = |rule: &&Rule| {
        (OURS.contains(&rule.priority) || beats_ours(rule, routes, plan))
            && !plan.rules.contains(rule)
    };
    let removed = current.iter().filter(unwanted);
    // The new rule first: a packet of ours is never without one.
    let added = added.cloned().map(RuleChange::Add);
    added
        .chain(removed.cloned().map(RuleChange::Remove))
        .collect()
}

/// Whether it is asked before our rules and its table leads out: by the uplink, or anywhere with the
/// packets of our own flow. By the uplink the main table has its own networks only, where the firewall refuses
/// what is no exception, so a rule to it does no harm to the packets of others.
fn beats_ours(rule: &Rule, routes: &[Route], plan: &Plan) -> bool {
    if rule.priority >= PRIORITY {
        return false;
    }
    let mark = plan.rules.iter().find_map(|ours| ours.mark);
    let remote = plan.rules.iter().find_map(|ours| match ours.packets {
        Packets::Flow(flow) => Some(*flow.remote.ip()),
        Packets::All
        | Packets::Udp
        | Packets::UdpFromPort
        | Packets::UdpToPort
        | Packets::WithoutSource => None,
    });
    let ours = mark.is_some_and(|mark| rule.takes(mark));
    let uplink = plan.uplink.as_ref().map(|uplink| &uplink.device);
    let mut of_table = routes.iter().filter(|route| route.table == rule.table);
    of_table.any(|route| {
        let out = uplink.is_some() && route.device.as_ref() == uplink;
        let away = remote.is_some_and(|remote| route.destination.contains(remote));
        (out && rule.table != MAIN) || (ours && away)
    })
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "priority {}", self.priority)?;
        if self.inverted {
            f.write_str(" not")?;
        }
        if let Some(mark) = self.mark {
            write!(f, " fwmark {mark}")?;
            if self.mask != u32::MAX {
                write!(f, "/{:#x}", self.mask)?;
            }
        }
        write!(f, "{}", self.packets)?;
        match self.table {
            MAIN => f.write_str(" lookup main")?,
            table => write!(f, " lookup {table}")?,
        }
        if let Some(prefix) = self.longer_than {
            write!(f, " suppress_prefixlength {prefix}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Packets {
    /// With a blank before it, if there is anything to say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (udp, first, last) = (Transport::Udp, PORTS.start(), PORTS.end());
        match self {
            Self::All => Ok(()),
            Self::Udp => write!(f, " ipproto {udp}"),
            Self::WithoutSource => write!(f, " from {}", Ipv4Addr::UNSPECIFIED),
            Self::UdpFromPort => write!(f, " ipproto {udp} sport {first}-{last}"),
            Self::UdpToPort => write!(f, " ipproto {udp} dport {first}-{last}"),
            Self::Flow(Flow {
                source_port,
                remote,
            }) => {
                let (to, port) = (remote.ip(), remote.port());
                write!(f, " to {to} ipproto {udp} sport {source_port} dport {port}")
            }
        }
    }
}

impl fmt::Display for RuleChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(rule) => write!(f, "ip -4 rule add {rule}"),
            Self::Remove(rule) => write!(f, "ip -4 rule del {rule}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, default_route, plan};
    use super::*;

    fn foreign(priority: u32, mark: Option<u32>, table: u32) -> Rule {
        Rule {
            mark: mark.map(Fwmark),
            other: true,
            ..Rule::all(priority, table)
        }
    }

    fn removed(current: &[Rule], routes: &[Route]) -> Vec<Rule> {
        let steps = rule_changes(current, routes, &plan(&config()));
        let removed = steps.into_iter().filter_map(|step| match step {
            RuleChange::Remove(rule) => Some(rule),
            RuleChange::Add(_) => None,
        });
        removed.collect()
    }

    #[test]
    fn rules_of_others_stay_unless_they_lead_out() {
        let mut routes = plan(&config()).routes;
        routes.push(Route {
            table: 200,
            ..default_route()
        });
        routes.push(Route::on_link(
            52,
            "100.64.0.0/10".parse().unwrap(),
            &"other0".parse().unwrap(),
            None,
        ));
        let stale = foreign(PRIORITY, None, MARKED);
        let (to_uplink, ours_away) = (foreign(7, Some(9), 200), foreign(100, Some(0x1234), MAIN));
        let anybody_s = foreign(100, None, MAIN);
        let current = [
            foreign(0, None, 255),
            foreign(5210, Some(0x80000), MAIN),
            foreign(5270, None, 52),
            stale.clone(),
            to_uplink.clone(),
            ours_away.clone(),
            anybody_s.clone(),
            foreign(32766, None, MAIN),
            foreign(32765, None, 200),
        ];
        assert_eq!(
            removed(&current, &routes),
            [stale, to_uplink, ours_away, anybody_s]
        );
    }

    /// As wg-quick adds them for a tunnel of its own.
    #[test]
    fn a_rule_for_all_but_one_mark_takes_our_flow_unless_the_mark_is_ours() {
        let all_but = |mark: u32| Rule {
            inverted: true,
            other: false,
            ..foreign(100, Some(mark), MAIN)
        };
        let routes = plan(&config()).routes;
        let (another_s, ours) = (all_but(51820), all_but(0x1234));
        assert_eq!(removed(&[another_s.clone(), ours], &routes), [another_s]);
    }

    #[test]
    fn rules_of_a_former_version_go() {
        let plan = plan(&config());
        let former = Rule::all(PRIORITY + 9, MARKED);
        let current = [plan.rules.clone(), vec![former.clone()]].concat();
        assert_eq!(
            rule_changes(&current, &[], &plan),
            [RuleChange::Remove(former)]
        );
    }
}
