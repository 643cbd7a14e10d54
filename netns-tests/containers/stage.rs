//! The stage: a machine with Docker on a LAN, a router, a VPN server, and a swarm behind the server.
//!
//! ```text
//!  machine eth0 192.168.1.10 ──┐                           ┌─ vpn1 198.51.100.10, inside it 10.64.0.1, 203.0.113.9
//!    docker 172.30.0.0/24      ├─ br0 192.168.1.1 ── rtr ──┘     │
//!  lan     eth0 192.168.1.50 ──┘                                 └─ swarm 203.0.113.70: tracker and seeder
//! ```

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Output;

use smoltcp::wire::EthernetAddress;
use std::time::SystemTime;

use crate::docker::{Docker, PATIENCE, text};
use crate::lab::classify::{LanFlow, Rules};
use crate::lab::conf::{Conf, Keys};
use crate::lab::ns::Namespaces;
use crate::lab::sealed::NOBODY;
use crate::lab::sensor::Sensor;
use crate::lab::server::Server;
use crate::lab::{APP, HOST, INNER, ONES, PRIVATE, ROUTER, wait};

/// The machine on its LAN.
pub const MACHINE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
/// A client on the LAN.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 50);
/// The tracker, behind the VPN server.
pub const TRACKER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 70);

/// The container with the uplink, as docker-compose names it: the gateway's, or the sealed engine's.
pub const GATEWAY: &str = "lab_vpngw_1";
/// The container of the sealed warden.
pub const WARDEN: &str = "lab_vpn_1";
/// The joined program's container.
pub const JOINED: &str = "lab_qbittorrent_1";

/// One stage. Everything in it ends when it is dropped.
pub struct Stage {
    /// The daemon.
    pub docker: Docker,
    /// The VPN server.
    pub server: Server,
    /// Its namespaces.
    pub ns: Namespaces,
    /// Where files of it are.
    pub folder: tempfile::TempDir,
    /// The gateway's keys.
    pub keys: Keys,
}

impl Stage {
    /// Builds it around the calling thread; the daemon has both images.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("vpngw-docker-").tempdir();
        let folder = folder.unwrap();
        let resolv_conf = folder.path().join("resolv.conf");
        fs::write(&resolv_conf, "nameserver 192.168.1.1\n").unwrap();
        let ns = Namespaces::new(&["machine", "rtr", "lan", "vpn1", "swarm"], &resolv_conf);
        wire_up(&ns);
        let keys = Keys::new();
        let server = Server::start(&ns, 1, &keys, folder.path());
        let docker = Docker::start(&ns, "machine", &folder.path().join("docker"));
        docker.build_image();
        Self {
            docker,
            server,
            ns,
            folder,
            keys,
        }
    }

    /// The folder of a profile, with `compose.yaml` as it is in the repository and a tunnel's `wg0.conf` beside it.
    pub fn profile(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        Conf::new(&self.keys, &[&self.server]).write(&folder);
        let source = format!("{}/profiles/{name}", env!("CARGO_MANIFEST_DIR"));
        fs::copy(
            format!("{source}/compose.yaml"),
            folder.join("compose.yaml"),
        )
        .unwrap();
        folder
    }

    /// The folder of the sealed profile, whose engine is a user that nobody else is, and reads its file.
    pub fn sealed_profile(&self) -> PathBuf {
        let folder = self.profile("sealed");
        let file = folder.join("wg0.conf");
        chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
        folder
    }

    /// Starts a service of a profile and those it depends on; waits until they are healthy, as docker-compose does.
    pub fn up(&self, profile: &Path, service: &str) {
        let done = self.try_up(profile, service);
        let logs = |done: &Output| {
            if done.status.success() {
                String::new()
            } else {
                self.docker.logs(GATEWAY)
            }
        };
        text(&format!("up {service}: {}", logs(&done)), &done);
    }

    /// As [`Self::up`], whatever comes of it.
    pub fn try_up(&self, profile: &Path, service: &str) -> Output {
        self.docker.compose(profile, &["up", "-d", service])
    }

    /// Starts the gateway alone, puts a sensor at the far end of its uplink, and waits until it is healthy. From
    /// then on only WireGuard, ARP for Docker's gateway and answers of the WebUI to the LAN client may leave.
    pub fn gateway(&self, profile: &Path) -> Sensor {
        self.up(profile, "vpngw");
        let sensor = self.watch(GATEWAY);
        sensor.arm(SystemTime::now());
        self.wait_healthy(GATEWAY);
        sensor
    }

    /// As [`Self::gateway`], both halves of the sealed topology; the sensor is at the bridge, which stays when the
    /// engine's container does not.
    pub fn sealed(&self, profile: &Path) -> Sensor {
        self.up(profile, "vpn");
        self.up(profile, "vpngw");
        let (_, bridge) = self.cable(GATEWAY);
        let sensor = self.watch_at(&bridge, &bridge);
        sensor.arm(SystemTime::now());
        self.wait_healthy(GATEWAY);
        self.wait_healthy(WARDEN);
        sensor
    }

    /// Waits until Docker says that a container is healthy.
    pub fn wait_healthy(&self, container: &str) {
        wait("the container is healthy", PATIENCE, || {
            let health = self.docker.inspect(container, "{{.State.Health.Status}}");
            (health == "healthy").then_some(())
        });
    }

    /// A sensor at the far end of a container's `eth0`.
    pub fn watch(&self, container: &str) -> Sensor {
        let (device, bridge) = self.cable(container);
        self.watch_at(&device, &bridge)
    }

    fn watch_at(&self, device: &str, bridge: &str) -> Sensor {
        let link = self.ns.run("machine", &format!("ip -o link show {bridge}"));
        let mac = link.split("link/ether ").nth(1).unwrap();
        let bytes: Vec<u8> = mac[..17].split(':').map(hex).collect();
        let rules = Rules {
            uplink: vec![APP],
            router_mac: EthernetAddress::from_bytes(&bytes),
            arp: vec![ROUTER],
            endpoints: vec![(self.server.endpoint, None)],
            lan: vec![LanFlow {
                protocol: 6,
                local: Some(8080),
                remote: CLIENT,
                remote_port: None,
            }],
            resolver: None,
            resolver_again: false,
        };
        Sensor::start_at(&self.ns, "machine", device, rules)
    }

    /// The far end of a container's `eth0`, and the bridge that it is in.
    pub fn cable(&self, container: &str) -> (String, String) {
        let own = self.docker.run_in(container, "ip -o link show eth0");
        // "2: eth0@if7: <…": the number of the far end.
        let number = own
            .split("@if")
            .nth(1)
            .and_then(|rest| rest.split(':').next());
        let all = self.ns.run("machine", "ip -o link show");
        let start = format!("{}: ", number.unwrap());
        let line = all.lines().find(|line| line.starts_with(&start)).unwrap();
        let name = line[start.len()..].split('@').next().unwrap().to_owned();
        let bridge = line.split("master ").nth(1).unwrap();
        (name, bridge.split(' ').next().unwrap().to_owned())
    }

    /// What a LAN client gets from a published port.
    pub fn lan_curl(&self, arguments: &str) -> Output {
        self.ns.output(
            "lan",
            &format!("curl --silent --show-error --max-time 20 {arguments}"),
        )
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for container in [WARDEN, GATEWAY, JOINED] {
                println!("---- {container} ----\n{}", self.docker.logs(container));
            }
        }
        self.ns.kill_all();
    }
}

fn hex(digits: &str) -> u8 {
    u8::from_str_radix(digits, 16).unwrap()
}

fn wire_up(ns: &Namespaces) {
    ns.feed(
        "rtr",
        "ip -batch -",
        "\
link add br0 type bridge
link add tomachine type veth peer name eth0 netns machine
link add tolan type veth peer name eth0 netns lan
link add tovpn1 type veth peer name eth0 netns vpn1
link set tomachine master br0
link set tolan master br0
addr add 192.168.1.1/24 dev br0
addr add 192.0.2.5/30 dev tovpn1
link set br0 up
link set tomachine up
link set tolan up
link set tovpn1 up
route add 198.51.100.10 via 192.0.2.6
",
    );
    for (name, address) in [("machine", MACHINE), ("lan", CLIENT)] {
        let lines = format!(
            "addr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via 192.168.1.1\n"
        );
        ns.feed(name, "ip -batch -", &lines);
    }
    ns.feed(
        "vpn1",
        "ip -batch -",
        &format!(
            "\
link add toswarm type veth peer name eth0 netns swarm
addr add 192.0.2.6/30 dev eth0
link set eth0 up
route add default via 192.0.2.5
addr add 203.0.113.65/28 dev toswarm
link set toswarm up
route add blackhole 10.64.0.0/24 metric 4000
addr add 198.51.100.10/32 dev lo
addr add {INNER}/32 dev lo
addr add {HOST}/32 dev lo
addr add {ONES}/32 dev lo
addr add {PRIVATE}/32 dev lo
"
        ),
    );
    ns.feed(
        "swarm",
        "ip -batch -",
        &format!(
            "\
addr add {TRACKER}/28 dev eth0
link set eth0 up
route add default via 203.0.113.65
"
        ),
    );
    // The blackhole: a peer hears nothing of a dead server, as on the Internet, not that there is no route.
    // From Linux 6.15 on: a peer tries again every 2 s, so that the test need not wait for its back-off.
    ns.enter("swarm", || {
        let _slower_without = fs::write("/proc/sys/net/ipv4/tcp_rto_max_ms", "2000");
    });
    for name in ["rtr", "vpn1"] {
        ns.enter(name, || {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("/proc/sys is writable");
        });
    }
}
