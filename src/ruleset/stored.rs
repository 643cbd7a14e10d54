//! Whether what the kernel holds is what we meant. The kernel prints its own attributes besides ours
//! (handles, counts), so ours have to be among them; lists have to be of the same length and order.

use super::attribute::{contains, each, find, find_name, find_u32, until_end_mark};
use super::encode::{comment, put_chain};
use super::expression::{IPV6, put_rule};
use super::{Chain, Family, PROTOCOLS, Rule};
use crate::net::IfName;
use crate::policy::Reason;

pub use super::expression::{DATA, NAME};

/// `NFTA_META_KEY`; `NFT_META_NFPROTO` and `NFT_META_L4PROTO` (linux/netfilter/nf_tables.h).
pub const META_KEY: u16 = 2;
const NFPROTO: u32 = 15;
const L4PROTO: u32 = 16;

/// `NFTA_CHAIN_HOOK`, `NFTA_HOOK_DEV`, `NFTA_HOOK_DEVS`.
const HOOK: u16 = 4;
const HOOK_DEVICE: u16 = 3;
const HOOK_DEVICES: u16 = 4;

/// Whether these attributes are those of `chain`.
pub fn chain(attributes: &[u8], family: Family, chain: &Chain) -> bool {
    let mut wanted = Vec::new();
    let plain = Chain {
        devices: Vec::new(),
        rules: Vec::new(),
        ..*chain
    };
    put_chain(&mut wanted, family, &plain);
    contains(attributes, &wanted) && devices(attributes) == names(chain)
}

fn names(chain: &Chain) -> Vec<Vec<u8>> {
    let mut names: Vec<_> = chain.devices.iter().map(IfName::bytes).collect();
    names.sort_unstable();
    names
}

/// The devices of a chain, sorted. One alone may be printed as such, as a list, or as both.
fn devices(attributes: &[u8]) -> Vec<Vec<u8>> {
    let hook = find(attributes, HOOK).unwrap_or_default();
    let list = find(hook, HOOK_DEVICES).unwrap_or_default();
    let mut names: Vec<_> = each(list)
        .map(|(_, name)| until_end_mark(name).to_vec())
        .collect();
    if names.is_empty() {
        names.extend(find_name(hook, HOOK_DEVICE).map(<[u8]>::to_vec));
    }
    names.sort_unstable();
    names
}

/// Whether these are the expressions and the comment of `rule`. What was counted does not matter.
pub fn rule(expressions: &[u8], user_data: &[u8], family: Family, rule: &Rule) -> bool {
    let mut wanted = Vec::new();
    put_rule(&mut wanted, family, rule);
    let count = each(&wanted).count();
    let (found, wanted) = (each(expressions), each(&wanted));
    let mut pairs = found.map(|(_, found)| found).zip(wanted);
    let same = pairs.all(|(found, (_, wanted))| contains(found, wanted));
    same && each(expressions).count() == count && user_data == comment(rule.reason)
}

/// The reason in the user data of a rule: type, length, text with its end mark.
pub fn reason(user_data: &[u8]) -> Option<Reason> {
    let [0, length, rest @ ..] = user_data else {
        return None;
    };
    let text = rest.get(..usize::from(length.checked_sub(1)?))?;
    str::from_utf8(text).ok()?.parse().ok()
}

/// The word for the protocol that a rule asks for, by the key that `meta` loaded and the data of the `cmp`
/// after it; `None` if it asks for something else.
pub fn protocol(key: Option<u32>, data: &[u8]) -> Option<&'static str> {
    // NFTA_CMP_OP, which is NFT_CMP_EQ; NFTA_CMP_DATA, NFTA_DATA_VALUE
    let value = find(find(data, 3)?, 1)?;
    if find_u32(data, 2) != Some(0) {
        return None;
    }
    match (key?, value) {
        (L4PROTO, [number]) => PROTOCOLS
            .iter()
            .find(|(known, _)| known == number)
            .map(|(_, word)| *word),
        (NFPROTO, [IPV6]) => Some("ipv6"),
        _ => None,
    }
}

/// Whether the data of an `immediate` expression are `accept` (`NFTA_IMMEDIATE_DATA`,
/// `NFTA_DATA_VERDICT`, `NFTA_VERDICT_CODE`).
pub fn accepts(data: &[u8]) -> bool {
    let code = find(data, 2)
        .and_then(|value| find(value, 2))
        .and_then(|verdict| find_u32(verdict, 1));
    code == Some(1)
}
