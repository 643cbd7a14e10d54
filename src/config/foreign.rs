//! Files that are for another program, or for a variant of WireGuard: each is told in one sentence.

use super::diagnostic::{Notes, Problem};
use super::field::Field;
use super::place::Place;

/// First words of lines that only OpenVPN's files have (openvpn(8)).
const OPENVPN: [&str; 10] = [
    "client",
    "dev",
    "proto",
    "remote",
    "auth-user-pass",
    "remote-cert-tls",
    "resolv-retry",
    "tls-client",
    "<ca>",
    "<cert>",
];

/// What AmneziaWG's files have besides (amneziawg-tools, `src/config.c`), and the value of each with which it is WireGuard;
/// `None` where any is: junk that is sent before a handshake is dropped by every server.
const AMNEZIA: [(&str, Option<u32>); 16] = [
    ("Jc", None),
    ("Jmin", None),
    ("Jmax", None),
    ("S1", Some(0)),
    ("S2", Some(0)),
    ("S3", Some(0)),
    ("S4", Some(0)),
    ("H1", Some(1)),
    ("H2", Some(2)),
    ("H3", Some(3)),
    ("H4", Some(4)),
    ("I1", None),
    ("I2", None),
    ("I3", None),
    ("I4", None),
    ("I5", None),
];

/// What is wrong with a text that is no wg-quick file, if that can be told.
pub(super) fn kind(text: &str) -> Option<Problem> {
    let lines = || text.lines().map(str::trim);
    let first = |line: &str| line.split_whitespace().next().map(str::to_ascii_lowercase);
    let of_openvpn = lines().filter_map(first);
    let of_openvpn = of_openvpn.filter(|word| OPENVPN.contains(&word.as_str()));
    let has_section = lines().any(|line| line.starts_with('['));
    if !has_section && of_openvpn.count() >= 2 {
        return Some(Problem::new(
            "this is a file for OpenVPN, and vpngw speaks WireGuard only",
            "ask the provider for a WireGuard file",
        ));
    }
    let by = |mark: char| {
        let named = move |line: &&str| {
            let key = line.split_once(mark).map(|(key, _)| key.trim());
            key.and_then(Field::named).is_some()
        };
        lines().filter(named).count()
    };
    (by(':') >= 2 && by('=') == 0).then(|| {
        Problem::new(
            "the lines of this file are `key: value`, and those of a wg-quick file are `key = value`",
            "write `=` in the place of each `:` behind a key",
        )
    })
}

/// Whether a key is one of AmneziaWG's.
pub(super) fn is_amnezia(key: &str) -> bool {
    amnezia(key).is_some()
}

/// The key of AmneziaWG, and with which value it is WireGuard.
fn amnezia(key: &str) -> Option<(&'static str, Option<u32>)> {
    let mut all = AMNEZIA.into_iter();
    all.find(|(name, _)| name.eq_ignore_ascii_case(key))
}

/// The lines of AmneziaWG that a file has.
#[derive(Debug, Default)]
pub(super) struct Amnezia {
    names: Vec<&'static str>,
    first: Option<Place>,
    /// One of them changes what is sent, so that an ordinary WireGuard cannot be understood.
    changes: bool,
}

impl Amnezia {
    /// Whether the line is one of them; it is kept.
    pub(super) fn take(&mut self, key: &str, value: &str, place: &Place) -> bool {
        let Some((name, plain)) = amnezia(key) else {
            return false;
        };
        self.names.push(name);
        self.first.get_or_insert_with(|| place.clone());
        self.changes |= plain.is_some_and(|plain| value.parse() != Ok(plain));
        true
    }

    /// Notes all of them at once.
    pub(super) fn note(self, notes: &mut Notes) {
        let Some(place) = self.first else { return };
        let names = self.names.join(", ");
        if self.changes {
            let wrong = format!("this file is for AmneziaWG ({names}), and vpngw speaks WireGuard");
            let right =
                "ask for a WireGuard file; without these lines this server would not answer";
            notes.error(&place, Problem::new(wrong, right));
        } else {
            let wrong = format!(
                "this file is for AmneziaWG, with the values of an ordinary WireGuard server; left out: {names}"
            );
            notes.warn(&place, Problem::new(wrong, ""));
        }
    }
}
