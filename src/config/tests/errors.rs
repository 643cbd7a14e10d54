//! What is refused, and how it is said.

use proptest::prelude::*;

use super::*;
use crate::net::networks::METADATA;

/// Each configuration with the start of the one error it leads to.
fn assert_each(cases: &[(&str, &str)]) {
    for (toml, expected) in cases {
        let errors = load_toml(toml).unwrap_err();
        let text = errors.to_string();
        assert_eq!(errors.diagnostics().len(), 1, "{toml}\n{text}");
        assert!(
            text.starts_with(&format!("/c/vpngw.toml:{expected}")),
            "{toml}\n{text}"
        );
    }
}

/// A tunnel that differs from [`WG`], and a part of the one error it leads to.
fn assert_tunnel(from: &str, to: &str, expected: &str) {
    assert!(WG.contains(from), "{from}");
    let errors = load_from(&[("/wg0.conf", &WG.replace(from, to))], &[]).unwrap_err();
    let text = errors.to_string();
    assert_eq!(errors.diagnostics().len(), 1, "{to}\n{text}");
    assert!(text.contains(expected), "{to}\n{text}");
}

#[test]
fn an_error_shows_the_line_and_what_would_be_right() {
    let toml = "[lan]\ninbound = [{ from = \"192.168.1.5/24\", to = \"tcp/8080\" }]\n";
    insta::assert_snapshot!(errors(load_toml(toml)), @r#"
    /c/vpngw.toml:2:21: lan.inbound: `192.168.1.5/24` is a host in a network, not the network
      |
    2 | inbound = [{ from = "192.168.1.5/24", to = "tcp/8080" }]
      |                     ^^^^^^^^^^^^^^^^
      = write `192.168.1.0/24` for the network, `192.168.1.5/32` for the host
    "#);
}

#[test]
fn more_exceptions_than_the_kernel_is_given_are_refused_in_words() {
    let toml = |count: usize| {
        let one = "{ to = \"172.31.0.1\", port = \"tcp/445\" },".to_owned();
        format!("[lan]\noutbound = [{}]\n", one.repeat(count))
    };
    load_toml(&toml(16_384)).unwrap();
    let errors = load_toml(&toml(16_385)).unwrap_err();
    let [error] = errors.diagnostics() else {
        panic!("{errors}");
    };
    assert_eq!(error.place.key(), "lan.outbound");
    assert_eq!(
        error.wrong,
        "there are 16385 LAN exceptions, and 16384 is the most"
    );
}

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_their_lines() {
    let toml =
        "[log]\nlevel = \"loud\"\nfromat = \"text\"\n[tunnel]\nmtu = 1\ndevice = \"\"\n[nat]\n";
    let errors = load_from(&[("/c/vpngw.toml", toml)], &[("VPNGW_TUNEL_MTU", "1")]).unwrap_err();
    let places: Vec<_> = errors
        .diagnostics()
        .iter()
        .map(|one| one.place.to_string())
        .collect();
    let lines = ["2:9", "3:1", "5:7", "6:10", "7:2"].map(|at| format!("/c/vpngw.toml:{at}"));
    assert_eq!(places[..5], lines);
    assert_eq!(
        places[5..],
        ["variable VPNGW_TUNEL_MTU", "default"],
        "{errors}"
    );
}

#[test]
fn unknown_names_are_errors_that_know_their_neighbour() {
    assert_each(&[
        (
            "[tunel]\nmtu = 1420\n",
            "2:1: tunel.mtu: there is no such key\n",
        ),
        (
            "[uplink]\nresolvr = \"9.9.9.9\"\n",
            "2:1: uplink.resolvr: there is no such key\n",
        ),
        ("verbose = true\n", "1:1: verbose: there is no such key\n"),
        (
            "[lan]\ninbound = [{ form = \"10.0.0.0/8\" , from = \"192.168.0.0/24\", to = \"tcp/1\" }]\n",
            "2:14: lan.inbound.form: there is no such key\n",
        ),
    ]);
    let near = [
        ("VPNGW_TUNEL_MTU", "did you mean `VPNGW_TUNNEL_MTU`?"),
        (
            "VPNGW_WIREGUARD_PRIVATEKEY_FILE",
            "did you mean `VPNGW_WIREGUARD_PRIVATE_KEY_FILE`?",
        ),
        ("VPNGW_SERVICE_HOST", "enableServiceLinks"),
        ("VPNGW_COLOUR", "profiles/reference.toml"),
    ];
    for (name, expected) in near {
        let text = errors(load_from(&[("/wg0.conf", WG)], &[(name, "x")]));
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_an_error() {
    assert_each(&[
        (
            "[tunnel]\nmtu = \"1420\"\n",
            "2:7: tunnel.mtu: this is of type string",
        ),
        (
            "[log]\nlevel = 3\n",
            "2:9: log.level: this is of type integer",
        ),
        (
            "[forward]\nports = 6881\n",
            "2:9: forward.ports: this is of type integer",
        ),
        (
            "[forward]\nports = [1, \"2\"]\n",
            "2:13: forward.ports: this is of type string",
        ),
        (
            "[lan]\ninbound = [\"192.168.1.0/24\"]\n",
            "2:12: lan.inbound: this is of type string",
        ),
        (
            "[lan]\ninbound = [{ from = \"10.9.0.0/24\" }]\n",
            "2:12: lan.inbound: `to` is missing",
        ),
        ("tunnel = 3\n", "1:10: tunnel: this is of type integer"),
        (
            "wireguard = 3\n",
            "1:13: wireguard: this is of type integer",
        ),
        ("[tunnel\n", "1:8: unclosed table"),
    ]);
}

#[test]
fn a_lan_exception_stays_on_the_lan() {
    let inbound =
        |from: &str| format!("[lan]\ninbound = [{{ from = \"{from}\", to = \"tcp/1\" }}]\n");
    let cases = [
        ("0.0.0.0/0", "`0.0.0.0/0` is wider than any private network"),
        ("192.0.0.0/7", "wider than any private network"),
        ("203.0.113.0/24", "not on a private network"),
        ("192.168.0.0/15", "not on a private network"),
        ("224.0.0.0/24", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("169.254.169.254", "metadata address"),
        ("100.100.100.200/32", "metadata address"),
        ("169.254.170.2", "metadata address"),
        ("fd00::/8", "IPv6"),
        (
            "10.64.0.0/24",
            "overlaps the tunnel's address `10.64.0.2` (/c/wg0.conf:3)",
        ),
        (
            "10.64.0.1",
            "overlaps the tunnel's resolver `10.64.0.1` (/c/wg0.conf:4)",
        ),
    ];
    for (from, expected) in cases {
        let text = errors(load_toml(&inbound(from)));
        assert!(text.contains("/c/vpngw.toml:2:21: lan.inbound: "), "{text}");
        assert!(text.contains(expected), "{from}: {text}");
    }
    for good in [
        "192.168.1.0/24",
        "172.16.0.0/12",
        "100.64.0.0/16",
        "169.254.7.0/24",
    ] {
        assert_eq!(load_toml(&inbound(good)).unwrap().warnings, [], "{good}");
    }
    let warned = load_toml(&inbound("169.254.0.0/16")).unwrap().warnings;
    assert!(warned[0].wrong.contains("stays refused"));
}

#[test]
fn both_halves_of_an_exception_are_looked_at() {
    let toml = "[lan]\ninbound = [{ from = \"10.64.0.0/16\", to = \"tcp/99999\" }]\n\
        outbound = [{ to = \"a.lan\", port = \"udp/53\" }]\n";
    let found = load_toml(toml).unwrap_err();
    let lines: Vec<_> = found
        .diagnostics()
        .iter()
        .map(|one| one.place.line().unwrap())
        .collect();
    // The exception overlaps the tunnel's address and its resolver.
    assert_eq!(lines, [2, 2, 2, 3, 3], "{found}");
}

#[test]
fn an_outbound_exception_is_one_host_and_no_way_to_look_up_names() {
    let outbound = |to: &str, port: &str| {
        format!("[lan]\noutbound = [{{ to = \"{to}\", port = \"{port}\" }}]\n")
    };
    let hosts = [
        "192.168.1.0/24",
        "8.8.8.8",
        "127.0.0.1",
        "169.254.169.254",
        "10.64.0.2",
        "a.lan",
    ];
    for to in hosts {
        let text = errors(load_toml(&outbound(to, "tcp/445")));
        assert!(
            text.contains("/c/vpngw.toml:2:20: lan.outbound: "),
            "{to}: {text}"
        );
    }
    for port in [53, 137, 853, 1900, 5350, 5351, 5353, 5355] {
        for transport in ["tcp", "udp"] {
            let text = errors(load_toml(&outbound(
                "192.168.1.20",
                &format!("{transport}/{port}"),
            )));
            assert!(
                text.contains("which is refused on the LAN"),
                "{port}: {text}"
            );
        }
    }
    assert!(load_toml(&outbound("192.168.1.20", "tcp/445")).is_ok());
}

#[test]
fn a_server_and_the_resolver_of_its_name_are_outside_the_tunnel() {
    let at = |endpoint: &str, toml: &str| {
        let wg = WG
            .replace("203.0.113.7", endpoint)
            .replace("10.64.0.2/32", "10.64.0.2/16");
        load_from(&[("/c/vpngw.toml", toml), ("/c/wg0.conf", &wg)], &[])
    };
    insta::assert_snapshot!(errors(at("10.64.9.9", "")), @r"
    /c/wg0.conf:9:12: Endpoint: `10.64.9.9` is reached through the tunnel, because of the tunnel's address `10.64.0.2/16` (/c/wg0.conf:3)
      |
    9 | Endpoint = 10.64.9.9:51820
      |            ^^^^^^^^^^^^^^^
      = write the address that the server has outside the tunnel
    ");
    let resolver = "[uplink]\nresolver = \"10.64.0.1\"\n";
    insta::assert_snapshot!(errors(at("vpn.example.com", resolver)), @r#"
    /c/vpngw.toml:2:12: uplink.resolver: `10.64.0.1` is reached through the tunnel, because of the tunnel's address `10.64.0.2/16` (/c/wg0.conf:3)
      |
    2 | resolver = "10.64.0.1"
      |            ^^^^^^^^^^^
      = name a resolver outside the tunnel, such as the router
    "#);
    let private = "[tunnel]\nprivate = [\"10.99.0.0/24\"]\n";
    assert!(errors(at("10.99.0.7", private)).contains("private network"));
    // Nobody is asked for the address of a server that is known.
    assert!(at("203.0.113.7", resolver).is_ok());
    let text = errors(at("169.254.169.254", ""));
    assert!(text.contains("is a cloud's metadata address"), "{text}");
}

#[test]
fn only_the_sealed_topology_has_no_exceptions_for_udp() {
    let toml = "[lan]\ninbound = [{ from = \"172.30.0.0/24\", to = \"udp/27015\" }]\n\
        outbound = [{ to = \"172.30.0.20\", port = \"udp/514\" }]\n";
    assert!(load_toml(toml).is_ok());
    let sources = Sources {
        file: Some("/c/vpngw.toml".into()),
        ..Sources::default()
    };
    let warden = load_without_tunnel(&sources, &|_| Ok(toml.to_owned()));
    insta::assert_snapshot!(errors(warden), @r#"
    /c/vpngw.toml:2:43: lan.inbound: `udp/27015` is UDP, and the sealed topology hands over TCP connections only
      |
    2 | inbound = [{ from = "172.30.0.0/24", to = "udp/27015" }]
      |                                           ^^^^^^^^^^^
      = remove the exception, or use the shared topology

    /c/vpngw.toml:3:42: lan.outbound: `udp/514` is UDP, and the sealed topology hands over TCP connections only
      |
    3 | outbound = [{ to = "172.30.0.20", port = "udp/514" }]
      |                                          ^^^^^^^^^
      = remove the exception, or use the shared topology
    "#);
}

#[test]
fn a_lan_exception_does_not_hold_the_endpoint() {
    let wg = WG.replace("203.0.113.7", "192.168.1.9");
    let toml = "[lan]\ninbound = [{ from = \"192.168.1.0/24\", to = \"tcp/1\" }]\n";
    let text = errors(load_from(
        &[("/c/vpngw.toml", toml), ("/c/wg0.conf", &wg)],
        &[],
    ));
    assert!(
        text.contains("overlaps the endpoint `192.168.1.9` (/c/wg0.conf:9)"),
        "{text}"
    );
}

#[test]
fn nothing_of_ours_listens_inside_the_tunnel() {
    assert_each(&[
        (
            "[metrics]\nlisten = \"10.64.0.2:9586\"\n",
            "2:10: metrics.listen: `10.64.0.2` is our",
        ),
        (
            "[metrics]\nlisten = \"[::1]:9586\"\n",
            "2:10: metrics.listen: `[::1]:9586` is an IPv6",
        ),
        (
            "[metrics]\nlisten = \":9586\"\n",
            "2:10: metrics.listen: `:9586` is not an address",
        ),
        (
            "[forward]\nports = [9586]\n[metrics]\nlisten = \"0.0.0.0:9586\"\n",
            "2:10: forward.ports: ",
        ),
    ]);
}

#[test]
fn the_devices_are_two_and_real() {
    assert_each(&[
        (
            "[tunnel]\ndevice = \"lo\"\n",
            "2:10: tunnel.device: `lo` is not",
        ),
        (
            "[uplink]\ndevice = \"tun0\"\n",
            "2:10: uplink.device: `tun0` is the tunnel's own",
        ),
        (
            "[tunnel]\ndevice = \"a/b\"\n",
            "2:10: tunnel.device: `a/b` is not a device name",
        ),
        (
            "[tunnel]\ndevice = \"x\"\n[uplink]\ndevice = \"x\"\n",
            "2:10: tunnel.device: `x` is the uplink",
        ),
        (
            "[tunnel]\nprivate = [\"8.8.8.0/24\"]\n",
            "2:12: tunnel.private: `8.8.8.0/24` is not private",
        ),
        (
            "[control]\nsocket = \"vpngw.sock\"\n",
            "2:10: control.socket: ",
        ),
    ]);
}

#[test]
fn several_peers_are_alternatives_and_each_takes_everything() {
    let peer = &WG[WG.find("[Peer]").unwrap()..];
    let both = |allowed: &str| format!("{WG}{}", peer.replace("0.0.0.0/0", allowed));
    for good in ["0.0.0.0/0", "0.0.0.0/0, ::/0", "0.0.0.0/1, 128.0.0.0/1"] {
        assert_eq!(
            load_from(&[("/wg0.conf", &both(good))], &[])
                .unwrap()
                .config
                .peers
                .len(),
            2
        );
    }
    let text = errors(load_from(&[("/wg0.conf", &both("10.0.0.0/8"))], &[]));
    assert!(
        text.contains("/wg0.conf:12:14: AllowedIPs: several peers are alternatives"),
        "{text}"
    );
}

#[test]
fn what_a_tunnel_lacks_is_said() {
    assert_tunnel(
        "Address = 10.64.0.2/32\n",
        "",
        "the tunnel has no IPv4 address",
    );
    assert_tunnel(
        "10.64.0.2/32",
        "fd00::2/128",
        "the tunnel has no IPv4 address",
    );
    assert_tunnel(
        &WG[WG.find("[Peer]").unwrap()..],
        "",
        "the tunnel has no peer",
    );
    assert_tunnel(
        "Endpoint = 203.0.113.7:51820\n",
        "",
        "the peer has no endpoint",
    );
    assert_tunnel("0.0.0.0/0", "::/0", "the peer has no IPv4 AllowedIPs");
    assert_tunnel(
        &format!("PublicKey = {PUBLIC}\n"),
        "",
        "the peer has no public key",
    );
    assert_tunnel(
        &format!("PrivateKey = {PRIVATE}\n"),
        "",
        "the tunnel has no private key",
    );
    assert!(errors(load_from(&[], &[])).contains("no tunnel is configured"));
    assert!(errors(load_from(&[("/a.conf", "")], &[])).contains("no tunnel is configured"));
}

#[test]
fn an_endpoint_is_another_host() {
    assert_tunnel(
        "203.0.113.7:51820",
        "127.0.0.1:51820",
        "is this machine itself",
    );
    assert_tunnel("203.0.113.7:51820", "239.1.1.1:51820", "is multicast");
    assert_tunnel(
        "203.0.113.7:51820",
        "[2001:db8::1]:51820",
        "is an IPv6 endpoint",
    );
    assert_tunnel("203.0.113.7:51820", "203.0.113.7", "has no port");
}

#[test]
fn two_files_where_one_is_meant_are_an_error() {
    let files = [
        ("/c/vpngw.toml", ""),
        ("/config/wg_confs/a.conf", WG),
        ("/config/wg_confs/b.conf", WG),
    ];
    let text = errors(load_from(&files, &[]));
    assert!(
        text.contains("there is /config/wg_confs/b.conf too"),
        "{text}"
    );
    let named = [("VPNGW_WIREGUARD", "/config/wg_confs/b.conf")];
    assert!(load_from(&files, &named).is_ok());
    let twice = [("VPNGW_LOG_LEVEL", "info"), ("VPNGW_LOG_LEVEL_FILE", "/l")];
    let text = errors(load_from(&[("/wg0.conf", WG)], &twice));
    assert!(text.contains("`VPNGW_LOG_LEVEL` is set too"), "{text}");
}

proptest! {
    #[test]
    fn what_is_accepted_as_lan_is_private_and_apart_from_the_tunnel(
        first in prop_oneof![
            any::<u32>(),
            (0xc0a8_0000u32..0xc0a9_0000),
            (0x0a40_0000u32..0x0a41_0000),
            (0xac10_0000u32..0xac20_0000),
        ],
        prefix in 0u8..=32,
    ) {
        let network = Ipv4Network::new(first.into(), prefix).unwrap();
        let network = Ipv4Network::new(network.network(), prefix).unwrap();
        let toml = format!("[lan]\ninbound = [{{ from = \"{network}\", to = \"tcp/1\" }}]\n");
        let accepted = load_toml(&toml).is_ok();
        let ends = [network.network(), network.broadcast()];
        let carrier = |a: &Ipv4Addr| a.octets()[0] == 100 && a.octets()[1] & 0xc0 == 64;
        let local = |a: &Ipv4Addr| a.is_private() || a.is_link_local() || carrier(a);
        let inside = [[10, 64, 0, 1], [10, 64, 0, 2]].map(Ipv4Addr::from);
        let apart = inside.iter().all(|own| !network.contains(*own));
        let metadata = METADATA.contains(&network);
        let right = ends.iter().all(local) && apart && !metadata;
        prop_assert_eq!(accepted, right, "{}", network);
    }
}
