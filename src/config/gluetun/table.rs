//! What becomes of each of gluetun's variables, told from its rows: to the operator at start, and to a reader of
//! `docs/from-gluetun.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::diagnostic::{Notes, Problem};
use super::super::place::{Place, Source};
use super::fate::{Fate, Row};
use super::rows::TUNNEL;
use super::services::SERVICES;
use super::variable::{Environment, set, whole};

fn rows() -> impl Iterator<Item = &'static Row> {
    TUNNEL.iter().chain(SERVICES)
}

/// Every variable that is known.
pub(in crate::config) fn names() -> impl Iterator<Item = &'static str> {
    rows().flat_map(|row| row.names).copied()
}

/// Whether an environment is one for gluetun: some names, such as `CITY`, may be anybody's.
pub(super) fn is_meant(environment: &Environment) -> bool {
    let ours = ["VPN_SERVICE_PROVIDER", "VPNSP", "VPN_TYPE"];
    let mut names = environment.keys().map(String::as_str);
    names.any(|name| ours.contains(&name) || name.starts_with("WIREGUARD_"))
}

/// Says once what is set and not done, and, on one line, what is set and not needed.
pub(super) fn say(environment: &Environment, notes: &mut Notes) {
    let mut needless = Vec::new();
    for row in rows() {
        for (name, value) in set(environment, row.names) {
            match &row.fate {
                Fate::NotDone(idle, wrong, right) if !idle.is(value) => {
                    notes.warn(&whole(name), Problem::new(*wrong, *right));
                }
                Fate::Needless(why) => needless.push((*why, name)),
                Fate::NotDone(..) | Fate::Followed(_) | Fate::Answered(_) | Fate::PartOf(_) => {}
            }
        }
    }
    if !needless.is_empty() {
        let nowhere = Place::whole(Source::Default, "");
        let said = format!("not needed here: {}", reasons(&needless).join("; "));
        notes.notice(&nowhere, Problem::new(said, ""));
    }
}

/// The variables that one reason is good for, and the reason.
fn reasons(needless: &[(&str, &str)]) -> Vec<String> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (why, name) in needless {
        all.entry(why).or_default().push(name);
    }
    let mut all: Vec<_> = all
        .into_iter()
        .map(|(why, names)| format!("{} ({why})", names.join(", ")))
        .collect();
    all.sort();
    all
}

/// The table of `docs/from-gluetun.md`: each variable of gluetun's, and what becomes of it.
pub fn markdown() -> String {
    let mut text = String::from("| variable | what becomes of it |\n|---|---|\n");
    for row in rows() {
        let mut names = row.names.iter().map(|name| format!("`{name}`"));
        let first = names.next().unwrap_or_default();
        let older: Vec<_> = names.collect();
        let older = match older.as_slice() {
            [] => String::new(),
            older => format!(" ({})", older.join(", ")),
        };
        let fate = match &row.fate {
            Fate::Followed(key) => format!("followed: {key}"),
            Fate::Answered(what) => (*what).to_owned(),
            Fate::Needless(why) => format!("not needed: {why}"),
            Fate::PartOf(other) => format!("belongs to `{other}`"),
            Fate::NotDone(_, wrong, right) => format!("not done: {wrong}; {right}"),
        };
        // Writing to a text does not fail.
        let _ = writeln!(text, "| {first}{older} | {fate} |");
    }
    text
}
