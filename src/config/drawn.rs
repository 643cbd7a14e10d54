//! Configurations by chance, as an operator would write them, for properties of other modules. Few values, so
//! that they meet; most are good, so that some configurations are.

use std::io;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;

use super::{Errors, Loaded, Read, Sources};

/// Text of the two files.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    toml: String,
    wg: String,
}

/// How a configuration is read: [`load`](super::load()) or one of its kin.
pub(crate) type Load = fn(&Sources, Read<'_>) -> Result<Loaded, Errors>;

impl Drawn {
    pub(crate) fn load(&self, load: Load) -> Result<Loaded, Errors> {
        let sources = Sources {
            file: Some("/c/vpngw.toml".into()),
            wireguard: vec!["/c/wg0.conf".into()],
            ..Sources::default()
        };
        let read = |path: &Path| match path.to_str() {
            Some("/c/vpngw.toml") => Ok(self.toml.clone()),
            Some("/c/wg0.conf") => Ok(self.wg.clone()),
            Some(_) | None => Err(io::ErrorKind::NotFound.into()),
        };
        load(&sources, &read)
    }
}

/// One of the first list in nine cases of ten, else of the second.
fn mostly(
    good: &'static [&'static str],
    odd: &'static [&'static str],
) -> impl Strategy<Value = &'static str> {
    prop_oneof![9 => select(good), 1 => select(odd)]
}

const LAN: &[&str] = &[
    "172.30.0.0/24",
    "192.168.1.0/24",
    "192.168.1.7/32",
    "10.99.0.0/24",
];
const ODD_LAN: &[&str] = &[
    "0.0.0.0/0",
    "10.0.0.0/8",
    "127.0.0.0/8",
    "127.0.0.11/32",
    "169.254.0.0/16",
    "169.254.169.254/32",
    "169.254.170.2/32",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "224.0.0.0/8",
    "255.255.255.255/32",
    "203.0.113.0/24",
    "10.64.0.0/16",
    "10.64.0.1/32",
    "198.51.100.10/32",
    "0.0.0.0/8",
];
const HOST: &[&str] = &[
    "172.30.0.20",
    "192.168.1.20",
    "172.30.0.2",
    "172.30.0.255",
    "192.168.1.0",
];
const ODD_HOST: &[&str] = &[
    "127.0.0.1",
    "127.0.0.11",
    "169.254.169.254",
    "169.254.170.2",
    "224.0.0.251",
    "255.255.255.255",
    "10.64.0.1",
    "10.64.0.2",
    "10.99.0.7",
    "8.8.8.8",
    "0.0.0.0",
    "240.0.0.1",
];
const PORT: &[&str] = &["tcp/8080", "tcp/445", "tcp/1"];
const ODD_PORT: &[&str] = &[
    "udp/27015",
    "udp/53",
    "tcp/853",
    "udp/1900",
    "udp/137",
    "tcp/5355",
];
const ADDRESS: &[&str] = &["10.64.0.2/32", "10.64.0.2/16", "100.64.3.4/10"];
const ODD_ADDRESS: &[&str] = &[
    "127.0.0.1/32",
    "169.254.169.254/32",
    "100.100.100.200/32",
    "192.168.1.9/24",
    "10.64.0.0/24",
    "0.0.0.0/32",
];
const DNS: &[&str] = &["10.64.0.1", "1.1.1.1"];
const ODD_DNS: &[&str] = &[
    "127.0.0.11",
    "169.254.169.254",
    "192.168.1.20",
    "172.30.0.1",
];
const ENDPOINT: &[&str] = &[
    "198.51.100.10:51820",
    "vpn.example.com:51820",
    "203.0.113.7:443",
];
const ODD_ENDPOINT: &[&str] = &[
    "10.64.0.1:51820",
    "10.64.9.9:51820",
    "10.64.0.2:51820",
    "10.99.0.7:51820",
    "192.168.1.7:51820",
    "172.30.0.20:51820",
    "172.30.0.255:51820",
    "172.30.0.2:51820",
    "127.0.0.1:51820",
    "169.254.169.254:51820",
    "1.1.1.1:53",
    "168.63.129.16:51820",
];
const RESOLVER: &[&str] = &["172.30.0.1", "9.9.9.9"];
const ODD_RESOLVER: &[&str] = &[
    "10.64.0.1",
    "1.1.1.1",
    "127.0.0.11",
    "169.254.169.254",
    "10.99.0.1",
    "172.30.0.2",
];

pub(crate) fn drawn() -> impl Strategy<Value = Drawn> {
    let inbound = (mostly(LAN, ODD_LAN), mostly(PORT, ODD_PORT));
    let outbound = (mostly(HOST, ODD_HOST), mostly(PORT, ODD_PORT));
    let lists = (
        prop::collection::vec(inbound, 0..3),
        prop::collection::vec(outbound, 0..3),
        prop::collection::vec(select(&["10.99.0.0/24", "10.70.0.0/16"][..]), 0..2),
        prop::option::of(mostly(RESOLVER, ODD_RESOLVER)),
        prop::option::weighted(0.1, select(&["eth0", "tun0"][..])),
    );
    let tunnel = (
        mostly(ADDRESS, ODD_ADDRESS),
        prop::option::of(mostly(DNS, ODD_DNS)),
        prop::collection::vec(mostly(ENDPOINT, ODD_ENDPOINT), 1..3),
    );
    (lists, tunnel).prop_map(|((inbound, outbound, private, resolver, uplink), tunnel)| {
        let (address, dns, endpoints) = tunnel;
        let list = |items: Vec<String>| items.join(", ");
        let quoted = |text: &&str| format!("\"{text}\"");
        let inbound = inbound.iter().map(|(from, to)| format!("{{ from = \"{from}\", to = \"{to}\" }}"));
        let outbound = outbound.iter().map(|(to, port)| format!("{{ to = \"{to}\", port = \"{port}\" }}"));
        let mut toml = format!(
            "[lan]\ninbound = [{}]\noutbound = [{}]\n[tunnel]\nprivate = [{}]\n[uplink]\n",
            list(inbound.collect()),
            list(outbound.collect()),
            list(private.iter().map(quoted).collect()),
        );
        toml.extend(resolver.map(|ip| format!("resolver = \"{ip}\"\n")));
        toml.extend(uplink.map(|name| format!("device = \"{name}\"\n")));
        let mut wg = format!(
            "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\nAddress = {address}\n"
        );
        wg.extend(dns.map(|ip| format!("DNS = {ip}\n")));
        wg.extend(endpoints.iter().map(|endpoint| {
            format!(
                "[Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n\
                 AllowedIPs = 0.0.0.0/0\nEndpoint = {endpoint}\n"
            )
        }));
        Drawn { toml, wg }
    })
}
