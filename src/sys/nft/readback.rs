//! What the kernel holds: counters, and whether it is what we loaded. Compared by content, since a table
//! of the right name proves nothing.

use std::collections::BTreeMap;
use std::io;

use super::{NETFILTER, NFGEN};
use crate::policy::Reason;
use crate::ruleset::attribute::{each, find, find_str, find_u32, find_u64};
use crate::ruleset::{Chain, Family, Hook, OWNED, Ruleset, TABLE, Table, stored};
use crate::sys::netlink::{Message, Netlink};

/// `NFT_MSG_GETTABLE`, `NFT_MSG_GETCHAIN`, `NFT_MSG_GETRULE` (linux/netfilter/nf_tables.h).
const GETTABLE: u16 = 10 << 8 | 1;
const GETCHAIN: u16 = 10 << 8 | 4;
const GETRULE: u16 = 10 << 8 | 7;

/// `NFTA_TABLE_NAME`, `NFTA_TABLE_FLAGS`; any other flag than ours (dormant) would be somebody's.
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
/// `NFTA_TABLE_OWNER`.
const TABLE_OWNER: u16 = 7;

/// `NFTA_CHAIN_TABLE` and `NFTA_RULE_TABLE`.
const OWNER: u16 = 1;
/// `NFTA_CHAIN_NAME`.
const CHAIN_NAME: u16 = 3;
/// `NFTA_RULE_CHAIN`, `NFTA_RULE_EXPRESSIONS`, `NFTA_RULE_USERDATA`.
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;

/// What one rule has counted since it was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Family of the table.
    pub family: Family,
    /// The chain.
    pub hook: Hook,
    /// The rule's comment.
    pub reason: Reason,
    /// The protocol that the rule is for; `rest` if it is for all, or for those that the rules before
    /// it left.
    pub protocol: &'static str,
    /// Whether the rule lets packets pass.
    pub accept: bool,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Packets and bytes by reason, stopped ones by protocol too. A packet is counted once: the frames that `egress` lets pass have been
/// counted in `output`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Stopped on the way out or in.
    pub blocked: BTreeMap<(Reason, &'static str), (u64, u64)>,
    /// Let through.
    pub passed: BTreeMap<Reason, (u64, u64)>,
}

impl Totals {
    /// Adds the counters up.
    pub fn of(counters: &[Counter]) -> Self {
        let mut totals = Self::default();
        for counter in counters {
            let reason = counter.reason;
            let (packets, bytes) = match (counter.accept, counter.hook) {
                (true, Hook::Egress) => continue,
                (
                    true,
                    Hook::Prerouting | Hook::Input | Hook::Forward | Hook::OutputRaw | Hook::Output,
                ) => totals.passed.entry(reason).or_default(),
                (false, _) => {
                    let key = (reason, counter.protocol);
                    totals.blocked.entry(key).or_default()
                }
            };
            *packets = packets.saturating_add(counter.packets);
            *bytes = bytes.saturating_add(counter.bytes);
        }
        totals
    }
}

/// The kernel does not hold what it should, or it could not be told.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It could not be told.
    #[error("netlink: the rules cannot be read")]
    Netlink(#[from] io::Error),
    /// Somebody changed it.
    #[error("{0}")]
    Differs(String),
}

/// The counters of our rules, in the order of the rules.
///
/// # Errors
///
/// What the kernel says.
pub fn counters() -> io::Result<Vec<Counter>> {
    let mut netlink = Netlink::open(NETFILTER)?;
    let mut found = Vec::new();
    for family in Family::ALL {
        for (chain, rules) in rules(&mut netlink, family)? {
            let hook = Hook::of_chain(&chain);
            found.extend(rules.iter().filter_map(|rule| counter(family, hook?, rule)));
        }
    }
    Ok(found)
}

/// Whether this namespace has a table of ours that holds back IP packets.
///
/// # Errors
///
/// What the kernel says; it shows tables to those with CAP_NET_ADMIN only.
pub fn is_there() -> io::Result<bool> {
    let mut netlink = Netlink::open(NETFILTER)?;
    let tables = dump(&mut netlink, GETTABLE, Family::Inet, TABLE_NAME)?;
    Ok(!tables.is_empty())
}

/// The process that our tables belong to, if they belong to one. The kernel knows its socket, whose number is that
/// of the process unless it has others (netlink_autobind, net/netlink/af_netlink.c).
///
/// # Errors
///
/// What the kernel says.
pub fn owner() -> io::Result<Option<u32>> {
    let mut netlink = Netlink::open(NETFILTER)?;
    let tables = dump(&mut netlink, GETTABLE, Family::Inet, TABLE_NAME)?;
    Ok(tables
        .first()
        .and_then(|table| find_u32(table, TABLE_OWNER)))
}

/// Whether tables and chains are those of `ruleset`, and belong to `owner` if we own them. Always asked: they are few,
/// and a chain loses a device that goes away without a transaction.
pub(super) fn check_tables(
    netlink: &mut Netlink,
    ruleset: &Ruleset,
    owner: Option<u32>,
) -> Result<(), CheckError> {
    for table in &ruleset.tables {
        check_table(netlink, table, owner)?;
        check_chains(netlink, table)?;
    }
    Ok(())
}

/// Whether the rules are those of `ruleset`.
pub(super) fn check_rules(netlink: &mut Netlink, ruleset: &Ruleset) -> Result<(), CheckError> {
    for table in &ruleset.tables {
        let found = rules(netlink, table.family)?;
        for chain in &table.chains {
            let kernel = found.get(&chain.name());
            check_chain_rules(table, chain, kernel.map_or(&[][..], Vec::as_slice))?;
        }
    }
    Ok(())
}

fn differs(table: &Table, what: &str) -> CheckError {
    CheckError::Differs(format!("table {} {TABLE}: {what}", table.family.as_str()))
}

fn check_table(netlink: &mut Netlink, table: &Table, owner: Option<u32>) -> Result<(), CheckError> {
    let tables = dump(netlink, GETTABLE, table.family, TABLE_NAME)?;
    let Some(found) = tables.first() else {
        return Err(differs(table, "is gone"));
    };
    let wanted = owner.map_or(0, |_| OWNED);
    if find_u32(found, TABLE_FLAGS) != Some(wanted) {
        return Err(differs(table, "has flags that we did not set"));
    }
    if owner.is_some() && find_u32(found, TABLE_OWNER) != owner {
        return Err(differs(table, "belongs to another process"));
    }
    Ok(())
}

fn check_chains(netlink: &mut Netlink, table: &Table) -> Result<(), CheckError> {
    let found = dump(netlink, GETCHAIN, table.family, OWNER)?;
    if found.len() != table.chains.len() {
        return Err(differs(table, "has other chains than ours"));
    }
    for chain in &table.chains {
        let name = chain.name();
        let same = found.iter().any(|attributes| {
            find_str(attributes, CHAIN_NAME) == Some(&name)
                && stored::chain(attributes, table.family, chain)
        });
        if !same {
            let what = format!("chain {name} has another hook, policy or device, or is gone");
            return Err(differs(table, &what));
        }
    }
    Ok(())
}

fn check_chain_rules(table: &Table, chain: &Chain, found: &[Rule]) -> Result<(), CheckError> {
    let name = chain.name();
    if found.len() != chain.rules.len() {
        let (is, ours) = (found.len(), chain.rules.len());
        let what = format!("chain {name} has {is} rules, ours has {ours}");
        return Err(differs(table, &what));
    }
    for (at, (found, ours)) in found.iter().zip(&chain.rules).enumerate() {
        if !stored::rule(&found.expressions, &found.user_data, table.family, ours) {
            let what = format!("chain {name}: rule {} is not `{ours}`", at + 1);
            return Err(differs(table, &what));
        }
    }
    Ok(())
}

/// A rule as the kernel prints it.
struct Rule {
    expressions: Vec<u8>,
    user_data: Vec<u8>,
}

/// Rules of our table of this family by the name of their chain, in order.
fn rules(netlink: &mut Netlink, family: Family) -> io::Result<BTreeMap<String, Vec<Rule>>> {
    let mut found: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
    for attributes in dump(netlink, GETRULE, family, OWNER)? {
        let bytes = |kind| find(&attributes, kind).unwrap_or_default().to_vec();
        let chain = find_str(&attributes, RULE_CHAIN).unwrap_or_default();
        found.entry(chain.to_owned()).or_default().push(Rule {
            expressions: bytes(RULE_EXPRESSIONS),
            user_data: bytes(RULE_USERDATA),
        });
    }
    Ok(found)
}

/// The attributes of each object of our table of this family. `name` is the attribute that holds the
/// name of the table.
fn dump(netlink: &mut Netlink, kind: u16, family: Family, name: u16) -> io::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let body = [family.number(), 0, 0, 0];
    netlink.dump(kind, &body, |message: Option<Message<'_>>| {
        let Some(message) = message else {
            found.clear();
            return;
        };
        let attributes = message.payload.get(NFGEN..).unwrap_or_default();
        let ours = message.payload.first() == Some(&family.number());
        if ours && find_str(attributes, name) == Some(TABLE) {
            found.push(attributes.to_vec());
        }
    })?;
    Ok(found)
}

/// The counter of a rule, if it has one and a comment of ours.
fn counter(family: Family, hook: Hook, rule: &Rule) -> Option<Counter> {
    let reason = stored::reason(&rule.user_data)?;
    let mut count = None;
    let (mut accept, mut asked, mut protocol) = (false, None, "rest");
    for (_, expression) in each(&rule.expressions) {
        let data = find(expression, stored::DATA).unwrap_or_default();
        match find_str(expression, stored::NAME) {
            // NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS
            Some("counter") => count = Some((find_u64(data, 2)?, find_u64(data, 1)?)),
            Some("meta") => asked = find_u32(data, stored::META_KEY),
            // What the last `meta` loaded is compared.
            Some("cmp") => protocol = stored::protocol(asked.take(), data).unwrap_or(protocol),
            Some("immediate") => accept = stored::accepts(data),
            Some(_) | None => {}
        }
    }
    let (packets, bytes) = count?;
    Some(Counter {
        family,
        hook,
        reason,
        protocol,
        accept,
        packets,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_counted_once() {
        let counter = |hook, accept, packets| Counter {
            family: Family::Inet,
            hook,
            reason: Reason::Endpoint,
            protocol: "udp",
            accept,
            packets,
            bytes: packets * 100,
        };
        let totals = Totals::of(&[
            counter(Hook::Output, true, 2),
            counter(Hook::Egress, true, 2),
            counter(Hook::Input, true, 1),
            counter(Hook::Egress, false, 4),
        ]);
        assert_eq!(totals.passed[&Reason::Endpoint], (3, 300));
        assert_eq!(totals.blocked[&(Reason::Endpoint, "udp")], (4, 400));
    }
}
