//! Configuration files of a gateway, and the keys in them.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::server::Server;
use super::{INNER, LISTEN, TUNNEL};

/// A pair of keys as base64.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Private.
    pub private: String,
    /// Public.
    pub public: String,
}

impl Keys {
    /// Makes a pair with wg(8).
    pub fn new() -> Self {
        let private = wg("genkey", "");
        let public = wg("pubkey", &private);
        Self { private, public }
    }
}

/// What a gateway is told. Written as a wg-quick file and a `vpngw.toml` that names it.
#[derive(Clone, Debug)]
pub struct Conf {
    /// Our private key.
    pub private_key: String,
    /// `Address`.
    pub address: String,
    /// `DNS`; empty leaves it out.
    pub dns: String,
    /// `ListenPort`; `None` leaves it out.
    pub listen_port: Option<u16>,
    /// VPN servers in order.
    pub peers: Vec<Peer>,
    /// Lines of `vpngw.toml` after `wireguard = …`.
    pub toml: String,
}

/// A `[Peer]` section.
#[derive(Clone, Debug)]
pub struct Peer {
    /// `PublicKey`.
    pub public_key: String,
    /// `Endpoint`.
    pub endpoint: String,
    /// The address that `endpoint` stands for.
    pub resolved: SocketAddrV4,
    /// `AllowedIPs`.
    pub allowed_ips: String,
    /// `PersistentKeepalive`; `None` leaves it out.
    pub keepalive: Option<u16>,
}

impl Conf {
    /// A gateway with these servers as alternatives, and the defaults for everything else.
    pub fn new(keys: &Keys, servers: &[&Server]) -> Self {
        Self {
            private_key: keys.private.clone(),
            address: format!("{TUNNEL}/24"),
            dns: INNER.to_string(),
            listen_port: Some(LISTEN),
            peers: servers.iter().map(|server| Peer::of(server)).collect(),
            toml: String::new(),
        }
    }

    /// What the sensor must let pass.
    pub fn permitted(&self) -> Vec<(SocketAddrV4, Option<u16>)> {
        let peers = self.peers.iter();
        peers
            .map(|peer| (peer.resolved, self.listen_port))
            .collect()
    }

    /// Writes both files into the folder; the path of `vpngw.toml`.
    pub fn write(&self, folder: &Path) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let wireguard = folder.join("wg0.conf");
        fs::write(&wireguard, self.wg_quick()).unwrap();
        let path = folder.join("vpngw.toml");
        let text = format!("wireguard = \"{}\"\n{}\n", wireguard.display(), self.toml);
        fs::write(&path, text).unwrap();
        path
    }

    fn wg_quick(&self) -> String {
        let mut text = format!(
            "[Interface]\nPrivateKey = {}\nAddress = {}\n",
            self.private_key, self.address
        );
        if !self.dns.is_empty() {
            writeln!(text, "DNS = {}", self.dns).unwrap();
        }
        if let Some(port) = self.listen_port {
            writeln!(text, "ListenPort = {port}").unwrap();
        }
        for peer in &self.peers {
            write!(
                text,
                "\n[Peer]\nPublicKey = {}\nEndpoint = {}\nAllowedIPs = {}\n",
                peer.public_key, peer.endpoint, peer.allowed_ips
            )
            .unwrap();
            if let Some(seconds) = peer.keepalive {
                writeln!(text, "PersistentKeepalive = {seconds}").unwrap();
            }
        }
        text
    }
}

impl Peer {
    fn of(server: &Server) -> Self {
        Self {
            public_key: server.keys.public.clone(),
            endpoint: server.endpoint.to_string(),
            resolved: server.endpoint,
            allowed_ips: "0.0.0.0/0".into(),
            keepalive: None,
        }
    }
}

fn wg(what: &str, input: &str) -> String {
    let mut command = Command::new("wg");
    command
        .arg(what)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().expect("`wg` of wireguard-tools starts");
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(input.as_bytes()).unwrap();
    drop(pipe);
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "wg {what}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}
