//! The test lab: a gateway's namespace, its LAN, a router, VPN servers and an Internet, all private
//! to one test.
//!
//! ```text
//!  app  eth0 172.30.0.2 ────┐                      ┌─ inet 192.0.2.2: 203.0.113.0/24, 1.1.1.1, 169.254.169.254,
//!  lan  eth0 172.30.0.50 ───┤ br0 172.30.0.1  rtr ─┤        and 192.168.77.5, a LAN client behind the router
//!  evil eth0 172.30.0.66 ───┘                      ├─ vpn1 198.51.100.10, behind it 10.64.0.1 and
//!                                                  └─ vpn2 198.51.100.11, another 203.0.113.9
//! ```
//!
//! `box` has loopback only: the joined programs' namespace of the sealed topology.

use std::cell::RefCell;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use smoltcp::wire::EthernetAddress;

pub mod addresses;
pub mod canary;
pub mod capture;
pub mod classify;
pub mod conf;
pub mod flood;
#[allow(dead_code, reason = "the probe program uses the rest")]
pub mod forge;
pub mod gateway;
pub mod inside;
pub mod lease;
pub mod machine;
pub mod ns;
#[allow(dead_code, reason = "the probe program uses the rest")]
pub mod raw;
pub mod report;
pub mod sealed;
pub mod sensor;
pub mod server;
pub mod services;
pub mod thief;
pub mod tunnel;
pub mod wires;
pub mod xdp;

use classify::Rules;
use conf::{Conf, Keys};
use gateway::Gateway;
use ns::Namespaces;
use sensor::Sensor;
use server::Server;
use services::{Service, Services};

pub use addresses::*;

const NAMES: [&str; 8] = ["app", "box", "rtr", "lan", "evil", "inet", "vpn1", "vpn2"];

/// One lab. Everything in it ends when it is dropped.
pub struct Lab {
    /// The judge of what leaves.
    pub sensor: Sensor,
    /// Programs on the public side, tagged `outside`.
    pub inet: Services,
    /// Programs on the LAN host, tagged `lan`.
    pub lan: Services,
    /// The router's resolver, which knows the VPN server's name.
    pub router: Services,
    /// 198.51.100.10 and 198.51.100.11.
    pub servers: [Server; 2],
    /// The gateway's keys.
    pub keys: Keys,
    /// Where files of this lab are.
    pub folder: tempfile::TempDir,
    /// Its namespaces.
    pub ns: Namespaces,
    clock: tempfile::NamedTempFile,
    logs: RefCell<Vec<PathBuf>>,
}

impl Lab {
    /// Builds it around the calling thread. Both VPN servers run.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("vpngw-lab-").tempdir();
        let folder = folder.unwrap();
        let resolv_conf = folder.path().join("resolv.conf");
        fs::write(&resolv_conf, format!("search home\nnameserver {ROUTER}\n")).unwrap();
        let ns = Namespaces::new(&NAMES, &resolv_conf);
        wires::wire_up(&ns);
        let keys = Keys::new();
        let servers = [1, 2].map(|n| Server::start(&ns, n, &keys, folder.path()));
        let rules = Rules {
            uplink: vec![APP],
            router_mac: EthernetAddress(ROUTER_MAC),
            arp: vec![ROUTER],
            endpoints: Vec::new(),
            lan: Vec::new(),
            resolver: None,
            resolver_again: false,
        };
        Self {
            sensor: Sensor::start(&ns, rules),
            inet: Services::start(&ns, "inet", "outside", outside()),
            lan: Services::start(&ns, "lan", "lan", on_lan()),
            router: Services::start(
                &ns,
                "rtr",
                "router",
                vec![Service::Dns(at(ROUTER, 53), *servers[0].endpoint.ip())],
            ),
            servers,
            keys,
            folder,
            ns,
            clock: clock(),
            logs: RefCell::default(),
        }
    }

    /// A configuration with the first VPN server.
    pub fn conf(&self) -> Conf {
        Conf::new(&self.keys, &[&self.servers[0]])
    }

    /// Permits the endpoints of `conf`, starts the gateway in `app`, arms the sensor at the moment
    /// the kill switch first refuses a packet.
    pub fn start(&self, conf: &Conf) -> Gateway {
        self.sensor
            .permit(|rules| rules.endpoints = conf.permitted());
        Gateway::start(self, "app", conf)
    }

    /// As [`Self::start`], and waits until it is connected.
    pub fn connect(&self, conf: &Conf) -> Gateway {
        let gateway = self.start(conf);
        gateway.wait_connected();
        gateway
    }

    /// Runs words of a command line in `app`; it must succeed.
    pub fn app(&self, line: &str) -> String {
        self.ns.run("app", line)
    }

    /// Puts the default route back in the plain way, as Docker, DHCP clients and operators do, once the gateway has taken
    /// the one before.
    pub fn route_by_the_uplink(&self) {
        wait("no default route is left", Duration::from_secs(10), || {
            let left = self.app("ip route show default").contains("via");
            (!left).then_some(())
        });
        self.app("ip route add default via 172.30.0.1");
    }

    /// From now on gateways find a kernel whose tables belong to nobody (before Linux 6.9), so that whoever has
    /// NET_ADMIN can change their rules.
    pub fn tables_belong_to_nobody(&self) {
        fs::write(self.faults(), "no-owner").unwrap();
    }

    /// The file from which gateways take their orders of faults (`vpngw::sys::fault`).
    pub fn faults(&self) -> PathBuf {
        self.folder.path().join("fault")
    }

    /// Sets the clock of handshakes forward or back, in gateways that run and in those that come.
    pub fn set_clock(&self, seconds: i64) {
        fs::write(self.clock(), seconds.to_string()).unwrap();
    }

    /// The file from which engines read how wrong their clock is.
    pub fn clock(&self) -> PathBuf {
        self.clock.path().to_owned()
    }

    /// Remembers a log that is printed if the test fails.
    pub fn remember(&self, log: PathBuf) {
        self.logs.borrow_mut().push(log);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.ns.kill_all();
        report::test(&self.sensor);
        if !std::thread::panicking() {
            return;
        }
        for log in self.logs.borrow().iter() {
            let text = fs::read_to_string(log).unwrap_or_default();
            println!("---- {} ----\n{text}", log.display());
        }
        println!("---- nft list ruleset, in app ----");
        let rules = self.ns.output("app", "nft list ruleset");
        println!("{}", String::from_utf8_lossy(&rules.stdout));
    }
}

/// A socket address.
pub fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddrV4::new(address, port).into()
}

/// Waits until a value stays the same for half a second: the end of what was already under way.
pub fn settled<T: PartialEq + Copy>(look: impl Fn() -> T) -> T {
    let mut last = look();
    wait("it settles", Duration::from_secs(20), || {
        std::thread::sleep(Duration::from_millis(500));
        let now = look();
        let same = now == last;
        last = now;
        same.then_some(now)
    })
}

/// Tries until there is an answer; panics after `patience`.
pub fn wait<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            start.elapsed() < patience,
            "gave up after {patience:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A right clock, for an engine that is another user.
fn clock() -> tempfile::NamedTempFile {
    let readable = fs::Permissions::from_mode(0o644);
    let mut builder = tempfile::Builder::new();
    let file = builder.prefix("vpngw-clock-").permissions(readable);
    let file = file.tempfile().unwrap();
    fs::write(file.path(), "0").unwrap();
    file
}

fn outside() -> Vec<Service> {
    let any = Ipv4Addr::UNSPECIFIED;
    vec![
        Service::Tcp(at(any, 7)),
        Service::Udp(at(HOST, 7)),
        Service::Udp(at(ONES, 7)),
        Service::Dns(at(ONES, 53), Ipv4Addr::new(203, 0, 113, 10)),
        Service::Udp(at(BEHIND, 7)),
    ]
}

fn on_lan() -> Vec<Service> {
    vec![
        Service::Tcp(at(LAN, 7)),
        Service::Tcp(at(LAN, 445)),
        Service::Udp(at(LAN, 7)),
        Service::Dns(at(LAN, 53), Ipv4Addr::new(203, 0, 113, 10)),
    ]
}
