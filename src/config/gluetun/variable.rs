//! One variable of gluetun's: whether it is set, and whether it is the one that counts.

use std::collections::BTreeMap;

use super::super::diagnostic::{Notes, Problem};
use super::super::env::{Settings, Target};
use super::super::place::{Place, Source};
use super::super::tunnel::PeerDraft;
use super::super::wgquick::quoted;

pub(super) type Environment = BTreeMap<String, String>;

/// The variables that are set, in the order of their names. An empty one is not set, and quotes around a
/// value are no part of it: `- WIREGUARD_ADDRESSES="10.64.0.2/32"` in a list of compose keeps them.
pub(super) fn set<'a>(
    environment: &'a Environment,
    names: &'a [&'static str],
) -> impl Iterator<Item = (&'static str, &'a str)> {
    let value = |name: &str| environment.get(name).map(|value| unquoted(value.trim()));
    let each = names
        .iter()
        .filter_map(move |name| Some((*name, value(name)?)));
    each.filter(|(_, value)| !value.is_empty())
}

fn unquoted(text: &str) -> &str {
    // Of a list whose items have quotes of their own these are no pair.
    let pair = quoted(text).filter(|(quote, inner)| !inner.contains(*quote));
    pair.map_or(text, |(_, inner)| inner).trim()
}

/// The variable that counts, if none of ours says the same; a warning for each that does not count.
pub(super) fn chosen<'a>(
    environment: &'a Environment,
    names: &'a [&'static str],
    target: Target,
    notes: &mut Notes,
) -> Option<(&'static str, &'a str)> {
    let ours = target.variable();
    let forms = [ours.to_string(), format!("{ours}_FILE")];
    let ours = forms.iter().find(|form| environment.contains_key(*form));
    let mut given = set(environment, names);
    let first = if ours.is_none() { given.next() } else { None };
    let winner = ours
        .map(String::as_str)
        .or_else(|| first.map(|(name, _)| name));
    for (name, _) in given {
        let wrong = format!("`{}` is set too, and wins", winner.unwrap_or_default());
        notes.warn(&whole(name), Problem::new(wrong, "unset one of the two"));
    }
    first
}

/// A field whose value cannot be told is not missing.
pub(super) fn given(settings: &mut Settings, target: Target, name: &str) {
    let Target::Field(field) = target else { return };
    let place = whole(name);
    let given = if field.of_peer() {
        &mut peer(settings, &place).given
    } else {
        let interface = &mut settings.tunnel.interface;
        interface.place.get_or_insert_with(|| place.clone());
        &mut interface.given
    };
    given.insert(field, place);
}

fn peer<'a>(settings: &'a mut Settings, place: &Place) -> &'a mut PeerDraft {
    let peers = &mut settings.tunnel.peers;
    if peers.is_empty() {
        peers.push(PeerDraft::new(place.clone()));
    }
    &mut peers[0]
}

/// A switch, as gluetun reads it; `None` for what is none.
pub(super) fn switch(value: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|word| value.eq_ignore_ascii_case(word));
    if is(&["on", "yes", "true", "1", "enabled"]) {
        return Some(true);
    }
    is(&["off", "no", "false", "0", "disabled"]).then_some(false)
}

pub(super) fn whole(name: &str) -> Place {
    Place::whole(Source::Variable(name.to_owned()), name)
}
