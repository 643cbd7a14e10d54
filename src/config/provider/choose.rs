//! From a provider's name to servers that can be tried: finds the list, and takes of it those that are meant.

use std::path::{Path, PathBuf};

use super::super::diagnostic::{Notes, Problem};
use super::super::place::{At, quiet};
use super::filter::filter;
use super::list::{self, List, Server};
use super::order::{Order, shuffle};
use super::surroundings::{LARGEST_LIST, NoList, Surroundings};
use super::table::{Ports, Provider};
use super::wanted::Wanted;

/// The folder in which gluetun keeps a list for each provider, and the list of all of them that it wrote up to v3.41.
const FOLDER: &str = "/gluetun/servers";
const FILE: &str = "/gluetun/servers.json";

/// Days after which the age of a list is a warning: providers change keys and addresses of servers.
const OLD: u64 = 60;

const DAY: u64 = 24 * 60 * 60;

/// The servers that are meant.
#[derive(Clone, Debug)]
pub(in crate::config) struct Chosen {
    /// Where they stand.
    pub(in crate::config) list: PathBuf,
    /// The age of the list in days, if it is known.
    pub(in crate::config) age: Option<u64>,
    /// WireGuard servers that the provider has in it.
    pub(in crate::config) total: usize,
    /// Those that match, in the order in which they are tried. Never empty.
    pub(in crate::config) servers: Vec<Server>,
}

/// What came of a choice.
pub(in crate::config) enum Choice {
    /// These.
    Servers(Chosen),
    /// There is no list at any usual place, and nobody named one.
    NoList,
    /// It has been noted why there are none.
    Noted,
}

/// Chooses among the servers of the provider's list.
pub(in crate::config) fn choose(
    provider: &At<Provider>,
    wanted: &Wanted,
    around: &Surroundings,
    notes: &mut Notes,
) -> Choice {
    let (path, text) = match text(provider.value, wanted, around, notes) {
        Ok(Some(found)) => found,
        Ok(None) => return Choice::NoList,
        Err(()) => return Choice::Noted,
    };
    let Some(list) = list::read(&path, &text, provider.value, notes) else {
        return Choice::Noted;
    };
    let age = aged(&path, &list, around.now, notes);
    if list.servers.is_empty() {
        let wrong = format!(
            "it has no WireGuard server of `{}` with an IPv4 address",
            provider.value
        );
        let right = "let gluetun write it anew, or name another list";
        notes.error(&list::whole(&path), Problem::new(wrong, right));
        return Choice::Noted;
    }
    let Some(mut servers) = filter(provider, &list.servers, wanted, notes) else {
        return Choice::Noted;
    };
    let order = wanted.order.as_ref().map_or(Order::Random, |at| at.value);
    if order == Order::Random {
        shuffle(&mut servers, around.seed);
    }
    Choice::Servers(Chosen {
        list: path,
        age,
        total: list.servers.len(),
        servers,
    })
}

/// The text of the list that is named, or of the first at a usual place.
fn text(
    provider: Provider,
    wanted: &Wanted,
    around: &Surroundings,
    notes: &mut Notes,
) -> Result<Option<(PathBuf, String)>, ()> {
    let file = format!("{provider}.json");
    let Some(named) = &wanted.list else {
        for path in [Path::new(FOLDER).join(file), PathBuf::from(FILE)] {
            match (around.list)(&path) {
                Ok(text) => return Ok(Some((path, text))),
                Err(NoList::Absent) => {}
                Err(why) => {
                    notes.error(&list::whole(&path), problem(&why));
                    return Err(());
                }
            }
        }
        return Ok(None);
    };
    // gluetun names the folder, or the file.
    let is_folder = named.value.as_os_str().as_encoded_bytes().ends_with(b"/");
    let path = if is_folder {
        named.value.join(file)
    } else {
        named.value.clone()
    };
    match (around.list)(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(why) => {
            let Problem { wrong, right } = problem(&why);
            let wrong = format!("`{}`: {wrong}", quiet(&path.to_string_lossy()));
            notes.error(&named.place, Problem::new(wrong, right));
            Err(())
        }
    }
}

fn problem(why: &NoList) -> Problem {
    match why {
        NoList::Absent => Problem::new(
            "there is no such list of servers",
            "name a list that gluetun wrote, such as /gluetun/servers.json",
        ),
        NoList::Writable(who) => Problem::new(
            format!("others can write this list, and it says whom the tunnel leads to ({who})"),
            "let root own it and nobody else write it (`chown root`, `chmod go-w`), or mount it read-only",
        ),
        NoList::TooLarge => Problem::new(
            format!("the list is larger than {} MiB", LARGEST_LIST >> 20),
            "name a list that gluetun wrote, such as /gluetun/servers.json",
        ),
        NoList::Unreadable(why) => Problem::new(
            format!("the list of servers cannot be read: {why}"),
            "make it readable for the user who runs this",
        ),
    }
}

/// The age of a list in days, which is noted.
fn aged(path: &Path, list: &List, now: u64, notes: &mut Notes) -> Option<u64> {
    let place = list::whole(path);
    let days = list
        .timestamp
        .and_then(|at| now.checked_sub(at))
        .map(|age| age / DAY);
    let renew =
        "let gluetun write it anew: providers change the keys and addresses of their servers";
    match days {
        Some(days) if days > OLD => {
            notes.warn(
                &place,
                Problem::new(format!("the list of servers is {days} days old"), renew),
            );
        }
        Some(days) => {
            let plural = if days == 1 { "day" } else { "days" };
            notes.notice(
                &place,
                Problem::new(format!("the list of servers is {days} {plural} old"), ""),
            );
        }
        None => notes.warn(
            &place,
            Problem::new("the list of servers does not say how old it is", renew),
        ),
    }
    days
}

/// The port of the servers; `None` where the one that is wanted is not theirs, which is noted.
pub(in crate::config) fn port(
    provider: Provider,
    wanted: &Wanted,
    notes: &mut Notes,
) -> Option<u16> {
    let Some(at) = &wanted.port else {
        return Some(provider.port());
    };
    let usual = provider.port();
    let theirs = match provider.ports() {
        Ports::Any => true,
        Ports::Among(ports) => ports.contains(&at.value),
        Ports::Fixed => at.value == usual,
    };
    if theirs {
        return Some(at.value);
    }
    let right = match provider.ports() {
        Ports::Among(ports) => {
            let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
            format!("write {}, or unset it", ports.join(" or "))
        }
        Ports::Fixed | Ports::Any => format!("unset it: they have {usual}"),
    };
    let wrong = format!(
        "`{}` is not a port of the servers of `{provider}`",
        at.value
    );
    notes.error(&at.place, Problem::new(wrong, right));
    None
}
