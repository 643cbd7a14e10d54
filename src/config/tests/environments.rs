//! Environments as compose files for gluetun have them, each with what becomes of it: servers, address and resolvers, or the
//! one error. The sample that they follow is of 52 public services; the keys, addresses and servers are made up.

use std::fmt::Write as _;

use super::*;
use crate::config::provider::{NoList, Provider, Surroundings};

const NAMED: &str = include_str!("environments/named.txt");
const OTHERS: &str = include_str!("environments/others.txt");

/// As gluetun writes it, on 2026-11-02.
pub(super) const LIST: &str = include_str!("environments/servers.json");

/// 2026-12-01.
const NOW: u64 = 1_796_083_200;

/// A folder that gluetun left a list in.
pub(super) fn surroundings() -> Surroundings {
    Surroundings {
        now: NOW,
        seed: 1,
        list: |path| match path.to_str() {
            Some("/gluetun/servers.json") => Ok(LIST.to_owned()),
            Some(_) | None => Err(NoList::Absent),
        },
    }
}

/// Loads from variables alone.
pub(super) fn load_variables(
    environment: &[(String, String)],
    surroundings: Surroundings,
) -> Result<Loaded, Errors> {
    let sources = Sources {
        environment: environment.iter().cloned().collect(),
        surroundings,
        ..Sources::default()
    };
    load(&sources, &|_| Err(io::ErrorKind::NotFound.into()))
}

/// Title and variables of each.
fn environments(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let with_keys = text
        .replace("{PRIVATE}", PRIVATE)
        .replace("{PUBLIC}", PUBLIC)
        .replace("{PRESHARED}", PRESHARED);
    let blocks = with_keys.split("\n\n").map(|block| {
        let (title, rest) = block.split_once('\n').unwrap();
        let pair = |line: &str| {
            let (name, value) = line.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        };
        let title = title.strip_prefix("# ").unwrap().to_owned();
        (title, rest.lines().map(pair).collect())
    });
    blocks.collect()
}

/// What becomes of each, in the words that the operator reads.
fn rendered(text: &str) -> String {
    let mut out = String::new();
    for (title, variables) in environments(text) {
        let loaded = load_variables(&variables, surroundings());
        writeln!(out, "# {title}").unwrap();
        match loaded {
            Ok(loaded) => accepted(&loaded, &mut out),
            Err(errors) => {
                let all = errors.diagnostics();
                assert_eq!(all.len(), 1, "one mistake, one error: {title}\n{errors}");
                write!(out, "error: {errors}").unwrap();
            }
        }
        out.push('\n');
    }
    out
}

fn accepted(loaded: &Loaded, out: &mut String) {
    let config = &loaded.config;
    for peer in &config.peers {
        let Host::Address(address) = peer.endpoint.host else {
            panic!("a list has addresses");
        };
        let name = peer.name.as_deref().unwrap_or("(no name)");
        writeln!(out, "server   {name} at {address}:{}", peer.endpoint.port).unwrap();
    }
    let join = |each: Vec<String>| each.join(", ");
    let addresses = config.tunnel.addresses.iter().map(ToString::to_string);
    writeln!(out, "address  {}", join(addresses.collect())).unwrap();
    let dns = config.tunnel.resolvers().iter().map(ToString::to_string);
    writeln!(out, "resolver {}", join(dns.collect())).unwrap();
    assert_eq!(config.lan, Lan::default(), "nothing is opened");
    for notice in &loaded.notices {
        writeln!(out, "note: {}", notice.to_string().trim_end()).unwrap();
    }
    for warning in &loaded.warnings {
        writeln!(out, "warning: {}", warning.to_string().trim_end()).unwrap();
    }
}

#[test]
fn environments_with_a_providers_name() {
    insta::assert_snapshot!("named", rendered(NAMED));
}

#[test]
fn environments_with_another_server() {
    insta::assert_snapshot!("others", rendered(OTHERS));
}

/// The variables of 52 public WireGuard services.
const SEEN: [&str; 55] = [
    "VPN_SERVICE_PROVIDER",
    "VPN_TYPE",
    "WIREGUARD_PRIVATE_KEY",
    "WIREGUARD_ADDRESSES",
    "TZ",
    "SERVER_COUNTRIES",
    "SERVER_CITIES",
    "FIREWALL_OUTBOUND_SUBNETS",
    "UPDATER_PERIOD",
    "WIREGUARD_PRESHARED_KEY",
    "HTTPPROXY",
    "WIREGUARD_PUBLIC_KEY",
    "VPN_PORT_FORWARDING",
    "FIREWALL_VPN_INPUT_PORTS",
    "DOT",
    "WIREGUARD_ENDPOINT_IP",
    "WIREGUARD_ENDPOINT_PORT",
    "VPN_ENDPOINT_PORT",
    "VPN_ENDPOINT_IP",
    "VPN_PORT_FORWARDING_UP_COMMAND",
    "HEALTH_VPN_DURATION_INITIAL",
    "WIREGUARD_MTU",
    "SHADOWSOCKS",
    "DNS_ADDRESS",
    "DNS_PLAINTEXT_ADDRESS",
    "DNS_KEEP_NAMESERVER",
    "DNS_SERVER",
    "DNS_UPSTREAM_RESOLVERS",
    "BLOCK_MALICIOUS",
    "BLOCK_ADS",
    "BLOCK_SURVEILLANCE",
    "FIREWALL_INPUT_PORTS",
    "HTTPPROXY_USER",
    "HTTPPROXY_PASSWORD",
    "HTTPPROXY_LOG",
    "SHADOWSOCKS_PASSWORD",
    "SHADOWSOCKS_LOG",
    "PORT_FORWARD_ONLY",
    "OWNED_ONLY",
    "FREE_ONLY",
    "SERVER_REGIONS",
    "SERVER_CATEGORIES",
    "PUID",
    "PGID",
    "HTTP_CONTROL_SERVER_ADDRESS",
    "LOG_LEVEL",
    "PUBLICIP_API",
    "HEALTH_TARGET_ADDRESSES",
    "WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL",
    "VPN_INTERFACE",
    "WIREGUARD_ADDRESS",
    "SERVER_HOSTNAMES",
    "SERVER_NAMES",
    "STREAM_ONLY",
    "SECURE_CORE_ONLY",
];

#[test]
fn the_sample_has_every_provider_and_every_variable_that_people_set() {
    let all: Vec<_> = [NAMED, OTHERS].into_iter().flat_map(environments).collect();
    assert!(all.len() >= 40, "{}", all.len());
    let set = |name: &str, value: Option<&str>| {
        let is = |(n, v): &(String, String)| {
            n == name && value.is_none_or(|wanted| v.eq_ignore_ascii_case(wanted))
        };
        all.iter().any(|(_, variables)| variables.iter().any(is))
    };
    for provider in Provider::ALL {
        assert!(
            set("VPN_SERVICE_PROVIDER", Some(provider.name())),
            "{provider}"
        );
    }
    for name in SEEN {
        assert!(set(name, None), "no environment sets {name}");
    }
}

#[test]
fn every_variable_of_the_sample_is_known() {
    for (title, variables) in [NAMED, OTHERS].into_iter().flat_map(environments) {
        for (name, _) in variables {
            assert!(is_read(&name), "{title}: {name}");
        }
    }
}
