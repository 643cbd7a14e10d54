//! Where a value stands: a source, a line, a column, and that line with its secrets masked.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Fewest characters of base64 or hexadecimal that are taken for key material wherever they stand.
/// A WireGuard key has 43 and a `=`, or 64 in hexadecimal.
const KEY_RUN: usize = 32;

/// Characters of a line that are shown around the place of an error.
const SHOWN: usize = 100;

/// Where text came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// Nothing was given.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "variable {}", quiet(name)),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A text whose secrets are masked byte for byte, so that offsets into the original stay true.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text {
    source: Source,
    masked: String,
    starts: Vec<usize>,
}

impl Text {
    /// Masks the given byte ranges of `original` and everything that looks like a key.
    pub(super) fn new(source: Source, original: &str, secrets: &[Range<usize>]) -> Arc<Self> {
        let mut bytes = original.as_bytes().to_vec();
        for range in secrets {
            for byte in bytes.get_mut(range.clone()).into_iter().flatten() {
                if *byte != b'\n' && *byte != b'\r' {
                    *byte = b'*';
                }
            }
        }
        // A range that cuts a character in two leaves bytes that are no text; they are shown as such.
        let masked = mask_keys(&String::from_utf8_lossy(&bytes));
        let ends = masked.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        let starts = std::iter::once(0)
            .chain(ends.map(|(at, _)| at + 1))
            .collect();
        Arc::new(Self {
            source,
            masked,
            starts,
        })
    }

    /// A text of one variable, written `NAME=value`; the value begins at the offset returned.
    pub(super) fn variable(name: &str, value: &str, secret: Masking) -> (Arc<Self>, usize) {
        let text = zeroize::Zeroizing::new(format!("{name}={value}"));
        let start = name.len() + 1;
        let hidden = start..text.len();
        let secrets = match secret {
            Masking::Secret => vec![hidden],
            Masking::Plain => Vec::new(),
        };
        (
            Self::new(Source::Variable(name.to_owned()), &text, &secrets),
            start,
        )
    }

    /// The place of a byte range, and the name of the key it belongs to.
    pub(super) fn place(self: &Arc<Self>, key: &str, range: Range<usize>) -> Place {
        Place {
            text: Arc::clone(self),
            key: key.to_owned(),
            range,
        }
    }
}

/// Whether a value is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Masking {
    /// As written.
    Plain,
    /// As asterisks.
    Secret,
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    text: Arc<Text>,
    key: String,
    range: Range<usize>,
}

impl Place {
    /// A place without a line: a variable or a file as a whole.
    pub(super) fn whole(source: Source, key: &str) -> Self {
        Text::new(source, "", &[]).place(key, 0..0)
    }

    /// Where the text came from.
    pub fn source(&self) -> &Source {
        &self.text.source
    }

    /// The key as it is called there: `Endpoint`, `tunnel.mtu`, `VPNGW_TUNNEL_MTU`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The line, from 1; `None` where there is none, as in a variable.
    pub fn line(&self) -> Option<usize> {
        match self.text.source {
            Source::File(_) if !self.text.masked.is_empty() => Some(self.row() + 1),
            Source::File(_) | Source::Variable(_) | Source::Default => None,
        }
    }

    /// The column, in characters from 1.
    pub fn column(&self) -> usize {
        let start = self.text.starts[self.row()];
        let before = self.text.masked.get(start..self.range.start);
        before.unwrap_or_default().chars().count() + 1
    }

    /// The file, where there is one.
    pub fn file(&self) -> Option<&Path> {
        match &self.text.source {
            Source::File(path) => Some(path),
            Source::Variable(_) | Source::Default => None,
        }
    }

    /// `file:line`, `variable NAME` or `default`.
    pub fn origin(&self) -> String {
        match self.line() {
            Some(line) => format!("{}:{line}", self.text.source),
            None => self.text.source.to_string(),
        }
    }

    /// Whether another place is on the same line of the same text.
    pub(super) fn same_line(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.text, &other.text) && self.row() == other.row()
    }

    /// For sorting: by source, then by position.
    pub(super) fn order(&self) -> (&Source, usize) {
        (&self.text.source, self.range.start)
    }

    /// The line with a caret below the place; empty where there is no text.
    pub(super) fn snippet(&self) -> String {
        let start = self.text.starts[self.row()];
        let line = self.text.masked.get(start..).unwrap_or_default();
        let line = line.lines().next().unwrap_or_default();
        if line.is_empty() {
            return String::new();
        }
        let end = start + line.len();
        let covered = self
            .text
            .masked
            .get(self.range.start..self.range.end.min(end));
        let width = covered.unwrap_or_default().chars().count().max(1);
        // A long line is shown from a little before the place.
        let first = match line.chars().count() {
            length if length > SHOWN => self.column().saturating_sub(SHOWN / 3),
            _ => 0,
        };
        let shown: String = line
            .chars()
            .skip(first)
            .take(SHOWN)
            .map(printable)
            .collect();
        let number = self.line().map(|line| line.to_string()).unwrap_or_default();
        let margin = " ".repeat(number.len());
        let indent = " ".repeat(self.column() - 1 - first.min(self.column() - 1));
        let carets = "^".repeat(width.min(SHOWN));
        format!(
            "{margin} |\n{number} | {}\n{margin} | {indent}{carets}\n",
            shown.trim_end()
        )
    }

    fn row(&self) -> usize {
        // `starts` begins with 0, so at least one start is not past the range.
        self.text
            .starts
            .partition_point(|start| *start <= self.range.start)
            .max(1)
            - 1
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line() {
            Some(line) => write!(f, "{}:{line}:{}", self.text.source, self.column()),
            None => write!(f, "{}", self.text.source),
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

/// Text from outside as part of a message: no key, no control character, not too long.
pub(super) fn quiet(text: &str) -> String {
    let masked = mask_keys(text);
    let mut shown: String = masked.chars().take(60).map(printable).collect();
    if masked.chars().count() > 60 {
        shown.push('…');
    }
    shown
}

/// Masks runs of base64 and hexadecimal digits that are long enough for a key. Paths, the other long
/// runs of these characters, are seldom of mixed case.
pub(super) fn mask_keys(text: &str) -> String {
    let is_digit = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let run = rest.bytes().take_while(|b| is_digit(*b)).count();
        let (digits, after) = rest.split_at(run);
        let mixed = digits.bytes().any(|b| b.is_ascii_uppercase())
            && digits.bytes().any(|b| b.is_ascii_lowercase());
        let hexadecimal = digits.len() >= 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if (run >= KEY_RUN && mixed) || hexadecimal {
            shown.push_str(&"*".repeat(run));
        } else {
            shown.push_str(digits);
        }
        let gap = after.bytes().take_while(|b| !is_digit(*b)).count();
        let (gap, after) = after.split_at(gap);
        shown.push_str(gap);
        rest = after;
    }
    shown
}

/// What a terminal may be sent.
fn printable(character: char) -> char {
    match character {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_place_prints_file_line_and_column() {
        let source = Source::File("/c/a.toml".into());
        let text = Text::new(source, "one\ntwo = three\r\n", &[]);
        let place = text.place("two", 10..15);
        assert_eq!(place.to_string(), "/c/a.toml:2:7");
        assert_eq!(place.origin(), "/c/a.toml:2");
        assert_eq!(place.snippet(), "  |\n2 | two = three\n  |       ^^^^^\n");
    }

    #[test]
    fn a_secret_is_masked_and_columns_stay() {
        let (text, start) = Text::variable("VPNGW_X", "hush", Masking::Secret);
        let place = text.place("VPNGW_X", start..start + 4);
        assert_eq!(place.snippet(), " |\n | VPNGW_X=****\n |         ^^^^\n");
        assert_eq!(place.to_string(), "variable VPNGW_X");
    }

    #[test]
    fn a_key_is_masked_wherever_it_stands_and_a_path_is_not() {
        let key = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
        assert!(!quiet(&format!("dns {key}!")).contains("lXXJ"));
        let path = "/run/secrets/vpn/wireguard/some/where/wg0.conf";
        assert_eq!(quiet(path), path);
    }

    proptest! {
        #[test]
        fn masking_keeps_every_offset(text in "\\PC{0,80}", from in 0usize..80, length in 0usize..40) {
            let masked = mask_keys(&text);
            prop_assert_eq!(masked.len(), text.len());
            let text = Text::new(Source::Default, &text, &[]);
            let place = text.place("key", from..from + length);
            let _ = (place.snippet(), place.column(), place.to_string());
        }
    }
}
