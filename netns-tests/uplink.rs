//! The uplink goes, comes back, changes, or gets company.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::lab::capture::Capture;
use crate::lab::flood::Flood;
use crate::lab::tunnel::{Stream, assert_inside, ifindex};
use crate::lab::{APP, HOST, Lab, TUNNEL, at, wait};
use crate::probes::{self, device, ip};

const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn the_cable_is_pulled_and_plugged_in() {
    let lab = Lab::new();
    let flood = Flood::start(&lab.ns);
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let device = ifindex(&lab.ns, "app", "tun0");
    lab.ns.run("rtr", "ip link set toapp down");
    flood.goes_on(2000);
    lab.ns.run("rtr", "ip link set toapp up");
    stream.echo(PATIENCE).unwrap();
    gateway.wait_connected();
    assert_eq!(ifindex(&lab.ns, "app", "tun0"), device);
    lab.sensor.verdict();
}

#[test]
fn the_uplink_goes_down_and_comes_up() {
    let lab = Lab::new();
    probes::control(&lab, device::PROBES);
    let flood = Flood::start(&lab.ns);
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let device = ifindex(&lab.ns, "app", "tun0");
    lab.app("ip link set eth0 down");
    flood.goes_on(2000);
    lab.app("ip link set eth0 up");
    // Whoever set the link up also sets the route, as Docker and DHCP clients do.
    lab.app("ip route replace default via 172.30.0.1 dev eth0 metric 100");
    stream.echo(PATIENCE).unwrap();
    gateway.wait_connected();
    assert_eq!(ifindex(&lab.ns, "app", "tun0"), device);
    probes::fire(&lab, device::PROBES);
}

#[test]
fn the_uplink_changes_its_address() {
    let lab = Lab::new();
    let flood = Flood::start(&lab.ns);
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let new = Ipv4Addr::new(172, 30, 0, 3);
    lab.sensor.permit(|rules| rules.uplink = vec![APP, new]);
    lab.app("ip addr del 172.30.0.2/24 dev eth0");
    lab.app("ip addr add 172.30.0.3/24 dev eth0");
    lab.app("ip route replace default via 172.30.0.1 dev eth0 metric 100");
    stream.echo(PATIENCE).unwrap();
    gateway.wait_connected();
    lab.sensor.drain();
    lab.sensor.permit(|rules| rules.uplink = vec![new]);
    assert_inside(&lab.ns, 1);
    flood.goes_on(1000);
    lab.sensor.verdict();
}

/// As `docker network connect` does: another device, another default route.
#[test]
fn a_second_uplink_carries_nothing() {
    let lab = Lab::new();
    add_spy(&lab, "eth1", "10.99.0.2/24");
    let spy = Spy::start(&lab);
    lab.app("ip route add 203.0.113.0/24 via 10.99.0.1 dev eth1");
    let flood = Flood::start(&lab.ns);
    wait(
        "the spy sees what leaves by it",
        Duration::from_secs(20),
        || (spy.frames() > 20).then_some(()),
    );
    let _gateway = lab.connect(&lab.conf());
    spy.settle(&lab);
    let before = spy.frames();
    flood.goes_on(2000);
    for line in [
        "ip route replace default via 10.99.0.1 dev eth1",
        "ip route replace 0.0.0.0/1 via 10.99.0.1 dev eth1",
    ] {
        lab.app(line);
        flood.goes_on(1000);
    }
    spy.settle(&lab);
    assert_eq!(spy.frames(), before, "frames left by the second uplink");
    lab.sensor.verdict();
}

#[test]
fn a_device_added_later_carries_nothing() {
    let lab = Lab::new();
    let flood = Flood::start(&lab.ns);
    let _gateway = lab.connect(&lab.conf());
    lab.app("ip link add eth1 type veth peer name spy netns evil");
    lab.ns.run("evil", "ip link set spy addrgenmode none");
    lab.ns.run("evil", "ip link set spy up");
    let spy = Spy::start(&lab);
    lab.ns.feed(
        "app",
        "ip -batch -",
        "addr add 10.99.0.2/24 dev eth1\nlink set eth1 up\n",
    );
    lab.app("ip route add 203.0.113.0/24 via 10.99.0.1 dev eth1");
    flood.goes_on(2000);
    assert_eq!(spy.frames(), 0, "frames left by a device that was added");
    lab.sensor.verdict();
}

/// The rules match the kind of the device: after death its name is free for anybody.
#[test]
fn a_device_that_takes_the_tunnels_name_carries_nothing() {
    let lab = Lab::new();
    probes::control(&lab, ip::PROBES);
    let flood = Flood::start(&lab.ns);
    let mut gateway = lab.connect(&lab.conf());
    gateway.kill();
    wait("the tunnel is gone", Duration::from_secs(20), || {
        (!lab
            .ns
            .output("app", "ip link show dev tun0")
            .status
            .success())
        .then_some(())
    });
    lab.app("ip link add tun0 type veth peer name spy netns evil");
    lab.ns.run("evil", "ip link set spy addrgenmode none");
    lab.ns.run("evil", "ip link set spy up");
    let spy = Spy::start(&lab);
    let address = format!("addr add {TUNNEL}/24 dev tun0\nlink set tun0 up\n");
    lab.ns.feed("app", "ip -batch -", &address);
    lab.app("ip route replace default via 10.64.0.1 dev tun0");
    lab.ns.run(
        "app",
        "ip neigh replace 10.64.0.1 lladdr 02:00:00:00:00:88 dev tun0",
    );
    flood.goes_on(1500);
    probes::fire(&lab, ip::PROBES);
    assert_eq!(
        spy.frames(),
        0,
        "frames left by a device named like the tunnel"
    );
}

fn add_spy(lab: &Lab, device: &str, address: &str) {
    lab.app(&format!(
        "ip link add {device} type veth peer name spy netns evil"
    ));
    lab.ns.run("evil", "ip link set spy addrgenmode none");
    lab.ns.run("evil", "ip addr add 10.99.0.1/24 dev spy");
    lab.ns.run("evil", "ip link set spy up");
    lab.app(&format!("ip addr add {address} dev {device}"));
    lab.app(&format!("ip link set {device} up"));
}

/// Counts what arrives at the other end of a second device.
struct Spy {
    frames: Arc<AtomicU64>,
    _capture: Capture,
}

impl Spy {
    fn start(lab: &Lab) -> Self {
        let frames = Arc::<AtomicU64>::default();
        let counter = frames.clone();
        let capture = Capture::start(&lab.ns, "evil", "spy", move |frame| {
            if !frame.outgoing {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            frames,
            _capture: capture,
        }
    }

    fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Waits until nothing new has arrived for a while: the end of what was already under way.
    fn settle(&self, lab: &Lab) {
        lab.sensor.drain();
        let mut last = self.frames();
        wait("the spy is quiet", Duration::from_secs(20), || {
            std::thread::sleep(Duration::from_millis(300));
            let now = self.frames();
            let quiet = now == last;
            last = now;
            quiet.then_some(())
        });
    }
}
