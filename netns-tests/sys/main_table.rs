//! The main table belongs to others: what they put there leads no program, and is never in their way.

use std::process::Command;

use vpngw::plan::Plan;
use vpngw::sys::route::{apply, restore};

use super::routes::{config, hole, observed, table, tunnel, until_first_route_is, without_onlink};
use super::*;

/// The way of a program's packet of TCP.
pub(super) fn way(to: &str) -> String {
    ip(&format!("route get {to} ipproto tcp"))
}

/// Whether a program's packet of TCP goes nowhere.
pub(super) fn no_way(to: &str) -> bool {
    let words = ["route", "get", to, "ipproto", "tcp"];
    let asked = Command::new("ip").args(words).output().unwrap();
    String::from_utf8_lossy(&asked.stderr).contains("No route to host")
}

#[test]
fn a_route_pushed_by_the_lan_loses_to_the_tunnel() {
    isolated(|| {
        let uplink = uplink();
        // TunnelVision: a DHCP option that routes half of the Internet by the LAN (CVE-2024-3661).
        let push = || ip("route add 0.0.0.0/1 via 172.30.0.1 dev eth0 proto dhcp");
        push();
        assert!(way("1.1.1.1").contains("dev eth0"), "the control");
        ip("route del 0.0.0.0/1");
        let plan = Plan::of(&config(), Some(&uplink), MARK, Some(&hole(40000)));
        let _tun = tunnel(&plan);
        apply(&plan).unwrap();
        push();
        let packets = [
            "ipproto tcp",
            "ipproto icmp",
            "ipproto udp dport 53",
            "ipproto udp sport 40001",
            "ipproto udp sport 40001 dport 65535",
            "from 10.64.0.2 ipproto udp",
        ];
        // Not even before it is undone.
        for packet in packets {
            for to in ["1.1.1.1", "172.30.0.9"] {
                let way = ip(&format!("route get {to} {packet}"));
                assert!(way.contains("dev tun0"), "{packet}: {way}");
            }
        }
        assert!(
            table("main")
                .iter()
                .any(|line| line.starts_with("0.0.0.0/1"))
        );
        apply(&plan).unwrap();
        assert!(
            !table("main")
                .iter()
                .any(|line| line.starts_with("0.0.0.0/1"))
        );
        assert_eq!(observed().as_ref(), Some(&uplink));
    });
}

/// As Docker does it: another device, a network on it, then a route by a router there, whose device it asks for.
#[test]
fn a_default_route_is_added_and_its_router_found_at_every_moment() {
    isolated(|| {
        let uplink = uplink();
        let plan = Plan::of(&config(), Some(&uplink), MARK, Some(&hole(40000)));
        let tun = tunnel(&plan);
        apply(&plan).unwrap();
        ip("route add default via 172.30.0.9");
        let second = observed().unwrap();
        assert_eq!(second.gateway, Some("172.30.0.9".parse().unwrap()));
        apply(&Plan::of(&config(), Some(&second), MARK, None)).unwrap();
        drop(tun);
        until_first_route_is("unreachable default proto 30 metric 4294967295");
        // Nobody is there to react to any of it.
        ip("link del eth0");
        ip("link add eth1 type veth peer name far1");
        ip("link set far1 up");
        ip("address add 172.31.0.2/24 dev eth1");
        ip("link set eth1 up");
        assert!(ip("route get 172.31.0.1").contains("dev eth1"));
        ip("route add default via 172.31.0.1");
        assert!(no_way("1.1.1.1") && no_way("172.31.0.1"));
        let third = observed().unwrap();
        assert_eq!(third.device, name("eth1"));
        assert_eq!(third.gateway, Some("172.31.0.1".parse().unwrap()));
    });
}

/// What the first version left when it was killed: it had its routes in the main table.
#[test]
fn leftovers_of_a_former_version_are_put_right() {
    isolated(|| {
        let uplink = uplink();
        let before = table("main");
        let plan = Plan::of(&config(), Some(&uplink), MARK, Some(&hole(40000)));
        let former = [
            "default via 172.30.0.1 dev eth0 onlink table 30321",
            "172.30.0.0/24 dev eth0 proto kernel scope link src 172.30.0.2 table 30321",
            "unreachable default proto 30 metric 4294967295",
            "172.30.0.1 dev eth0 scope link src 172.30.0.2 proto 30",
            "192.168.1.0/24 via 172.30.0.1 dev eth0 src 172.30.0.2 onlink proto 30",
            "unreachable default proto 30 table 30320",
        ];
        let leave = || {
            for route in former {
                ip(&format!("route replace {route}"));
            }
            ip("route del default via 172.30.0.1");
            ip("route del 172.30.0.0/24 dev eth0 table main");
            ip("rule add priority 30320 fwmark 0x1234 lookup 30320");
        };
        leave();
        assert_eq!(observed().as_ref(), Some(&uplink));
        let _tun = tunnel(&plan);
        apply(&plan).unwrap();
        let main = [
            "default dev tun0 proto 30 metric 30320",
            "172.30.0.0/24 dev eth0 proto kernel scope link src 172.30.0.2",
        ];
        assert_eq!(table("main"), main);
        restore().unwrap();
        ip("link del tun0");
        assert_eq!(without_onlink(), before);
        leave();
        restore().unwrap();
        assert_eq!(without_onlink(), before);
    });
}
