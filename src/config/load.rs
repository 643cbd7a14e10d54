//! From all sources to one configuration: environment over file over default.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::diagnostic::{Diagnostic, Errors, Notes, Problem};
use super::layer::Layer;
use super::place::{Place, Source, quiet};
use super::search::Found;
use super::tunnel::WgQuick;
use super::{Config, Read, check, env, file, resolve, wgquick};

/// Where a configuration comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// A vpngw.toml or a wg-quick file, told apart by what is in it.
    pub file: Option<PathBuf>,
    /// The wg-quick file for a configuration that names none; see [`search`](super::search).
    pub wireguard: Vec<PathBuf>,
    /// The process environment; only names that begin with `VPNGW_` are looked at.
    pub environment: BTreeMap<String, String>,
}

impl Sources {
    /// What a search found, and the environment.
    pub fn new(found: Found, environment: BTreeMap<String, String>) -> Self {
        Self {
            file: found.file,
            wireguard: found.wireguard,
            environment,
        }
    }
}

/// A configuration, complete and valid, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Where each value came from, in the order of `profiles/reference.toml`.
    pub origins: Vec<Origin>,
    /// What was left out or ignored.
    pub warnings: Vec<Diagnostic>,
}

/// Where one value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `section.key`, as in vpngw.toml.
    pub key: String,
    /// The value in force; a secret is `(secret)`.
    pub value: String,
    /// `file:line`, `variable NAME` or `default`.
    pub source: String,
}

/// Reads all sources, lays them over one another, and checks the result.
///
/// # Errors
///
/// Everything that is wrong, at once. No secret is in any of it.
pub fn load(sources: &Sources, read: Read<'_>) -> Result<Loaded, Errors> {
    let mut notes = Notes::default();
    let environment = env::read(&sources.environment, read, &mut notes);
    let (file, lone) = match &sources.file {
        Some(path) => configuration(path, read, &mut notes),
        None => (Layer::default(), None),
    };
    let wireguard = environment
        .wireguard
        .clone()
        .or_else(|| file.wireguard.clone());
    let top = environment.inline.clone().unwrap_or_default();
    let below = match (&wireguard, lone.or_else(|| file.inline.clone())) {
        (Some(at), inline) => {
            if inline.is_some() && environment.wireguard.is_none() {
                let wrong = "the tunnel is given twice, here and as a table";
                notes.error(&at.place, Problem::new(wrong, "remove one of the two"));
            }
            named(&at.value, &at.place, read, &mut notes)
        }
        (None, Some(inline)) => inline,
        (None, None) => usual(sources, &top, read, &mut notes),
    };
    let tunnel = top.over(below, &mut notes);
    let layer = environment.over(file);
    check::check(&layer, &tunnel, &mut notes);
    let resolved = resolve::resolve(&layer, &tunnel, wireguard.as_ref(), &mut notes);
    let warnings = notes.finish()?;
    // Whatever keeps a configuration from being whole has been noted as an error.
    let Some((config, origins)) = resolved else {
        return Err(incomplete());
    };
    Ok(Loaded {
        config,
        origins,
        warnings,
    })
}

/// The named file: settings, or a tunnel if it is a wg-quick file.
fn configuration(path: &Path, read: Read<'_>, notes: &mut Notes) -> (Layer, Option<WgQuick>) {
    let place = Place::whole(Source::File(path.to_owned()), "");
    let Some(text) = text(path, &place, read, notes) else {
        return (Layer::default(), Some(WgQuick::default()));
    };
    let conf = path
        .extension()
        .is_some_and(|extension| extension == "conf");
    if conf || wgquick::looks_like(&text) {
        return (Layer::default(), Some(wgquick::read(path, &text, notes)));
    }
    match file::read(path, &text, notes) {
        Some(layer) => (layer, None),
        // Its syntax is the one thing to report.
        None => (Layer::default(), Some(WgQuick::default())),
    }
}

/// The wg-quick file that a key or a variable names.
fn named(path: &Path, place: &Place, read: Read<'_>, notes: &mut Notes) -> WgQuick {
    match text(path, place, read, notes) {
        Some(text) => wgquick::read(path, &text, notes),
        None => WgQuick::default(),
    }
}

/// The wg-quick file at a usual place, unless the environment describes a tunnel of its own.
fn usual(sources: &Sources, top: &WgQuick, read: Read<'_>, notes: &mut Notes) -> WgQuick {
    if top.describes_a_peer() {
        return WgQuick::default();
    }
    match sources.wireguard.as_slice() {
        [] => WgQuick::default(),
        [path] => named(
            path,
            &Place::whole(Source::File(path.clone()), ""),
            read,
            notes,
        ),
        [first, rest @ ..] => {
            let names: Vec<_> = rest
                .iter()
                .map(|path| quiet(&path.to_string_lossy()))
                .collect();
            let wrong = format!("it is not the only one, there is {} too", names.join(", "));
            let right = "name one by `wireguard = \"…\"`, VPNGW_WIREGUARD or --config";
            let place = Place::whole(Source::File(first.clone()), "");
            notes.error(&place, Problem::new(wrong, right));
            WgQuick::default()
        }
    }
}

fn text(
    path: &Path,
    place: &Place,
    read: Read<'_>,
    notes: &mut Notes,
) -> Option<Zeroizing<String>> {
    match read(path) {
        Ok(text) => Some(Zeroizing::new(text)),
        Err(error) => {
            let path = path.to_string_lossy();
            let wrong = format!("`{}` cannot be read: {error}", quiet(&path));
            let right = "name a text file in UTF-8 that this user may read";
            notes.error(place, Problem::new(wrong, right));
            None
        }
    }
}

fn incomplete() -> Errors {
    let mut notes = Notes::default();
    let wrong = "the configuration is incomplete";
    let place = Place::whole(Source::Default, "");
    notes.error(
        &place,
        Problem::new(wrong, "give the tunnel a key, an address and a peer"),
    );
    Errors::of(notes)
}
