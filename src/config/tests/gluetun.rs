//! A compose file that was written for gluetun.

use super::*;

/// The environment that gluetun's wiki shows for a custom WireGuard provider (setup/providers/custom.md),
/// with the quotes that a list of compose keeps, and variables that users add to it.
const COMPOSE: [(&str, &str); 18] = [
    ("VPN_SERVICE_PROVIDER", "custom"),
    ("VPN_TYPE", "wireguard"),
    ("WIREGUARD_ENDPOINT_IP", "203.0.113.7"),
    ("WIREGUARD_ENDPOINT_PORT", "51820"),
    ("WIREGUARD_PUBLIC_KEY", PUBLIC),
    ("WIREGUARD_PRIVATE_KEY", PRIVATE),
    ("WIREGUARD_PRESHARED_KEY", PRESHARED),
    ("WIREGUARD_ADDRESSES", "\"10.64.222.21/32\""),
    ("WIREGUARD_MTU", "1380"),
    ("WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL", "25s"),
    ("FIREWALL_VPN_INPUT_PORTS", "6881,6882"),
    ("DNS_ADDRESS", "10.64.0.1"),
    ("HTTPPROXY", "off"),
    ("SHADOWSOCKS", "off"),
    ("VPN_PORT_FORWARDING", "off"),
    ("WIREGUARD_ADDRESS", ""),
    ("TZ", "Europe/Berlin"),
    ("UPDATER_PERIOD", "0"),
];

/// The environment above with these changed or added, and nothing but variables.
fn compose(changed: &[(&str, &str)]) -> Result<Loaded, Errors> {
    let all = COMPOSE.iter().chain(changed);
    let environment = all
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let sources = Sources {
        environment,
        ..Sources::default()
    };
    load(&sources, &|path| match path.to_str() {
        Some("/run/secrets/key") => Ok(format!("{PRESHARED}\n")),
        Some(_) | None => Err(io::ErrorKind::NotFound.into()),
    })
}

fn source<'a>(loaded: &'a Loaded, key: &str) -> (&'a str, &'a str) {
    let found = loaded.origins.iter().find(|origin| origin.key == key);
    found
        .map(|origin| (origin.value.as_str(), origin.source.as_str()))
        .unwrap()
}

fn warnings(changed: &[(&str, &str)]) -> String {
    let loaded = compose(changed).unwrap();
    loaded.warnings.iter().map(Diagnostic::to_string).collect()
}

#[test]
fn a_whole_environment_for_gluetun_is_a_configuration() {
    let loaded = compose(&[]).unwrap();
    assert_eq!(loaded.warnings, []);
    for (key, value, from) in [
        ("wireguard.private_key", "(secret)", "WIREGUARD_PRIVATE_KEY"),
        (
            "wireguard.address",
            "10.64.222.21/32",
            "WIREGUARD_ADDRESSES",
        ),
        ("wireguard.dns", "10.64.0.1", "DNS_ADDRESS"),
        (
            "wireguard.peers[0].public_key",
            PUBLIC,
            "WIREGUARD_PUBLIC_KEY",
        ),
        (
            "wireguard.peers[0].preshared_key",
            "(secret)",
            "WIREGUARD_PRESHARED_KEY",
        ),
        (
            "wireguard.peers[0].endpoint",
            "203.0.113.7:51820",
            "WIREGUARD_ENDPOINT_IP and WIREGUARD_ENDPOINT_PORT",
        ),
        (
            "wireguard.peers[0].persistent_keepalive",
            "25",
            "WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL",
        ),
        ("tunnel.mtu", "1380", "WIREGUARD_MTU"),
        ("forward.ports", "6881, 6882", "FIREWALL_VPN_INPUT_PORTS"),
    ] {
        let from = format!("variable {from}");
        assert_eq!(source(&loaded, key), (value, from.as_str()), "{key}");
    }
    let config = loaded.config;
    assert_eq!(
        config.tunnel.private_key,
        Secret::from_base64(PRIVATE).unwrap()
    );
    assert_eq!(
        config.peers[0].preshared_key,
        Some(Secret::from_base64(PRESHARED).unwrap())
    );
    assert_eq!(config.lan, Lan::default());
}

#[test]
fn the_wikis_environment_alone_has_a_public_resolver_in_the_tunnel() {
    let added = COMPOSE[8..].iter().map(|(name, _)| (*name, ""));
    let loaded = compose(&added.collect::<Vec<_>>()).unwrap();
    assert_eq!(loaded.warnings, []);
    let notices: String = loaded.notices.iter().map(Diagnostic::to_string).collect();
    assert_eq!(
        notices,
        "names are looked up by 9.9.9.9 and 1.1.1.1 through the tunnel, since no resolver is named\n  \
         = name the provider's own, and nobody else sees them: `DNS = …` in its file, DNS_ADDRESS or VPNGW_WIREGUARD_DNS\n"
    );
    assert_eq!(
        source(&loaded, "wireguard.dns"),
        ("9.9.9.9, 1.1.1.1", "default")
    );
}

#[test]
fn a_variable_of_ours_wins_with_a_warning() {
    let loaded = compose(&[
        ("VPNGW_TUNNEL_MTU", "1280"),
        ("VPNGW_WIREGUARD_ENDPOINT", "vpn.example.com:443"),
        ("VPNGW_WIREGUARD_PRIVATE_KEY_FILE", "/run/secrets/key"),
    ])
    .unwrap();
    assert_eq!(loaded.config.tunnel.mtu, 1280);
    assert_eq!(loaded.config.peers[0].endpoint.port, 443);
    assert_eq!(
        source(&loaded, "wireguard.private_key").1,
        "variable VPNGW_WIREGUARD_PRIVATE_KEY_FILE"
    );
    let text: Vec<_> = loaded.warnings.iter().map(Diagnostic::to_string).collect();
    assert_eq!(text.len(), 4, "{text:?}");
    let mtu = "variable WIREGUARD_MTU: `VPNGW_TUNNEL_MTU` is set too, and wins\n  = unset one of the two\n";
    assert!(text.iter().any(|one| one == mtu), "{text:?}");
}

#[test]
fn a_newer_name_wins_over_an_older_one_and_a_secret_file_over_a_variable() {
    let file = ("WIREGUARD_PRIVATE_KEY_SECRETFILE", "/run/secrets/key");
    let changed = [("VPN_ENDPOINT_IP", "198.51.100.9"), file];
    let loaded = compose(&changed).unwrap();
    assert_eq!(
        loaded.config.tunnel.private_key,
        Secret::from_base64(PRESHARED).unwrap()
    );
    let text = warnings(&changed);
    assert!(
        text.contains("VPN_ENDPOINT_IP: `WIREGUARD_ENDPOINT_IP` is set too, and wins"),
        "{text}"
    );
    assert!(
        text.contains("WIREGUARD_PRIVATE_KEY: `WIREGUARD_PRIVATE_KEY_SECRETFILE` is set too"),
        "{text}"
    );
    let older = [
        ("WIREGUARD_ENDPOINT_IP", ""),
        ("WIREGUARD_ENDPOINT_PORT", ""),
        ("VPN_ENDPOINT_IP", "198.51.100.9"),
        ("VPN_ENDPOINT_PORT", "443"),
    ];
    let loaded = compose(&older).unwrap();
    assert_eq!(
        source(&loaded, "wireguard.peers[0].endpoint"),
        (
            "198.51.100.9:443",
            "variable VPN_ENDPOINT_IP and VPN_ENDPOINT_PORT"
        )
    );
}

#[test]
fn what_gluetun_opens_wide_is_not_opened_and_the_line_to_write_is_said() {
    let changed = [
        ("FIREWALL_INPUT_PORTS", "8080, 9091,32400"),
        ("FIREWALL_OUTBOUND_SUBNETS", "192.168.178.0/24,10.0.0.0/8"),
    ];
    assert_eq!(compose(&changed).unwrap().config.lan, Lan::default());
    let text = warnings(&changed);
    for line in [
        "variable FIREWALL_INPUT_PORTS: nothing is opened by it",
        "`VPNGW_LAN_INBOUND=tcp/8080,tcp/9091,tcp/32400`",
        "variable FIREWALL_OUTBOUND_SUBNETS: nothing is opened by it",
        "`VPNGW_LAN_OUTBOUND=192.168.178.20=tcp/445`",
        "`VPNGW_LAN_INBOUND=192.168.178.0/24=tcp/8080,10.0.0.0/8=tcp/8080`",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    // What is said is right.
    let followed = compose(&[
        (
            "VPNGW_LAN_INBOUND",
            "192.168.1.0/24=tcp/8080,192.168.1.0/24=tcp/9091",
        ),
        ("VPNGW_LAN_OUTBOUND", "192.168.178.20=tcp/445"),
    ]);
    let lan = followed.unwrap().config.lan;
    assert_eq!((lan.inbound.len(), lan.outbound.len()), (2, 1));
}

#[test]
fn what_is_not_done_is_said() {
    let text = warnings(&[
        ("HTTPPROXY", "on"),
        ("SHADOWSOCKS", "on"),
        ("VPN_PORT_FORWARDING", "on"),
        ("UPDATER_PERIOD", "24h"),
    ]);
    for line in [
        "variable HTTPPROXY: vpngw has no HTTP proxy",
        "variable SHADOWSOCKS: vpngw has no Shadowsocks proxy",
        "variable VPN_PORT_FORWARDING: vpngw asks no provider for a port",
        "variable UPDATER_PERIOD: vpngw renews no list of servers",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn another_provider_and_another_protocol_are_errors_beside_all_others() {
    let text = errors(compose(&[
        ("VPN_SERVICE_PROVIDER", "expressvpn"),
        ("VPN_TYPE", "openvpn"),
        ("WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL", "soon"),
        ("WIREGUARD_ENDPOINT_PORT", "none"),
        ("WIREGUARD_ADDRESSES", "10.64.0.300"),
        ("WIREGUARD_PRIVATE_KEY_SECRETFILE", "/run/secrets/none"),
    ]));
    for line in [
        "variable VPN_SERVICE_PROVIDER: `expressvpn` is not a provider whose servers are known",
        "set it to `custom`",
        "variable VPN_TYPE: `openvpn` is not supported",
        "variable WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL: `soon` is not a duration",
        "variable WIREGUARD_ENDPOINT_PORT: `none` is not a port",
        "variable WIREGUARD_ADDRESSES: `10.64.0.300` is not an address",
        "variable WIREGUARD_PRIVATE_KEY_SECRETFILE: `/run/secrets/none` cannot be read",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("has no private key"), "{text}");
    assert!(!text.contains("has no endpoint"), "{text}");
}

#[test]
fn an_address_without_a_port_is_half_an_endpoint() {
    let text = errors(compose(&[("WIREGUARD_ENDPOINT_PORT", "")]));
    let wanted = "variable WIREGUARD_ENDPOINT_IP: the server's port is missing\n  = set WIREGUARD_ENDPOINT_PORT too";
    assert!(text.contains(wanted), "{text}");
    assert!(!text.contains("has no endpoint"), "{text}");
}

#[test]
fn a_port_alone_changes_nothing_of_a_file_and_other_variables_do() {
    let port = [("WIREGUARD_ENDPOINT_PORT", "443")];
    let text = errors(load_from(&[("/c/wg0.conf", WG)], &port));
    assert!(text.contains("the server's address is missing"), "{text}");
    let mtu = [("WIREGUARD_MTU", "1300"), ("VPN_INTERFACE", "wg9")];
    let config = load_from(&[("/c/wg0.conf", WG)], &mtu).unwrap().config;
    assert_eq!(config.tunnel.mtu, 1300);
    assert_eq!(config.tunnel.device.as_str(), "wg9");
}

#[test]
fn what_was_gluetuns_default_asks_for_nothing() {
    let changed = [
        ("DNS_ADDRESS", "127.0.0.1"),
        ("DNS_UPSTREAM_RESOLVER_TYPE", "DoT"),
        ("BLOCK_MALICIOUS", "on"),
        ("HEALTH_SERVER_ADDRESS", "127.0.0.1:9999"),
        ("HTTP_CONTROL_SERVER_ADDRESS", ":8000"),
        ("WIREGUARD_IMPLEMENTATION", "auto"),
        ("METRICS_TYPE", "noop"),
    ];
    assert_eq!(compose(&changed).unwrap().warnings, []);
    let other = changed.map(|(name, _)| (name, "something"));
    let text = warnings(&other[2..]);
    for (name, _) in &other[2..] {
        assert!(
            text.contains(&format!("variable {name}: ")),
            "{name}: {text}"
        );
    }
}

#[test]
fn names_that_anybody_may_use_are_gluetuns_only_beside_its_own() {
    let others = [
        ("COUNTRY", "Sweden"),
        ("CITY", "Malmö"),
        ("LOG_LEVEL", "debug"),
        ("OWNED", "maybe"),
    ];
    let loaded = load_from(&[("/c/wg0.conf", WG)], &others).unwrap();
    assert_eq!((loaded.warnings, loaded.notices), (vec![], vec![]));
    assert_eq!(loaded.config.log.level, LogLevel::Info);
}
