//! A VPN server: wireguard-go and, behind it, programs that say they are inside.

use std::cell::RefCell;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::conf::Keys;
use super::ns::Namespaces;
use super::services::{Service, Services};
use super::{HOST, INNER, ONES, PRIVATE, TUNNEL, at, wait};

/// One VPN server in the namespace `vpn1` or `vpn2`.
pub struct Server {
    /// Its namespace.
    pub namespace: String,
    /// Its WireGuard device.
    pub device: String,
    /// Where it is reached.
    pub endpoint: SocketAddrV4,
    /// Its keys.
    pub keys: Keys,
    /// Programs behind it, tagged `inside1` or `inside2`.
    pub services: Services,
    client: String,
    folder: PathBuf,
    ns: Namespaces,
    process: RefCell<Option<Child>>,
}

impl Server {
    /// Starts server `n`, 1 or 2, with the gateway as its peer.
    pub fn start(ns: &Namespaces, n: u8, client: &Keys, folder: &Path) -> Self {
        let namespace = format!("vpn{n}");
        let tag = if n == 1 { "inside1" } else { "inside2" };
        let services = Services::start(ns, &namespace, tag, inside());
        let server = Self {
            device: format!("wg{n}"),
            endpoint: SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, n + 9), 51820),
            keys: Keys::new(),
            services,
            client: client.public.clone(),
            folder: folder.join(&namespace),
            ns: ns.clone(),
            namespace,
            process: RefCell::default(),
        };
        fs::create_dir_all(&server.folder).unwrap();
        fs::write(server.folder.join("key"), &server.keys.private).unwrap();
        server.up();
        server
    }

    /// Starts the process and configures its device.
    pub fn up(&self) {
        let log = File::create(self.folder.join("log")).unwrap();
        let mut command = Command::new("wireguard-go");
        command.args(["-f", &self.device]).env("LOG_LEVEL", "error");
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = self.ns.start(&self.namespace, &mut command);
        self.process.replace(Some(child));
        wait_for_uapi(&self.device);
        let (device, key) = (&self.device, self.folder.join("key"));
        self.run(&format!(
            "wg set {device} listen-port 51820 private-key {} peer {} allowed-ips {TUNNEL}/32",
            key.display(),
            self.client
        ));
        self.run(&format!("ip addr add {INNER}/24 dev {device}"));
        self.run(&format!("ip link set {device} mtu 1420 up"));
    }

    /// Whether it forwards what comes through the tunnel, and answers it.
    pub fn forwards(&self, does: bool) {
        let device = &self.device;
        let ended = format!(
            "add table ip ended\nadd chain ip ended early {{ type filter hook prerouting priority -500; }}\n\
             add rule ip ended early iifname {device} drop\n"
        );
        let lines = if does {
            "delete table ip ended\n"
        } else {
            &ended
        };
        self.ns.feed(&self.namespace, "nft -f -", lines);
    }

    /// Kills the process: handshakes are answered by ICMP "port unreachable".
    pub fn kill(&self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(format!("/run/wireguard/{}.sock", self.device));
    }

    /// Makes the router swallow everything for this server, or lets it through again.
    pub fn swallow(&self, on: Swallow) {
        let ip = self.endpoint.ip();
        // The last byte of 198.51.100.10 and of 192.0.2.6, its end of the cable (see `wires`).
        let cable = (ip.octets()[3] - 9) * 4 + 2;
        let line = match on {
            Swallow::Everything => format!("ip route replace blackhole {ip}/32"),
            Swallow::Nothing => format!("ip route replace {ip}/32 via 192.0.2.{cable}"),
        };
        self.ns.run("rtr", &line);
    }

    /// Unix time of the last handshake with the gateway; 0 is none.
    pub fn last_handshake(&self) -> u64 {
        let text = self.run(&format!("wg show {} latest-handshakes", self.device));
        let seconds = text.split_whitespace().nth(1);
        seconds.and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    /// Runs words of a command line in its namespace; it must succeed.
    pub fn run(&self, line: &str) -> String {
        self.ns.run(&self.namespace, line)
    }
}

/// Waits until the process behind a device answers. Not by wg(8): it removes the socket of a process
/// that is not listening yet.
pub fn wait_for_uapi(device: &str) {
    let socket = format!("/run/wireguard/{device}.sock");
    wait("wireguard-go listens", Duration::from_secs(20), || {
        UnixStream::connect(&socket).ok()
    });
}

/// Whether the router delivers to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swallow {
    /// It does not.
    Everything,
    /// It does.
    Nothing,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn inside() -> Vec<Service> {
    vec![
        Service::Tcp(at(Ipv4Addr::UNSPECIFIED, 7)),
        Service::Source(at(Ipv4Addr::UNSPECIFIED, 19)),
        Service::Udp(at(INNER, 7)),
        Service::Udp(at(HOST, 7)),
        Service::Udp(at(ONES, 7)),
        Service::Udp(at(PRIVATE, 7)),
        Service::Dns(at(INNER, 53), HOST),
        Service::Dns(at(ONES, 53), HOST),
    ]
}
