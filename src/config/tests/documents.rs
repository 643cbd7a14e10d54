//! What the documents and the profiles say of gluetun's variables is true.

use super::environments::surroundings;
use super::*;
use crate::config::gluetun::names;

const FROM_GLUETUN: &str = include_str!("../../../docs/from-gluetun.md");

const PROVIDER: &str = include_str!("../../../profiles/gluetun/provider.yaml");
const CUSTOM: &str = include_str!("../../../profiles/gluetun/custom.yaml");
const WG0: &str = include_str!("../../../profiles/gluetun/wg0.yaml");

#[test]
fn the_documentation_has_the_table_of_the_code() {
    let begin = "<!-- generated: the table of src/config/gluetun -->\n";
    let end = "<!-- end -->";
    let (_, rest) = FROM_GLUETUN.split_once(begin).unwrap();
    let (table, _) = rest.split_once(end).unwrap();
    let made = from_gluetun();
    assert!(
        table == made,
        "docs/from-gluetun.md has another table; between its markers belongs:\n{made}"
    );
}

#[test]
fn each_variable_stands_in_one_row() {
    let mut seen = std::collections::BTreeSet::new();
    for name in names() {
        assert!(seen.insert(name), "{name} has two rows");
    }
    assert!(seen.len() > 150, "{}", seen.len());
}

/// The environment of the first service of a compose file, in either form.
fn environment(compose: &str) -> Vec<(&str, &str)> {
    let (_, rest) = compose.split_once("    environment:\n").unwrap();
    let lines = rest.lines().take_while(|line| line.starts_with("      "));
    lines
        .map(|line| {
            let line = line.trim().trim_start_matches("- ");
            let pair = line.split_once(": ").or_else(|| line.split_once('='));
            pair.unwrap()
        })
        .collect()
}

#[test]
fn compose_files_for_gluetun_are_configurations_as_they_stand() {
    let none: &[(&str, &str)] = &[];
    let conf = [("/gluetun/wireguard/wg0.conf", WG)];
    for (compose, files, servers, resolver) in [
        (
            PROVIDER,
            none,
            vec!["203.0.113.11", "203.0.113.14"],
            "10.64.0.1",
        ),
        (CUSTOM, none, vec!["203.0.113.7"], "9.9.9.9"),
        (WG0, &conf[..], vec!["203.0.113.7"], "10.64.0.1"),
    ] {
        assert_eq!(compose.matches("was: qmcgaw/gluetun").count(), 1);
        assert_eq!(compose.matches("VPNGW_").count(), 1, "in the comment");
        let sources = sources(files, &environment(compose));
        let read = |path: &Path| {
            let file = files.iter().find(|(file, _)| Path::new(file) == path);
            let text = file.map(|(_, text)| (*text).to_owned());
            text.ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        let config = load(&sources, &read).unwrap().config;
        let first = config.tunnel.resolvers()[0].to_string();
        assert_eq!(first, resolver);
        let addresses = config.peers.iter().map(|peer| match &peer.endpoint.host {
            Host::Address(address) => address.to_string(),
            Host::Name(name) => name.clone(),
        });
        let mut addresses: Vec<_> = addresses.collect();
        addresses.sort();
        assert_eq!(addresses, servers);
    }
}

/// Nothing is named on the command line; files are found at the usual places.
fn sources(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Sources {
    let exists = |path: &Path| files.iter().any(|(file, _)| Path::new(file) == path);
    let found = search::search(None, &exists, &|_| Vec::new());
    let text = |text: &&str| (*text).to_owned();
    let each = variables.iter();
    let environment = each
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    Sources::new(found, environment, surroundings())
}
