//! What there is to choose from, said to somebody who chose something else.

use std::collections::BTreeMap;

use super::super::keys::nearest;
use super::super::place::quiet;
use super::country;

/// Choices that are printed at most. More than all countries of a provider; fewer than its host names.
const SHOWN: usize = 100;

/// Choices without repetitions, whatever their case, in the order of the alphabet.
pub(super) struct Choices(BTreeMap<String, String>);

impl Choices {
    pub(super) fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        Self(texts.map(|text| (folded(text), text.to_owned())).collect())
    }

    pub(super) fn has(&self, text: &str) -> bool {
        self.0.contains_key(&folded(text))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What would be right in the place of `text`.
    pub(super) fn instead_of(&self, text: &str) -> String {
        let names = || self.0.values().map(String::as_str);
        let coded = country::named(text).filter(|name| self.has(name));
        let near = coded.or_else(|| nearest(text, names()));
        let near = near.map(|near| format!("did you mean `{}`? ", quiet(near)));
        let mut list: Vec<_> = names().take(SHOWN).map(quiet).collect();
        let more = self.0.len().saturating_sub(SHOWN);
        if more > 0 {
            list.push(format!("and {more} more, which `vpngw servers` lists"));
        }
        format!(
            "{}the list has {}",
            near.unwrap_or_default(),
            list.join(", ")
        )
    }
}

/// Two texts that differ in case alone are one, as for gluetun.
pub(super) fn folded(text: &str) -> String {
    text.trim().to_lowercase()
}
