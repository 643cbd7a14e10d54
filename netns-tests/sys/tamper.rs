//! A device that is taken away is told from one that is removed, and what cuts the network is seen and undone.

use std::process::Command;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use vpngw::config::Offload;
use vpngw::plan::Tunnel;
use vpngw::plan::departed::{FarEnd, Whereabouts};
use vpngw::plan::interference::{Memory, Role};
use vpngw::sys::interference::{look, undo, whereabouts};
use vpngw::sys::watch::{Change, Watch};
use vpngw::sys::{link, tun};

use super::*;
use crate::lab::thief::Thief;
use crate::lab::wait;

/// A process in another network namespace; `flags` are those of unshare(1).
fn elsewhere(flags: &str) -> Thief {
    let mut command = Command::new("unshare");
    command.args([flags, "sleep", "600"]);
    Thief::ready(command.spawn().unwrap())
}

/// An uplink whose other end is in the namespace of a process, as that of a container is in the machine's.
fn uplink_from(far: &Thief) -> Uplink {
    let pid = far.pid();
    ip(&format!(
        "link add eth0 type veth peer name far0 netns {pid}"
    ));
    ip("address add 172.30.0.2/24 dev eth0");
    ip("link set eth0 up");
    run("nsenter", &format!("-t {pid} -n ip link set far0 up"));
    Uplink {
        device: name("eth0"),
        address: "172.30.0.2/24".parse().unwrap(),
        gateway: Some(Ipv4Addr::new(172, 30, 0, 1)),
    }
}

fn far_end(uplink: &Uplink) -> FarEnd {
    let seen = look(Some(uplink), &name("tun0")).unwrap();
    seen.devices[0].far_end.unwrap()
}

/// What is said of devices that went away.
fn departures(watch: &Watch) -> Vec<Change> {
    let is_departure = |it: &Change| match it {
        Change::LinkGone(_) | Change::LinkMoved { .. } | Change::Lost => true,
        Change::Link(_)
        | Change::Address
        | Change::Route
        | Change::Rule
        | Change::Ruleset { .. } => false,
    };
    watch
        .read()
        .unwrap()
        .into_iter()
        .filter(is_departure)
        .collect()
}

/// The namespace that it is taken to has no number here yet, and it may be that of a user without privileges.
#[test]
fn an_uplink_that_is_taken_away_is_told_from_one_that_is_removed() {
    for flags in ["-n", "-Urn"] {
        isolated(move || {
            let (far, thief) = (elsewhere("-n"), elsewhere(flags));
            let uplink = uplink_from(&far);
            let (index, end) = (link::index(&name("eth0")).unwrap(), far_end(&uplink));
            assert_eq!(whereabouts(Some(end)), Whereabouts::Elsewhere);
            let watch = Watch::network().unwrap();
            // Renamed first, so that its name tells nothing.
            ip("link set eth0 down");
            ip("link set eth0 name lan7");
            ip(&format!("link set lan7 netns {}", thief.pid()));
            let device = name("lan7");
            assert_eq!(departures(&watch), [Change::LinkMoved { device, index }]);
            assert_eq!(whereabouts(Some(end)), Whereabouts::Elsewhere);
            // The control: the same device, removed where it is now.
            drop(thief);
            wait("the pair is gone", Duration::from_secs(20), || {
                (whereabouts(Some(end)) == Whereabouts::Removed).then_some(())
            });
            let _uplink = uplink_from(&far);
            ip("link del eth0");
            assert_eq!(departures(&watch), [Change::LinkGone(name("eth0"))]);
        });
    }
}

/// As `docker network disconnect` does before it deletes a device.
#[test]
fn an_uplink_that_goes_back_to_where_its_other_end_is_counts_as_removed() {
    isolated(|| {
        let far = elsewhere("-n");
        let end = far_end(&uplink_from(&far));
        let watch = Watch::network().unwrap();
        ip("link set eth0 down");
        ip("link set eth0 name veth12");
        ip(&format!("link set veth12 netns {}", far.pid()));
        assert_eq!(departures(&watch), [Change::LinkGone(name("veth12"))]);
        assert_eq!(whereabouts(Some(end)), Whereabouts::Home);
        run("nsenter", &format!("-t {} -n ip link del far0", far.pid()));
        assert_eq!(whereabouts(Some(end)), Whereabouts::Removed);
        assert_eq!(whereabouts(None), Whereabouts::Unknown);
    });
}

/// A joined program may make namespaces of its own and wires to them: those end here.
#[test]
fn a_wire_whose_other_end_is_here_may_be_taken_anywhere() {
    isolated(|| {
        let thief = elsewhere("-Urn");
        let watch = Watch::network().unwrap();
        ip("link add in0 type veth peer name in1");
        ip(&format!("link set in1 netns {}", thief.pid()));
        assert_eq!(departures(&watch), [Change::LinkGone(name("in1"))]);
        // A port that leaves its bridge is still here.
        ip("link add br7 type bridge");
        ip("link set in0 master br7");
        ip("link set in0 nomaster");
        assert_eq!(departures(&watch), []);
    });
}

/// The uplink, the tunnel and what a look sees of them.
fn both() -> (Thief, Uplink, tun::Tun) {
    let far = elsewhere("-n");
    let uplink = uplink_from(&far);
    let tun = tun::create(&name("tun0"), Offload::Auto).unwrap();
    let tunnel = Tunnel {
        device: name("tun0"),
        mtu: 1380,
        tx_queue: 1000,
        addresses: vec!["10.64.0.2/32".parse().unwrap()],
    };
    link::configure(&tunnel).unwrap();
    // Entries of connection tracking have their timeouts once a rule asks for it.
    run("nft", "add table inet t");
    run(
        "nft",
        "add chain inet t c { type filter hook input priority 0 ; }",
    );
    run("nft", "add rule inet t c ct state established accept");
    (far, uplink, tun)
}

/// What somebody does, and what shows that it is undone: words of a command and what it prints then or no more.
const CUTS: &[(&str, &str, &str)] = &[
    ("ip link set eth0 master br7", "ip link show eth0", "master"),
    (
        "ip link set tun0 txqueuelen 0",
        "ip link show tun0",
        "group default \n",
    ),
    (
        "ip link set tun0 carrier off",
        "ip link show tun0",
        "NO-CARRIER",
    ),
    ("ip link set eth0 arp off", "ip link show eth0", "NOARP"),
    (
        "tc qdisc add dev eth0 root tbf rate 8bit burst 10 limit 1",
        "tc qdisc show dev eth0",
        "tbf",
    ),
    (
        "tc qdisc add dev tun0 root handle 7: pfifo",
        "tc qdisc show dev tun0",
        "pfifo 7:",
    ),
    (
        "tc qdisc add dev eth0 clsact",
        "tc qdisc show dev eth0",
        "clsact",
    ),
    (
        "tc qdisc add dev eth0 ingress",
        "tc qdisc show dev eth0",
        "ingress",
    ),
    (
        "ip neigh replace 172.30.0.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
        "ip neigh show nud permanent",
        "172.30.0.1",
    ),
    (
        "ip neigh replace 172.30.0.1 lladdr 02:00:00:00:00:99 dev eth0 nud noarp",
        "ip neigh show nud noarp",
        "172.30.0.1 ",
    ),
];

/// Parameters, and a value that cuts.
const VALUES: &[(&str, &str)] = &[
    ("net/ipv4/ip_default_ttl", "1"),
    ("net/ipv4/ip_local_port_range", "40000 40001"),
    ("net/ipv4/ip_local_reserved_ports", "1-65535"),
    ("net/ipv4/tcp_min_snd_mss", "4096"),
    ("net/ipv4/tcp_notsent_lowat", "0"),
    ("net/ipv4/tcp_rmem", "1 1 1"),
    ("net/ipv4/conf/all/arp_ignore", "8"),
    ("net/ipv4/conf/eth0/arp_ignore", "8"),
    ("net/ipv4/neigh/eth0/mcast_solicit", "0"),
    ("net/ipv4/neigh/eth0/ucast_solicit", "0"),
    ("net/ipv4/neigh/eth0/app_solicit", "3"),
    ("net/netfilter/nf_conntrack_udp_timeout", "0"),
    ("net/netfilter/nf_conntrack_udp_timeout_stream", "0"),
    ("net/netfilter/nf_conntrack_icmp_timeout", "0"),
    ("net/netfilter/nf_conntrack_generic_timeout", "0"),
    ("net/netfilter/nf_conntrack_tcp_timeout_established", "0"),
    ("net/netfilter/nf_conntrack_tcp_timeout_syn_sent", "0"),
];

fn words(line: &str) -> String {
    let (program, rest) = line.split_once(' ').unwrap();
    run(program, rest)
}

#[test]
fn whatever_cuts_the_network_is_seen_and_undone() {
    isolated(|| {
        let (_far, uplink, _tun) = both();
        ip("link add br7 type bridge");
        let mut memory = Memory::default();
        let mut mend = || {
            let seen = look(Some(&uplink), &name("tun0")).unwrap();
            let roles: Vec<_> = seen.devices.iter().map(|it| it.role).collect();
            assert_eq!(roles.len(), 2, "{roles:?}");
            assert!(roles.contains(&Role::Uplink) && roles.contains(&Role::Tunnel));
            let judged = memory.judge(&seen);
            for it in &judged {
                undo(&it.finding.undo).unwrap_or_else(|why| panic!("{it:?}: {why}"));
            }
            judged.len()
        };
        assert_eq!(mend(), 0);
        for (defect, look, trace) in CUTS {
            let before = words(look);
            words(defect);
            let cut = words(look);
            assert!(
                cut.contains(trace) && !before.contains(trace),
                "{defect}: {cut}"
            );
            assert!(mend() > 0, "{defect} is not seen");
            let after = words(look);
            assert!(!after.contains(trace), "{defect} is not undone: {after}");
            assert_eq!(mend(), 0, "{defect} is seen although it is undone");
        }
        for (path, value) in VALUES {
            let before = sysctl_value(path);
            std::fs::write(format!("/proc/sys/{path}"), value).unwrap();
            assert_eq!(mend(), 1, "{path}");
            assert_eq!(sysctl_value(path), before, "{path}");
            assert_eq!(mend(), 0, "{path}");
        }
    });
}

/// What an operator set up before the gateway came.
#[test]
fn what_was_there_before_the_first_look_stays() {
    isolated(|| {
        let (_far, uplink, _tun) = both();
        ip("link add br7 type bridge");
        for (defect, ..) in CUTS.iter().filter(|it| !it.0.ends_with("ingress")) {
            words(defect);
        }
        let mut memory = Memory::default();
        for _ in 0..2 {
            let seen = look(Some(&uplink), &name("tun0")).unwrap();
            assert_eq!(memory.judge(&seen), []);
        }
    });
}

/// The gateway looks each second, by the thread that guards.
#[test]
fn a_look_is_cheap() {
    isolated(|| {
        let (_far, uplink, _tun) = both();
        // Time of the processor: the machine may be busy with other tests.
        let spent = || {
            let time = clock_gettime(ClockId::ThreadCPUTime);
            Duration::try_from(time).unwrap()
        };
        let start = spent();
        for _ in 0..100 {
            look(Some(&uplink), &name("tun0")).unwrap();
        }
        let each = (spent() - start) / 100;
        println!("{each:.1?} a look");
        assert!(each < Duration::from_millis(5), "{each:?}");
    });
}
