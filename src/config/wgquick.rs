//! The wg-quick file: wg(8), section "Configuration file format", and wg-quick(8).
//!
//! Read as the two programs read it: names in any letter case, `#` begins a comment anywhere, lists
//! by comma or by repetition. Hooks are data here and never run. IPv6 is left out with a warning.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Notes, Problem};
use super::field::Field;
use super::foreign::{self, Amnezia};
use super::place::{Place, Source, Text, mask_keys};
use super::tunnel::{PeerDraft, WgQuick, Written};

/// Longest friendly name of a peer, in characters.
const NAME: usize = 64;

/// What a wg-quick file says, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Everything that could be read.
    pub tunnel: WgQuick,
    /// What is wrong.
    pub errors: Vec<Diagnostic>,
    /// What is left out or ignored.
    pub warnings: Vec<Diagnostic>,
}

/// Parses the text of a wg-quick file. Takes any text and never panics; what is missing is not an
/// error yet, since variables may add it.
pub fn parse(path: &Path, text: &str) -> Parsed {
    let mut notes = Notes::default();
    let tunnel = read(path, text, &mut notes);
    let (errors, warnings) = notes.drain();
    Parsed {
        tunnel,
        errors,
        warnings,
    }
}

/// Whether a text is a wg-quick file rather than TOML: its first line that is not a comment says so.
pub(super) fn looks_like(text: &str) -> bool {
    let mut lines = lines(text).map(|line| line.code);
    let first = lines.find(|code| !code.is_empty()).unwrap_or_default();
    Header::of(first).is_some_and(|header| header != Header::Unknown)
}

pub(super) fn read(path: &Path, text: &str, notes: &mut Notes) -> WgQuick {
    let hidden: Vec<_> = lines(text).map(|line| line.hidden()).collect();
    let masked = Text::new(Source::File(path.to_owned()), text, &hidden);
    let mut tunnel = WgQuick::default();
    tunnel.interface.place = Some(masked.place("", 0..0));
    if let Some(problem) = foreign::kind(text) {
        notes.error(&Place::whole(Source::File(path.to_owned()), ""), problem);
        tunnel.foreign = true;
        return tunnel;
    }
    let mut seen = Seen::default();
    let mut section = Section::None;
    let mut name_wanted = false;
    for line in lines(text) {
        let header = Header::of(line.code);
        if header.is_none() && line.code.is_empty() {
            // The first comment below `[Peer]` is its name, as behind it.
            if let (true, Some(peer)) = (name_wanted, tunnel.peers.last_mut()) {
                peer.name = friendly(line.comment);
                name_wanted = line.comment.is_empty();
            }
            continue;
        }
        let place = masked.place("", line.start..line.start + line.code.len());
        name_wanted = false;
        match header {
            Some(Header::Interface) => {
                section = Section::Interface;
                tunnel.interface.place = Some(place);
            }
            Some(Header::Peer) => {
                section = Section::Peer;
                let mut peer = PeerDraft::new(place);
                peer.name = friendly(line.comment);
                name_wanted = peer.name.is_none();
                tunnel.peers.push(peer);
            }
            Some(Header::Unknown) => {
                section = Section::Unknown;
                let wrong = "this is not a section of a wg-quick file";
                notes.error(
                    &place,
                    Problem::new(wrong, "write `[Interface]` or `[Peer]`"),
                );
            }
            None => section = entry(&line, &masked, section, &mut seen, &mut tunnel, notes),
        }
    }
    seen.amnezia.note(notes);
    tunnel
}

/// What is told once for a whole file.
#[derive(Default)]
struct Seen {
    amnezia: Amnezia,
    quotes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    None,
    Interface,
    Peer,
    /// Already an error; what is in it is not one more.
    Unknown,
}

fn entry(
    line: &Line<'_>,
    text: &Arc<Text>,
    mut section: Section,
    seen: &mut Seen,
    tunnel: &mut WgQuick,
    notes: &mut Notes,
) -> Section {
    let whole = text.place("", line.start..line.start + line.code.len());
    let Some((key, value, offset)) = line.entry() else {
        let wrong = "this is neither a section nor `key = value`";
        notes.error(
            &whole,
            Problem::new(wrong, "write `Key = value`, or `#` before a comment"),
        );
        return section;
    };
    let named = text.place("", line.start..line.start + key.len());
    let Some(field) = field_named(key) else {
        if !seen.amnezia.take(key, value, &named) {
            notes.error(&named, unknown(key));
        }
        return section;
    };
    if section == Section::Interface && begins_a_peer(field) && tunnel.peers.is_empty() {
        let wrong = format!("`{}` stands below [Interface]", field.name());
        let right = "write `[Peer]` on a line of its own above it";
        notes.error(&named, Problem::new(wrong, right));
        tunnel.peers.push(PeerDraft::new(named));
        section = Section::Peer;
    }
    // Quotes of a hook are its shell's.
    let (value, offset) = match quoted(value).filter(|_| !field.is_hook()) {
        Some((_, inner)) => {
            if !std::mem::replace(&mut seen.quotes, true) {
                let wrong = "quotes around a value are read as a part of it";
                let right = "take them away, here and in the other lines";
                notes.error(&whole, Problem::new(wrong, right));
            }
            (inner, offset + 1)
        }
        None => (value, offset),
    };
    let mut set = |place: Place, item: &str| {
        let written = Written { text: item, place };
        match section {
            Section::Interface => tunnel.interface.set(field, &written, notes),
            Section::Peer => {
                if let Some(peer) = tunnel.peers.last_mut() {
                    peer.set(field, &written, notes);
                }
            }
            Section::None => {
                let wrong = format!("`{}` stands before any section", field.name());
                let section = if field.of_peer() {
                    "[Peer]"
                } else {
                    "[Interface]"
                };
                let right = format!("write `{section}` on a line of its own above it");
                notes.error(&written.place, Problem::new(wrong, right));
            }
            Section::Unknown => {}
        }
    };
    let start = line.start + offset;
    let parts: Vec<_> = if !field.is_list() {
        vec![(0, value)]
    } else if matches!(field, Field::Address | Field::Dns) {
        items(value).flat_map(words).collect()
    } else {
        items(value).collect()
    };
    for (from, item) in parts {
        let place = text.place(field.name(), start + from..start + from + item.len());
        set(place, &as_read(field, item));
    }
    section
}

/// A key that only a server has. A preshared key alone is more often in the wrong section.
fn begins_a_peer(field: Field) -> bool {
    matches!(
        field,
        Field::PublicKey | Field::Endpoint | Field::AllowedIps
    )
}

/// The quote that a text is between, and what is between.
pub(super) fn quoted(text: &str) -> Option<(char, &str)> {
    let within = |quote: char| {
        let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
        Some((quote, inner))
    };
    within('"').or_else(|| within('\''))
}

/// wg-quick(8) reads addresses and resolvers as words of a shell.
fn words((from, item): (usize, &str)) -> impl Iterator<Item = (usize, &str)> {
    // An item between two commas that is empty stays: it is an error of the item.
    let one = (item.split_whitespace().count() < 2).then_some((from, item));
    let mut at = from;
    let many = item.split(char::is_whitespace).map(move |word| {
        let start = at;
        at += word.len() + 1;
        (start, word)
    });
    let many = many.filter(move |(_, word)| one.is_none() && !word.is_empty());
    one.into_iter().chain(many)
}

/// wg(8) takes white space out of every line that it reads, wherever it stands.
fn as_read(field: Field, item: &str) -> Cow<'_, str> {
    if field.is_of_wg() && item.contains(char::is_whitespace) {
        item.chars().filter(|c| !c.is_whitespace()).collect()
    } else {
        item.into()
    }
}

/// Trimmed items of a list and where each begins. An empty list has none; an empty item between
/// commas is kept, and is an error of the item.
pub(super) fn items(list: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut from = 0;
    let parts = if list.trim().is_empty() {
        None
    } else {
        Some(list.split(','))
    };
    parts.into_iter().flatten().map(move |part| {
        let at = from + (part.len() - part.trim_start().len());
        from += part.len() + 1;
        (at, part.trim())
    })
}

fn unknown(key: &str) -> Problem {
    let names: Vec<_> = Field::ALL.iter().map(|field| field.name()).collect();
    let right = match super::keys::nearest(key, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "remove the line; wg(8) and wg-quick(8) list the keys".to_owned(),
    };
    let name = if is_word(key) { key } else { "…" };
    Problem::new(format!("`{name}` is not a key of wg-quick"), right)
}

fn field_named(name: &str) -> Option<Field> {
    // wg(8) takes white space out of every line before it looks.
    let name: String = name.chars().filter(|c| !c.is_whitespace()).collect();
    Field::named(&name)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Header {
    Interface,
    Peer,
    Unknown,
}

impl Header {
    fn of(code: &str) -> Option<Self> {
        let inner = code.strip_prefix('[')?;
        let name = inner.strip_suffix(']').unwrap_or_default().trim();
        if name.eq_ignore_ascii_case("interface") {
            Some(Self::Interface)
        } else if name.eq_ignore_ascii_case("peer") {
            Some(Self::Peer)
        } else {
            Some(Self::Unknown)
        }
    }
}

/// The name for people in a comment, unless the comment is a line taken out, or holds a key.
fn friendly(comment: &str) -> Option<String> {
    let name = comment.trim_start_matches('#').trim();
    let entry = name
        .split_once('=')
        .is_some_and(|(key, _)| field_named(key).is_some());
    let fits = !name.is_empty() && name.chars().count() <= NAME;
    // What was not UTF-8 reads as nothing.
    let odd = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
    let plain = !name.chars().any(odd) && mask_keys(name) == name;
    (fits && plain && !entry).then(|| name.to_owned())
}

/// One line: what is before the `#`, trimmed, and the comment, each with its offset in the text.
struct Line<'a> {
    start: usize,
    code: &'a str,
    comment_start: usize,
    comment: &'a str,
}

impl<'a> Line<'a> {
    /// Key, value, and where the value begins in the line's code.
    fn entry(&self) -> Option<(&'a str, &'a str, usize)> {
        let (key, value) = self.code.split_once('=')?;
        let value = value.trim();
        // `code` ends where the value ends.
        Some((key.trim(), value, self.code.len() - value.len()))
    }

    /// The bytes that are not shown: all but what is known to be harmless.
    fn hidden(&self) -> Range<usize> {
        let harmless = self.comment.is_empty() || friendly(self.comment).is_some();
        let comment = if harmless { 0 } else { self.comment.len() };
        let end = self.comment_start + comment;
        let rest = self.comment_start..end;
        if self.code.is_empty() {
            return rest;
        }
        if self.code.starts_with('[') {
            return if is_word(self.code.trim_matches(['[', ']'])) {
                rest
            } else {
                self.start..end
            };
        }
        match self
            .entry()
            .map(|(key, _, offset)| (field_named(key), is_word(key), offset))
        {
            Some((Some(field), _, _)) if !field.is_secret() => rest,
            Some((Some(_), _, offset) | (None, true, offset)) => self.start + offset..end,
            Some((None, false, _)) | None => self.start..end,
        }
    }
}

/// Whether a name that is none of ours can be shown. A key broken over two lines, or one without
/// its name, cannot.
fn is_word(name: &str) -> bool {
    let letters = |b: u8| b.is_ascii_alphabetic() || b == b'_' || b == b' ';
    foreign::is_amnezia(name) || (name.len() <= 24 && name.bytes().all(letters))
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let mut from = 0;
    text.split('\n').map(move |raw| {
        let start = from;
        from += raw.len() + 1;
        let bom = if start == 0 && raw.starts_with('\u{feff}') {
            '\u{feff}'.len_utf8()
        } else {
            0
        };
        let hash = raw.find('#').unwrap_or(raw.len());
        let (code, comment) = (&raw[bom..hash], raw[hash..].trim_end());
        let indent = code.len() - code.trim_start().len();
        Line {
            start: start + bom + indent,
            code: code.trim(),
            comment_start: start + hash,
            comment,
        }
    })
}
