//! Devices that come, go, change their names, or have odd ones; and what is taken from the gateway.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::lab::canary;
use crate::lab::capture::Capture;
use crate::lab::flood::Flood;
use crate::lab::gateway::has_ended;
use crate::lab::tunnel::{Stream, assert_inside, ifindex};
use crate::lab::{HOST, INNER, LAN, Lab, at, settled, wait};
use crate::probes::{self, Family};

const PATIENCE: Duration = Duration::from_secs(60);

/// How soon what was changed is put right, on a busy machine: a second for what is not told.
const SOON: Duration = Duration::from_secs(10);

fn log(lab: &Lab) -> String {
    fs::read_to_string(lab.folder.path().join("app/log")).unwrap()
}

fn wait_name(lab: &Lab) {
    wait("it has its name again", SOON, || {
        let shown = lab.ns.output("app", "ip link show dev tun0");
        shown.status.success().then_some(())
    });
}

/// Tokens in clear at the far end of a device.
pub struct Far {
    tokens: Arc<AtomicU64>,
    _capture: Capture,
}

impl Far {
    /// Looks at what comes to a device of the hostile host.
    pub fn start(lab: &Lab, device: &str) -> Self {
        let tokens = Arc::<AtomicU64>::default();
        let counter = tokens.clone();
        let capture = Capture::start(&lab.ns, "evil", device, move |frame| {
            let found = if frame.outgoing {
                0
            } else {
                canary::find(frame.bytes).len()
            };
            counter.fetch_add(found as u64, Ordering::Relaxed);
        });
        Self {
            tokens,
            _capture: capture,
        }
    }

    /// How many came.
    pub fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }
}

/// A cable to the hostile host under this name, with a default route by it.
fn cable(lab: &Lab, name: &str, far: &str) {
    lab.app(&format!(
        "ip link add {name} type veth peer name {far} netns evil"
    ));
    lab.ns
        .run("evil", &format!("ip link set {far} addrgenmode none"));
    lab.ns
        .run("evil", &format!("ip addr add 10.99.0.1/24 dev {far}"));
    lab.ns.run("evil", &format!("ip link set {far} up"));
    let lines = format!(
        "link set {name} addrgenmode none\naddr add 10.99.0.2/24 dev {name}\nlink set {name} up\n\
         neigh replace 10.99.0.1 lladdr 02:00:00:00:00:77 dev {name}\n\
         route replace default via 10.99.0.1 dev {name} metric 1\n\
         route replace 203.0.113.0/24 via 10.99.0.1 dev {name}\n"
    );
    lab.ns.feed("app", "ip -batch -", &lines);
}

/// The names that devices may have and people do not give them: quotes, backslashes, control characters,
/// UTF-8, and bytes that are no text at all (`dev_valid_name`, net/core/dev.c).
#[test]
fn a_device_with_any_name_the_kernel_takes_is_held_like_the_others() {
    let lab = Lab::new();
    lab.tables_belong_to_nobody();
    let flood = Flood::start(&lab);
    let odd = ["o\"dd", "a\\x41", "eth*", "{,}", "über", "$(x)", "-"];
    // One is there from the start; it carries what programs send until the gateway runs.
    cable(&lab, odd[0], "far0");
    let far = Far::start(&lab, "far0");
    wait("without a gateway it carries", PATIENCE, || {
        (far.tokens() > 20).then_some(())
    });
    lab.app("ip route del default metric 1");
    let gateway = lab.connect(&lab.conf());
    lab.sensor.drain();
    let before = settled(|| far.tokens());
    for (number, name) in odd.iter().enumerate().skip(1) {
        cable(&lab, name, &format!("far{number}"));
    }
    lab.ns.enter("app", || {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(b"\xff\xfe\x1b");
        let mut command = Command::new("ip");
        command
            .args(["link", "add"])
            .arg(name)
            .args(["type", "veth", "peer", "name", "far9"]);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{done:?}");
        let mut command = Command::new("ip");
        command
            .args(["addr", "add", "10.98.0.2/24", "dev"])
            .arg(name);
        assert!(command.status().unwrap().success());
        let mut command = Command::new("ip");
        command.args(["link", "set", "up", "dev"]).arg(name);
        assert!(command.status().unwrap().success());
    });
    let others = [1, 2, 3].map(|number| Far::start(&lab, &format!("far{number}")));
    flood.goes_on(500);
    wait("the egress chain has all of them", SOON, || {
        let listed = lab
            .ns
            .output("app", "nft list chain netdev vpngw egress")
            .stdout;
        let line = listed
            .split(|byte| *byte == b'\n')
            .find(|line| line.windows(7).any(|w| w == b"devices"));
        line.is_some_and(|line| line.windows(2).any(|w| w == b"\xff\xfe"))
            .then_some(())
    });
    // Told of changes and undoing them as before.
    lab.app("nft delete table arp vpngw");
    wait("the rules are back", SOON, || {
        (lab.app("nft list tables").matches("vpngw").count() == 3).then_some(())
    });
    assert_eq!(settled(|| far.tokens()), before);
    assert!(others.iter().all(|far| far.tokens() == 0));
    gateway.wait_connected();
    assert_inside(&lab.ns, 1);
    assert!(
        !log(&lab).contains('\u{1b}'),
        "the log carries control characters"
    );
    assert!(!log(&lab).contains("cannot be observed"), "{}", log(&lab));
    drop(gateway);
    // It starts among them too.
    let _again = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    assert!(others.iter().all(|far| far.tokens() == 0));
}

/// As when a container is taken off its network and put on it again: the same name, another device.
#[test]
fn an_uplink_made_anew_under_its_name_is_used_and_held() {
    let lab = Lab::new();
    probes::control(&lab, Family::Device);
    probes::control(&lab, Family::Packet);
    let flood = Flood::start(&lab);
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let old = ifindex(&lab.ns, "app", "eth0");
    for round in 0..3 {
        // The far end stays what the sensor looks at: the near end goes away and a stand-in comes.
        lab.app("ip link set eth0 name gone0");
        flood.goes_on(100);
        lab.app("ip link set gone0 name eth0");
        lab.app("ip link set eth0 up");
        lab.route_by_the_uplink();
        stream
            .echo(PATIENCE)
            .unwrap_or_else(|why| panic!("round {round}: {why}"));
    }
    lab.app("ip link set eth0 netns rtr name stolen0");
    // Its number is taken when it comes back.
    lab.app(&format!(
        "ip link add hold0 index {old} type veth peer name hold1"
    ));
    flood.goes_on(300);
    lab.ns.run("rtr", "ip link set stolen0 netns app name eth0");
    lab.ns.feed("app", "ip -batch -", "addr add 172.30.0.2/24 dev eth0\nlink set eth0 address 02:00:00:00:00:02\nlink set eth0 up\nroute replace default via 172.30.0.1 dev eth0\n");
    stream.echo(PATIENCE).unwrap();
    assert_ne!(ifindex(&lab.ns, "app", "eth0"), old);
    gateway.wait_connected();
    probes::fire(&lab, Family::Device);
    probes::fire(&lab, Family::Packet);
}

/// A chain of the egress hook leaves a device that is renamed (nft_netdev_event, net/netfilter/nft_chain_filter.c, seen
/// with Linux 6.18): what the rules have let pass by then is sent, and they do not count it.
#[test]
fn an_uplink_renamed_under_load_is_no_leak() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let host = HOST.to_string();
    let mut flood = Command::new("ping");
    flood.args(["-f", "-q", "-l", "50", "-s", "1000", &host]);
    let mut flood = lab.ns.start("app", flood.stdout(Stdio::null()));
    for _ in 0..30 {
        lab.app("ip link set eth0 name gone0");
        lab.app("ip link set gone0 name eth0");
        lab.app("ip link set eth0 up");
        lab.route_by_the_uplink();
        assert_inside(&lab.ns, 1);
    }
    flood.kill().unwrap();
    flood.wait().unwrap();
    gateway.wait_connected();
    let status = gateway.status().unwrap();
    assert_eq!(status.leaks.detected, 0, "{:?}", status.leaks);
    assert!(lab.sensor.verdict().wireguard > 300);
}

/// A rename in either direction: the uplink takes a name that looks like a tunnel's, the tunnel loses its own.
#[test]
fn names_that_change_open_nothing() {
    let lab = Lab::new();
    probes::control(&lab, Family::Ip);
    let flood = Flood::start(&lab);
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let index = ifindex(&lab.ns, "app", "tun0");
    for name in ["tun0x", "tun1", "lo1"] {
        lab.app(&format!("ip link set eth0 name {name}"));
        flood.goes_on(300);
        probes::fire(&lab, Family::Ip);
        lab.app(&format!("ip link set {name} name eth0"));
        lab.route_by_the_uplink();
        stream
            .echo(PATIENCE)
            .unwrap_or_else(|why| panic!("{name}: {why}"));
    }
    for name in ["wg9", "eth7"] {
        lab.app(&format!("ip link set tun0 name {name}"));
        flood.goes_on(100);
        wait_name(&lab);
        stream
            .echo(PATIENCE)
            .unwrap_or_else(|why| panic!("{name}: {why}"));
    }
    // And a thief who is quicker: another device has the name by then.
    lab.app("ip link set tun0 name mine0");
    let taken = lab.ns.output(
        "app",
        "ip link add tun0 type veth peer name thief netns evil",
    );
    if taken.status.success() {
        lab.ns.feed(
            "app",
            "ip -batch -",
            "addr replace 10.64.0.2/24 dev tun0\nlink set tun0 up\nroute replace default dev tun0\n",
        );
        let far = Far::start(&lab, "thief");
        lab.ns.run("evil", "ip link set thief up");
        flood.goes_on(500);
        probes::fire(&lab, Family::Ip);
        assert_eq!(far.tokens(), 0, "the thief's cable carries traffic");
        lab.app("ip link del tun0");
    }
    wait_name(&lab);
    stream.echo(PATIENCE).unwrap();
    assert_eq!(ifindex(&lab.ns, "app", "tun0"), index);
    gateway.wait_connected();
    lab.sensor.verdict();
}

/// The host asked for a router: `ip_forward` is on, and a LAN host sends through us.
#[test]
fn nothing_is_forwarded_even_where_forwarding_is_on() {
    let lab = Lab::new();
    let forward = |on: &str| {
        lab.ns.enter("app", || {
            fs::write("/proc/sys/net/ipv4/ip_forward", on).unwrap()
        });
    };
    forward("1");
    lab.ns.run("lan", "ip route replace default via 172.30.0.2");
    let send = |token: &canary::Canary| {
        lab.ns.enter("lan", || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            let _ = socket.send_to(token, at(HOST, 9));
        });
    };
    wait("without a gateway it is forwarded", PATIENCE, || {
        let token = canary::fresh();
        send(&token);
        lab.sensor.drain();
        lab.sensor.saw(&token).then_some(())
    });
    let mut gateway = lab.connect(&lab.conf());
    forward("1");
    let inside = |lab: &Lab| lab.servers[0].services.visits().len();
    let before = inside(&lab);
    let tokens: Vec<_> = (0..50).map(|_| canary::fresh()).collect();
    tokens.iter().for_each(send);
    // From the tunnel to the LAN, through us.
    lab.servers[0].run(
        "wg set wg1 peer PEER allowed-ips 10.64.0.2/32,172.30.0.0/24"
            .replace("PEER", &lab.keys.public)
            .as_str(),
    );
    let inner = canary::fresh();
    lab.ns.enter("vpn1", || {
        let socket =
            crate::lab::raw::PacketSocket::open("wg1", crate::lab::raw::Layer::Payload, 0).unwrap();
        let packet = crate::lab::forge::ipv4_udp((INNER, 7), (LAN, 7), &inner);
        socket.send_to(&packet, 0x0800, [0; 6]).unwrap();
    });
    assert_inside(&lab.ns, 1);
    lab.sensor.verdict();
    assert!(tokens.iter().all(|token| !lab.sensor.saw(token)));
    assert!(
        lab.lan.visits().iter().all(|visit| visit.bytes != inner),
        "the LAN was reached from the tunnel"
    );
    let through = lab.servers[0].services.visits();
    assert!(
        through[before..]
            .iter()
            .all(|visit| !tokens.iter().any(|token| visit.bytes == token))
    );
    gateway.kill();
    tokens.iter().for_each(send);
    lab.sensor.verdict();
}

/// Only root can take the device away, and nothing can give it back to the engine: the gateway says so and
/// ends, so that whoever supervises it starts it anew. The rules stay.
#[test]
fn when_the_tunnel_device_is_removed_the_gateway_ends_and_says_why() {
    for how in ["ip link del tun0", "ip link set tun0 netns evil"] {
        lost(how);
    }
}

fn lost(how: &'static str) {
    // A lab is built around its thread.
    let run = move || {
        let lab = Lab::new();
        probes::control(&lab, Family::Device);
        let flood = Flood::start(&lab);
        let mut gateway = lab.connect(&lab.conf());
        let engine = gateway.engine();
        lab.app(how);
        let ended = gateway.wait_exit(SOON);
        assert_eq!(ended.code(), Some(1), "{how}");
        assert!(
            log(&lab).contains("another program removed the tunnel device `tun0`"),
            "{how}: {}",
            log(&lab)
        );
        wait("the engine follows", PATIENCE, || {
            has_ended(engine).then_some(())
        });
        flood.goes_on(500);
        lab.sensor.drain();
        lab.sensor.permit(|rules| rules.endpoints.clear());
        probes::fire(&lab, Family::Device);
        let rules = lab.app("nft list tables");
        assert_eq!(rules.matches("vpngw").count(), 3, "{how}: {rules}");
        drop(gateway);
        let _again = lab.connect(&lab.conf());
        assert_inside(&lab.ns, 1);
    };
    std::thread::spawn(run).join().unwrap();
}

/// A DHCP client, or a person, names other resolvers.
#[test]
fn resolv_conf_gets_back_what_another_program_took_out() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let names = || {
        let text = fs::read_to_string("/etc/resolv.conf").unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned);
        lines.collect::<Vec<_>>()
    };
    let ours = [format!("nameserver {INNER}")];
    assert_eq!(names(), ours);
    for other in [
        "nameserver 9.9.9.9\nsearch home\n".to_owned(),
        String::new(),
        format!(
            "{}nameserver 1.1.1.1\n",
            fs::read_to_string("/etc/resolv.conf").unwrap()
        ),
    ] {
        fs::write("/etc/resolv.conf", &other).unwrap();
        assert_ne!(names(), ours, "the control");
        wait("it names ours again", SOON, || {
            (names() == ours).then_some(())
        });
    }
    let said = "another program named other resolvers";
    wait("each is said", SOON, || {
        (log(&lab).matches(said).count() == 3).then_some(())
    });
    let dns = gateway.status().unwrap().dns;
    assert!(dns.resolv_conf && dns.servers == [INNER], "{dns:?}");
    lab.sensor.verdict();
}
