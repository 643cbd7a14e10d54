//! The uplink goes, comes back, changes, or gets company.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::lab::canary;
use crate::lab::capture::Capture;
use crate::lab::flood::Flood;
use crate::lab::tunnel::{Stream, assert_inside, ifindex};
use crate::lab::{APP, HOST, Lab, TUNNEL, at, settled, wait};
use crate::probes::{self, Family};

const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn the_cable_is_pulled_and_plugged_in() {
    let lab = Lab::new();
    let flood = Flood::start(&lab);
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
    probes::control(&lab, Family::Device);
    let flood = Flood::start(&lab);
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let device = ifindex(&lab.ns, "app", "tun0");
    lab.app("ip link set eth0 down");
    flood.goes_on(2000);
    lab.app("ip link set eth0 up");
    // Whoever set the link up also sets the route, as Docker and DHCP clients do.
    lab.route_by_the_uplink();
    stream.echo(PATIENCE).unwrap();
    gateway.wait_connected();
    assert_eq!(ifindex(&lab.ns, "app", "tun0"), device);
    probes::fire(&lab, Family::Device);
}

#[test]
fn the_uplink_changes_its_address() {
    let lab = Lab::new();
    let flood = Flood::start(&lab);
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let new = Ipv4Addr::new(172, 30, 0, 3);
    lab.sensor.permit(|rules| rules.uplink = vec![APP, new]);
    lab.app("ip addr del 172.30.0.2/24 dev eth0");
    lab.app("ip addr add 172.30.0.3/24 dev eth0");
    lab.route_by_the_uplink();
    stream.echo(PATIENCE).unwrap();
    gateway.wait_connected();
    lab.sensor.drain();
    lab.sensor.permit(|rules| rules.uplink = vec![new]);
    assert_inside(&lab.ns, 1);
    flood.goes_on(1000);
    lab.sensor.verdict();
}

/// As `docker network connect` does: another device, then another default route. The gateway may
/// follow it with its own messages; nobody else may.
#[test]
fn a_second_uplink_carries_no_traffic_of_programs() {
    let lab = Lab::new();
    let spy = Spy::on_second_uplink(&lab);
    lab.app("ip route add 203.0.113.0/24 via 10.99.0.1 dev eth1");
    let flood = Flood::start(&lab);
    wait(
        "the spy sees what leaves by it",
        Duration::from_secs(20),
        || (spy.canaries() > 20).then_some(()),
    );
    let _gateway = lab.connect(&lab.conf());
    let before = spy.settled(&lab);
    flood.goes_on(2000);
    for line in SEDUCTIONS {
        lab.app(line);
        flood.goes_on(1000);
    }
    assert_eq!(
        spy.settled(&lab),
        before,
        "traffic left by the second uplink"
    );
    lab.sensor.verdict();
}

#[test]
fn a_second_uplink_is_ignored_when_the_first_is_configured() {
    let lab = Lab::new();
    let spy = Spy::on_second_uplink(&lab);
    let mut conf = lab.conf();
    conf.toml = "[uplink]\ndevice = \"eth0\"".into();
    let gateway = lab.connect(&conf);
    spy.settled(&lab);
    let before = spy.frames();
    for line in SEDUCTIONS {
        lab.app(line);
        assert_inside(&lab.ns, 1);
    }
    gateway.wait_connected();
    spy.settled(&lab);
    assert_eq!(spy.frames(), before, "a frame left by the second uplink");
    lab.sensor.verdict();
}

const SEDUCTIONS: [&str; 2] = [
    "ip route replace default via 10.99.0.1 dev eth1",
    "ip route replace 0.0.0.0/1 via 10.99.0.1 dev eth1",
];

#[test]
fn a_device_added_later_carries_nothing() {
    let lab = Lab::new();
    let flood = Flood::start(&lab);
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
    probes::control(&lab, Family::Ip);
    let flood = Flood::start(&lab);
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
    probes::fire(&lab, Family::Ip);
    assert_eq!(
        spy.frames(),
        0,
        "frames left by a device named like the tunnel"
    );
}

/// The kernel lets a device have a name that is no word of ours.
#[test]
fn a_device_whose_name_cannot_be_read_hides_nothing() {
    let lab = Lab::new();
    let _gateway = lab.connect(&lab.conf());
    lab.app("ip link add o\"dd type veth peer name peer0");
    for family in ["inet", "netdev", "arp"] {
        // Nobody minds one that is gone already.
        lab.ns
            .output("app", &format!("nft delete table {family} vpngw"));
    }
    let soon = Duration::from_secs(2);
    wait("the rules are back, or no link is up", soon, || {
        let rules = lab.app("nft list tables").matches("vpngw").count() == 3;
        let down = lab.app("ip -br link show dev eth0").contains("DOWN");
        (rules || down).then_some(())
    });
}

#[test]
fn the_tunnel_device_gets_back_what_was_taken_from_it() {
    let lab = Lab::new();
    let _gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    for taken in ["ip link set tun0 down", "ip addr flush dev tun0"] {
        lab.app(taken);
        stream.echo(PATIENCE).unwrap();
    }
    assert_inside(&lab.ns, 1);
    lab.sensor.verdict();
}

/// Counts what arrives at the other end of a second device.
struct Spy {
    frames: Arc<AtomicU64>,
    canaries: Arc<AtomicU64>,
    _capture: Capture,
}

impl Spy {
    fn start(lab: &Lab) -> Self {
        let (frames, canaries) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (counter, clear) = (frames.clone(), canaries.clone());
        let capture = Capture::start(&lab.ns, "evil", "spy", move |frame| {
            if !frame.outgoing {
                counter.fetch_add(1, Ordering::Relaxed);
                let found = canary::find(frame.bytes).len();
                clear.fetch_add(found as u64, Ordering::Relaxed);
            }
        });
        Self {
            frames,
            canaries,
            _capture: capture,
        }
    }

    /// Adds `eth1`.
    fn on_second_uplink(lab: &Lab) -> Self {
        lab.app("ip link add eth1 type veth peer name spy netns evil");
        lab.ns.run("evil", "ip link set spy addrgenmode none");
        lab.ns.run("evil", "ip addr add 10.99.0.1/24 dev spy");
        lab.ns.run("evil", "ip link set spy up");
        let spy = Self::start(lab);
        lab.app("ip addr add 10.99.0.2/24 dev eth1");
        lab.app("ip link set eth1 up");
        spy
    }

    fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    fn canaries(&self) -> u64 {
        self.canaries.load(Ordering::Relaxed)
    }

    /// The canaries once no more arrive: the end of what was already under way.
    fn settled(&self, lab: &Lab) -> u64 {
        lab.sensor.drain();
        settled(|| self.canaries())
    }
}
