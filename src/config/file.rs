//! vpngw.toml. Every key is checked by hand rather than by a derived reader, so that all mistakes
//! are reported at once, each with its line; an unknown key is one of them.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Notes, Problem};
use super::field::Field;
use super::keys::{Key, Kind, nearest};
use super::layer::{Layer, Raw};
use super::place::{At, Place, Source, Text, quiet};
use super::tunnel::Written;

/// A value and where it stands.
pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// Reads a vpngw.toml; `None` where it is no TOML at all.
pub(super) fn read(path: &Path, text: &str, notes: &mut Notes) -> Option<Layer> {
    let (document, broken) = DeTable::parse_recoverable(text);
    let mut hidden = Vec::new();
    secrets(document.get_ref(), &mut hidden);
    if !broken.is_empty() {
        hidden.extend(suspects(text));
    }
    let text = Text::new(Source::File(path.to_owned()), text, &hidden);
    for error in &broken {
        let place = text.place("", error.span().unwrap_or(0..0));
        notes.error(
            &place,
            Problem::new(quiet(error.message()), "the file must be TOML 1.1"),
        );
    }
    if !broken.is_empty() {
        return None;
    }
    let mut reader = Reader {
        text,
        folder: path.parent(),
        notes,
    };
    Some(reader.document(document.get_ref()))
}

/// The values that are not shown: those of keys, and of names that we do not know.
fn secrets(table: &DeTable<'_>, hidden: &mut Vec<Range<usize>>) {
    for (name, value) in table {
        collect(value, !is_plain(name.get_ref()), hidden);
    }
}

fn collect(value: &Value<'_>, secret: bool, hidden: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) if secret => {
            table
                .iter()
                .for_each(|(_, value)| collect(value, true, hidden));
        }
        DeValue::Table(table) => secrets(table, hidden),
        DeValue::Array(array) => array
            .iter()
            .for_each(|value| collect(value, secret, hidden)),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => {
            if secret {
                hidden.push(value.span());
            }
        }
    }
}

fn is_plain(name: &str) -> bool {
    let mut parts = Key::ALL.iter().flat_map(|key| key.path().split('.'));
    let field = Field::ALL.iter().find(|field| field.snake() == name);
    let word = ["peers", "name", "from", "to", "port"].contains(&name);
    parts.any(|part| part == name) || word || field.is_some_and(|field| !field.is_secret())
}

/// In a text that is no TOML: what follows `=` on each line that speaks of a key.
fn suspects(text: &str) -> Vec<Range<usize>> {
    let mut start = 0;
    let mut found = Vec::new();
    for line in text.split_inclusive('\n') {
        if line.to_ascii_lowercase().contains("key") {
            let from = line.find('=').map_or(0, |at| at + 1);
            found.push(start + from..start + line.len());
        }
        start += line.len();
    }
    found
}

/// Reads one document, and notes what is wrong with it.
pub(super) struct Reader<'a> {
    pub(super) text: Arc<Text>,
    /// What relative paths are relative to.
    pub(super) folder: Option<&'a Path>,
    pub(super) notes: &'a mut Notes,
}

impl Reader<'_> {
    fn document(&mut self, document: &DeTable<'_>) -> Layer {
        let mut layer = Layer::default();
        for (name, value) in document {
            let section = name.get_ref().as_ref();
            if section == "wireguard" {
                self.wireguard(value, &mut layer);
            } else if let DeValue::Table(table) = value.get_ref() {
                for (key, value) in table {
                    let path = format!("{section}.{}", key.get_ref());
                    self.setting(&path, key.span(), value, &mut layer);
                }
                if table.is_empty() && !is_section(section) {
                    self.unknown(section, name.span(), sections());
                }
            } else if is_section(section) {
                self.wrong_type(section, value, "a table");
            } else {
                self.unknown(section, name.span(), sections());
            }
        }
        layer
    }

    fn setting(&mut self, path: &str, name: Range<usize>, value: &Value<'_>, layer: &mut Layer) {
        let Some(key) = Key::ALL.into_iter().find(|key| key.path() == path) else {
            self.unknown(path, name, Key::ALL.iter().map(|key| key.path()));
            return;
        };
        let span = value.span();
        let place = self.text.place(path, span);
        let texts;
        let raw = match key.kind() {
            Kind::Text | Kind::Number | Kind::Flag => {
                let Some(text) = self.scalar(path, value, key.kind()) else {
                    return;
                };
                texts = [text];
                Raw::One(self.written(path, &texts[0], value))
            }
            Kind::Texts | Kind::Numbers => return self.list(key, value, &place, layer),
            Kind::Pairs(left, right) => return self.pairs(key, (left, right), value, layer),
        };
        layer.set(key, raw, &place, self.notes);
        if key == Key::ProviderList {
            // A relative path is relative to the file that holds it; joining keeps an absolute one.
            let folder = self.folder.unwrap_or_else(|| Path::new(""));
            let list = layer.wanted.list.take();
            layer.wanted.list = list.map(|at| At {
                value: folder.join(at.value),
                ..at
            });
        }
    }

    fn list(&mut self, key: Key, value: &Value<'_>, place: &Place, layer: &mut Layer) {
        let Some(array) = self.array(key.path(), value) else {
            return;
        };
        let scalars: Vec<_> = array
            .iter()
            .filter_map(|item| Some((self.scalar(key.path(), item, key.kind())?, item)))
            .collect();
        let list = scalars
            .iter()
            .map(|(text, item)| self.written(key.path(), text, item));
        let raw = Raw::List(list.collect());
        layer.set(key, raw, place, self.notes);
    }

    fn pairs(&mut self, key: Key, names: (&str, &str), value: &Value<'_>, layer: &mut Layer) {
        let path = key.path();
        let Some(array) = self.array(path, value) else {
            return;
        };
        let place = self.text.place(path, value.span());
        let mut scalars = Vec::new();
        for item in array {
            let DeValue::Table(table) = item.get_ref() else {
                let right = format!("a table with `{}` and `{}`", names.0, names.1);
                self.wrong_type(path, item, &right);
                continue;
            };
            for (name, _) in table {
                let known = [names.0, names.1];
                if !known.contains(&name.get_ref().as_ref()) {
                    let unknown = format!("{path}.{}", name.get_ref());
                    self.unknown(&unknown, name.span(), known.into_iter());
                }
            }
            let mut field = |name: &str| {
                let Some(value) = table.get(name) else {
                    let place = self.text.place(path, item.span());
                    let right = format!("write both `{}` and `{}`", names.0, names.1);
                    self.notes
                        .error(&place, Problem::new(format!("`{name}` is missing"), right));
                    return None;
                };
                Some((self.scalar(path, value, Kind::Text)?, value))
            };
            scalars.extend(field(names.0).zip(field(names.1)));
        }
        let pairs = scalars
            .iter()
            .map(|((a, x), (b, y))| (self.written(path, a, x), self.written(path, b, y)));
        let raw = Raw::Pairs(pairs.collect());
        layer.set(key, raw, &place, self.notes);
    }

    /// The text of a value that is no list.
    pub(super) fn scalar<'v>(
        &mut self,
        path: &str,
        value: &'v Value<'_>,
        kind: Kind,
    ) -> Option<Cow<'v, str>> {
        if kind == Kind::Flag {
            let flag = value.get_ref().as_bool();
            if flag.is_none() {
                self.wrong_type(path, value, "true or false");
            }
            return flag.map(|flag| Cow::Borrowed(if flag { "true" } else { "false" }));
        }
        let number = matches!(kind, Kind::Number | Kind::Numbers);
        let wanted = if number {
            "a whole number"
        } else {
            "a text in quotes"
        };
        let value_in = value.get_ref();
        match (value_in.as_str(), value_in.as_integer()) {
            (Some(text), _) if !number => Some(Cow::Borrowed(text)),
            (_, Some(integer)) if number => {
                // Hexadecimal, octal and binary become decimal.
                let digits = u64::from_str_radix(integer.as_str(), integer.radix());
                Some(digits.map_or(Cow::Borrowed(integer.as_str()), |n| n.to_string().into()))
            }
            (Some(_) | None, _) => {
                self.wrong_type(path, value, wanted);
                None
            }
        }
    }

    pub(super) fn array<'v, 'i>(
        &mut self,
        path: &str,
        value: &'v Value<'i>,
    ) -> Option<&'v [Value<'i>]> {
        if let DeValue::Array(array) = value.get_ref() {
            return Some(array);
        }
        self.wrong_type(path, value, "a list in brackets");
        None
    }

    pub(super) fn written<'v>(&self, path: &str, text: &'v str, value: &Value<'_>) -> Written<'v> {
        Written {
            text: text.trim(),
            place: self.text.place(path, value.span()),
        }
    }

    pub(super) fn wrong_type(&mut self, path: &str, value: &Value<'_>, wanted: &str) {
        let place = self.text.place(&quiet(path), value.span());
        let kind = value.get_ref().type_str();
        let wrong = format!("this is of type {kind}, and it must be {wanted}");
        self.notes
            .error(&place, Problem::new(wrong, format!("write {wanted}")));
    }

    pub(super) fn unknown<'n>(
        &mut self,
        path: &str,
        name: Range<usize>,
        known: impl Iterator<Item = &'n str>,
    ) {
        let place = self.text.place(&quiet(path), name);
        let known: Vec<_> = known.collect();
        let last = path.rsplit('.').next().unwrap_or_default();
        let near = nearest(path, known.iter().copied());
        let right = match near.or_else(|| nearest(last, known.iter().copied())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "remove it; profiles/reference.toml has every key".to_owned(),
        };
        self.notes
            .error(&place, Problem::new("there is no such key", right));
    }
}

fn sections() -> impl Iterator<Item = &'static str> {
    Key::ALL
        .iter()
        .map(|key| key.path().split('.').next().unwrap_or_default())
}

fn is_section(name: &str) -> bool {
    sections().any(|section| section == name)
}
