//! A list of servers as gluetun writes it: `/gluetun/servers.json` with all providers, or a file for each one. Unknown
//! fields are ignored, for both grow; what is known has to be of its type.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::super::PublicKey;
use super::super::diagnostic::{Notes, Problem};
use super::super::place::{Place, Source, Text, quiet};
use super::super::value;
use super::table::Provider;

/// The WireGuard servers of one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct List {
    /// When it was made, in seconds since 1970.
    pub(super) timestamp: Option<u64>,
    /// Those that have a key and an IPv4 address.
    pub(super) servers: Vec<Server>,
}

/// One WireGuard server of a list. What is not known is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Country, by its English name.
    pub country: String,
    /// Part of a country or of the world.
    pub region: String,
    /// City.
    pub city: String,
    /// Host name.
    pub hostname: String,
    /// The provider's own name for it.
    pub name: String,
    /// The number in its name.
    pub number: String,
    /// Whose network it is in.
    pub isp: String,
    /// What the provider offers it for.
    pub categories: Vec<String>,
    /// Whether the provider owns the machine.
    pub owned: bool,
    /// Whether it is for accounts that cost nothing.
    pub free: bool,
    /// Whether it is for the other accounts.
    pub premium: bool,
    /// Whether it is for streaming.
    pub stream: bool,
    /// Whether traffic leaves at another server.
    pub multihop: bool,
    /// Whether it forwards ports.
    pub port_forward: bool,
    /// Whether it is entered by a machine of the provider's own in a country with strong privacy laws.
    pub secure_core: bool,
    /// Whether it leads to Tor.
    pub tor: bool,
    /// Its public key.
    #[serde(serialize_with = "as_text")]
    pub key: PublicKey,
    /// Where it is.
    pub addresses: Vec<Ipv4Addr>,
}

fn as_text<S: serde::Serializer>(key: &PublicKey, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(key)
}

impl Server {
    /// What it is called: the provider's own name, or else its host name.
    pub fn title(&self) -> &str {
        if self.name.is_empty() {
            &self.hostname
        } else {
            &self.name
        }
    }
}

/// The provider's part of a list; `None` where there is none, or something is wrong with it, which is noted.
pub(super) fn read(path: &Path, text: &str, provider: Provider, notes: &mut Notes) -> Option<List> {
    let mut json = serde_json::Deserializer::from_str(text);
    let found = Top(provider).deserialize(&mut json);
    let found = found.and_then(|found| json.end().map(|()| found));
    match found {
        Ok(Found {
            list: Some(list), ..
        }) => Some(list),
        Ok(Found { others, .. }) => {
            let wrong = format!("it has no servers of `{provider}`");
            let right = if others.is_empty() {
                "name a list that gluetun wrote, such as /gluetun/servers.json".to_owned()
            } else {
                let names: Vec<_> = others.iter().take(30).map(|name| quiet(name)).collect();
                format!("it has those of {}", names.join(", "))
            };
            notes.error(&whole(path), Problem::new(wrong, right));
            None
        }
        Err(error) => {
            let place = place(path, text, &error);
            let said = error.to_string();
            let said = said.split(" at line ").next().unwrap_or_default();
            let wrong = format!("the list of servers cannot be read: {}", quiet(said));
            let right = "let gluetun write it anew, or name another list";
            notes.error(&place, Problem::new(wrong, right));
            None
        }
    }
}

pub(super) fn whole(path: &Path) -> Place {
    Place::whole(Source::File(path.to_owned()), "")
}

/// serde_json counts lines from 1, and bytes of a line from 1.
fn place(path: &Path, text: &str, error: &serde_json::Error) -> Place {
    let lines = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1));
    let start: usize = lines.map(str::len).sum();
    let at = (start + error.column().saturating_sub(1)).min(text.len());
    Text::new(Source::File(path.to_owned()), text, &[]).place("", at..at)
}

/// What a file of either kind has.
#[derive(Default)]
struct Found {
    list: Option<List>,
    /// Other providers in it.
    others: Vec<String>,
}

/// A file with all providers, or with this one alone.
struct Top(Provider);

impl<'de> DeserializeSeed<'de> for Top {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Found, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Top {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of servers")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Found, M::Error> {
        let (mut found, mut timestamp, mut servers) = (Found::default(), None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "timestamp" => timestamp = map.next_value()?,
                "servers" => servers = Some(map.next_value::<Vec<Raw>>()?),
                "version" | "preferred" => {
                    map.next_value::<IgnoredAny>()?;
                }
                name if name == self.0.name() => {
                    found.list = Some(map.next_value::<Part>()?.into())
                }
                // Text from outside: any other name.
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    found.others.push(key);
                }
            }
        }
        if let Some(servers) = servers {
            found.list = Some(Part { timestamp, servers }.into());
        }
        Ok(found)
    }
}

/// One provider.
#[derive(Deserialize)]
struct Part {
    timestamp: Option<u64>,
    #[serde(default)]
    servers: Vec<Raw>,
}

impl From<Part> for List {
    fn from(part: Part) -> Self {
        let servers = part.servers.into_iter().filter_map(Raw::server);
        Self {
            timestamp: part.timestamp.filter(|at| *at > 0),
            servers: servers.collect(),
        }
    }
}

/// One server as written. gluetun leaves out what is empty.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw {
    vpn: Option<String>,
    country: Option<String>,
    region: Option<String>,
    city: Option<String>,
    hostname: Option<String>,
    server_name: Option<String>,
    number: Option<u16>,
    isp: Option<String>,
    categories: Option<Vec<String>>,
    owned: Option<bool>,
    free: Option<bool>,
    premium: Option<bool>,
    stream: Option<bool>,
    multihop: Option<bool>,
    port_forward: Option<bool>,
    secure_core: Option<bool>,
    tor: Option<bool>,
    wgpubkey: Option<Key>,
    ips: Option<Vec<IpAddr>>,
}

impl Raw {
    /// The server, if WireGuard by IPv4 reaches it.
    fn server(self) -> Option<Server> {
        let key = self.wgpubkey?.0;
        // A server of both protocols stands there twice, or once without the name of one.
        let wireguard = self.vpn.as_deref().is_none_or(|vpn| vpn != "openvpn");
        let ips = self.ips.unwrap_or_default().into_iter();
        let addresses: Vec<_> = ips
            .filter_map(|ip| match ip {
                IpAddr::V4(ip) => value::reachable(ip).ok(),
                IpAddr::V6(_) => None,
            })
            .collect();
        let text = |text: Option<String>| text.unwrap_or_default();
        let flag = |flag: Option<bool>| flag.unwrap_or_default();
        (wireguard && !addresses.is_empty()).then(|| Server {
            country: text(self.country),
            region: text(self.region),
            city: text(self.city),
            hostname: text(self.hostname),
            name: text(self.server_name),
            number: self.number.map(|n| n.to_string()).unwrap_or_default(),
            isp: text(self.isp),
            categories: self.categories.unwrap_or_default(),
            owned: flag(self.owned),
            free: flag(self.free),
            premium: flag(self.premium),
            stream: flag(self.stream),
            multihop: flag(self.multihop),
            port_forward: flag(self.port_forward),
            secure_core: flag(self.secure_core),
            tor: flag(self.tor),
            key,
            addresses,
        })
    }
}

/// A public key, as base64. Whether a private key can belong to it is asked of those that are chosen.
struct Key(PublicKey);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let key = PublicKey::from_base64(&text);
        key.map(Self)
            .ok_or_else(|| D::Error::custom("the key is not 32 bytes in base64"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIST: &str = include_str!("../tests/environments/servers.json");

    fn parse(text: &str) -> (Option<List>, Notes) {
        let mut notes = Notes::default();
        let list = read(Path::new("/l.json"), text, Provider::Mullvad, &mut notes);
        (list, notes)
    }

    #[test]
    fn servers_of_another_protocol_or_family_are_left_out() {
        let hosts: Vec<_> = parse(LIST)
            .0
            .unwrap()
            .servers
            .into_iter()
            .map(|it| it.hostname)
            .collect();
        assert_eq!(hosts.len(), 6);
        assert!(!hosts.contains(&"se-mma-ovpn-001".to_owned()), "{hosts:?}");
        let six = LIST.replace("\"203.0.113.13\"", "\"2001:db8::13\"");
        assert_eq!(parse(&six).0.unwrap().servers.len(), 5);
        let itself = LIST.replace("\"203.0.113.13\"", "\"127.0.0.1\"");
        assert_eq!(parse(&itself).0.unwrap().servers.len(), 5);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(?s).{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_list_with_one_part_replaced_is_read_or_refused_in_words(
            from in 0..LIST.len(),
            length in 0usize..40,
            part in "[\\[\\]{}\",:0-9a-zé\n]{0,20}",
        ) {
            let boundary = |mut at: usize| {
                while !LIST.is_char_boundary(at) {
                    at -= 1;
                }
                at
            };
            let (from, to) = (boundary(from), boundary((from + length).min(LIST.len())));
            let text = format!("{}{part}{}", &LIST[..from], &LIST[to..]);
            let (list, mut notes) = parse(&text);
            let (errors, _) = notes.drain();
            prop_assert_eq!(list.is_none(), errors.len() == 1);
            for error in errors {
                prop_assert!(error.to_string().contains("/l.json"));
            }
            for server in list.into_iter().flat_map(|list| list.servers) {
                prop_assert!(!server.addresses.is_empty());
            }
        }
    }
}
