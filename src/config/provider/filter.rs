//! Which servers of a list are meant. As gluetun does it: case does not matter, one value of each kind has to fit, a value
//! that no server has is a warning beside one that a server has, and an error alone.

use super::super::diagnostic::{Notes, Problem};
use super::super::place::{At, quiet};
use super::attribute::{Attribute, Only};
use super::choices::{Choices, folded};
use super::list::Server;
use super::table::Provider;
use super::wanted::Wanted;

/// The servers that match, in the order of the list; `None` where there is none, which is noted once.
pub(super) fn filter(
    provider: &At<Provider>,
    servers: &[Server],
    wanted: &Wanted,
    notes: &mut Notes,
) -> Option<Vec<Server>> {
    let wanted = regions(provider.value, servers, wanted);
    let mut known = true;
    for (attribute, values) in &wanted.values {
        known &= values_exist(*attribute, values, servers, notes);
    }
    for (only, at) in wanted.only.iter().filter(|(_, at)| at.value) {
        if !servers.iter().any(|server| only.of(server)) {
            let wrong = format!(
                "the list has no server of `{provider}` that {}",
                only.what(),
                provider = provider.value
            );
            notes.error(&at.place, Problem::new(wrong, "unset it"));
            known = false;
        }
    }
    if !known {
        return None;
    }
    let found: Vec<_> = servers
        .iter()
        .filter(|server| fits(server, &wanted))
        .collect();
    if found.is_empty() {
        notes.error(&provider.place, nothing_left(servers, &wanted));
        return None;
    }
    let Some(address) = &wanted.address else {
        return Some(found.into_iter().cloned().collect());
    };
    let at = found
        .iter()
        .find(|server| server.addresses.contains(&address.value));
    let Some(at) = at else {
        let wrong = format!(
            "none of the {} servers that match has the address `{}`",
            found.len(),
            address.value
        );
        let right = "unset it, or take the address of a server that `vpngw servers` lists";
        notes.error(&address.place, Problem::new(wrong, right));
        return None;
    };
    let addresses = vec![address.value];
    Some(vec![Server {
        addresses,
        ..(*at).clone()
    }])
}

/// Notes the values that no server has; whether one is left.
fn values_exist(
    attribute: Attribute,
    values: &At<Vec<At<String>>>,
    servers: &[Server],
    notes: &mut Notes,
) -> bool {
    let choices = Choices::of(servers.iter().flat_map(|server| attribute.of(server)));
    let unknown: Vec<_> = values
        .value
        .iter()
        .filter(|at| !choices.has(&at.value))
        .collect();
    let all = unknown.len() == values.value.len() && !values.value.is_empty();
    let what = attribute.plural();
    if all && choices.is_empty() {
        let wrong = format!("the list knows no {what} of this provider's servers");
        notes.error(
            &values.place,
            Problem::new(wrong, "choose by something else, and unset it"),
        );
        return false;
    }
    for at in unknown.iter().take(if all { 1 } else { usize::MAX }) {
        let right = choices.instead_of(&at.value);
        if all {
            let names: Vec<_> = unknown
                .iter()
                .map(|at| format!("`{}`", quiet(&at.value)))
                .collect();
            let verb = if names.len() == 1 { "is" } else { "are" };
            let wrong = format!("{} {verb} none of the {what} in the list", names.join(", "));
            notes.error(&values.place, Problem::new(wrong, right));
        } else {
            let wrong = format!("`{}` is none of the {what} in the list", quiet(&at.value));
            notes.warn(&at.place, Problem::new(wrong, right));
        }
    }
    !all
}

/// Before NordVPN's list had countries, its regions were countries, and gluetun still takes them so.
fn regions(provider: Provider, servers: &[Server], wanted: &Wanted) -> Wanted {
    let mut wanted = wanted.clone();
    let of =
        |attribute: Attribute| Choices::of(servers.iter().flat_map(|server| attribute.of(server)));
    let Some(values) = wanted.values.get(&Attribute::Region) else {
        return wanted;
    };
    let countries = || of(Attribute::Country);
    let meant = provider == Provider::Nordvpn
        && !wanted.values.contains_key(&Attribute::Country)
        && values
            .value
            .iter()
            .all(|at| !of(Attribute::Region).has(&at.value) && countries().has(&at.value));
    if meant && let Some(values) = wanted.values.remove(&Attribute::Region) {
        wanted.values.insert(Attribute::Country, values);
    }
    wanted
}

fn fits(server: &Server, wanted: &Wanted) -> bool {
    let one = |attribute: Attribute, values: &[At<String>]| {
        let has = attribute.of(server);
        let is = |text: &str| values.iter().any(|at| folded(&at.value) == folded(text));
        values.is_empty() || has.into_iter().any(is)
    };
    let all = wanted
        .values
        .iter()
        .all(|(attribute, at)| one(*attribute, &at.value));
    let only = wanted
        .only
        .iter()
        .all(|(only, at): (&Only, _)| !at.value || only.of(server));
    all && only
}

/// Each filter fits some server, and no server fits all of them: says how many each of them leaves.
fn nothing_left(servers: &[Server], wanted: &Wanted) -> Problem {
    let mut each = Vec::new();
    let count = |one: &Wanted| servers.iter().filter(|server| fits(server, one)).count();
    for (attribute, at) in &wanted.values {
        let alone = Wanted {
            values: [(*attribute, at.clone())].into(),
            ..Wanted::default()
        };
        each.push((at.place.key().to_owned(), count(&alone)));
    }
    for (only, at) in wanted.only.iter().filter(|(_, at)| at.value) {
        let alone = Wanted {
            only: [(*only, at.clone())].into(),
            ..Wanted::default()
        };
        each.push((at.place.key().to_owned(), count(&alone)));
    }
    let each: Vec<_> = each
        .into_iter()
        .map(|(key, n)| format!("{key} {n}"))
        .collect();
    Problem::new(
        format!(
            "none of the {} servers in the list fits all that is asked for",
            servers.len()
        ),
        format!("ask for less; alone each leaves: {}", each.join(", ")),
    )
}
