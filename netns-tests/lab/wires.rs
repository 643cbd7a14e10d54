//! The cables of the lab.

use std::fs;

use super::ns::Namespaces;
use super::{EVIL, HOST, INNER, LAN, ONES, PRIVATE, ROUTER};

/// Devices, addresses and routes of every namespace.
pub fn wire_up(ns: &Namespaces) {
    ns.feed("rtr", "ip -batch -", RTR);
    ns.feed("rtr", "ip -batch -", RTR_ADDRESSES);
    ns.feed("app", "ip -batch -", APP_UPLINK);
    for (name, address) in [("lan", LAN), ("evil", EVIL)] {
        let lines = format!(
            "addr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {ROUTER}\n"
        );
        ns.feed(name, "ip -batch -", &lines);
    }
    ns.feed("inet", "ip -batch -", INET);
    for n in [1, 2] {
        ns.feed(&format!("vpn{n}"), "ip -batch -", &vpn(n));
    }
    // What Docker sets in every container (moby, `daemon/oci_linux.go`): pings and low ports for everybody.
    ns.enter("app", || {
        let set = |name: &str, value: &str| fs::write(format!("/proc/sys/net/ipv4/{name}"), value);
        // A group that the user namespace does not have is refused.
        set("ping_group_range", "0 2147483647")
            .or_else(|_| set("ping_group_range", "0 0"))
            .and_then(|()| set("ip_unprivileged_port_start", "0"))
            .expect("/proc/sys is writable");
    });
    ns.enter("rtr", || {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("/proc/sys is writable");
    });
}

const RTR: &str = "\
link add br0 type bridge
link add toapp type veth peer name eth0 netns app
link add tolan type veth peer name eth0 netns lan
link add toevil type veth peer name eth0 netns evil
link add toinet type veth peer name eth0 netns inet
link add tovpn1 type veth peer name eth0 netns vpn1
link add tovpn2 type veth peer name eth0 netns vpn2
";

const RTR_ADDRESSES: &str = "\
link set br0 address 02:00:00:00:00:01
link set toapp master br0
link set tolan master br0
link set toevil master br0
addr add 172.30.0.1/24 dev br0
addr add 2001:db8:1::1/64 dev br0 nodad
addr add 192.0.2.1/30 dev toinet
addr add 192.0.2.5/30 dev tovpn1
addr add 192.0.2.9/30 dev tovpn2
link set br0 up
link set toapp up
link set tolan up
link set toevil up
link set toinet up
link set tovpn1 up
link set tovpn2 up
route add default via 192.0.2.2
route add 198.51.100.10 via 192.0.2.6
route add 198.51.100.11 via 192.0.2.10
";

const APP_UPLINK: &str = "\
link set eth0 address 02:00:00:00:00:02
addr add 172.30.0.2/24 dev eth0
addr add 2001:db8:1::2/64 dev eth0 nodad
link set eth0 up
route add default via 172.30.0.1
route add default via 2001:db8:1::1 dev eth0
";

const INET: &str = "\
addr add 192.0.2.2/30 dev eth0
link set eth0 up
route add default via 192.0.2.1
addr add 203.0.113.9/32 dev lo
addr add 203.0.113.10/32 dev lo
addr add 1.1.1.1/32 dev lo
addr add 9.9.9.9/32 dev lo
addr add 169.254.169.254/32 dev lo
addr add 192.168.77.5/32 dev lo
";

fn vpn(n: u8) -> String {
    let subnet = n * 4;
    format!(
        "addr add 192.0.2.{}/30 dev eth0\nlink set eth0 up\nroute add default via 192.0.2.{}\n\
         addr add 198.51.100.{}/32 dev lo\naddr add {INNER}/32 dev lo\naddr add {HOST}/32 dev lo\n\
         addr add {ONES}/32 dev lo\naddr add {PRIVATE}/32 dev lo\n",
        subnet + 2,
        subnet + 1,
        n + 9,
    )
}
