//! Whoever takes the uplink away, or cuts the network without a leak, is noticed, named and undone.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use vpngw::control::api::{State, Status};
use vpngw::gateway::BlockReason;

use crate::lab::gateway::{Gateway, PATIENCE};
use crate::lab::thief::Thief;
use crate::lab::tunnel::assert_inside;
use crate::lab::{Lab, wait};

/// How soon something that cuts is undone. The gateway looks once a second; the rest is for a busy machine.
const BOUND: Duration = Duration::from_secs(2);

fn log(lab: &Lab) -> String {
    fs::read_to_string(lab.folder.path().join("app/log")).unwrap()
}

/// Everything is blocked because of the uplink, and every place says so.
fn assert_taken(lab: &Lab, gateway: &Gateway) {
    let status = gateway.wait_for("it blocks", PATIENCE, |s| s.state == State::Blocked);
    let Some(BlockReason::Leak(why)) = &status.blocked_by else {
        panic!("{status:?}");
    };
    assert!(why.contains("taken to another network namespace"), "{why}");
    assert!(status.leaks.detected > 0, "{:?}", status.leaks);
    assert!(log(lab).contains("LEAK"), "{}", log(lab));
    assert_eq!(gateway.ctl(&["status"]).status.code(), Some(3));
    assert_eq!(gateway.ctl(&["healthcheck"]).status.code(), Some(1));
    let page = gateway.ctl(&["leaks"]);
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains("taken to another"), "{page}");
    wait("the server's way is closed", PATIENCE, || {
        (!lab.app("nft list ruleset").contains("198.51.100.10")).then_some(())
    });
}

#[test]
fn an_uplink_that_is_taken_to_another_namespace_is_a_leak() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let thief = Thief::start(&lab.ns, "app");
    lab.app("ip link set eth0 down");
    lab.app("ip link set eth0 name lan7");
    lab.app(&format!("ip link set lan7 netns {}", thief.pid()));
    assert_taken(&lab, &gateway);
    lab.sensor.verdict();
}

/// Brought back, so that nobody misses it later.
#[test]
fn an_uplink_that_was_away_for_a_moment_is_a_leak() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let thief = Thief::start(&lab.ns, "app");
    let warden = gateway.warden();
    kill_process(warden, Signal::STOP).unwrap();
    lab.app(&format!("ip link set eth0 netns {}", thief.pid()));
    thief.give_back("eth0", warden);
    kill_process(warden, Signal::CONT).unwrap();
    assert_taken(&lab, &gateway);
    lab.sensor.verdict();
}

/// So many changes that the kernel cannot tell of the move (ENOBUFS): then the other end tells.
#[test]
fn an_uplink_that_is_taken_while_notifications_are_lost_is_a_leak() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let thief = Thief::start(&lab.ns, "app");
    let warden = gateway.warden();
    kill_process(warden, Signal::STOP).unwrap();
    let route = |n| {
        format!(
            "route add 10.{}.{}.0/24 dev lo table 777\n",
            n / 250,
            n % 250
        )
    };
    let routes: String = (0..6000).map(route).collect();
    lab.ns.feed("app", "ip -batch -", &routes);
    lab.app(&format!("ip link set eth0 netns {}", thief.pid()));
    kill_process(warden, Signal::CONT).unwrap();
    assert_taken(&lab, &gateway);
    let log = log(&lab);
    assert!(
        log.contains("notifications were lost"),
        "the control: {log}"
    );
    lab.sensor.verdict();
}

/// As `docker network disconnect` does, by whoever has the other end: no leak, and a new uplink is used.
#[test]
fn an_uplink_that_its_owner_takes_back_is_no_leak() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    lab.app("ip link set eth0 down");
    lab.app("ip link set eth0 name veth12");
    lab.app("ip link set veth12 netns rtr");
    lab.ns.run("rtr", "ip link del veth12");
    wait("it is noticed", PATIENCE, || {
        log(&lab).contains("the uplink is gone").then_some(())
    });
    let status = gateway.status().unwrap();
    assert_eq!(
        (status.state, status.leaks.detected),
        (State::Connecting, 0)
    );
    lab.ns.run(
        "rtr",
        "ip link add toapp type veth peer name eth0 netns app",
    );
    lab.ns.run("rtr", "ip link set toapp master br0");
    lab.ns.run("rtr", "ip link set toapp up");
    lab.app("ip link set eth0 address 02:00:00:00:00:02");
    lab.app("ip addr add 172.30.0.2/24 dev eth0");
    lab.app("ip link set eth0 up");
    lab.route_by_the_uplink();
    gateway.wait_connected();
    assert_inside(&lab.ns, 1);
}

/// Makes a defect; it must be gone within the bound, named in the log and in `vpngw leaks`, and programs must have
/// their network back.
fn undone(lab: &Lab, gateway: &Gateway, defect: &str, words: &str, is_there: impl Fn() -> bool) {
    let start = Instant::now();
    wait(defect, BOUND, || (!is_there()).then_some(()));
    println!("{:>12.1?}  {defect}", start.elapsed());
    let found = |it: &str| it.contains(words);
    wait("the log says it", BOUND, || found(&log(lab)).then_some(()));
    wait("`vpngw leaks` says it", BOUND, || {
        let page = gateway.ctl(&["leaks"]);
        found(&String::from_utf8_lossy(&page.stdout)).then_some(())
    });
    assert_inside(&lab.ns, 1);
}

/// What is done, what is said of it, what shows it and the trace in that.
const CUTS: &[[&str; 4]] = &[
    [
        "ip link set eth0 master br7",
        "eth0 was made a port of a bridge",
        "ip link show eth0",
        "master",
    ],
    [
        "tc qdisc add dev eth0 root tbf rate 8bit burst 10 limit 1",
        "eth0 got a queueing discipline, tbf,",
        "tc qdisc show dev eth0",
        "tbf",
    ],
    [
        "ip neigh replace 172.30.0.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
        "the Ethernet address of 172.30.0.1 by eth0 was set for good, to 02:00:00:00:00:99",
        "ip neigh show nud permanent",
        "172.30.0.1",
    ],
    [
        "ip link set tun0 carrier off",
        "tun0 was told that it has no carrier",
        "ip link show tun0",
        "NO-CARRIER",
    ],
    [
        "ip link set tun0 txqueuelen 0",
        "tun0 was told to queue no packet",
        "ip link show tun0",
        "group default \n",
    ],
];

#[test]
fn what_cuts_the_uplink_or_the_tunnel_is_undone_and_named() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    lab.app("ip link add br7 type bridge");
    lab.app("ip link set br7 up");
    for [defect, words, look, trace] in CUTS {
        assert!(!lab.app(look).contains(trace), "the control: {look}");
        lab.app(defect);
        undone(&lab, &gateway, defect, words, || {
            lab.app(look).contains(trace)
        });
    }
    assert!(gateway.wait_connected().ready());
    lab.sensor.verdict();
}

/// By root without a capability, where /proc/sys can be written to.
#[test]
fn kernel_parameters_that_cut_are_given_back_and_named() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    for (name, value) in [
        ("net/ipv4/neigh/eth0/mcast_solicit", "0"),
        ("net/ipv4/ip_default_ttl", "1"),
        ("net/ipv4/ip_local_reserved_ports", "1-65535"),
        ("net/netfilter/nf_conntrack_udp_timeout", "0"),
    ] {
        let path = format!("/proc/sys/{name}");
        let read = || lab.ns.enter("app", || fs::read_to_string(&path).unwrap());
        let before = read();
        let write = format!("setpriv --bounding-set=-all --inh-caps=-all tee {path}");
        lab.ns.feed("app", &write, value);
        let words = format!("{} was set to `{value}`", name.replace('/', "."));
        undone(&lab, &gateway, &path, &words, || read() != before);
    }
    lab.sensor.verdict();
}

/// What an operator set up before the gateway came is not the gateway's to undo.
#[test]
fn what_was_there_before_the_gateway_stays() {
    let lab = Lab::new();
    let own = [
        (
            "tc qdisc add dev eth0 root handle 7: pfifo",
            "tc qdisc show dev eth0",
            "pfifo 7:",
        ),
        (
            "ip neigh replace 172.30.0.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
            "ip neigh show nud permanent",
            "172.30.0.1",
        ),
    ];
    for (line, ..) in own {
        lab.app(line);
    }
    let gateway = lab.connect(&lab.conf());
    // The control: it looks.
    lab.app("ip link set tun0 txqueuelen 0");
    wait("the queue is back", BOUND, || {
        lab.app("ip link show tun0")
            .contains("qlen 1000")
            .then_some(())
    });
    for (_, look, trace) in own {
        assert!(lab.app(look).contains(trace), "{look}: {}", lab.app(look));
    }
    let well = |s: &Status| s.state == State::Connected && s.ready();
    gateway.wait_for("it is connected", PATIENCE, well);
    assert_inside(&lab.ns, 1);
    lab.sensor.verdict();
}

/// It looks while it is blocked, too, and what it says of a parameter that it may not write it says once.
#[test]
fn what_cannot_be_undone_is_said_once() {
    let lab = Lab::new();
    // As Docker mounts it; the mounts are this test's own.
    for line in ["--bind /proc/sys /proc/sys", "-o remount,bind,ro /proc/sys"] {
        let words = line.split(' ').collect::<Vec<_>>();
        let done = Command::new("mount")
            .args(words)
            .stdin(Stdio::null())
            .status();
        assert!(done.unwrap().success(), "mount {line}");
    }
    let gateway = lab.connect(&lab.conf());
    assert_eq!(gateway.ctl(&["disconnect"]).status.code(), Some(0));
    // From outside: another mount of the same namespace's parameters.
    let proc = lab.folder.path().join("proc");
    fs::create_dir(&proc).unwrap();
    lab.app(&format!("mount -t proc proc {}", proc.display()));
    let ttl = proc.join("sys/net/ipv4/ip_default_ttl");
    lab.ns.enter("app", || fs::write(&ttl, "1").unwrap());
    let said = || {
        log(&lab)
            .matches("was set to `1`, which cuts traffic")
            .count()
    };
    wait("it is said", BOUND, || (said() > 0).then_some(()));
    // The control: it has looked again since.
    lab.app("ip link set tun0 txqueuelen 0");
    wait("the queue is back", BOUND, || {
        lab.app("ip link show tun0")
            .contains("qlen 1000")
            .then_some(())
    });
    assert_eq!(said(), 1, "{}", log(&lab));
}
