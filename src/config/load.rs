//! From all sources to one configuration: environment over file over default.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::diagnostic::{Diagnostic, Errors, Notes, Problem};
use super::layer::Layer;
use super::place::{At, Place, Source, quiet};
use super::provider::{MOST_ALTERNATIVES, Surroundings, Wanted, complete, files};
use super::search::Found;
use super::tunnel::WgQuick;
use super::{Config, Read, check, env, file, resolve, resolver, unreadable, wgquick};

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A vpngw.toml or a wg-quick file, told apart by what is in it.
    pub file: Option<PathBuf>,
    /// The wg-quick file for a configuration that names none; see [`search`](super::search).
    pub wireguard: Vec<PathBuf>,
    /// The process environment; only names that [`is_read`](super::is_read) knows are looked at.
    pub environment: BTreeMap<String, String>,
    /// What a choice of servers depends on besides.
    pub surroundings: Surroundings,
}

impl Sources {
    /// What a search found, the environment, and what surrounds them.
    pub fn new(
        found: Found,
        environment: BTreeMap<String, String>,
        surroundings: Surroundings,
    ) -> Self {
        Self {
            file: found.file,
            wireguard: found.wireguard,
            environment,
            surroundings,
        }
    }
}

/// A configuration, complete and valid, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Where each value came from, the tunnel first, then by section.
    pub origins: Vec<Origin>,
    /// What was left out or ignored.
    pub warnings: Vec<Diagnostic>,
    /// What was decided for the operator: whom names are asked of, which list of servers was read and how old it is.
    pub notices: Vec<Diagnostic>,
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
    whole(sources, read, Topology::Shared)
}

/// The same for the sealed topology, which has no exceptions for UDP.
///
/// # Errors
///
/// Everything that is wrong, at once.
pub fn load_sealed(sources: &Sources, read: Read<'_>) -> Result<Loaded, Errors> {
    whole(sources, read, Topology::Sealed)
}

/// What the configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    /// The uplink's device carries LAN exceptions. Also where nobody said which.
    Shared,
    /// LAN exceptions are connections that are handed over.
    Sealed,
}

fn whole(sources: &Sources, read: Read<'_>, topology: Topology) -> Result<Loaded, Errors> {
    let mut notes = Notes::default();
    let (environment, file) = layers(sources, read, &mut notes);
    let top = environment.inline.clone().unwrap_or_default();
    let below = file.as_ref().and_then(|file| {
        let named = environment.wireguard.as_ref().or(file.wireguard.as_ref());
        let wanted = environment.wanted.clone().over(file.wanted.clone());
        tunnel(named, file, &top, &wanted, sources, read, &mut notes)
    });
    // Of a tunnel that could not be read nothing more is said.
    let known = below.is_some();
    let Below { tunnel, filtered } = below.unwrap_or_default();
    let mut tunnel = top.over(tunnel, &mut notes);
    let mut layer = environment.over(file.unwrap_or_default());
    if known {
        let around = &sources.surroundings;
        complete(&mut tunnel, &mut layer.wanted, filtered, around, &mut notes);
        resolve::require(&tunnel, &mut notes);
        let provider = layer.wanted.provider.as_ref().map(|at| at.value);
        resolver::complete(&mut tunnel, provider, &mut notes);
    }
    check::check(&layer, &tunnel, topology, &mut notes);
    let resolved = resolve::resolve(&layer, &tunnel, layer.wireguard.as_ref());
    loaded(resolved, notes)
}

/// Reads what the warden of the sealed topology needs: everything but the tunnel. No wg-quick file is
/// opened, and a key that stands in a variable or in the file is wiped.
///
/// # Errors
///
/// Everything that is wrong, at once.
pub fn load_without_tunnel(sources: &Sources, read: Read<'_>) -> Result<Loaded, Errors> {
    let mut notes = Notes::default();
    let (environment, file) = layers(sources, read, &mut notes);
    let layer = environment.over(file.unwrap_or_default());
    check::check(&layer, &WgQuick::default(), Topology::Sealed, &mut notes);
    loaded(resolve::without_tunnel(&layer), notes)
}

/// What the environment says, and what the file does: nothing if none is named, `None` if it could not be read.
pub(super) fn layers(
    sources: &Sources,
    read: Read<'_>,
    notes: &mut Notes,
) -> (Layer, Option<Layer>) {
    let environment = env::read(&sources.environment, read, notes);
    let file = match &sources.file {
        Some(path) => configuration(path, read, notes),
        None => Some(Layer::default()),
    };
    (environment, file)
}

/// The configuration, unless something is wrong.
fn loaded(resolved: Option<(Config, Vec<Origin>)>, notes: Notes) -> Result<Loaded, Errors> {
    let (warnings, notices) = notes.finish()?;
    // Whatever keeps a configuration from being whole has been noted as an error before.
    let (config, origins) = resolved.ok_or_else(incomplete)?;
    Ok(Loaded {
        config,
        origins,
        warnings,
        notices,
    })
}

/// The named file: vpngw.toml, or a wg-quick file, which is a tunnel and nothing else. `None` if it
/// could not be read.
fn configuration(path: &Path, read: Read<'_>, notes: &mut Notes) -> Option<Layer> {
    let place = Place::whole(Source::File(path.to_owned()), "");
    let text = text(path, &place, read, notes)?;
    let conf = path
        .extension()
        .is_some_and(|extension| extension == "conf");
    if conf || wgquick::looks_like(&text) {
        let inline = Some(wgquick::read(path, &text, notes));
        return Some(Layer {
            inline,
            ..Layer::default()
        });
    }
    file::read(path, &text, notes)
}

/// The tunnel below the variables of the environment.
#[derive(Default)]
struct Below {
    tunnel: WgQuick,
    /// Whether what is wanted of servers has been heeded, by the names of files.
    filtered: bool,
}

impl From<WgQuick> for Below {
    fn from(tunnel: WgQuick) -> Self {
        Self {
            tunnel,
            filtered: false,
        }
    }
}

/// The wg-quick file that is named, the inline table, or the file at a usual place. `None` if it could not be read.
fn tunnel(
    named: Option<&At<PathBuf>>,
    file: &Layer,
    top: &WgQuick,
    wanted: &Wanted,
    sources: &Sources,
    read: Read<'_>,
    notes: &mut Notes,
) -> Option<Below> {
    if let Some(at) = named {
        let text = text(&at.value, &at.place, read, notes)?;
        return Some(wgquick::read(&at.value, &text, notes).into());
    }
    if let Some(inline) = &file.inline {
        return Some(inline.clone().into());
    }
    let usual = sources.wireguard.as_slice();
    let several = usual.len() > 1 && (wanted.named.is_some() || !wanted.values.is_empty());
    let one = usual.len() == 1 && files::is_named(&usual[0]) && !wanted.values.is_empty();
    match usual {
        // The variables describe a tunnel of their own.
        _ if top.describes_a_peer() => Some(Below::default()),
        [] => Some(Below::default()),
        // A list that is named is what the servers are chosen from.
        _ if several && wanted.list.is_some() => Some(Below::default()),
        files if several || one => {
            let meant = files::among(files, wanted, sources.surroundings.seed, notes);
            let tunnel = alternatives(&meant, read, notes)?;
            Some(Below {
                tunnel,
                filtered: true,
            })
        }
        [path] => Some(whole_file(path, read, notes)?.into()),
        [first, rest @ ..] => {
            let names: Vec<_> = rest
                .iter()
                .map(|path| quiet(&path.to_string_lossy()))
                .collect();
            let wrong = format!("it is not the only one, there is {} too", names.join(", "));
            let right = "name one by `wireguard = \"…\"`, VPNGW_WIREGUARD or --config";
            let place = Place::whole(Source::File(first.clone()), "");
            notes.error(&place, Problem::new(wrong, right));
            None
        }
    }
}

/// The tunnel of the first file, with the servers of those others that have the same key and address: a tunnel has one.
fn alternatives(meant: &[&Path], read: Read<'_>, notes: &mut Notes) -> Option<WgQuick> {
    let (first, rest) = meant.split_first()?;
    let mut tunnel = named_by(first, whole_file(first, read, notes)?);
    let mut left_out = 0;
    for path in rest.iter().take(MOST_ALTERNATIVES - 1) {
        let other = named_by(path, whole_file(path, read, notes)?);
        if same_end(&tunnel, &other) {
            tunnel.peers.extend(other.peers);
        } else {
            left_out += 1;
        }
    }
    let place = Place::whole(Source::File((*first).to_owned()), "");
    let said = match (meant.len(), left_out) {
        (1, _) => "this one file fits".to_owned(),
        (fit, 0) => format!("it is tried first, of {fit} files that fit"),
        (fit, out) => format!(
            "it is tried first, of {fit} files that fit; left out, for another key or address: {out}"
        ),
    };
    notes.notice(&place, Problem::new(said, ""));
    Some(tunnel)
}

/// A server without a name has that of its file.
fn named_by(path: &Path, mut tunnel: WgQuick) -> WgQuick {
    let stem = path.file_stem().map(|stem| quiet(&stem.to_string_lossy()));
    for peer in tunnel.peers.iter_mut().filter(|peer| peer.name.is_none()) {
        peer.name.clone_from(&stem);
    }
    tunnel
}

/// Whether two files are for the same end of a tunnel.
fn same_end(one: &WgQuick, other: &WgQuick) -> bool {
    let key = |tunnel: &WgQuick| {
        let key = tunnel.interface.private_key.as_ref();
        key.map(|at| at.value.clone())
    };
    let addresses = |tunnel: &WgQuick| -> Vec<_> {
        let all = tunnel.interface.addresses.iter();
        all.map(|at| at.value).collect()
    };
    key(one) == key(other) && addresses(one) == addresses(other)
}

fn whole_file(path: &Path, read: Read<'_>, notes: &mut Notes) -> Option<WgQuick> {
    let place = Place::whole(Source::File(path.to_owned()), "");
    let text = text(path, &place, read, notes)?;
    Some(wgquick::read(path, &text, notes))
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
            let named = place.file() == Some(path);
            notes.error(place, unreadable::problem(path, named, &error));
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
