//! Ports that people publish: for whoever is in a private network.

use super::*;

fn inbound(variables: &[(&str, &str)]) -> Vec<String> {
    let loaded = load_from(&[("/c/wg0.conf", WG)], variables).unwrap();
    let inbound = loaded.config.lan.inbound.iter();
    inbound.map(ToString::to_string).collect()
}

#[test]
fn a_port_alone_is_for_every_private_network_but_the_tunnels() {
    let lines = inbound(&[("VPNGW_LAN_INBOUND", "tcp/8080")]);
    for network in [
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "10.0.0.0/10",
    ] {
        let line = format!("{{ from = \"{network}\", to = \"tcp/8080\" }}");
        assert!(lines.contains(&line), "{lines:#?}");
    }
    // Around 10.64.0.2 and 10.64.0.1 nothing.
    assert_eq!(lines.len(), 3 + 8, "{lines:#?}");
    assert_eq!(inbound(&[("VPNGW_LAN_INBOUND", "private=tcp/8080")]), lines);
    let toml = "[lan]\ninbound = [{ from = \"private\", to = \"tcp/8080\" }]";
    let loaded = load_toml(toml).unwrap();
    assert_eq!(loaded.config.lan.inbound.len(), lines.len());
}

#[test]
fn a_port_alone_stands_beside_others() {
    let lines = inbound(&[("VPNGW_LAN_INBOUND", "192.168.1.7=udp/27015, udp/6881")]);
    assert!(lines[0].contains("192.168.1.7/32"), "{lines:#?}");
    assert!(lines[1..].iter().all(|line| line.contains("udp/6881")));
}

#[test]
fn a_server_on_a_private_network_is_no_client() {
    let wg = WG.replace("203.0.113.7", "192.168.1.9");
    let variables = [("VPNGW_LAN_INBOUND", "tcp/8080")];
    let loaded = load_from(&[("/c/wg0.conf", &wg)], &variables).unwrap();
    let server = "192.168.1.9".parse().unwrap();
    let port = "tcp/8080".parse().unwrap();
    assert!(!loaded.config.lan.admits(server, port));
    assert!(
        loaded
            .config
            .lan
            .admits("192.168.1.10".parse().unwrap(), port)
    );
}

#[test]
fn what_is_no_port_is_told() {
    let loaded = load_from(&[("/c/wg0.conf", WG)], &[("VPNGW_LAN_INBOUND", "8080")]);
    let text = errors(loaded);
    assert!(text.contains("write `tcp/8080` or"), "{text}");
}
