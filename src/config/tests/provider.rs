//! A provider by name: where its servers come from, and which of them are meant.

use super::environments::{LIST, load_variables, surroundings};
use super::*;
use crate::config::provider::{MOST_ALTERNATIVES, NoList, ReadList, Surroundings};

const KEY: (&str, &str) = ("WIREGUARD_PRIVATE_KEY", PRIVATE);
const ADDRESS: (&str, &str) = ("WIREGUARD_ADDRESSES", "10.64.222.21/32");
const MULLVAD: (&str, &str) = ("VPN_SERVICE_PROVIDER", "mullvad");

/// The day after the list was made.
const NOW: u64 = 1_793_664_000;

fn load_with(variables: &[(&str, &str)], list: ReadList) -> Result<Loaded, Errors> {
    let around = Surroundings {
        now: NOW,
        seed: 1,
        list,
    };
    let all = variables.iter();
    let owned: Vec<_> = all
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    load_variables(&owned, around)
}

fn mullvad(list: ReadList) -> Result<Loaded, Errors> {
    load_with(&[MULLVAD, KEY, ADDRESS], list)
}

fn names(loaded: &Loaded) -> Vec<&str> {
    let peers = loaded.config.peers.iter();
    peers.map(|peer| peer.name.as_deref().unwrap()).collect()
}

fn said(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(Diagnostic::to_string).collect()
}

/// One server in a file of its provider's own, as newer versions of gluetun write it, with fields that nobody knows.
const ONE: &str = r#"{"version": 12, "timestamp": 1793577600, "preferred": true, "later": {"x": [1, null]},
 "servers": [
  {"vpn": "wireguard", "country": "Sweden", "hostname": "se-sto-wg-001", "owned": true, "ports": [1, 2],
   "wgpubkey": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", "ips": ["2001:db8::1", "203.0.113.7"]}
 ]}"#;

#[test]
fn a_list_of_one_provider_is_read_before_the_list_of_all() {
    let loaded = mullvad(|path| match path.to_str() {
        Some("/gluetun/servers/mullvad.json") => Ok(ONE.to_owned()),
        Some("/gluetun/servers.json") => Ok(LIST.to_owned()),
        Some(_) | None => Err(NoList::Absent),
    })
    .unwrap();
    assert_eq!(names(&loaded), ["se-sto-wg-001 (Sweden)"]);
    let peer = &loaded.config.peers[0];
    assert_eq!(peer.public_key.to_string(), PUBLIC);
    assert_eq!(peer.endpoint.port, 51820);
    assert_eq!(
        said(&loaded.notices),
        "/gluetun/servers/mullvad.json: the list of servers is 1 day old\n\
         /gluetun/servers/mullvad.json: one server fits, of 1\n\
         names are looked up by 10.64.0.1, the resolver of mullvad, through the tunnel\n"
    );
    assert_eq!(loaded.warnings, []);
}

#[test]
fn what_is_wrong_with_a_list_is_said_with_its_line() {
    let broken = errors(mullvad(|_| {
        Ok(ONE.replace("\"owned\": true", "\"owned\": \"yes\""))
    }));
    insta::assert_snapshot!(broken, @r#"
    /gluetun/servers/mullvad.json:3:87: the list of servers cannot be read: invalid type: string "yes", expected a boolean
      |
    3 | : "se-sto-wg-001", "owned": "yes", "ports": [1, 2],
      |                                 ^
      = let gluetun write it anew, or name another list
    "#);
    let cut = errors(mullvad(|_| Ok(ONE[..200].to_owned())));
    insta::assert_snapshot!(cut, @r#"
    /gluetun/servers/mullvad.json:3:99: the list of servers cannot be read: EOF while parsing a list
      |
    3 |   {"vpn": "wireguard", "country": "Sweden", "hostname": "se-sto-wg-001", "owned": true, "ports": [1
      |                                                                                                   ^
      = let gluetun write it anew, or name another list
    "#);
    let key = errors(mullvad(|_| Ok(ONE.replace("xTIBA5rb", "xTI"))));
    insta::assert_snapshot!(key, @r#"
    /gluetun/servers/mullvad.json:4:56: the list of servers cannot be read: the key is not 32 bytes in base64
      |
    4 |    "wgpubkey": "**************************************=", "ips": ["2001:db8::1", "203.0.113.7"]}
      |                                                        ^
      = let gluetun write it anew, or name another list
    "#);
    let ip = errors(mullvad(|_| Ok(ONE.replace("203.0.113.7", "203.0.113.700"))));
    insta::assert_snapshot!(ip, @r#"
    /gluetun/servers/mullvad.json:4:101: the list of servers cannot be read: invalid IP address syntax
      |
    4 | : ["2001:db8::1", "203.0.113.700"]}
      |                                 ^
      = let gluetun write it anew, or name another list
    "#);
    let none = errors(mullvad(|_| {
        Ok("{\"version\": 1, \"ivpn\": {\"servers\": []}}".to_owned())
    }));
    insta::assert_snapshot!(none, @r"
    /gluetun/servers/mullvad.json: it has no servers of `mullvad`
      = it has those of ivpn
    ");
    let empty = errors(mullvad(|_| Ok(ONE.replace("wgpubkey", "x"))));
    insta::assert_snapshot!(empty, @r"
    /gluetun/servers/mullvad.json: it has no WireGuard server of `mullvad` with an IPv4 address
      = let gluetun write it anew, or name another list
    ");
}

#[test]
fn a_key_that_no_private_key_belongs_to_is_not_taken() {
    let zero = errors(mullvad(|_| {
        Ok(ONE.replace(PUBLIC, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="))
    }));
    insta::assert_snapshot!(zero, @r"
    /gluetun/servers/mullvad.json: the key of `se-sto-wg-001`: the key is all zeros
      = choose other servers, or let gluetun write the list anew
    ");
}

#[test]
fn a_list_that_cannot_be_had_is_one_error() {
    insta::assert_snapshot!(errors(mullvad(|_| Err(NoList::Absent))), @r"
    variable VPN_SERVICE_PROVIDER: there is no list of its servers: neither /gluetun/servers/mullvad.json nor /gluetun/servers.json is there
      = mount the folder at /gluetun in which gluetun left its list; or put WireGuard files of the provider into /gluetun/wireguard; or set WIREGUARD_ENDPOINT_IP and WIREGUARD_PUBLIC_KEY to what such a file says
    ");
    let who = |_: &Path| {
        Err(NoList::Writable(
            "it belongs to user 1000, with mode 0664".to_owned(),
        ))
    };
    insta::assert_snapshot!(errors(mullvad(who)), @r"
    /gluetun/servers/mullvad.json: others can write this list, and it says whom the tunnel leads to (it belongs to user 1000, with mode 0664)
      = let root own it and nobody else write it (`chown root`, `chmod go-w`), or mount it read-only
    ");
    insta::assert_snapshot!(errors(mullvad(|_| Err(NoList::TooLarge))), @r"
    /gluetun/servers/mullvad.json: the list is larger than 32 MiB
      = name a list that gluetun wrote, such as /gluetun/servers.json
    ");
    let refused = |_: &Path| {
        Err(NoList::Unreadable(
            "Permission denied (os error 13)".to_owned(),
        ))
    };
    insta::assert_snapshot!(errors(mullvad(refused)), @r"
    /gluetun/servers/mullvad.json: the list of servers cannot be read: Permission denied (os error 13)
      = make it readable for the user who runs this
    ");
}

#[test]
fn an_old_list_is_a_warning() {
    let aged = |list: ReadList| said(&mullvad(list).unwrap().warnings);
    assert_eq!(aged(|_| Ok(ONE.replace("1793577600", "1788480000"))), "");
    assert_eq!(
        aged(|_| Ok(ONE.replace("1793577600", "1788393600"))),
        "/gluetun/servers/mullvad.json: the list of servers is 61 days old\n  \
         = let gluetun write it anew: providers change the keys and addresses of their servers\n"
    );
    let unknown = "/gluetun/servers/mullvad.json: the list of servers does not say how old it is\n";
    assert!(aged(|_| Ok(ONE.replace("1793577600", "0"))).starts_with(unknown));
    assert!(aged(|_| Ok(ONE.replace("1793577600", "1893577600"))).starts_with(unknown));
}

/// NordVPN has thousands of servers, few keys, and more than one address for some.
fn many(_: &Path) -> Result<String, NoList> {
    let servers: Vec<_> = (0..5000)
        .map(|n| {
            format!(
                "{{\"vpn\":\"wireguard\",\"country\":\"Germany\",\"hostname\":\"de{n}.nordvpn.com\",\
                 \"wgpubkey\":\"{PUBLIC}\",\"ips\":[\"203.{}.{}.1\",\"203.{}.{}.2\"]}}",
                n / 250,
                n % 250,
                n / 250,
                n % 250
            )
        })
        .collect();
    Ok(format!(
        "{{\"timestamp\":{NOW},\"servers\":[{}]}}",
        servers.join(",")
    ))
}

#[test]
fn of_thousands_of_servers_some_are_tried() {
    let nord = [("VPN_SERVICE_PROVIDER", "nordvpn"), KEY];
    let loaded = load_with(&nord, many).unwrap();
    assert_eq!(loaded.config.peers.len(), MOST_ALTERNATIVES);
    let text = said(&loaded.notices);
    assert!(
        text.contains("5000 of 5000 servers fit; 64 of their addresses are tried in turn"),
        "{text}"
    );
    let hosts: std::collections::BTreeSet<_> = names(&loaded).into_iter().collect();
    assert_eq!(hosts.len(), MOST_ALTERNATIVES, "each is another server");
    let rest = loaded
        .origins
        .iter()
        .find(|it| it.key == "wireguard.peers[1..64]")
        .unwrap();
    assert_eq!(rest.value, "63 more, tried in turn");
    let ordered = [nord[0], nord[1], ("SERVER_SELECTION_MODE", "Ordered")];
    let loaded = load_with(&ordered, many).unwrap();
    assert_eq!(
        names(&loaded)[..2],
        ["de0.nordvpn.com (Germany)", "de1.nordvpn.com (Germany)"]
    );
}

#[test]
fn the_order_is_the_seeds_and_stays_while_the_process_lives() {
    let with = |seed| {
        let variables: Vec<_> = [MULLVAD, KEY, ADDRESS]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .into();
        let around = Surroundings {
            seed,
            ..surroundings()
        };
        let loaded = load_variables(&variables, around).unwrap();
        loaded.config
    };
    assert_eq!(with(1), with(1));
    assert_ne!(with(1).peers, with(2).peers);
    assert_eq!(with(1).peers.len(), 6);
}

/// Loads a vpngw.toml beside a list.
fn load_beside(
    toml: &str,
    files: &[(&str, &str)],
    variables: &[(&str, &str)],
) -> Result<Loaded, Errors> {
    let mut all = vec![("/c/vpngw.toml", toml)];
    all.extend(files);
    load_around(&all, variables, surroundings())
}

#[test]
fn vpngw_toml_names_a_provider_too_and_variables_win() {
    let toml = format!(
        "[provider]\nname = \"mullvad\"\ncountries = [\"sweden\", \"Netherlands\"]\nowned_only = true\n\
         order = \"ordered\"\n[wireguard]\nprivate_key = \"{PRIVATE}\"\naddress = \"10.64.222.21/32\"\n"
    );
    let loaded = load_beside(&toml, &[], &[]).unwrap();
    assert_eq!(
        names(&loaded),
        [
            "nl-ams-wg-001 (Amsterdam, Netherlands)",
            "se-mma-wg-001 (Malmö, Sweden)"
        ]
    );
    let only = ("VPNGW_PROVIDER_COUNTRIES", "Sweden");
    let loaded = load_beside(&toml, &[], &[only]).unwrap();
    assert_eq!(names(&loaded), ["se-mma-wg-001 (Malmö, Sweden)"]);
    let shown = |key: &str| {
        let found = loaded
            .origins
            .iter()
            .find(|origin| origin.key == key)
            .unwrap();
        format!("{} ({})", found.value, found.source)
    };
    assert_eq!(shown("provider.name"), "mullvad (/c/vpngw.toml:2)");
    assert_eq!(
        shown("provider.countries"),
        "Sweden (variable VPNGW_PROVIDER_COUNTRIES)"
    );
    assert_eq!(shown("provider.list"), "/gluetun/servers.json (default)");
    assert_eq!(
        shown("wireguard.peers[0].endpoint"),
        "203.0.113.13:51820 (/gluetun/servers.json)"
    );
}

#[test]
fn a_provider_is_named_rightly() {
    let toml = "[provider]\nname = \"mulvad\"\norder = \"fastest\"\nendpoint_port = 0\n";
    insta::assert_snapshot!(errors(load_beside(toml, &[("/c/wg0.conf", WG)], &[])), @r#"
    /c/vpngw.toml:2:8: provider.name: `mulvad` is not a provider whose servers are known here
      |
    2 | name = "mulvad"
      |        ^^^^^^^^
      = write `airvpn` or `fastestvpn` or `ivpn` or `mullvad` or `nordvpn` or `protonvpn` or `surfshark` or `windscribe`; of any other, use its WireGuard file alone

    /c/vpngw.toml:3:9: provider.order: `fastest` is none of the choices
      |
    3 | order = "fastest"
      |         ^^^^^^^^^
      = write `random` or `ordered`

    /c/vpngw.toml:4:17: provider.endpoint_port: `0` is not a port
      |
    4 | endpoint_port = 0
      |                 ^
      = write a number from 1 to 65535
    "#);
}

#[test]
fn what_is_missing_is_said_in_the_words_that_the_provider_was_named_in() {
    let toml = format!("[provider]\nname = \"airvpn\"\n[wireguard]\nprivate_key = \"{PRIVATE}\"\n");
    insta::assert_snapshot!(errors(load_from(&[("/c/vpngw.toml", &toml)], &[])), @r#"
    /c/vpngw.toml:2:8: provider.name: `airvpn` gives each customer an address, and none is set
      |
    2 | name = "airvpn"
      |        ^^^^^^^^
      = set `address` below [wireguard] to the one of the provider's WireGuard file

    /c/vpngw.toml:2:8: provider.name: `airvpn` gives each customer a preshared key, and none is set
      |
    2 | name = "airvpn"
      |        ^^^^^^^^
      = set VPNGW_WIREGUARD_PRESHARED_KEY to the one of the provider's WireGuard file

    /c/vpngw.toml:2:8: provider.name: there is no list of its servers: neither /gluetun/servers/airvpn.json nor /gluetun/servers.json is there
      |
    2 | name = "airvpn"
      |        ^^^^^^^^
      = name a list that gluetun wrote by `list = "…"`, or put WireGuard files of the provider into /gluetun/wireguard
    "#);
    let ours = [
        ("VPNGW_PROVIDER_NAME", "airvpn"),
        ("VPNGW_WIREGUARD_PRIVATE_KEY", PRIVATE),
    ];
    insta::assert_snapshot!(errors(load_with(&ours, |_| Err(NoList::Absent))), @r"
    variable VPNGW_PROVIDER_NAME: `airvpn` gives each customer an address, and none is set
     |
     | VPNGW_PROVIDER_NAME=airvpn
     |                     ^^^^^^
      = set VPNGW_WIREGUARD_ADDRESSES to the one of the provider's WireGuard file

    variable VPNGW_PROVIDER_NAME: `airvpn` gives each customer a preshared key, and none is set
     |
     | VPNGW_PROVIDER_NAME=airvpn
     |                     ^^^^^^
      = set VPNGW_WIREGUARD_PRESHARED_KEY to the one of the provider's WireGuard file

    variable VPNGW_PROVIDER_NAME: there is no list of its servers: neither /gluetun/servers/airvpn.json nor /gluetun/servers.json is there
     |
     | VPNGW_PROVIDER_NAME=airvpn
     |                     ^^^^^^
      = name a list that gluetun wrote by VPNGW_PROVIDER_LIST, or put WireGuard files of the provider into /gluetun/wireguard
    ");
}

#[test]
fn a_list_that_is_named_is_the_one_that_is_read() {
    let missing = [
        MULLVAD,
        KEY,
        ADDRESS,
        ("STORAGE_FILEPATH", "/elsewhere/servers.json"),
    ];
    insta::assert_snapshot!(errors(load_with(&missing, |_| Err(NoList::Absent))), @r"
    variable STORAGE_FILEPATH: `/elsewhere/servers.json`: there is no such list of servers
     |
     | STORAGE_FILEPATH=/elsewhere/servers.json
     |                  ^^^^^^^^^^^^^^^^^^^^^^^
      = name a list that gluetun wrote, such as /gluetun/servers.json
    ");
    let folder = [
        MULLVAD,
        KEY,
        ADDRESS,
        ("STORAGE_SERVERS_DIRECTORY_PATH", "/elsewhere"),
    ];
    let loaded = load_with(&folder, |path| match path.to_str() {
        Some("/elsewhere/mullvad.json") => Ok(ONE.to_owned()),
        Some(_) | None => Err(NoList::Absent),
    });
    assert_eq!(loaded.unwrap().config.peers.len(), 1);
}

#[test]
fn a_server_that_a_file_describes_is_not_chosen_again() {
    let filter = [MULLVAD, ("SERVER_COUNTRIES", "Sweden")];
    let loaded = load_beside("", &[("/c/wg0.conf", WG)], &filter).unwrap();
    assert_eq!(loaded.config.peers[0].public_key.to_string(), PUBLIC);
    insta::assert_snapshot!(said(&loaded.warnings), @r"
    variable SERVER_COUNTRIES: it chooses nothing: the server is the one of /c/wg0.conf:7
     |
     | SERVER_COUNTRIES=Sweden
     |                  ^^^^^^
      = unset it, or name a provider and leave the choice of the server to it
    ");
}

#[test]
fn a_file_without_a_server_gives_the_key_and_the_list_gives_the_server() {
    let interface = &WG[..WG.find("[Peer]").unwrap()];
    let filter = [MULLVAD, ("SERVER_CITIES", "zurich")];
    let loaded = load_beside("", &[("/c/wg0.conf", interface)], &filter).unwrap();
    assert_eq!(names(&loaded), ["ch-zrh-wg-001 (Zurich, Switzerland)"]);
    assert_eq!(
        loaded.config.tunnel.resolvers(),
        [Ipv4Addr::new(10, 64, 0, 1)]
    );
}

#[test]
fn without_a_list_an_address_and_a_key_are_a_server() {
    let variables = [
        MULLVAD,
        KEY,
        ADDRESS,
        ("WIREGUARD_ENDPOINT_IP", "203.0.113.7"),
        ("WIREGUARD_PUBLIC_KEY", PUBLIC),
    ];
    let loaded = load_with(&variables, |_| Err(NoList::Absent)).unwrap();
    assert_eq!(loaded.config.peers[0].endpoint.port, 51820);
    assert_eq!(loaded.config.peers[0].public_key.to_string(), PUBLIC);
    assert_eq!(
        loaded.config.tunnel.resolvers(),
        [Ipv4Addr::new(10, 64, 0, 1)]
    );
}

#[test]
fn a_folder_of_files_is_chosen_from_by_their_names() {
    let other = WG.replace("203.0.113.7", "203.0.113.8");
    let device = WG.replace("10.64.0.2/32", "10.64.0.3/32");
    let folder = [
        ("/gluetun/wireguard/nl-ams-wg-001.conf", WG),
        ("/gluetun/wireguard/nl-ams-wg-002.conf", other.as_str()),
        ("/gluetun/wireguard/nl-rtm-wg-001.conf", device.as_str()),
        ("/gluetun/wireguard/se-sto-wg-001.conf", WG),
    ];
    let at = |filter: &[(&str, &str)]| load_beside("", &folder, filter);
    let one = at(&[MULLVAD, ("SERVER_HOSTNAMES", "nl-ams-wg-002")]).unwrap();
    assert_eq!(names(&one), ["nl-ams-wg-002"]);
    let several = at(&[
        MULLVAD,
        ("SERVER_COUNTRIES", "Netherlands"),
        ("SERVER_SELECTION_MODE", "ordered"),
    ])
    .unwrap();
    assert_eq!(names(&several), ["nl-ams-wg-001", "nl-ams-wg-002"]);
    insta::assert_snapshot!(said(&several.notices), @"/gluetun/wireguard/nl-ams-wg-001.conf: it is tried first, of 3 files that fit; left out, for another key or address: 1");
    insta::assert_snapshot!(errors(at(&[MULLVAD, ("SERVER_COUNTRIES", "Norway")])), @r"
    variable SERVER_COUNTRIES: no file is named for `Norway`
     |
     | SERVER_COUNTRIES=Norway
     |                  ^^^^^^
      = write a part of a file's name; there are nl-ams-wg-001.conf, nl-ams-wg-002.conf, nl-rtm-wg-001.conf, se-sto-wg-001.conf
    ");
    insta::assert_snapshot!(errors(at(&[MULLVAD, ("OWNED_ONLY", "on")])), @r"
    variable OWNED_ONLY: the names of the provider's files do not say which server has this
      = unset it, and keep only those files in the folder that are meant
    ");
}

#[test]
fn a_lone_file_that_is_named_otherwise_is_not_what_was_asked_for() {
    let file = [("/gluetun/wireguard/nl-ams-wg-001.conf", WG)];
    let at = |country| load_beside("", &file, &[MULLVAD, ("SERVER_COUNTRIES", country)]);
    assert_eq!(at("Netherlands").unwrap().config.peers.len(), 1);
    insta::assert_snapshot!(errors(at("Sweden")), @r"
    variable SERVER_COUNTRIES: no file is named for `Sweden`
     |
     | SERVER_COUNTRIES=Sweden
     |                  ^^^^^^
      = write a part of a file's name; there are nl-ams-wg-001.conf
    ");
}

#[test]
fn the_servers_of_a_choice_are_listed_without_a_key() {
    let environment = [MULLVAD, ("SERVER_COUNTRIES", "usa")];
    let environment = environment
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .into();
    let sources = Sources {
        environment,
        surroundings: surroundings(),
        ..Sources::default()
    };
    let none = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let found = servers(&sources, &none).unwrap();
    assert_eq!(
        (found.total, found.servers.len(), found.days_old),
        (6, 2, Some(29))
    );
    let error = servers(&Sources::default(), &none).unwrap_err();
    insta::assert_snapshot!(error.to_string(), @r"
    no provider is named
      = set VPN_SERVICE_PROVIDER or VPNGW_PROVIDER_NAME, or write `name` below [provider] in vpngw.toml
    ");
}
