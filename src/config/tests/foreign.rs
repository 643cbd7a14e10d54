//! Files as wg takes them, and files that are for others.

use super::*;

/// The smallest tunnel with lines replaced.
fn changed(from: &str, to: &str) -> Result<Loaded, Errors> {
    assert!(WG.contains(from), "{from}");
    load_from(&[("/c/wg0.conf", &WG.replace(from, to))], &[])
}

fn one(loaded: Result<Loaded, Errors>) -> String {
    let text = errors(loaded);
    let cures = text.lines().filter(|line| line.starts_with("  = "));
    assert_eq!(cures.count(), 1, "{text}");
    text
}

#[test]
fn blanks_stand_where_wg_and_wg_quick_take_them() {
    let loaded = changed("10.64.0.2/32", "10.64.0.2/32 fd00::2/128").unwrap();
    assert_eq!(
        loaded.config.tunnel.addresses,
        ["10.64.0.2/32".parse().unwrap()]
    );
    let loaded = changed("DNS = 10.64.0.1", "DNS = 10.64.0.1  10.64.0.3,10.64.0.4").unwrap();
    let resolvers: Vec<_> = loaded
        .config
        .tunnel
        .resolvers()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(resolvers, ["10.64.0.1", "10.64.0.3", "10.64.0.4"]);
    let loaded = changed("203.0.113.7:51820", "203.0.113.7 : 51820").unwrap();
    assert_eq!(loaded.config.peers[0].endpoint.port, 51820);
    let loaded = changed("DNS = 10.64.0.1", "DNS = 10.64.0.1\nMTU =").unwrap();
    assert_eq!(loaded.config.tunnel.mtu, 1420);
}

#[test]
fn a_file_for_amneziawg_is_one_error_or_one_warning() {
    let with = |lines: &str| changed("DNS = 10.64.0.1", &format!("DNS = 10.64.0.1\n{lines}"));
    let text = one(with(
        "Jc = 4\nJmin = 40\nJmax = 70\nS1 = 86\nS2 = 574\nH1 = 1\nH2 = 7",
    ));
    for part in [
        "this file is for AmneziaWG (Jc, Jmin, Jmax, S1, S2, H1, H2), and vpngw speaks WireGuard",
        "ask for a WireGuard file; without these lines this server would not answer",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let plain = with("Jc = 4\nS1 = 0\nS2 = 0\nH1 = 1\nH2 = 2\nH3 = 3\nH4 = 4").unwrap();
    let said: Vec<_> = plain.warnings.iter().map(ToString::to_string).collect();
    let told =
        "with the values of an ordinary WireGuard server; left out: Jc, S1, S2, H1, H2, H3, H4";
    assert!(said.iter().any(|text| text.contains(told)), "{said:#?}");
}

#[test]
fn a_file_for_another_program_is_one_error() {
    let openvpn = "client\ndev tun\nproto udp\nremote 203.0.113.7 1194\n<ca>\nMIIB\n</ca>\n";
    let text = one(load_from(&[("/c/wg0.conf", openvpn)], &[]));
    assert!(
        text.contains("this is a file for OpenVPN, and vpngw speaks WireGuard only"),
        "{text}"
    );
    let colons = WG.replace(" = ", ": ");
    let text = one(load_from(&[("/c/wg0.conf", &colons)], &[]));
    assert!(
        text.contains("write `=` in the place of each `:` behind a key"),
        "{text}"
    );
}

#[test]
fn one_mistake_is_one_error() {
    let quoted: String = WG
        .lines()
        .map(|line| match line.split_once(" = ") {
            Some((key, value)) => format!("{key} = \"{value}\"\n"),
            None => format!("{line}\n"),
        })
        .collect();
    let text = one(load_from(&[("/c/wg0.conf", &quoted)], &[]));
    assert!(
        text.contains("take them away, here and in the other lines"),
        "{text}"
    );
    let text = one(changed("[Peer]\n", ""));
    assert!(
        text.contains("`PublicKey` stands below [Interface]"),
        "{text}"
    );
    assert!(
        text.contains("write `[Peer]` on a line of its own above it"),
        "{text}"
    );
}

#[test]
fn quotes_of_a_hook_are_its_shells() {
    let loaded = changed("DNS = 10.64.0.1", "DNS = 10.64.0.1\nPostUp = 'echo'").unwrap();
    let said: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(
        said[0].contains("vpngw runs no command from a configuration"),
        "{said:#?}"
    );
}

#[test]
fn our_own_key_is_no_servers() {
    let secret = x25519_dalek::StaticSecret::from([7; 32]);
    let public = x25519_dalek::PublicKey::from(&secret);
    use base64::Engine as _;
    let text = |bytes: [u8; 32]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let wg = WG
        .replace(PRIVATE, &text([7; 32]))
        .replace(PUBLIC, &text(public.to_bytes()));
    let said = one(load_from(&[("/c/wg0.conf", &wg)], &[]));
    assert!(
        said.contains("it is the public key of our own PrivateKey"),
        "{said}"
    );
}

#[test]
fn a_part_of_the_internet_that_is_left_out_is_named() {
    let said = |allowed: &str| -> Vec<_> {
        let loaded = changed("0.0.0.0/0", allowed).unwrap();
        let all = loaded.warnings.iter().map(ToString::to_string);
        all.filter(|text| text.contains("left out, and no program"))
            .collect()
    };
    let text = said("127.0.0.0/1, 0.0.0.0/1, 10.64.0.1/32");
    assert!(
        text[0].contains("no program reaches it: 128.0.0.0/1"),
        "{text:#?}"
    );
    // As calculators write all but private networks.
    let but_private = "0.0.0.0/5, 8.0.0.0/7, 11.0.0.0/8, 12.0.0.0/6, 16.0.0.0/4, 32.0.0.0/3, 64.0.0.0/2, 128.0.0.0/3, \
        160.0.0.0/5, 168.0.0.0/6, 172.0.0.0/12, 172.32.0.0/11, 172.64.0.0/10, 172.128.0.0/9, 173.0.0.0/8, 174.0.0.0/7, \
        176.0.0.0/4, 192.0.0.0/9, 192.128.0.0/11, 192.160.0.0/13, 192.169.0.0/16, 192.170.0.0/15, 192.172.0.0/14, \
        192.176.0.0/12, 192.192.0.0/10, 193.0.0.0/8, 194.0.0.0/7, 196.0.0.0/6, 200.0.0.0/5, 208.0.0.0/4, 10.64.0.1/32";
    assert_eq!(said(but_private), Vec::<String>::new());
    assert_eq!(said("0.0.0.0/0, ::/0"), Vec::<String>::new());
}
