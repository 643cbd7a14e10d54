//! The wg-quick file: every key, every way to write it, and back.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

const FULL: &str = "\u{feff}# made by hand\r\n\
    [interface]\r\n\
    PRIVATEKEY=yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\r\n\
    address = 10.64.0.2/32 , fd00::2/128\r\n\
    \tAddress = 10.65.0.2\r\n\
    DNS = 10.64.0.1, fd00::1, example.com, 10.64.0.3 # both of them\r\n\
    MTU = 1380\r\n\
    ListenPort = 51820\r\n\
    FwMark = 0xCA6C\r\n\
    Table = 1234\r\n\
    PreUp = echo one\r\n\
    PostUp = iptables -I OUTPUT ! -o %i -j REJECT; echo = two\r\n\
    PostUp = echo three\r\n\
    PreDown = true\r\n\
    PostDown = true\r\n\
    SaveConfig = true\r\n\
    [Peer] # first\r\n\
    PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\r\n\
    PresharedKey = FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=\r\n\
    AllowedIPs = 0.0.0.0/1, ::/0\r\n\
    AllowedIPs = 128.0.0.0/1\r\n\
    Endpoint = 203.0.113.7:51820\r\n\
    PersistentKeepalive = 25\r\n\
    [ peer ]\r\n\
    # NL-FREE#12\r\n\
    # a second comment\r\n\
    Public Key = AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=\r\n\
    AllowedIPs = 10.1.2.3/8\r\n\
    Endpoint = vpn.example.com:443\r\n\
    PersistentKeepalive = OFF";

fn parse(text: &str) -> wgquick::Parsed {
    wgquick::parse(Path::new("/wg0.conf"), text)
}

fn values<T: ToString>(items: &[At<T>]) -> Vec<String> {
    items.iter().map(|at| at.value.to_string()).collect()
}

#[test]
fn every_key_is_read() {
    let parsed = parse(FULL);
    assert_eq!(parsed.errors, []);
    let interface = &parsed.tunnel.interface;
    assert_eq!(
        values(&interface.addresses),
        ["10.64.0.2/32", "10.65.0.2/32"]
    );
    assert_eq!(values(&interface.dns), ["10.64.0.1", "10.64.0.3"]);
    assert_eq!(interface.mtu.as_ref().unwrap().value, 1380);
    assert_eq!(interface.listen_port.as_ref().unwrap().value, Some(51820));
    assert_eq!(interface.fwmark.as_ref().unwrap().value, Some(0xca6c));
    let [first, second] = parsed.tunnel.peers.as_slice() else {
        panic!()
    };
    assert_eq!(first.name.as_deref(), Some("first"));
    assert_eq!(second.name.as_deref(), Some("NL-FREE#12"));
    assert_eq!(values(&first.allowed_ips), ["0.0.0.0/1", "128.0.0.0/1"]);
    assert_eq!(values(&second.allowed_ips), ["10.0.0.0/8"]);
    assert_eq!(
        first.preshared_key.as_ref().unwrap().value,
        Secret::from_base64(PRESHARED).unwrap()
    );
    assert_eq!(second.keepalive.as_ref().unwrap().value, None);
    assert_eq!(
        second.endpoint.as_ref().unwrap().place.to_string(),
        "/wg0.conf:29:12"
    );
}

#[test]
fn what_is_left_out_is_a_warning_with_its_line() {
    let lines: Vec<_> = parse(FULL)
        .warnings
        .iter()
        .map(|warning| format!("{} {}", warning.place.line().unwrap(), warning.place.key()))
        .collect();
    let expected = [
        "4 Address",
        "6 DNS",
        "6 DNS",
        "10 Table",
        "11 PreUp",
        "12 PostUp",
        "13 PostUp",
        "14 PreDown",
        "15 PostDown",
        "16 SaveConfig",
        "20 AllowedIPs",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_bad_line_is_an_error_and_the_rest_is_read() {
    let cases = [
        (
            "[Interface]\nAddress = 10.0.0.0/24\n",
            "2:11: Address: `10.0.0.0/24` is a network",
        ),
        (
            "[Interface]\nAddress = 10.0.0.2/0\n",
            "2:11: Address: a prefix of 0",
        ),
        (
            "[Interface]\nAddress = 10.0.0.2/32,,10.0.0.3/32\n",
            "2:23: Address: `` is not",
        ),
        ("[Interface]\nMTU = 575\n", "2:7: MTU: `575` is not an MTU"),
        (
            "[Interface]\nMTU = 1400\nmtu = 1300\n",
            "3:7: MTU: it is given twice, first at /wg0.conf:2:7",
        ),
        (
            "[Interface]\nDNS = 127.0.0.1\n",
            "2:7: DNS: `127.0.0.1` is this machine",
        ),
        (
            "[Interface]\nEndpoint = 1.2.3.4:5\n",
            "2:1: `Endpoint` stands below [Interface]",
        ),
        (
            "[Interface]\nPresharedKey = FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=\n",
            "2:16: PresharedKey: `PresharedKey` does not belong here",
        ),
        (
            "[Peer]\nAddress = 10.0.0.2/32\n",
            "2:11: Address: `Address` does not belong here",
        ),
        ("MTU = 1400\n", "1:7: MTU: `MTU` stands before any section"),
        ("[Interface]\nmtu\n", "2:1: this is neither a section nor"),
        ("[Interfaces]\nMTU = 1\n", "1:1: this is not a section"),
        (
            "[Interface]\nAdress = 10.0.0.2\n",
            "2:1: `Adress` is not a key of wg-quick",
        ),
        (
            "[Interface]\n  ListenPort = 70000 # no\n",
            "2:16: ListenPort: `70000` is not a port",
        ),
    ];
    for (text, expected) in cases {
        let errors = parse(text).errors;
        assert_eq!(errors.len(), 1, "{text}");
        let shown = errors[0].to_string();
        assert!(
            shown.starts_with(&format!("/wg0.conf:{expected}")),
            "{shown}"
        );
    }
}

#[test]
fn a_line_taken_out_is_not_the_name_of_a_peer() {
    for comment in [
        "# PresharedKey = abc",
        "#Endpoint=1.2.3.4:5",
        &format!("# {PRIVATE}"),
        "#",
        "# \u{7}",
    ] {
        let parsed = parse(&format!("[Peer]\n{comment}\n"));
        assert_eq!(parsed.tunnel.peers[0].name, None, "{comment}");
    }
}

/// A tunnel in plain values, to be written in one of many ways.
#[derive(Clone, Debug)]
struct Plain {
    key: [u8; 32],
    addresses: Vec<[u8; 3]>,
    dns: Vec<[u8; 3]>,
    numbers: (Option<u16>, Option<u16>, Option<u32>),
    peers: Vec<PlainPeer>,
}

/// Public key, preshared key, port, keepalive, prefixes.
type PlainPeer = ([u8; 32], Option<[u8; 32]>, u16, Option<u16>, Vec<u8>);

fn plain() -> impl Strategy<Value = Plain> {
    use proptest::collection::vec;
    use proptest::option::of;
    // A key of zeros is refused.
    let key = any::<[u8; 32]>().prop_filter("zero", |key| *key != [0; 32]);
    let peer = (
        key.clone(),
        of(key.clone()),
        1u16..,
        of(1u16..),
        vec(0u8..=32, 0..4),
    );
    let lists = (vec(any::<[u8; 3]>(), 0..4), vec(any::<[u8; 3]>(), 0..4));
    let numbers = (of(576u16..), of(1u16..), of(1u32..));
    (key, lists, numbers, vec(peer, 0..4)).prop_map(|(key, (addresses, dns), numbers, peers)| {
        Plain {
            key,
            addresses,
            dns,
            numbers,
            peers,
        }
    })
}

fn ten(rest: [u8; 3]) -> Ipv4Addr {
    Ipv4Addr::new(10, rest[0], rest[1], rest[2])
}

/// Writes each value on a line of its own, as `write` puts key and value together.
fn render(plain: &Plain, write: impl Fn(&str, String) -> String) -> String {
    let mut text = String::from("[Interface]\n");
    let line = |text: &mut String, key, value| text.push_str(&write(key, value));
    line(&mut text, "PrivateKey", STANDARD.encode(plain.key));
    for address in &plain.addresses {
        line(&mut text, "Address", format!("{}/32", ten(*address)));
    }
    for address in &plain.dns {
        line(&mut text, "DNS", ten(*address).to_string());
    }
    let (mtu, port, mark) = plain.numbers;
    let _ = mtu.map(|mtu| line(&mut text, "MTU", mtu.to_string()));
    let _ = port.map(|port| line(&mut text, "ListenPort", port.to_string()));
    let _ = mark.map(|mark| line(&mut text, "FwMark", format!("{mark:#x}")));
    for (public, preshared, port, keepalive, allowed) in &plain.peers {
        text.push_str("[Peer]\n");
        line(&mut text, "PublicKey", STANDARD.encode(public));
        let _ = preshared.map(|key| line(&mut text, "PresharedKey", STANDARD.encode(key)));
        line(&mut text, "Endpoint", format!("203.0.113.7:{port}"));
        let _ = keepalive.map(|time| line(&mut text, "PersistentKeepalive", time.to_string()));
        for prefix in allowed {
            line(&mut text, "AllowedIPs", format!("0.0.0.0/{prefix}"));
        }
    }
    text
}

/// What was read, in plain values.
fn plainly(tunnel: &WgQuick) -> Plain {
    let host = |address: Ipv4Addr| [1, 2, 3].map(|at: usize| address.octets()[at]);
    let interface = &tunnel.interface;
    let flat = |at: &Option<At<Option<u16>>>| at.as_ref().and_then(|at| at.value);
    let peers = tunnel.peers.iter().map(|peer| {
        let preshared = peer.preshared_key.as_ref().map(|at| *at.value.expose());
        let allowed = peer
            .allowed_ips
            .iter()
            .map(|at| at.value.prefix())
            .collect();
        let port = peer.endpoint.as_ref().unwrap().value.port;
        (
            peer.public_key.as_ref().unwrap().value.0,
            preshared,
            port,
            flat(&peer.keepalive),
            allowed,
        )
    });
    Plain {
        key: *interface.private_key.as_ref().unwrap().value.expose(),
        addresses: interface
            .addresses
            .iter()
            .map(|at| host(at.value.ip()))
            .collect(),
        dns: interface.dns.iter().map(|at| host(at.value)).collect(),
        numbers: (
            interface.mtu.as_ref().map(|at| at.value),
            flat(&interface.listen_port),
            interface.fwmark.as_ref().and_then(|at| at.value),
        ),
        peers: peers.collect(),
    }
}

fn usual(key: &str, value: String) -> String {
    format!("{key} = {value}\n")
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(plain in plain(), upper: bool, crlf: bool, comment in "[^\\pC=]{0,9}") {
        let written = render(&plain, |key, value| {
            let key = if upper { key.to_uppercase() } else { key.to_lowercase() };
            let mut line = String::new();
            let _ = write!(line, " {key}\t=  {value} #{comment}{}", if crlf { "\r\n" } else { "\n" });
            line
        });
        let parsed = parse(&written);
        prop_assert_eq!(&parsed.errors, &vec![]);
        prop_assert_eq!(&parsed.warnings, &vec![]);
        let again = render(&plainly(&parsed.tunnel), usual);
        prop_assert_eq!(render(&plain, usual), again);
    }

    #[test]
    fn no_text_makes_it_panic(text in "(?s).*") {
        let _ = parse(&text);
    }

    #[test]
    fn no_text_that_is_nearly_right_makes_it_panic(
        lines in proptest::collection::vec("(\\[(Peer|Interface|x)?\\]?|(PrivateKey|AllowedIPs|DNS|MTU|FwMark|Endpoint|Table|é)?)( ?=? ?)[0-9a-f.:/,#é\\[\\] ]{0,20}\r?", 0..20),
    ) {
        for diagnostic in parse(&lines.join("\n")).errors {
            let shown = diagnostic.to_string();
            prop_assert!(!shown.is_empty());
        }
    }

    #[test]
    fn cutting_a_file_anywhere_does_not_make_it_panic(at in 0..FULL.len()) {
        let cut: String = FULL.chars().take(at).collect();
        let _ = parse(&cut);
    }
}
