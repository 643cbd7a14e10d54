//! `wireguard` in vpngw.toml: the path of a wg-quick file, or the tunnel as a table with the names
//! of that file in snake case and its peers as a list.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::field::Field;
use super::file::{Reader, Value};
use super::keys::{Key, Kind};
use super::layer::{Layer, Raw};
use super::place::{At, Place, quiet};
use super::tunnel::{PeerDraft, WgQuick, Written};
use super::wgquick::items;

impl Reader<'_> {
    pub(super) fn wireguard(&mut self, value: &Value<'_>, layer: &mut Layer) {
        match value.get_ref() {
            DeValue::String(path) => {
                let written = self.written("wireguard", path, value);
                layer.set(
                    Key::Wireguard,
                    Raw::One(written),
                    &self.text.place("", 0..0),
                    self.notes,
                );
                let folder = self.folder.unwrap_or_else(|| Path::new(""));
                // A relative path is relative to the file that holds it; joining keeps an absolute one.
                let resolve = |at: At<PathBuf>| At {
                    value: folder.join(at.value),
                    ..at
                };
                layer.wireguard = layer.wireguard.take().map(resolve);
            }
            DeValue::Table(table) => layer.inline = Some(self.tunnel(table, value.span())),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                self.wrong_type(
                    "wireguard",
                    value,
                    "the path of a wg-quick file, or a table",
                );
            }
        }
    }

    fn tunnel(&mut self, table: &DeTable<'_>, span: Range<usize>) -> WgQuick {
        let mut tunnel = WgQuick::default();
        tunnel.interface.place = Some(self.text.place("wireguard", span));
        for (name, value) in table {
            let path = format!("wireguard.{}", name.get_ref());
            if name.get_ref() == "peers" {
                let Some(peers) = self.array(&path, value) else {
                    continue;
                };
                for (index, peer) in peers.iter().enumerate() {
                    tunnel
                        .peers
                        .extend(self.peer(&format!("{path}[{index}]"), peer));
                }
                continue;
            }
            let known = || Field::ALL.into_iter().filter(|field| !field.of_peer());
            let Some(field) = known().find(|field| field.snake() == name.get_ref()) else {
                let names = known().map(Field::snake).chain(["peers"]);
                self.unknown(&path, name.span(), names);
                continue;
            };
            for written in self.field(&path, field, value) {
                let (text, place) = &written;
                let written = Written {
                    text,
                    place: place.clone(),
                };
                tunnel.interface.set(field, &written, self.notes);
            }
        }
        tunnel
    }

    fn peer(&mut self, path: &str, value: &Value<'_>) -> Option<PeerDraft> {
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(path, value, "a table");
            return None;
        };
        let mut peer = PeerDraft::new(self.text.place(path, value.span()));
        for (name, value) in table {
            let path = format!("{path}.{}", name.get_ref());
            if name.get_ref() == "name" {
                peer.name = self
                    .scalar(&path, value, Kind::Text)
                    .map(|name| quiet(&name));
                continue;
            }
            let known = || Field::ALL.into_iter().filter(|field| field.of_peer());
            let Some(field) = known().find(|field| field.snake() == name.get_ref()) else {
                self.unknown(
                    &path,
                    name.span(),
                    known().map(Field::snake).chain(["name"]),
                );
                continue;
            };
            for (text, place) in self.field(&path, field, value) {
                peer.set(field, &Written { text: &text, place }, self.notes);
            }
        }
        Some(peer)
    }

    /// The texts of one field of a tunnel, with their places.
    fn field(&mut self, path: &str, field: Field, value: &Value<'_>) -> Vec<(String, Place)> {
        let values = match value.get_ref().as_array() {
            Some(array) if field.is_list() => array.iter().collect(),
            Some(_) | None => vec![value],
        };
        let mut found = Vec::new();
        for value in values {
            let inner = value.get_ref();
            let text = match inner.as_bool() {
                Some(flag) if field == Field::SaveConfig => Some(flag.to_string().into()),
                Some(_) | None if inner.is_integer() => self.scalar(path, value, Kind::Number),
                Some(_) | None => self.scalar(path, value, Kind::Text),
            };
            let place = self.text.place(path, value.span());
            match text {
                Some(text) if field.is_list() => {
                    found.extend(items(&text).map(|(_, item)| (item.to_owned(), place.clone())));
                }
                Some(text) => found.push((text.trim().to_owned(), place)),
                None => {}
            }
        }
        found
    }
}
