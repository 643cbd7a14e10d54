//! Routes, rules, and which device is the uplink.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use vpngw::config::{
    Config, Endpoint, Host, Inbound, Lan, Log, LogFormat, LogLevel, Offload, Peer, PublicKey,
    Resolvers, Sealed, Secret, Tunnel,
};
use vpngw::plan::Plan;
use vpngw::policy::Hole;
use vpngw::sys::route::{apply, observe, observe_again, restore};
use vpngw::sys::{link, socket, tun};

use super::main_table::{no_way, way};
use super::*;

pub(super) fn config() -> Config {
    Config {
        tunnel: Tunnel {
            device: name("tun0"),
            addresses: vec!["10.64.0.2/32".parse().unwrap()],
            mtu: 1380,
            dns: Resolvers::new(vec![Ipv4Addr::new(10, 64, 0, 1)]),
            private: Vec::new(),
            offload: Offload::Auto,
            private_key: Secret::new([1; 32]),
            listen_port: None,
            fwmark: None,
        },
        peers: vec![Peer {
            name: None,
            public_key: PublicKey([2; 32]),
            preshared_key: None,
            endpoint: Endpoint {
                host: Host::Address(*endpoint().ip()),
                port: endpoint().port(),
            },
            keepalive: None,
            allowed_ips: vec!["0.0.0.0/0".parse().unwrap()],
        }],
        uplink: None,
        resolver: None,
        lan: Lan {
            inbound: vec![
                Inbound::new(
                    "192.168.1.0/24".parse().unwrap(),
                    "tcp/8080".parse().unwrap(),
                )
                .unwrap(),
            ],
            outbound: Vec::new(),
        },
        forward: Vec::new(),
        metrics: None,
        control: "/run/vpngw/vpngw.sock".into(),
        sealed: Sealed {
            socket: "/run/vpngw/warden.sock".into(),
            engine_user: 65534,
            without_rules: false,
        },
        log: Log {
            level: LogLevel::Info,
            format: LogFormat::Text,
        },
    }
}

pub(super) fn hole(source_port: u16) -> Hole {
    Hole {
        mark: MARK,
        source_port,
        remote: endpoint(),
    }
}

pub(super) fn observed() -> Option<Uplink> {
    observe(&link::addresses().unwrap(), None, &name("tun0")).unwrap()
}

/// The tunnel device, configured; the descriptor keeps it.
pub(super) fn tunnel(plan: &Plan) -> tun::Tun {
    let tun = tun::create(&plan.tunnel.device, Offload::Auto).unwrap();
    link::configure(&plan.tunnel).unwrap();
    tun
}

fn applied(uplink: &Uplink, source_port: u16) -> Plan {
    let plan = Plan::of(&config(), Some(uplink), MARK, Some(&hole(source_port)));
    apply(&plan).unwrap();
    plan
}

/// Trailing blanks are how `ip` ends a route; a device that `ip tuntap` made has no carrier.
pub(super) fn table(number: &str) -> Vec<String> {
    let text = ip(&format!("-4 route show table {number}"));
    text.lines()
        .map(|line| line.trim_end().replace(" linkdown", ""))
        .collect()
}

#[test]
fn routes_and_rules_are_those_of_the_plan() {
    isolated(|| {
        let uplink = uplink();
        assert_eq!(observed().as_ref(), Some(&uplink));
        let plan = Plan::of(&config(), Some(&uplink), MARK, Some(&hole(40000)));
        let _tun = tunnel(&plan);
        apply(&plan).unwrap();
        let main = [
            "default dev tun0 proto 30 metric 30320",
            "172.30.0.0/24 dev eth0 proto kernel scope link src 172.30.0.2",
        ];
        assert_eq!(table("main"), main);
        let programs = [
            "default dev tun0 proto 30",
            "unreachable default proto 30 metric 4294967295",
            "172.30.0.1 dev eth0 proto 30 scope link src 172.30.0.2",
            "192.168.1.0/24 via 172.30.0.1 dev eth0 proto 30 src 172.30.0.2 onlink",
        ];
        assert_eq!(table("30322"), programs);
        let marked = [
            "unreachable default proto 30",
            "172.30.0.1 dev eth0 proto 30 scope link src 172.30.0.2",
            "198.51.100.10 via 172.30.0.1 dev eth0 proto 30 src 172.30.0.2 onlink",
        ];
        assert_eq!(table("30320"), marked);
        let rules = ip("rule show");
        for rule in [
            "30320:\tfrom all fwmark 0x1234 lookup 30320",
            "30321:\tfrom all to 198.51.100.10 ipproto udp sport 40000 dport 51820 lookup 30320",
            "30322:\tnot from all ipproto udp lookup 30322",
            "30323:\tfrom all ipproto udp sport 1-65534 lookup 30322",
            "30324:\tfrom all ipproto udp dport 1-65534 lookup 30322",
            "30325:\tnot from 0.0.0.0 lookup 30322",
            "30326:\tfrom all lookup main suppress_prefixlength 0",
            "30327:\tfrom all lookup 30322",
        ] {
            assert!(rules.contains(rule), "{rules}");
        }
    });
}

#[test]
fn the_printed_commands_lead_to_the_same() {
    isolated(|| {
        let uplink = uplink();
        let plan = Plan::of(&config(), Some(&uplink), MARK, Some(&hole(40000)));
        let text = plan.to_string();
        let commands = text.lines().filter(|line| line.starts_with("ip "));
        for command in commands {
            ip(&command["ip ".len()..]);
        }
        apply(&plan).unwrap();
        let printed = ["main", "30320", "30322", "30321"].map(table);
        // What apply would make of an untouched namespace.
        isolated(move || {
            let uplink = super::uplink();
            let _tun = tunnel(&plan);
            applied(&uplink, 40000);
            let applied = ["main", "30320", "30322"].map(table);
            assert_eq!(applied, printed[..3]);
            assert_eq!(table("30321").len(), printed[3].len());
        });
    });
}

#[test]
fn a_second_run_finds_the_uplink_and_replaces_what_the_first_left() {
    isolated(|| {
        let uplink = uplink();
        let plan = Plan::of(&config(), Some(&uplink), MARK, Some(&hole(40000)));
        let tun = tunnel(&plan);
        apply(&plan).unwrap();
        // The first run dies: the device goes with its descriptor, and so does the route into it.
        drop(tun);
        until_first_route_is("unreachable default proto 30 metric 4294967295");
        assert!(no_way("1.1.1.1"), "nothing falls through to the main table");
        assert_eq!(observed().as_ref(), Some(&uplink));
        let _tun = tunnel(&plan);
        applied(&uplink, 50000);
        let rules = ip("rule show");
        assert!(
            rules.contains("sport 50000") && !rules.contains("sport 40000"),
            "{rules}"
        );
        assert_eq!(rules.matches("30320:").count(), 1, "{rules}");
    });
}

/// The device may stay a moment longer than its descriptor: a test beside this one that starts a program
/// has a copy of every descriptor from fork to exec.
pub(super) fn until_first_route_is(wanted: &str) {
    let until = Instant::now() + Duration::from_secs(5);
    while table("30322")[0] != wanted && Instant::now() < until {
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(table("30322")[0], wanted);
}

#[test]
fn cleanup_gives_the_main_table_back() {
    isolated(|| {
        let uplink = uplink();
        let before = table("main");
        let plan = Plan::of(&config(), Some(&uplink), MARK, Some(&hole(40000)));
        let tun = tunnel(&plan);
        apply(&plan).unwrap();
        assert_ne!(table("main"), before);
        restore().unwrap();
        drop(tun);
        assert_eq!(without_onlink(), before);
        assert!(!ip("rule show").contains("3032"));
        assert!(!ip("route show table all").contains("table 3032"));
        assert_eq!(observed().unwrap(), uplink);
    });
}

#[test]
fn an_uplink_that_was_down_resumes_with_its_router() {
    isolated(|| {
        let uplink = uplink();
        let plan = Plan::of(&config(), Some(&uplink), MARK, Some(&hole(40000)));
        let _tun = tunnel(&plan);
        apply(&plan).unwrap();
        let again =
            || observe_again(&link::addresses().unwrap(), None, &name("tun0"), &uplink).unwrap();
        ip("link set eth0 down");
        assert_eq!(again(), None);
        ip("link set eth0 up");
        assert_eq!(observed(), None);
        assert_eq!(again().as_ref(), Some(&uplink));
        assert_eq!(apply(&plan).unwrap(), [""; 0], "nothing of another program");
        // The kernel put the route of the link back into the main table, where it stays.
        let link = "172.30.0.0/24 dev eth0 proto kernel scope link src 172.30.0.2".to_owned();
        assert!(table("main").contains(&link));
        assert_eq!(observed().as_ref(), Some(&uplink));
    });
}

#[test]
fn without_an_uplink_the_tunnel_is_the_only_way() {
    isolated(|| {
        let plan = Plan::of(&config(), None, MARK, None);
        let _tun = tunnel(&plan);
        apply(&plan).unwrap();
        assert_eq!(observed(), None);
        assert!(way("198.51.100.10").contains("dev tun0"));
    });
}

/// The kernel deletes such a route by all that it was made of, and some of that it does not even print.
#[test]
fn routes_by_nexthop_objects_and_for_a_type_of_service_are_taken_out() {
    for compat in ["1", "0"] {
        isolated(move || {
            let path = "/proc/sys/net/ipv4/nexthop_compat_mode";
            std::fs::write(path, compat).unwrap();
            let uplink = uplink();
            let plan = Plan::of(&config(), Some(&uplink), MARK, Some(&hole(40000)));
            let _tun = tunnel(&plan);
            apply(&plan).unwrap();
            let (planned, rules) = (table("main"), ip("rule show"));
            ip("nexthop add id 5 via 172.30.0.1 dev eth0 onlink");
            ip("nexthop add id 6 dev eth0");
            ip("nexthop add id 7 group 5/6");
            for pushed in [
                "0.0.0.0/1 nhid 5",
                "203.0.113.0/24 nhid 7",
                "default nhid 6 metric 9",
                "203.0.113.0/24 via 172.30.0.1 dev eth0 onlink tos 0x10",
            ] {
                ip(&format!("route add {pushed}"));
                assert_ne!(table("main"), planned, "the control: {pushed}");
                let removed = apply(&plan).unwrap();
                assert_eq!(table("main"), planned, "{pushed}");
                // A default route comes with every uplink, and nobody is told of it.
                let told = removed
                    .iter()
                    .any(|step| step.starts_with("ip -4 route del "));
                assert_eq!(
                    told,
                    !pushed.starts_with("default"),
                    "{pushed}: {removed:?}"
                );
            }
            assert_eq!(ip("rule show"), rules);
            assert_eq!(observed().as_ref(), Some(&uplink));
        });
    }
}

/// The main table; the flag says nothing that is not so.
pub(super) fn without_onlink() -> Vec<String> {
    let lines = table("main");
    lines
        .iter()
        .map(|line| line.replace(" onlink", ""))
        .collect()
}

/// Another network namespace; it ends with the process that holds it.
struct Far(Child);

impl Far {
    fn new() -> Self {
        let holder = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo; exec sleep 60"])
            .stdout(Stdio::piped())
            .spawn();
        let mut holder = holder.unwrap();
        // The line says that it has unshared.
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0; 1]).unwrap();
        Self(holder)
    }

    fn ip(&self, arguments: &str) -> String {
        run("nsenter", &format!("-t {} -n ip {arguments}", self.0.id()))
    }

    /// A socket in there.
    fn udp(&self, at: SocketAddrV4) -> UdpSocket {
        let path = format!("/proc/{}/ns/net", self.0.id());
        let open = move || {
            let namespace = std::fs::File::open(path).unwrap();
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            UdpSocket::bind(at).unwrap()
        };
        thread::spawn(open).join().unwrap()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Whether the endpoint's answer arrives, with the router asking for our address by ARP first.
fn answer_arrives(rp_filter: &str, with_rules: bool) -> bool {
    let far = Far::new();
    ip(&format!(
        "link add eth0 type veth peer name far0 netns {}",
        far.0.id()
    ));
    far.ip("address add 172.30.0.1/24 dev far0");
    far.ip("link set far0 up");
    far.ip("link set lo up");
    // It is router and endpoint in one: as a router it asks in the name of its own address on the link.
    let program = format!(
        "-t {} -n sysctl -qw net.ipv4.conf.all.arp_announce=2",
        far.0.id()
    );
    run("nsenter", &program);
    far.ip(&format!("address add {}/32 dev lo", endpoint().ip()));
    ip("address add 172.30.0.2/24 dev eth0");
    ip("link set eth0 up");
    ip("route add default via 172.30.0.1 dev eth0");
    for scope in ["all", "eth0"] {
        std::fs::write(
            format!("/proc/sys/net/ipv4/conf/{scope}/rp_filter"),
            rp_filter,
        )
        .unwrap();
    }
    let uplink = observed().unwrap();
    let (near, port) = socket::udp(Some(MARK), 0).unwrap();
    let mut plan = Plan::of(&config(), Some(&uplink), MARK, Some(&hole(port)));
    if !with_rules {
        plan.rules.truncate(1);
    }
    let _tun = tunnel(&plan);
    apply(&plan).unwrap();
    let server = far.udp(endpoint());
    near.set_nonblocking(false).unwrap();
    let patience = Duration::from_millis(300);
    server.set_read_timeout(Some(patience)).unwrap();
    near.set_read_timeout(Some(patience * 7)).unwrap();
    // A veth may take a moment to pass packets after it was set up (net/core/link_watch.c).
    let arrived = (0..20).find_map(|_| {
        near.send_to(b"ping", endpoint()).unwrap();
        socket::uninterrupted(|| server.recv_from(&mut [0; 10])).ok()
    });
    let (_, from) = arrived.unwrap();
    // Forget who we are, so that the answer starts with an ARP request.
    far.ip("neigh flush dev far0");
    server.send_to(b"pong", from).unwrap();
    socket::uninterrupted(|| near.recv_from(&mut [0; 10])).is_ok()
}

#[test]
fn answers_of_the_endpoint_pass_a_strict_reverse_path_filter() {
    for (rp_filter, with_rules, arrives) in [
        ("0", true, true),
        ("1", true, true),
        ("2", true, true),
        // What the rule is for: without it the strict filter drops the answer.
        ("1", false, false),
    ] {
        isolated(move || {
            let arrived = answer_arrives(rp_filter, with_rules);
            assert_eq!(arrived, arrives, "rp_filter {rp_filter}, rule {with_rules}");
        });
    }
}
