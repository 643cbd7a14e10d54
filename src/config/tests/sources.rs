//! Environment over file over default, and where each value came from.

use super::*;

fn origin<'a>(loaded: &'a Loaded, key: &str) -> (&'a str, &'a str) {
    let found = loaded.origins.iter().find(|origin| origin.key == key);
    found
        .map(|origin| (origin.value.as_str(), origin.source.as_str()))
        .unwrap()
}

#[test]
fn a_wg_quick_file_alone_is_a_configuration() {
    let loaded = load_from(&[("/etc/wireguard/wg0.conf", WG)], &[]).unwrap();
    assert_eq!(loaded.config.peers.len(), 1);
    assert_eq!(loaded.warnings, []);
    assert_eq!(
        origin(&loaded, "wireguard.private_key"),
        ("(secret)", "/etc/wireguard/wg0.conf:2")
    );
    assert_eq!(origin(&loaded, "tunnel.mtu"), ("1420", "default"));
    assert_eq!(
        origin(&loaded, "wireguard.peers[0].endpoint"),
        ("203.0.113.7:51820", "/etc/wireguard/wg0.conf:9")
    );
}

#[test]
fn a_wg_quick_file_is_known_by_what_is_in_it() {
    assert!(load_from(&[("/run/secrets/vpn", WG)], &[]).is_ok());
    let commented = format!("\u{feff}# mine\r\n\r\n{WG}");
    assert!(load_from(&[("/run/secrets/vpn.toml", &commented)], &[]).is_ok());
}

#[test]
fn a_variable_wins_over_the_file_and_the_file_over_the_default() {
    let files = [
        ("/c/vpngw.toml", "[tunnel]\nmtu = 1300\noffload = \"off\"\n"),
        ("/c/wg0.conf", WG),
    ];
    let loaded = load_from(&files, &[("VPNGW_TUNNEL_MTU", "1280")]).unwrap();
    assert_eq!(loaded.config.tunnel.mtu, 1280);
    assert_eq!(
        origin(&loaded, "tunnel.mtu"),
        ("1280", "variable VPNGW_TUNNEL_MTU")
    );
    assert_eq!(
        origin(&loaded, "tunnel.offload"),
        ("off", "/c/vpngw.toml:3")
    );
    assert_eq!(origin(&loaded, "log.level"), ("info", "default"));
}

#[test]
fn the_files_mtu_is_between_vpngw_toml_and_the_default() {
    let wg = WG.replace("DNS", "MTU = 1380\nDNS");
    let mtu = |toml: &str| {
        let files = [("/c/vpngw.toml", toml), ("/c/wg0.conf", &wg)];
        load_from(&files, &[]).unwrap().config.tunnel.mtu
    };
    assert_eq!(mtu(""), 1380);
    assert_eq!(mtu("[tunnel]\nmtu = 1300\n"), 1300);
}

#[test]
fn lists_and_pairs_are_divided_by_commas_in_variables() {
    let variables = [
        (
            "VPNGW_LAN_INBOUND",
            "192.168.1.0/24=tcp/8080, 192.168.1.7 = udp/27015",
        ),
        ("VPNGW_LAN_OUTBOUND", "192.168.1.20=tcp/445"),
        ("VPNGW_FORWARD_PORTS", "6881,6882,6881"),
        ("VPNGW_TUNNEL_PRIVATE", "10.0.0.0/24"),
        ("VPNGW_UPLINK_RESOLVER", "9.9.9.9"),
        ("VPNGW_CONFIG", "belongs to the command line"),
        ("VPNGW_SOCKET", "so does this"),
        ("HOME", "/root"),
    ];
    let config = load_from(&[("/c/wg0.conf", WG)], &variables)
        .unwrap()
        .config;
    let inbound: Vec<_> = config
        .lan
        .inbound
        .iter()
        .map(|one| format!("{} {}", one.from(), one.to()))
        .collect();
    assert_eq!(
        inbound,
        ["192.168.1.0/24 tcp/8080", "192.168.1.7/32 udp/27015"]
    );
    assert_eq!(config.lan.outbound[0].port().to_string(), "tcp/445");
    assert_eq!(config.forward, [6881, 6882]);
    assert_eq!(config.resolver, Some(Ipv4Addr::new(9, 9, 9, 9)));
}

#[test]
fn variables_alone_make_a_tunnel() {
    let variables = [
        ("VPNGW_WIREGUARD_PRIVATE_KEY_FILE", "/run/secrets/key"),
        ("VPNGW_WIREGUARD_PUBLIC_KEY", PUBLIC),
        ("VPNGW_WIREGUARD_ADDRESSES", "10.64.0.2/32,fd00::2/128"),
        ("VPNGW_WIREGUARD_ENDPOINT", "vpn.example.com:51820"),
        ("VPNGW_WIREGUARD_DNS", "10.64.0.1"),
    ];
    // The first file is not the configuration here, so it is read as a secret only.
    let key = format!("{PRIVATE}\n");
    let environment = variables.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    let sources = Sources {
        environment,
        ..Sources::default()
    };
    let loaded = load(&sources, &|_| Ok(key.clone())).unwrap();
    assert_eq!(
        loaded.config.tunnel.private_key,
        Secret::from_base64(PRIVATE).unwrap()
    );
    assert_eq!(
        origin(&loaded, "wireguard.private_key"),
        ("(secret)", "variable VPNGW_WIREGUARD_PRIVATE_KEY_FILE")
    );
    assert_eq!(
        origin(&loaded, "wireguard.peers[0].allowed_ips"),
        ("0.0.0.0/0", "default")
    );
    assert_eq!(loaded.warnings.len(), 1, "the IPv6 address");
}

#[test]
fn a_variable_changes_the_only_peer_of_a_file() {
    let endpoint = ("VPNGW_WIREGUARD_ENDPOINT", "198.51.100.9:443");
    let config = load_from(&[("/c/wg0.conf", WG)], &[endpoint])
        .unwrap()
        .config;
    assert_eq!(config.peers[0].endpoint.port, 443);
    assert_eq!(config.peers[0].public_key.to_string(), PUBLIC);
    let peer = &WG[WG.find("[Peer]").unwrap()..];
    let text = errors(load_from(
        &[("/c/wg0.conf", &format!("{WG}{peer}"))],
        &[endpoint],
    ));
    assert!(text.contains("which of the 2 peers"), "{text}");
}

#[test]
fn a_peer_of_variables_does_not_inherit_the_preshared_key_of_another_server() {
    let wg = format!("{WG}PresharedKey = {PRESHARED}\n");
    let variables = [
        (
            "VPNGW_WIREGUARD_PUBLIC_KEY",
            "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=",
        ),
        ("VPNGW_WIREGUARD_ENDPOINT", "198.51.100.9:443"),
    ];
    let config = load_from(&[("/c/wg0.conf", &wg)], &variables)
        .unwrap()
        .config;
    assert_eq!(config.peers.len(), 1);
    assert_eq!(config.peers[0].preshared_key, None);
}

#[test]
fn an_inline_tunnel_is_as_good_as_a_file() {
    let toml = format!(
        "[wireguard]\nprivate_key = \"{PRIVATE}\"\naddress = \"10.64.0.2/32\"\ndns = [\"10.64.0.1\"]\n\
         [[wireguard.peers]]\npublic_key = \"{PUBLIC}\"\nallowed_ips = [\"0.0.0.0/0\"]\n\
         endpoint = \"203.0.113.7:51820\"\n"
    );
    let inline = load_from(&[("/c/vpngw.toml", &toml)], &[]).unwrap();
    assert_eq!(
        inline.config,
        load_from(&[("/c/wg0.conf", WG)], &[]).unwrap().config
    );
}

#[test]
fn a_relative_path_is_relative_to_the_file_that_holds_it() {
    let files = [
        ("/c/vpngw.toml", "wireguard = \"keys/a.conf\"\n"),
        ("/c/keys/a.conf", WG),
    ];
    let loaded = load_from(&files, &[]).unwrap();
    assert_eq!(
        origin(&loaded, "wireguard"),
        ("/c/keys/a.conf", "/c/vpngw.toml:1")
    );
    let variable = [("VPNGW_WIREGUARD", "/elsewhere.conf")];
    let text = errors(load_from(&files, &variable));
    assert!(
        text.contains("variable VPNGW_WIREGUARD: `/elsewhere.conf` cannot be read"),
        "{text}"
    );
}

#[test]
fn a_file_that_is_not_there_is_named_once() {
    let sources = Sources {
        file: Some("/c/vpngw.toml".into()),
        ..Sources::default()
    };
    let text = errors(load(&sources, &|_| Err(io::ErrorKind::NotFound.into())));
    assert!(
        text.starts_with("/c/vpngw.toml: it cannot be read: "),
        "{text}"
    );
    assert_eq!(text.matches("/c/vpngw.toml").count(), 1, "{text}");
}
