//! `vpngw servers`: what the configuration's choice leaves of the provider's list.

use std::io;

use serde_json::json;

use super::exit::Code;
use crate::config::provider::Server;
use crate::config::{Errors, Servers};

/// Prints the servers that fit and returns 0; or prints what is wrong with the choice, and returns 2.
///
/// # Errors
///
/// Those of writing.
pub fn run(
    found: Result<Servers, Errors>,
    json: bool,
    out: &mut impl io::Write,
) -> io::Result<Code> {
    let mut found = match found {
        Ok(found) => found,
        Err(errors) => {
            for error in errors.diagnostics() {
                writeln!(out, "error: {error}")?;
            }
            return Ok(Code::Usage);
        }
    };
    let place = |server: &Server| {
        (
            server.country.clone(),
            server.city.clone(),
            server.hostname.clone(),
        )
    };
    found.servers.sort_by_key(place);
    if json {
        writeln!(out, "{:#}", json!(found))?;
        return Ok(Code::Ok);
    }
    table(&found, out)?;
    for warning in &found.warnings {
        write!(out, "\nwarning: {warning}")?;
    }
    Ok(Code::Ok)
}

fn table(found: &Servers, out: &mut impl io::Write) -> io::Result<()> {
    let head = ["COUNTRY", "CITY", "HOSTNAME", "NAME", "ADDRESS", "WHAT"].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(found.servers.iter().map(row));
    let shown = |column: usize| rows[1..].iter().any(|row| !row[column].is_empty());
    let columns: Vec<_> = (0..6).filter(|column| shown(*column)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    for row in &rows {
        let mut line = String::new();
        for column in &columns {
            let width = width(*column).unwrap_or_default() + 2;
            line.push_str(&format!("{:width$}", row[*column]));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    let age = match found.days_old {
        Some(1) => "1 day old".to_owned(),
        Some(days) => format!("{days} days old"),
        None => "of unknown age".to_owned(),
    };
    writeln!(
        out,
        "\n{} of the {} servers of {} in {} ({age}).",
        found.servers.len(),
        found.total,
        found.provider,
        found.list.display(),
    )
}

fn row(server: &Server) -> [String; 6] {
    let what = [
        ("owned", server.owned),
        ("free", server.free),
        ("premium", server.premium),
        ("streaming", server.stream),
        ("several hops", server.multihop),
        ("forwards ports", server.port_forward),
        ("secure core", server.secure_core),
        ("Tor", server.tor),
    ];
    let what: Vec<_> = what
        .iter()
        .filter(|(_, has)| *has)
        .map(|(name, _)| *name)
        .collect();
    let addresses: Vec<_> = server.addresses.iter().map(ToString::to_string).collect();
    let text = |text: &str| text.chars().filter(|c| !c.is_control()).collect();
    [
        text(&server.country),
        text(&server.city),
        text(&server.hostname),
        text(&server.name),
        addresses.join(", "),
        what.join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::provider::{NoList, Surroundings};
    use crate::config::{Sources, servers};

    const LIST: &str = include_str!("../config/tests/environments/servers.json");

    fn shown(variables: &[(&str, &str)], json: bool) -> (u8, String) {
        let each = variables.iter();
        let environment: BTreeMap<_, _> = each
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let surroundings = Surroundings {
            now: 1_796_083_200,
            seed: 7,
            list: |path| match path.to_str() {
                Some("/gluetun/servers.json") => Ok(LIST.to_owned()),
                Some(_) | None => Err(NoList::Absent),
            },
        };
        let sources = Sources {
            environment,
            surroundings,
            ..Sources::default()
        };
        let found = servers(&sources, &|_| Err(io::ErrorKind::NotFound.into()));
        let mut out = Vec::new();
        let code = run(found, json, &mut out).unwrap();
        (code as u8, String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_servers_of_a_choice_are_a_table() {
        let proton = [
            ("VPN_SERVICE_PROVIDER", "protonvpn"),
            ("SERVER_COUNTRIES", "Netherlands,Switzerland"),
        ];
        let (code, text) = shown(&proton, false);
        assert_eq!(code, 0);
        insta::assert_snapshot!(text, @r"
        COUNTRY      CITY       HOSTNAME                  NAME       ADDRESS        WHAT
        Netherlands  Amsterdam  node-nl-01.protonvpn.net  NL#1       198.51.100.21  streaming, forwards ports
        Netherlands  Amsterdam  node-nl-02.protonvpn.net  NL-FREE#2  198.51.100.22  free
        Switzerland  Zurich     node-ch-05.protonvpn.net  CH#5       198.51.100.23  streaming, forwards ports
        Switzerland  Zurich     node-ch-07.protonvpn.net  CH#7-TOR   198.51.100.25  Tor
        Switzerland  Zurich     se-ch-01.protonvpn.net    CH-SE#1    198.51.100.24  secure core

        5 of the 6 servers of protonvpn in /gluetun/servers.json (29 days old).
        ");
        let (_, text) = shown(
            &[
                ("VPN_SERVICE_PROVIDER", "windscribe"),
                ("SERVER_CITIES", "nowhere,Amsterdam Tulip"),
            ],
            false,
        );
        insta::assert_snapshot!(text, @r"
        CITY             HOSTNAME                  ADDRESS
        Amsterdam Tulip  nl-001.whiskergalaxy.com  192.0.2.61

        1 of the 2 servers of windscribe in /gluetun/servers.json (29 days old).

        warning: variable SERVER_CITIES: `nowhere` is none of the cities in the list
         |
         | SERVER_CITIES=nowhere,Amsterdam Tulip
         |               ^^^^^^^
          = the list has Amsterdam Tulip, New York Empire
        ");
    }

    #[test]
    fn for_programs_they_are_json() {
        let (_, text) = shown(
            &[
                ("VPN_SERVICE_PROVIDER", "ivpn"),
                ("SERVER_CITIES", "vienna"),
            ],
            true,
        );
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["provider"], "ivpn");
        assert_eq!(value["days_old"], 29);
        assert_eq!(value["total"], 2);
        assert_eq!(value["servers"][0]["hostname"], "at1.wg.ivpn.net");
        assert_eq!(value["servers"][0]["key"].as_str().map(str::len), Some(44));
        assert_eq!(value["servers"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn a_choice_that_leaves_nothing_is_wrong_usage() {
        let (code, text) = shown(
            &[
                ("VPN_SERVICE_PROVIDER", "mullvad"),
                ("SERVER_COUNTRIES", "Holland"),
            ],
            false,
        );
        assert_eq!(code, 2);
        insta::assert_snapshot!(text, @r"
        error: variable SERVER_COUNTRIES: `Holland` is none of the countries in the list
         |
         | SERVER_COUNTRIES=Holland
         |                  ^^^^^^^
          = the list has Netherlands, Sweden, Switzerland, USA
        ");
    }
}
