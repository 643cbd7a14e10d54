//! The netlink batch that makes a ruleset be in force: add, delete and add each of our tables, in one
//! transaction. Numbers are those of linux/netfilter/nfnetlink.h and nf_tables.h.

use std::fmt;

use super::attribute::{put, put_name, put_nested, put_str, put_u32};
use super::expression::put_rule;
use super::{Chain, Family, Hook, Rule, Ruleset, TABLE, Table};
use crate::policy::Reason;

/// Flags of a netlink message (linux/netlink.h).
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;

/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u16 = 10;

/// Messages (`enum nf_tables_msg_types`).
const NEWTABLE: u16 = NFTABLES << 8;
const DELTABLE: u16 = NFTABLES << 8 | 2;
const NEWCHAIN: u16 = NFTABLES << 8 | 3;
const NEWRULE: u16 = NFTABLES << 8 | 6;

/// `NFTA_TABLE_FLAGS`.
const TABLE_FLAGS: u16 = 2;
/// `NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST`: nobody but the socket that made the table may change it, and it
/// outlives that socket (Linux 6.9; never the first without the second).
pub const OWNED: u32 = 0x2 | 0x4;

/// `NFTNL_UDATA_RULE_COMMENT`: where nft keeps a comment in the user data of a rule.
const COMMENT: u8 = 0;

/// Bytes of the headers of a message: `nlmsghdr` and `nfgenmsg`.
const HEADERS: usize = 20;

/// A transaction. Message number `n` carries the sequence number `n`; the last one that changes
/// something asks for an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What is sent, in one piece.
    pub bytes: Vec<u8>,
    /// What each message is about, by its sequence number.
    pub parts: Vec<Part>,
    /// The sequence number of the message whose acknowledgement speaks for all.
    pub acknowledged: usize,
}

/// Whose the tables are before a transaction and after it. The kernel takes a table of one kind for another
/// only if it is deleted in between (nf_tables_updtable, net/netfilter/nf_tables_api.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Ours, or left behind by one whose they were, or not there; ours.
    Keep,
    /// Anybody's; ours.
    Take,
    /// Anybody's; anybody's. All that a kernel before Linux 6.9 can do without losing the tables when the
    /// process ends.
    Share,
}

/// What a message of a batch is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The transaction as a whole.
    Whole,
    /// A table.
    Table(Family),
    /// A chain.
    Chain(Family, Hook),
    /// The rule of this number, counted from 1, with its reason.
    Rule(Family, Hook, usize, Reason),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("the transaction"),
            Self::Table(family) => write!(f, "table {} {TABLE}", family.as_str()),
            Self::Chain(family, hook) => {
                let (family, hook) = (family.as_str(), hook.chain());
                write!(f, "chain {family} {TABLE} {hook}")
            }
            Self::Rule(family, hook, number, reason) => {
                let (family, hook) = (family.as_str(), hook.chain());
                write!(
                    f,
                    "rule {number} (`{reason}`) of chain {family} {TABLE} {hook}"
                )
            }
        }
    }
}

impl Ruleset {
    /// The batch that replaces whatever our tables hold with this ruleset.
    pub fn encode(&self, hold: Hold) -> Batch {
        let mut writer = Writer::begin();
        for table in &self.tables {
            writer.replace(table, hold);
        }
        writer.end()
    }
}

impl Ruleset {
    /// The batch that asks whether the kernel takes this ruleset, and changes nothing: tables of another name, and
    /// no end, without which the kernel gives up what it has checked (nfnetlink_rcv_batch,
    /// net/netfilter/nfnetlink.c). `nft --check` asks in the same way.
    pub fn encode_trial(&self) -> Batch {
        let mut writer = Writer::begin();
        writer.name = TRIAL;
        for table in &self.tables {
            writer.replace(table, Hold::Share);
        }
        writer.acknowledge();
        writer.batch()
    }
}

/// The batch that deletes our tables of these families. One that is not there is added first, so that
/// deleting it is no error.
pub fn clear(families: &[Family], hold: Hold) -> Batch {
    let mut writer = Writer::begin();
    for family in families {
        writer.new_table(*family, hold == Hold::Keep);
        writer.delete_table(*family);
    }
    writer.end()
}

/// What the tables of a trial are called: ours may belong to a gateway that runs.
const TRIAL: &str = "vpngw_trial";

struct Writer {
    name: &'static str,
    bytes: Vec<u8>,
    parts: Vec<Part>,
    /// Where the last message begins, and the number of the one that asks for an answer.
    last: usize,
    acknowledged: usize,
}

impl Writer {
    fn begin() -> Self {
        let mut writer = Self {
            name: TABLE,
            bytes: Vec::with_capacity(16 * 1024),
            parts: Vec::with_capacity(64),
            last: 0,
            acknowledged: 0,
        };
        writer.message(BEGIN, 0, (0, NFTABLES), Part::Whole, |_| {});
        writer
    }

    fn end(mut self) -> Batch {
        self.acknowledge();
        self.message(END, 0, (0, NFTABLES), Part::Whole, |_| {});
        self.batch()
    }

    /// Asks for an answer to the last message.
    fn acknowledge(&mut self) {
        let flags = self.last + 6;
        let acked = u16::from_ne_bytes([self.bytes[flags], self.bytes[flags + 1]]) | ACK;
        self.bytes[flags..flags + 2].copy_from_slice(&acked.to_ne_bytes());
        self.acknowledged = self.parts.len() - 1;
    }

    fn batch(self) -> Batch {
        Batch {
            bytes: self.bytes,
            parts: self.parts,
            acknowledged: self.acknowledged,
        }
    }

    fn replace(&mut self, table: &Table, hold: Hold) {
        self.new_table(table.family, hold == Hold::Keep);
        self.delete_table(table.family);
        self.new_table(table.family, hold != Hold::Share);
        for chain in &table.chains {
            self.chain(table.family, chain);
        }
        for chain in &table.chains {
            for (at, rule) in chain.rules.iter().enumerate() {
                self.rule(table.family, chain, at + 1, rule);
            }
        }
    }

    fn new_table(&mut self, family: Family, owned: bool) {
        let part = Part::Table(family);
        let name = self.name;
        self.message(NEWTABLE, CREATE, (family.number(), 0), part, |message| {
            put_str(message, 1, name);
            if owned {
                put_u32(message, TABLE_FLAGS, OWNED);
            }
        });
    }

    fn delete_table(&mut self, family: Family) {
        let part = Part::Table(family);
        let name = self.name;
        self.message(DELTABLE, 0, (family.number(), 0), part, |message| {
            put_str(message, 1, name);
        });
    }

    fn chain(&mut self, family: Family, chain: &Chain) {
        let part = Part::Chain(family, chain.hook);
        let name = self.name;
        self.message(NEWCHAIN, CREATE, (family.number(), 0), part, |message| {
            put_str(message, 1, name);
            put_chain(message, family, chain);
        });
    }

    fn rule(&mut self, family: Family, chain: &Chain, number: usize, rule: &Rule) {
        let part = Part::Rule(family, chain.hook, number, rule.reason);
        let flags = CREATE | APPEND;
        let name = self.name;
        self.message(NEWRULE, flags, (family.number(), 0), part, |message| {
            put_str(message, 1, name);
            put_str(message, 2, &chain.name());
            put_nested(message, 4, |list| put_rule(list, family, rule));
            put(message, 7, &comment(rule.reason));
        });
    }

    /// Appends `nlmsghdr`, `nfgenmsg` (family and resource) and attributes.
    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        (family, resource): (u8, u16),
        part: Part,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = self.bytes.len();
        self.last = start;
        let sequence = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        self.parts.push(part);
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes
            .extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        debug_assert_eq!(self.bytes.len() - start, HEADERS);
        fill(&mut self.bytes);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// The attributes of a chain but for its table: what the kernel prints of one must hold them.
pub(super) fn put_chain(message: &mut Vec<u8>, family: Family, chain: &Chain) {
    put_str(message, 3, &chain.name());
    put_nested(message, 4, |hook| {
        put_u32(hook, 1, number(family, chain.hook));
        put_u32(hook, 2, priority(chain.hook).cast_unsigned());
        match chain.devices.as_slice() {
            [] => {}
            [device] => put_name(hook, 3, &device.bytes()),
            several => put_nested(hook, 4, |list| {
                for device in several {
                    put_name(list, 1, &device.bytes());
                }
            }),
        }
    });
    put_u32(message, 5, u32::from(chain.accept)); // NF_DROP 0, NF_ACCEPT 1
    put_str(message, 7, "filter");
}

/// User data that nft shows as the comment of a rule: type, length, text with its end mark.
pub(super) fn comment(reason: Reason) -> Vec<u8> {
    let text = reason.as_str();
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let mut data = vec![COMMENT, length];
    data.extend_from_slice(text.as_bytes());
    data.push(0);
    data
}

/// Number of a hook in its family: `NF_INET_*`, `NF_NETDEV_*` (linux/netfilter.h), `NF_ARP_*`
/// (linux/netfilter_arp.h).
fn number(family: Family, hook: Hook) -> u32 {
    match (family, hook) {
        (Family::Inet, Hook::Prerouting) => 0,
        (Family::Inet, Hook::Input) => 1,
        (Family::Inet, Hook::Forward) => 2,
        (Family::Inet, Hook::OutputRaw | Hook::Output) => 3,
        (Family::Netdev, Hook::Egress) => 1,
        (Family::Arp, Hook::Input) => 0,
        (Family::Arp, Hook::Output) => 1,
        (Family::Inet, Hook::Egress)
        | (
            Family::Netdev,
            Hook::Prerouting | Hook::Input | Hook::Forward | Hook::OutputRaw | Hook::Output,
        )
        | (Family::Arp, Hook::Prerouting | Hook::Forward | Hook::OutputRaw | Hook::Egress) => {
            u32::MAX
        }
    }
}

/// `NF_IP_PRI_RAW` and `NF_IP_PRI_FILTER` (linux/netfilter_ipv4.h).
fn priority(hook: Hook) -> i32 {
    if hook.is_early() { -300 } else { 0 }
}
