//! The environment: every key of vpngw.toml as `VPNGW_SECTION_KEY`, and a tunnel with one peer as
//! `VPNGW_WIREGUARD_…`. Any of them may end in `_FILE` and name a file that holds the value. Below them
//! the variables of [`gluetun`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use zeroize::Zeroizing;

use super::Read;
use super::diagnostic::{Notes, Problem};
use super::field::Field;
use super::gluetun;
use super::keys::{Key, Kind, nearest};
use super::layer::{Layer, Raw};
use super::place::{Masking, Place, Source, Text, quiet};
use super::tunnel::{PeerDraft, WgQuick, Written};
use super::value;
use super::wgquick::items;

/// Variables of the command line, which reads them itself.
const COMMAND_LINE: [&str; 2] = ["VPNGW_CONFIG", "VPNGW_SOCKET"];

/// The variables of a tunnel with one peer.
const TUNNEL: [(&str, Field); 10] = [
    ("VPNGW_WIREGUARD_PRIVATE_KEY", Field::PrivateKey),
    ("VPNGW_WIREGUARD_ADDRESSES", Field::Address),
    ("VPNGW_WIREGUARD_DNS", Field::Dns),
    ("VPNGW_WIREGUARD_LISTEN_PORT", Field::ListenPort),
    ("VPNGW_WIREGUARD_FWMARK", Field::FwMark),
    ("VPNGW_WIREGUARD_PUBLIC_KEY", Field::PublicKey),
    ("VPNGW_WIREGUARD_PRESHARED_KEY", Field::PresharedKey),
    ("VPNGW_WIREGUARD_ENDPOINT", Field::Endpoint),
    (
        "VPNGW_WIREGUARD_PERSISTENT_KEEPALIVE",
        Field::PersistentKeepalive,
    ),
    ("VPNGW_WIREGUARD_ALLOWED_IPS", Field::AllowedIps),
];

/// What a variable sets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Key(Key),
    Field(Field),
}

/// What the variables set.
#[derive(Default)]
pub(super) struct Settings {
    pub(super) layer: Layer,
    pub(super) tunnel: WgQuick,
}

/// Whether a variable means something here, or is a misspelt one of ours.
pub fn is_read(name: &str) -> bool {
    name.starts_with("VPNGW_") || gluetun::names().any(|known| known == name)
}

/// Reads every `VPNGW_` variable, and those of gluetun.
pub(super) fn read(
    environment: &BTreeMap<String, String>,
    read: Read<'_>,
    notes: &mut Notes,
) -> Layer {
    let mut settings = Settings::default();
    let ours = environment
        .iter()
        .filter(|(name, _)| name.starts_with("VPNGW_"));
    for (name, value) in ours.filter(|(name, _)| !COMMAND_LINE.contains(&name.as_str())) {
        let (target, is_file) = match recognise(name, environment) {
            Ok(found) => found,
            Err(problem) => {
                notes.error(&Place::whole(Source::Variable(name.clone()), name), problem);
                continue;
            }
        };
        if let Some(content) = content(name, value, is_file, read, notes) {
            settings.set(target, name, &content, notes);
        }
    }
    gluetun::read(environment, read, &mut settings, notes);
    let Settings {
        mut layer,
        mut tunnel,
    } = settings;
    take_everything(&mut tunnel, notes);
    if tunnel != WgQuick::default() {
        layer.inline = Some(tunnel);
    }
    layer
}

impl Settings {
    /// Takes the value of one variable.
    pub(super) fn set(&mut self, target: Target, name: &str, content: &str, notes: &mut Notes) {
        let masking = match target {
            Target::Field(field) if field.is_secret() => Masking::Secret,
            Target::Field(_) | Target::Key(_) => Masking::Plain,
        };
        let (text, start) = Text::variable(name, content, masking);
        let place =
            |from: usize, length: usize| text.place(name, start + from..start + from + length);
        match target {
            Target::Key(key) => {
                let raw = raw(key.kind(), content, &place, notes);
                self.layer.set(key, raw, &place(0, content.len()), notes);
            }
            Target::Field(field) => set_field(&mut self.tunnel, field, content, &place, notes),
        }
    }
}

impl Target {
    /// The name of its `VPNGW_` variable; empty for what has none.
    pub(super) fn variable(self) -> Cow<'static, str> {
        match self {
            Self::Key(key) => Cow::Owned(key.variable()),
            Self::Field(field) => {
                let found = TUNNEL.iter().find(|(_, known)| *known == field);
                Cow::Borrowed(found.map_or("", |(name, _)| name))
            }
        }
    }
}

/// What a variable sets, and whether its value is the name of a file.
fn recognise(
    name: &str,
    environment: &BTreeMap<String, String>,
) -> Result<(Target, bool), Problem> {
    if let Some(target) = target(name) {
        return Ok((target, false));
    }
    let base = name.strip_suffix("_FILE").unwrap_or_default();
    match target(base) {
        Some(_) if environment.contains_key(base) => Err(Problem::new(
            format!("`{base}` is set too"),
            "unset one of the two",
        )),
        Some(target) => Ok((target, true)),
        None => Err(unknown(name)),
    }
}

/// A peer of variables is the only one, so it takes all traffic unless told otherwise.
fn take_everything(tunnel: &mut WgQuick, notes: &mut Notes) {
    for peer in &mut tunnel.peers {
        let has = |field| peer.given.contains_key(&field);
        if has(Field::PublicKey) && !has(Field::AllowedIps) {
            let place = Place::whole(Source::Default, "");
            peer.allowed_ips
                .extend(notes.keep(&place, value::network("0.0.0.0/0")));
        }
    }
}

/// The value of a variable, or of the file that it names, without its last line end.
pub(super) fn content(
    name: &str,
    value: &str,
    is_file: bool,
    read: Read<'_>,
    notes: &mut Notes,
) -> Option<Zeroizing<String>> {
    if !is_file {
        return Some(Zeroizing::new(value.to_owned()));
    }
    match read(Path::new(value)) {
        Ok(text) => {
            let text = Zeroizing::new(text);
            let line = text.strip_suffix('\n').unwrap_or(&text);
            Some(Zeroizing::new(
                line.strip_suffix('\r').unwrap_or(line).to_owned(),
            ))
        }
        Err(error) => {
            let place = Place::whole(Source::Variable(name.to_owned()), name);
            let wrong = format!("`{}` cannot be read: {error}", quiet(value));
            notes.error(
                &place,
                Problem::new(wrong, "name a file that holds the value"),
            );
            None
        }
    }
}

fn raw<'a>(
    kind: Kind,
    text: &'a str,
    place: &dyn Fn(usize, usize) -> Place,
    notes: &mut Notes,
) -> Raw<'a> {
    let written = |from: usize, item: &'a str| Written {
        text: item,
        place: place(from, item.len()),
    };
    match kind {
        Kind::Text | Kind::Number | Kind::Flag => {
            let trimmed = text.trim();
            Raw::One(written(text.len() - text.trim_start().len(), trimmed))
        }
        Kind::Texts | Kind::Numbers => Raw::List(
            items(text)
                .map(|(from, item)| written(from, item))
                .collect(),
        ),
        Kind::Pairs(first, _) => {
            let mut pairs = Vec::new();
            for (from, item) in items(text) {
                let Some((left, right)) = item.split_once('=') else {
                    // `tcp/8080`: whoever is in a private network.
                    if first == "from" && item.contains('/') {
                        let anybody = Written {
                            text: "private",
                            place: place(from, item.len()),
                        };
                        pairs.push((anybody, written(from, item)));
                        continue;
                    }
                    let wrong = format!("`{}` has no `=`", quiet(item));
                    let example = "write `tcp/8080` or `192.168.1.0/24=tcp/8080` inbound, `192.168.1.20=tcp/445` outbound";
                    notes.error(&place(from, item.len()), Problem::new(wrong, example));
                    continue;
                };
                let second = from + item.len() - right.trim_start().len();
                pairs.push((
                    written(from, left.trim_end()),
                    written(second, right.trim()),
                ));
            }
            Raw::Pairs(pairs)
        }
    }
}

pub(super) fn set_field(
    tunnel: &mut WgQuick,
    field: Field,
    text: &str,
    place: &dyn Fn(usize, usize) -> Place,
    notes: &mut Notes,
) {
    let list: Vec<_> = if field.is_list() {
        items(text).collect()
    } else {
        vec![(text.len() - text.trim_start().len(), text.trim())]
    };
    for (from, item) in list {
        let written = Written {
            text: item,
            place: place(from, item.len()),
        };
        if !field.of_peer() {
            tunnel
                .interface
                .place
                .get_or_insert_with(|| place(0, text.len()));
            tunnel.interface.set(field, &written, notes);
            continue;
        }
        if tunnel.peers.is_empty() {
            tunnel.peers.push(PeerDraft::new(place(0, text.len())));
        }
        tunnel.peers[0].set(field, &written, notes);
    }
}

fn target(name: &str) -> Option<Target> {
    let field = TUNNEL.iter().find(|(variable, _)| *variable == name);
    let key = || Key::ALL.into_iter().find(|key| key.variable() == name);
    field
        .map(|(_, field)| Target::Field(*field))
        .or_else(|| key().map(Target::Key))
}

/// Every variable that is known, without the `_FILE` forms.
pub(super) fn names() -> impl Iterator<Item = Cow<'static, str>> {
    let keys = Key::ALL.into_iter().map(|key| Cow::Owned(key.variable()));
    let fields = TUNNEL.iter().map(|(name, _)| Cow::Borrowed(*name));
    keys.chain(fields)
        .chain(COMMAND_LINE.into_iter().map(Cow::Borrowed))
}

fn unknown(name: &str) -> Problem {
    let wrong = "no such variable is known";
    // Kubernetes describes a Service that is named `vpngw` by such variables.
    if name.starts_with("VPNGW_PORT") || name.starts_with("VPNGW_SERVICE_") {
        return Problem::new(
            wrong,
            "unset it; in Kubernetes, set `enableServiceLinks: false`",
        );
    }
    let known: Vec<_> = names().collect();
    let file = name.strip_suffix("_FILE");
    match nearest(file.unwrap_or(name), known.iter().map(AsRef::as_ref)) {
        Some(near) if file.is_some() => Problem::new(wrong, format!("did you mean `{near}_FILE`?")),
        Some(near) => Problem::new(wrong, format!("did you mean `{near}`?")),
        None => Problem::new(
            wrong,
            "unset it, or see profiles/reference.toml for the keys",
        ),
    }
}
