//! Each defect that somebody can make, and what becomes of it: put right or blocked, within a bound, and
//! `vpngw status` says how it is. Those who can make them have CAP_NET_ADMIN.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use vpngw::control::api::{State, Status};

use crate::lab::canary;
use crate::lab::capture::Capture;
use crate::lab::gateway::Gateway;
use crate::lab::raw::{Layer, PacketSocket};
use crate::lab::tunnel::{Stream, ask, assert_inside};
use crate::lab::{EVIL, HOST, LAN, Lab, ROUTER_MAC, at, settled, wait};
use crate::probes::program::{Persona, Program};
use crate::probes::{self, Family};

const PATIENCE: Duration = Duration::from_secs(60);

/// How soon a defect is undone. The gateway is told within milliseconds; the rest is for a busy machine.
const BOUND: Duration = Duration::from_secs(3);

/// What the status says while all is well.
fn assert_well(lab: &Lab, gateway: &Gateway) {
    let status = gateway.wait_connected();
    assert!(status.ready() && status.kill_switch.armed, "{status:?}");
    assert_eq!((status.leaks.watched, status.leaks.detected), (true, 0));
    assert_eq!(gateway.ctl(&["healthcheck"]).status.code(), Some(0));
    assert_inside(&lab.ns, 1);
}

/// Makes a defect and measures how long it takes until `mended`.
fn mended(lab: &Lab, defect: &str, mended: impl Fn() -> bool) -> Duration {
    lab.app(defect);
    let start = Instant::now();
    wait(defect, BOUND, || mended().then_some(()));
    let took = start.elapsed();
    println!("{took:>12.1?}  {defect}");
    took
}

/// Changes of the rules, each seen by its own kind of difference.
#[test]
fn a_change_of_the_rules_is_undone_and_health_stays_green() {
    let lab = Lab::new();
    lab.tables_belong_to_nobody();
    let gateway = lab.connect(&lab.conf());
    let rules = || lab.app("nft -s list ruleset");
    let before = rules();
    for defect in [
        "nft flush ruleset",
        "nft delete table netdev vpngw",
        "nft delete chain inet vpngw output",
        "nft flush chain inet vpngw output",
        "nft flush chain netdev vpngw egress",
        "nft insert rule inet vpngw output accept",
        "nft insert rule netdev vpngw egress accept",
        "nft add chain inet vpngw output { policy accept; }",
        "nft add table inet vpngw { flags dormant; }",
        "nft add chain inet vpngw early { type filter hook output priority -500; policy accept; }",
    ] {
        mended(&lab, defect, || rules() == before);
    }
    assert_well(&lab, &gateway);
    lab.sensor.drain();
    probes_hold(&lab);
}

fn probes_hold(lab: &Lab) {
    let before = lab.sensor.tally().other;
    let mut program = Program::start(&lab.ns, Persona::Lab);
    for family in [Family::Ip, Family::Device, Family::Packet] {
        probes::shoot(lab, &mut program, family.names());
    }
    lab.sensor.drain();
    assert_eq!(lab.sensor.tally().other, before, "a probe left");
}

/// An accept of a table that is asked first is no verdict for those that are asked later (nft(8), "accept").
#[test]
fn an_accept_at_a_higher_priority_does_not_override_ours() {
    let lab = Lab::new();
    for family in [Family::Ip, Family::Device, Family::Packet] {
        probes::control(&lab, family);
    }
    let gateway = lab.connect(&lab.conf());
    let mut tables = String::new();
    for (hook, priority) in [
        ("output", -500),
        ("input", -500),
        ("forward", -500),
        ("prerouting", -500),
        ("output", 500),
        ("input", 500),
    ] {
        tables += &format!(
            "table inet other{hook}{} {{ chain c {{ type filter hook {hook} priority {priority}; policy accept; accept\n}}\n}}\n",
            priority > 0
        );
    }
    tables += "table netdev other { chain c { type filter hook egress device eth0 priority -500; policy accept; accept\n}\n}\n";
    tables += "table arp other { chain c { type filter hook output priority -500; policy accept; accept\n}\n}\n";
    lab.ns.feed("app", "nft -f -", &tables);
    for family in [Family::Ip, Family::Device, Family::Packet] {
        probes::fire(&lab, family);
    }
    // Nobody's business: it decides nothing.
    assert!(lab.app("nft list tables").contains("table netdev other"));
    assert_well(&lab, &gateway);
    probes::fire(&lab, Family::Packet);
}

/// Routes and policy rules that beat ours, by the uplink and by others.
#[test]
fn a_route_or_rule_that_beats_ours_is_undone() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let clean = || {
        let (routes, rules) = (lab.app("ip -4 route"), lab.app("ip rule"));
        !routes.contains("172.30.0.66") && !routes.contains("nhid") && rules.lines().count() == 11
    };
    assert!(clean(), "{}{}", lab.app("ip -4 route"), lab.app("ip rule"));
    lab.app("ip nexthop add id 5 via 172.30.0.1 dev eth0 onlink");
    lab.app("ip nexthop add id 6 via 172.30.0.66 dev eth0 onlink");
    lab.app("ip nexthop add id 7 group 5/6");
    for defect in [
        "ip route add 0.0.0.0/1 via 172.30.0.66 dev eth0 onlink",
        "ip route add 203.0.113.9 via 172.30.0.66 dev eth0 onlink proto dhcp",
        "ip route add 203.0.113.9 via 172.30.0.66 dev eth0 onlink tos 0x10",
        "ip route add 203.0.113.0/24 nhid 6",
        "ip route add 203.0.113.0/24 nhid 7",
        "ip route add default nhid 5 metric 1",
        "ip route add 203.0.113.0/25 nexthop via 172.30.0.66 dev eth0 onlink nexthop via 172.30.0.1 dev eth0 onlink",
        "ip rule add pref 100 fwmark 0x76707670 lookup main",
        "ip rule add pref 0 fwmark 0x70/0xff lookup main",
        "ip rule add pref 30319 to 198.51.100.10 lookup main",
        "ip rule add pref 30320 fwmark 0x76707670/0xffff lookup main",
        "ip rule add pref 5 lookup main suppress_prefixlength 0",
    ] {
        mended(&lab, defect, clean);
        stream
            .echo(PATIENCE)
            .unwrap_or_else(|why| panic!("{defect}: {why}"));
    }
    let found = gateway.status().unwrap().leaks.found;
    let told = found.iter().find(|it| it.kind == "route" && !it.leaked);
    assert!(told.is_some_and(|it| it.count >= 12), "{found:?}");
    assert_well(&lab, &gateway);
    lab.sensor.verdict();
}

/// Our own packets, led into the tunnel: each would become another. The rules refuse them before the rule
/// that leads them there is gone.
#[test]
fn our_own_packets_never_enter_the_tunnel() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    let status = |s: &Status| (s.rx_bytes, s.tx_bytes);
    // The warden stands still, so nobody undoes it.
    let warden = gateway.warden();
    rustix::process::kill_process(warden, rustix::process::Signal::STOP).unwrap();
    let before = settled(|| lab.sensor.tally().wireguard);
    lab.app("ip rule add pref 100 fwmark 0x76707670 lookup main");
    let asked = ask(&lab.ns, "app", at(HOST, 7), Duration::from_secs(2));
    assert_eq!(
        asked, None,
        "the control: our packets do not reach the server"
    );
    let counted = lab.app("nft list chain inet vpngw output");
    let line = counted
        .lines()
        .find(|line| line.contains("oifname \"tun0\" meta mark"))
        .unwrap();
    assert!(
        !line.contains("packets 0 "),
        "the control: they were led there: {line}"
    );
    let sent = settled(|| lab.sensor.tally().wireguard) - before;
    assert!(sent < 50, "{sent} messages left: a loop");
    rustix::process::kill_process(warden, rustix::process::Signal::CONT).unwrap();
    wait("the rule is gone", BOUND, || {
        (!lab.app("ip rule").contains("100:")).then_some(())
    });
    assert_well(&lab, &gateway);
    let (received, transmitted) = gateway.status().as_ref().map(status).unwrap();
    assert!(
        received < 1 << 20 && transmitted < 1 << 20,
        "{received} {transmitted}"
    );
    lab.sensor.verdict();
}

/// A new device with a default route: it gets its chain, and its route goes.
#[test]
fn a_new_device_with_a_default_route_is_closed_within_the_bound() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    lab.app("ip link add eth1 type veth peer name spy netns evil");
    lab.ns.run("evil", "ip link set spy up");
    let lines = "addr add 10.99.0.2/24 dev eth1\nlink set eth1 up\nroute add default via 10.99.0.1 dev eth1 metric 5\n";
    lab.ns.feed("app", "ip -batch -", lines);
    let start = Instant::now();
    wait("its frames are held and its route is gone", BOUND, || {
        let chain = lab
            .app("nft list chain netdev vpngw egress")
            .contains("eth1");
        (chain && !lab.app("ip route").contains("eth1 metric 5")).then_some(())
    });
    println!("{:.1?} for a new device", start.elapsed());
    assert_well(&lab, &gateway);
    let frame = crate::lab::forge::ipv4_udp((EVIL, 9), (LAN, 9), b"frame");
    let sent = lab.ns.enter("app", || {
        let socket = PacketSocket::open("eth1", Layer::Payload, 0)?;
        socket.send_to(&frame, 0x0800, [0xff; 6])
    });
    assert_eq!(sent.unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
}

/// So many changes that the kernel cannot tell them all (ENOBUFS): then everything is looked at again.
#[test]
fn notifications_that_are_lost_are_made_up_for() {
    let lab = Lab::new();
    lab.tables_belong_to_nobody();
    let gateway = lab.connect(&lab.conf());
    let warden = gateway.warden();
    // While it stands still, its sockets overflow, and what is done then is never told.
    rustix::process::kill_process(warden, rustix::process::Signal::STOP).unwrap();
    let routes: String = (0..6000)
        .map(|n| {
            format!(
                "route add 10.{}.{}.0/24 dev lo table 777\n",
                n / 250,
                n % 250
            )
        })
        .collect();
    lab.ns.feed("app", "ip -batch -", &routes);
    let tables: String = (0..400)
        .map(|n| format!("add table ip t{n}\ndelete table ip t{n}\n"))
        .collect();
    for _ in 0..30 {
        lab.ns.feed("app", "nft -f -", &tables);
    }
    for defect in [
        "nft insert rule inet vpngw input accept comment \"mine\"",
        "ip rule del priority 30320",
        "ip route add 203.0.113.9 via 172.30.0.66 dev eth0 onlink",
    ] {
        lab.app(defect);
    }
    rustix::process::kill_process(warden, rustix::process::Signal::CONT).unwrap();
    wait("everything is as it was", BOUND * 3, || {
        let rules = !lab.app("nft list chain inet vpngw input").contains("mine");
        let way = lab.app("ip rule").contains("30320:");
        (rules && way && !lab.app("ip route").contains("172.30.0.66")).then_some(())
    });
    wait("the log says that it was so", BOUND, || {
        let log = std::fs::read_to_string(lab.folder.path().join("app/log")).unwrap();
        log.contains("kernel notifications were lost").then_some(())
    });
    assert_well(&lab, &gateway);
    lab.sensor.verdict();
}

/// Blocked, it is red in every place, and defects are undone all the same.
#[test]
fn a_change_of_the_rules_is_undone_while_blocked() {
    let lab = Lab::new();
    lab.tables_belong_to_nobody();
    let gateway = lab.connect(&lab.conf());
    assert_eq!(gateway.ctl(&["disconnect"]).status.code(), Some(0));
    let status = gateway.wait_for("it is blocked", PATIENCE, |s| s.state == State::Blocked);
    assert!(!status.ready());
    assert_eq!(gateway.ctl(&["healthcheck"]).status.code(), Some(1));
    // Defects are undone in that state too, and end it for nobody.
    let rules = || lab.app("nft -s list ruleset");
    wait("the server's way is closed", BOUND, || {
        (!rules().contains("198.51.100.10")).then_some(())
    });
    let before = rules();
    for defect in [
        "nft flush ruleset",
        "nft insert rule inet vpngw output accept",
    ] {
        mended(&lab, defect, || rules() == before);
    }
    assert_eq!(gateway.status().map(|s| s.state), Some(State::Blocked));
    lab.sensor.drain();
    lab.sensor.permit(|rules| rules.endpoints.clear());
    probes_hold(&lab);
}

/// What a program with CAP_NET_ADMIN gains by a flush: as long as it takes us to be told and to load the
/// rules again, whatever it sends leaves. It is seen, and then everything is blocked.
#[test]
fn a_flush_opens_for_milliseconds_and_is_seen() {
    let lab = Lab::new();
    lab.tables_belong_to_nobody();
    let gateway = lab.connect(&lab.conf());
    lab.sensor.disarm();
    let times = Arc::<Mutex<Vec<SystemTime>>>::default();
    let list = times.clone();
    let _capture = Capture::start(&lab.ns, "rtr", "toapp", move |frame| {
        if !frame.outgoing && !canary::find(frame.bytes).is_empty() {
            list.lock().unwrap().push(frame.at);
        }
    });
    let mut spans = Vec::new();
    let mut frames = 0;
    for _ in 0..10 {
        times.lock().unwrap().clear();
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let sender = lab.ns.spawn("app", move || {
            // Past the routes, which a flush leaves as they are.
            let socket = PacketSocket::open("eth0", Layer::Payload, 0).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                let _ = socket.send_to(
                    &crate::lab::forge::datagram(&canary::fresh()),
                    0x0800,
                    ROUTER_MAC,
                );
            }
        });
        lab.app("nft flush ruleset");
        wait("it is closed again", BOUND, || {
            (lab.app("nft list tables").matches("vpngw").count() == 3).then_some(())
        });
        lab.sensor.drain();
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap();
        let times = times.lock().unwrap().clone();
        frames += times.len();
        if let (Some(first), Some(last)) = (times.first(), times.last()) {
            spans.push(last.duration_since(*first).unwrap());
            // The sensor has seen it.
            let leaked = |s: &Status| s.state == State::Blocked && s.leaks.detected > 0;
            gateway.wait_for("it blocks", BOUND, leaked);
            // Frames that the sensor had not got to yet block it again.
            wait("an operator opens it", PATIENCE, || {
                gateway.ctl(&["connect"]);
                let ready = || gateway.status().is_some_and(|s| s.ready()).then_some(());
                (0..50).find_map(|_| {
                    ready().or_else(|| {
                        std::thread::sleep(Duration::from_millis(20));
                        None
                    })
                })
            });
        }
    }
    spans.sort_unstable();
    println!(
        "{} of 10 flushes let {frames} frames out; from the first to the last: {spans:.1?}",
        spans.len()
    );
    assert!(
        !spans.is_empty(),
        "the control: nothing left although the rules were gone"
    );
    assert!(spans.iter().all(|span| *span < BOUND), "{spans:?}");
}
