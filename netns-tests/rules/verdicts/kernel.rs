//! The stage: a namespace with two cables, a tunnel and loopback, and chains before and after ours that
//! count what came and what was let through.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol as Number, Socket, Type};
use tun_rs::{DeviceBuilder, SyncDevice};
use vpngw::policy::{Direction, Reason};
use vpngw::ruleset::Hook;
use vpngw::ruleset::attribute::{each, find, find_str, find_u64};
use vpngw::sys::netlink::Netlink;
use vpngw::sys::nft;

use super::super::wire::Wire;
use super::super::{Ns, ip, sh};
use super::packet::Packet;
use super::random::{TUNNEL, UPLINK};
use crate::lab::raw::set_option;

/// Long enough for a packet to come through a cable on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How long the outcome of a packet that came is awaited. Routing drops some without a trace.
const TRACE: Duration = Duration::from_millis(10);

/// What the kernel itself says (ICMP errors, resets) has another priority than our packets.
const WITNESS: &str = "
table inet witness {
    chain guard { type filter hook output priority -450; meta priority != 0:5 drop; }
    chain before { type filter hook prerouting priority -500; iifname != \"lo\" meta nfproto ipv4 counter; }
    chain input { type filter hook input priority 500; iifname != \"lo\" meta nfproto ipv4 counter; }
    chain forward { type filter hook forward priority 500; meta nfproto ipv4 counter; }
    chain output { type filter hook output priority 500; meta nfproto ipv4 counter; }
    chain tracking { type filter hook output priority 400; ct state established accept; }
}";

pub(super) struct Stage {
    pub app: Ns,
    world: Ns,
    tun: SyncDevice,
    macs: BTreeMap<&'static str, [u8; 6]>,
}

/// What became of a packet.
#[derive(Debug)]
pub(super) struct Outcome {
    pub passed: bool,
    /// The reason of our rule that counted it.
    pub counted: Option<Reason>,
}

impl Stage {
    pub(super) fn new() -> Self {
        let (app, world) = (Ns::new(), Ns::new());
        let path = app.path();
        world.run(|| {
            for n in [0, 1] {
                ip(&format!(
                    "link add w{n} type veth peer name eth{n} netns {path}"
                ));
                ip(&format!("link set w{n} addrgenmode none"));
                ip(&format!("link set w{n} up"));
            }
        });
        let tun = app.run(|| {
            for scope in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv4/conf/{scope}/rp_filter");
                std::fs::write(path, "0").unwrap();
            }
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            let tun = DeviceBuilder::new()
                .name("tun0")
                .mtu(1420)
                .build_sync()
                .unwrap();
            for (device, address) in [
                ("eth0", UPLINK.to_string()),
                ("eth1", "192.0.2.99".into()),
                ("tun0", TUNNEL.to_string()),
            ] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/{device}/rp_filter"), "0").unwrap();
                ip(&format!("link set {device} addrgenmode none"));
                ip(&format!("address add {address}/32 dev {device}"));
                ip(&format!("link set {device} up"));
            }
            // Every source is right on every device: reverse path is the kernel's affair, not the policy's.
            ip("route add default nexthop dev eth0 nexthop dev eth1 nexthop dev tun0");
            sh("nft", &[WITNESS]);
            tun
        });
        let macs = ["eth0", "eth1"].map(|device| (device, app.run(|| mac(device))));
        let stage = Self {
            app,
            world,
            tun,
            macs: macs.into(),
        };
        stage.wait_for_cables();
        stage
    }

    /// A veth may take a moment to pass packets after it was set up (net/core/link_watch.c).
    fn wait_for_cables(&self) {
        for (device, mac) in &self.macs {
            let frame = [&mac[..], &[2, 0, 0, 0, 0, 1, 8, 0], &[0x45; 60]].concat();
            let start = Instant::now();
            while !self.app.run(|| Wire::open(device).send(&frame).is_ok()) {
                assert!(start.elapsed() < PATIENCE, "{device} never came up");
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Sends it the way it says, and sees what became of it.
    pub(super) fn shoot(&self, packet: &Packet) -> Outcome {
        let before = self.app.run(Counts::read);
        match packet.flow.direction {
            Direction::Out => self.app.run(|| send_out(packet)),
            Direction::In | Direction::Forward => self.send_in(packet),
        }
        let start = Instant::now();
        let mut arrived = None;
        loop {
            let gained = self.app.run(Counts::read).since(&before);
            let came = packet.flow.direction == Direction::Out || gained.witness("before") > 0;
            if came {
                arrived.get_or_insert_with(Instant::now);
            }
            let passed = match packet.flow.direction {
                Direction::Out => gained.witness("output"),
                Direction::In => gained.witness("input"),
                Direction::Forward => gained.witness("forward"),
            };
            let counted = gained.ours(packet.flow.direction);
            let traced = passed > 0 || counted.is_some();
            let given_up = arrived.is_some_and(|at| at.elapsed() > TRACE);
            if came && (traced || given_up) {
                return Outcome {
                    passed: passed > 0,
                    counted,
                };
            }
            assert!(start.elapsed() < PATIENCE, "it never came: {packet:?}");
        }
    }

    fn send_in(&self, packet: &Packet) {
        let (bytes, device) = (packet.bytes(), packet.flow.device.name.as_str());
        if device == "tun0" {
            self.tun.send(&bytes).unwrap();
            return;
        }
        let mut frame = self.macs[device].to_vec();
        frame.extend([2, 0, 0, 0, 0, 1, 8, 0]);
        frame.extend(bytes);
        let far = if device == "eth0" { "w0" } else { "w1" };
        self.world.run(|| Wire::open(far).send(&frame)).unwrap();
    }

    /// Whether a raw frame with the packet's mark leaves by the packet's device.
    pub(super) fn send_frame(&self, packet: &Packet, bytes: &[u8]) -> bool {
        self.app.run(|| {
            let wire = Wire::open(packet.flow.device.name.as_str());
            wire.mark(packet.flow.mark.0);
            left(wire.send(bytes))
        })
    }

    pub(super) fn send_bytes(&self, device: &str, bytes: &[u8]) -> bool {
        self.app.run(|| left(Wire::open(device).send(bytes)))
    }
}

/// The egress chain says ENOBUFS; anything else is a fault of the test.
fn left(sent: std::io::Result<usize>) -> bool {
    match sent {
        Ok(_) => true,
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => false,
        Err(error) => panic!("{error}"),
    }
}

fn mac(device: &str) -> [u8; 6] {
    let text = sh("ip", &["-o", "link", "show", "dev", device]);
    let text = text.split("link/ether ").nth(1).unwrap();
    let bytes = text[..17]
        .split(':')
        .map(|digits| u8::from_str_radix(digits, 16).unwrap());
    bytes.collect::<Vec<_>>().try_into().unwrap()
}

/// A raw socket that insists on the device; an error of the send is what a refusal looks like.
fn send_out(packet: &Packet) {
    let socket = Socket::new(
        Domain::IPV4,
        Type::RAW,
        Some(Number::from(libc::IPPROTO_RAW)),
    )
    .unwrap();
    let device = packet.flow.device.name.as_str();
    socket.bind_device(Some(device.as_bytes())).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.set_mark(packet.flow.mark.0).unwrap();
    let priority = 5_i32.to_ne_bytes();
    set_option(&socket, libc::SOL_SOCKET, libc::SO_PRIORITY, &priority).unwrap();
    let IpAddr::V4(to) = packet.flow.destination else {
        panic!("IPv4 only");
    };
    match socket.send_to(&packet.bytes(), &SocketAddr::from((to, 0)).into()) {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
        Err(error) => panic!("{error}: {packet:?}"),
    }
}

/// Counters of the witness by chain, and of our rules.
struct Counts {
    witness: BTreeMap<String, u64>,
    ours: Vec<(Hook, Reason, u64)>,
}

impl Counts {
    fn read() -> Self {
        let ours = nft::counters().unwrap();
        let ours = ours.iter().map(|it| (it.hook, it.reason, it.packets));
        Self {
            witness: witness(),
            ours: ours.collect(),
        }
    }

    fn since(mut self, before: &Self) -> Self {
        for (chain, count) in &mut self.witness {
            *count -= before.witness.get(chain).copied().unwrap_or(0);
        }
        if self.ours.len() == before.ours.len() {
            for (now, then) in self.ours.iter_mut().zip(&before.ours) {
                now.2 -= then.2;
            }
        }
        self
    }

    fn witness(&self, chain: &str) -> u64 {
        self.witness[chain]
    }

    /// The reason that counted in the chains which a packet of this direction passes last.
    fn ours(&self, direction: Direction) -> Option<Reason> {
        let hooks: &[Hook] = match direction {
            Direction::Out => &[Hook::Output],
            Direction::In => &[Hook::Input, Hook::Prerouting],
            Direction::Forward => &[Hook::Forward, Hook::Prerouting],
        };
        let mut counted = self
            .ours
            .iter()
            .filter(|(hook, _, n)| hooks.contains(hook) && *n > 0);
        counted.next().map(|(_, reason, _)| *reason)
    }
}

/// The first counter of each chain of the witness (NFT_MSG_GETRULE; linux/netfilter/nf_tables.h).
fn witness() -> BTreeMap<String, u64> {
    let getrule = 10 << 8 | 7;
    let mut found = BTreeMap::new();
    let mut netlink = Netlink::open(12).unwrap();
    let dumped = netlink.dump(getrule, &[1, 0, 0, 0], |message| {
        let Some(message) = message else {
            found.clear();
            return;
        };
        let attributes = &message.payload[4..];
        if find_str(attributes, 1) != Some("witness") {
            return;
        }
        let chain = find_str(attributes, 2).unwrap().to_owned();
        for (_, expression) in each(find(attributes, 4).unwrap_or_default()) {
            if find_str(expression, 1) == Some("counter") {
                let packets = find(expression, 2).and_then(|data| find_u64(data, 2));
                found.insert(chain.clone(), packets.unwrap());
            }
        }
    });
    dumped.unwrap();
    found
}

/// Empties the table of connections (IPCTNL_MSG_CT_DELETE; linux/netfilter/nfnetlink_conntrack.h).
pub(super) fn forget_connections() {
    // It says nothing when it has done it.
    let _ = Netlink::open(12).unwrap().get(1 << 8 | 2, &[2, 0, 0, 0]);
}
