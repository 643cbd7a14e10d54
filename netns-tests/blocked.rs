//! What the kill switch stopped is listed, so that a person finds the one line that matters.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use vpngw::control::api::{Line, Report};

use crate::lab::gateway::Gateway;
use crate::lab::tunnel::assert_inside;
use crate::lab::{HOST, Lab, ONES, at, canary, wait};
use crate::probes::program::{Persona, Program};

/// How soon a packet has to be listed; a busy machine gets more.
const SOON: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// A user who is not root and not the gateway; root where there is no other (`unshare -Ur`).
pub fn user() -> u32 {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let first = map.split_whitespace().nth(2).unwrap();
    if first.parse::<u32>().unwrap() > 4242 {
        4242
    } else {
        0
    }
}

fn report(gateway: &Gateway) -> Report {
    let done = gateway.ctl(&["blocked", "--json"]);
    assert!(done.status.success(), "{done:?}");
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Waits for a line, and returns it.
fn listed(gateway: &Gateway, what: &str, wanted: impl Fn(&Line) -> bool) -> Line {
    let mut last = Report::default();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        last = report(gateway);
        if let Some(line) = last.lines.iter().find(|line| wanted(line)) {
            return line.clone();
        }
    }
    panic!("not listed: {what}: {last:#?}");
}

fn to(line: &Line) -> Option<SocketAddr> {
    Some(SocketAddr::new(line.destination?, line.port?))
}

/// Runs a line of bash as [`user`] in `app`; `/dev/udp` and `/dev/tcp` are sockets (bash(1)).
pub fn as_user(lab: &Lab, line: &str) {
    let mut command = Command::new("bash");
    command.args(["-c", line]).uid(user()).gid(user());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = lab.ns.start("app", &mut command);
    child.wait().unwrap();
}

#[test]
fn each_kind_that_is_stopped_is_listed_with_destination_user_and_reason() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let sent = Instant::now();
    as_user(&lab, "echo x > /dev/udp/8.8.8.8/53");
    let dns = listed(&gateway, "DNS", |line| line.reason == "dns");
    let soon = sent.elapsed();
    assert_eq!(
        (to(&dns), dns.uid),
        (Some(at(Ipv4Addr::new(8, 8, 8, 8), 53)), Some(user()))
    );
    assert_eq!((dns.protocol.as_str(), dns.packets), ("udp", 1));
    assert!(dns.last_seconds_ago < SOON.as_secs_f64() + soon.as_secs_f64());

    as_user(&lab, "echo x > /dev/tcp/10.1.2.3/22");
    let tcp = listed(&gateway, "TCP", |line| line.protocol == "tcp");
    assert_eq!(
        (to(&tcp), tcp.uid),
        (Some(at(Ipv4Addr::new(10, 1, 2, 3), 22)), Some(user()))
    );
    assert_eq!(tcp.reason, "private");

    let mut program = Program::start(&lab.ns, Persona::Lab);
    let mut fire = |name: &str| {
        program.fire(name, &canary::fresh());
    };
    fire("device/udp");
    let udp = listed(&gateway, "UDP past the tunnel", |line| {
        to(line) == Some(at(HOST, 9))
    });
    assert_eq!((udp.reason.as_str(), udp.uid), ("other", Some(0)));

    lab.ns.enter("app", || {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        socket.bind_device(Some(b"eth0")).unwrap();
        let _ = socket.send_to(&[8, 0, 0, 0, 0, 1, 0, 1], &at(HOST, 0).into());
    });
    let icmp = listed(&gateway, "ICMP", |line| line.protocol == "icmp");
    assert_eq!((icmp.destination, icmp.port), (Some(HOST.into()), None));

    fire("packet/frame");
    let raw = listed(&gateway, "a raw frame", |line| {
        line.reason == "raw" && line.protocol == "udp"
    });
    assert_eq!((to(&raw), raw.uid), (Some(at(HOST, 9)), Some(0)));
    fire("packet/ethertype-88cc-lldp");
    listed(&gateway, "a frame of no IP", |line| {
        line.protocol == "ether-88cc"
    });

    for line in [
        "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.eth0.disable_ipv6=0",
        "ip -6 addr add 2001:db8:1::2/64 dev eth0 nodad",
        "ip -6 route add default dev eth0",
    ] {
        lab.app(line);
    }
    as_user(&lab, "echo x > /dev/udp/2001:db8:9::9/4242");
    let ipv6 = listed(&gateway, "IPv6", |line| {
        line.reason == "ipv6" && line.protocol == "udp"
    });
    assert_eq!(to(&ipv6), Some("[2001:db8:9::9]:4242".parse().unwrap()));
    assert_eq!(ipv6.uid, Some(user()));

    // The page names all of it too.
    let page = gateway.ctl(&["blocked"]);
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    for part in [
        "udp 8.8.8.8:53",
        "tcp 10.1.2.3:22",
        "LAST SEEN",
        "root",
        "IPv6 is off",
    ] {
        assert!(page.contains(part), "no {part}:\n{page}");
    }
    lab.sensor.verdict();
}

/// So that nobody takes it for a program that tries to get out.
#[test]
fn what_the_gateway_tries_itself_is_listed_as_its_own() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let nowhere = at(Ipv4Addr::new(192, 0, 2, 1), 9);
    let own = listed(&gateway, "its own check", |line| line.own);
    assert_eq!((to(&own), own.uid), (Some(nowhere), Some(0)));
    lab.ns.enter("app", || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.bind_device(Some(b"eth0")).unwrap();
        socket.send_to(b"announce", &nowhere.into()).unwrap_err();
    });
    let same = listed(&gateway, "a program that goes there", |line| {
        to(line) == Some(nowhere) && !line.own
    });
    assert_eq!((same.uid, same.packets), (Some(0), 1));
    let page = String::from_utf8(gateway.ctl(&["blocked"]).stdout).unwrap();
    let checks = page.lines().filter(|line| line.contains("its own check"));
    let words: Vec<Vec<_>> = checks.map(|l| l.split_whitespace().collect()).collect();
    assert!(
        words.iter().all(|line| line.contains(&"vpngw")) && words.len() == 1,
        "{page}"
    );
    lab.sensor.verdict();
}

/// What is permitted is not listed, and what is listed is not in the log.
#[test]
fn what_passes_is_not_listed_and_no_address_is_in_the_log() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    for _ in 0..5 {
        assert_inside(&lab.ns, 1);
    }
    as_user(&lab, "echo x > /dev/udp/9.9.9.9/53");
    listed(&gateway, "DNS", |line| line.reason == "dns");
    let lines = report(&gateway).lines;
    assert!(
        lines
            .iter()
            .all(|line| line.destination != Some(HOST.into()) || line.port != Some(7))
    );
    let log = std::fs::read_to_string(gateway.config.parent().unwrap().join("log")).unwrap();
    assert!(!log.contains("9.9.9.9"), "{log}");
}

/// A torrent client's DHT asks thousands; what else it tried stays in sight. And it comes faster than
/// anybody reads: the gateway stays up, says what it lost, and lists what comes after.
#[test]
fn a_flood_neither_buries_a_connection_attempt_nor_ends_the_listing() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    as_user(&lab, "echo x > /dev/tcp/192.168.9.9/22");
    let before = cpu(&gateway);
    let start = Instant::now();
    let mut sent = 0_u64;
    while start.elapsed() < Duration::from_secs(2) || report(&gateway).lost == 0 {
        assert!(
            start.elapsed() < 3 * PATIENCE,
            "nothing was lost of {sent}: no flood"
        );
        sent += lab.ns.enter("app", || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let refused = (0..50_000_u32).filter(|n| {
                let [_, b, c, d] = n.to_be_bytes();
                socket
                    .send_to(&[0; 60], at(Ipv4Addr::new(10, b, c, d), 6881))
                    .is_err()
            });
            refused.count() as u64
        });
    }
    let spent = cpu(&gateway) - before;
    let took = start.elapsed();
    println!("{sent} packets stopped in {took:?}; the warden used {spent:?}");
    assert!(
        spent < took / 4,
        "{spent:?} of {took:?}: the flood costs too much"
    );

    let flood = listed(&gateway, "the flood", |line| {
        line.other_destinations.is_some()
    });
    assert!(flood.other_destinations > Some(1000), "{flood:?}");
    let during = report(&gateway);
    let ssh = during.lines.iter().position(|line| line.port == Some(22));
    assert!(ssh.is_some_and(|row| row < 12), "{ssh:?}: {during:#?}");

    // The first ones may be lost with the end of the flood; the number of one that is not tells how many
    // were.
    let after = wait("what comes after is listed", PATIENCE, || {
        as_user(&lab, "echo x > /dev/udp/1.0.0.1/53");
        let report = report(&gateway);
        let dns = report.lines.iter().any(|line| line.port == Some(53));
        dns.then_some(report)
    });
    let all: u64 = after.lines.iter().map(|line| line.packets).sum();
    println!("listed {all}, lost {}", after.lost);
    assert!(all + after.lost + after.omitted >= sent, "{all} of {sent}");
    gateway.wait_connected();
    assert_inside(&lab.ns, 1);
}

/// Processor time of the warden.
pub fn cpu(gateway: &Gateway) -> Duration {
    let pid = gateway.warden().as_raw_nonzero();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = |n: usize| fields.split(' ').nth(n).unwrap().parse::<u64>().unwrap();
    // utime and stime, 100 a second (proc_pid_stat(5)).
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn scrape() -> String {
    let mut stream = TcpStream::connect("127.0.0.1:9586").unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_metrics_count_what_was_stopped_by_reason_and_protocol() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    conf.toml = "[metrics]\nlisten = \"127.0.0.1:9586\"".into();
    let _gateway = lab.connect(&conf);
    let count = |labels: &str| {
        let text = lab.ns.enter("app", scrape);
        let series = format!("vpngw_blocked_packets_total{{{labels}}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&series));
        line.map_or(0, |n| n.parse::<u64>().unwrap())
    };
    let series = [
        "reason=\"other\",protocol=\"udp\"",
        "reason=\"other\",protocol=\"icmp\"",
        "reason=\"dns\",protocol=\"tcp\"",
        "reason=\"raw\",protocol=\"udp\"",
        "reason=\"raw\",protocol=\"rest\"",
    ];
    let before = series.map(count);
    lab.ns.enter("app", || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket2::SockRef::from(&socket)
            .bind_device(Some(b"eth0"))
            .unwrap();
        for _ in 0..7 {
            let _ = socket.send_to(&[0; 8], at(HOST, 9));
        }
        let ping = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        ping.bind_device(Some(b"eth0")).unwrap();
        for _ in 0..3 {
            let _ = ping.send_to(&[8, 0, 0, 0, 0, 1, 0, 1], &at(HOST, 0).into());
        }
        let _ = TcpStream::connect_timeout(&at(ONES, 853), Duration::from_secs(2));
    });
    let mut program = Program::start(&lab.ns, Persona::Lab);
    for name in ["packet/frame", "packet/ethertype-88cc-lldp"] {
        program.fire(name, &canary::fresh());
    }
    let expected = [7, 3, 1, 1, 1];
    wait("each is counted", PATIENCE, || {
        let now = series.map(count);
        let more: Vec<_> = now.iter().zip(before).map(|(now, was)| now - was).collect();
        (more == expected).then_some(())
    });
}
