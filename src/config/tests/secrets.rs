//! No key is ever in an error, a warning or an origin, wherever it was written.

use base64::Engine as _;
use proptest::prelude::*;

use super::*;

/// Everything that could be shown of loading.
fn shown(loaded: &Result<Loaded, Errors>) -> String {
    match loaded {
        Ok(loaded) => format!("{:?} {:?}", loaded.origins, loaded.warnings),
        Err(errors) => format!("{errors} {errors:?}"),
    }
}

fn keys() -> impl Strategy<Value = String> {
    any::<[u8; 32]>().prop_map(|bytes| base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// Where a key may end up by mistake in a wg-quick file.
const IN_FILE: [&str; 16] = [
    "[Interface]\nPrivateKey = KEY\nPrivateKey = KEY\n",
    "[Interface]\nPrivateKey KEY\n",
    "[Interface]\nPrivateKy = KEY\n",
    "[Interface]\nPrivateKey = \"KEY\"\n",
    "[Interface]\nAddress = KEY\nDNS = KEY\nMTU = KEY\nTable = KEY\nFwMark = KEY\n",
    "[Interface]\nPostUp = wg set tun0 private-key KEY\n",
    "[Interface]\nKEY\n",
    "KEY",
    "[KEY]\n",
    "PrivateKey = KEY\n",
    "[Peer] # KEY\nPublicKey = x # KEY\n",
    "[Peer]\n# PresharedKey = KEY\nPresharedKey = KEYx\n",
    "[Peer]\nPrivateKey = KEY\n",
    "[Peer]\nPublicKey = KEYKEY\nEndpoint = KEY:1\nAllowedIPs = KEY/0\n",
    "[Peer]\nEndpoint = KEY\nPersistentKeepalive = KEY\n",
    "[Interface]\nDNS = 10.0.0.1, KEY\nSaveConfig = KEY\n",
];

/// And in a vpngw.toml.
const IN_TOML: [&str; 9] = [
    "[wireguard]\nprivate_key = \"KEY\"\naddress = \"x\"\npeers = [{ preshared_key = \"KEYx\" }]\n",
    "wireguard = { private_key = \"KEY\", adress = \"KEY\" }\n",
    "[wireguard]\nprivate_key = \"KEY\n",
    "[wireguard]\nprivate_kye = '''\nKEY'''\n",
    "wireguard = \"KEY\"\n",
    "private_key = \"KEY\"\n",
    "[log]\nlevel = \"KEY\"\n",
    "[log]\n\"KEY\" = 1\n",
    "[lan]\ninbound = [{ from = \"KEY\", to = \"KEY\" }]\n",
];

proptest! {
    #[test]
    fn no_key_is_shown_from_a_file(key in keys()) {
        let files = IN_FILE.map(|text| ("/a.conf", text)).into_iter();
        for (path, text) in files.chain(IN_TOML.map(|text| ("/a.toml", text))) {
            let loaded = load_from(&[(path, &text.replace("KEY", &key))], &[]);
            let shown = shown(&loaded);
            prop_assert!(!shown.contains(&key[..20]) && !shown.contains(&key[20..]), "{}\n{}", text, shown);
        }
    }

    #[test]
    fn no_key_is_shown_from_a_variable(key in keys()) {
        let gluetun = super::super::gluetun::names().map(std::borrow::Cow::Borrowed);
        for name in env::names().chain(gluetun) {
            let sources = Sources {
                environment: [(name.into_owned(), key.clone())].into(),
                ..Sources::default()
            };
            let shown = shown(&load(&sources, &|_| Err(io::ErrorKind::NotFound.into())));
            prop_assert!(!shown.contains(&key[..20]) && !shown.contains(&key[20..]), "{}", shown);
        }
    }

    #[test]
    fn even_half_a_key_is_not_shown_where_keys_belong(key in keys()) {
        let half = &key[..20];
        for line in ["PrivateKey = KEY", "PresharedKey = KEY", "PublicKey = KEY", "Privatekye = KEY"] {
            let text = format!("[Interface]\n{}\n", line.replace("KEY", half));
            let shown = shown(&load_from(&[("/a.conf", &text)], &[]));
            prop_assert!(!shown.contains(half), "{}", shown);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC*", variable in "\\PC*") {
        let _ = load_from(&[("/a.toml", &text)], &[("VPNGW_LAN_INBOUND", &variable)]);
        let _ = load_from(&[("/a.toml", &format!("[lan]\ninbound = {text}"))], &[]);
    }
}

#[test]
fn a_good_configuration_shows_no_key() {
    let wg = format!("{WG}PresharedKey = {PRESHARED}\n");
    let loaded = load_from(&[("/a.conf", &wg)], &[]);
    assert!(loaded.is_ok());
    let shown = shown(&loaded);
    assert!(!shown.contains(PRIVATE) && !shown.contains(PRESHARED));
    assert!(shown.contains(PUBLIC), "a public key is no secret");
}
