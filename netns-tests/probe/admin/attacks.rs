//! The attacks: what is changed, what is tried then, and how it is undone.

use std::net::Ipv4Addr;

use super::flush::flush_at_once;
use super::{attack, by, frame_on, from, like_the_gateway, volley};
use crate::addresses::{HOST, LAN};
use crate::canary::Canary;
use crate::socket::{Probe, at, send, to_device, udp};

/// Everything here.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "address-add",
        send: |token| {
            let changes = "ip addr add 172.30.0.77/24 dev eth0";
            let shots = |token: &Canary| {
                volley(token);
                let _ = from(STRANGER, token);
            };
            attack(token, changes, shots, "ip addr del 172.30.0.77/24 dev eth0")
        },
    },
    Probe {
        name: "route-default",
        send: |token| {
            let changes = "ip route add default via 172.30.0.1 dev eth0 metric 1 onlink";
            attack(
                token,
                changes,
                volley,
                "ip route del default via 172.30.0.1 dev eth0 metric 1",
            )
        },
    },
    Probe {
        name: "route-host",
        send: |token| {
            let changes = "ip route add 203.0.113.9 via 172.30.0.1 dev eth0 onlink";
            attack(
                token,
                changes,
                volley,
                "ip route del 203.0.113.9 via 172.30.0.1 dev eth0",
            )
        },
    },
    Probe {
        name: "route-lan",
        send: |token| {
            let changes = "ip route add 172.30.0.50/32 dev eth0";
            let shots = |token: &Canary| {
                let _ = udp().and_then(|socket| send(&socket, token, at(LAN, 9)));
            };
            attack(
                token,
                changes,
                shots,
                "ip route del 172.30.0.50/32 dev eth0",
            )
        },
    },
    Probe {
        name: "rule-first",
        send: |token| {
            let changes = "ip route add default via 172.30.0.1 dev eth0 table 77 onlink
                           ip rule add priority 1 lookup 77";
            let undo = "ip rule del priority 1
                        ip route flush table 77";
            attack(token, changes, volley, undo)
        },
    },
    Probe {
        name: "rules-deleted",
        send: |token| {
            let changes = "ip rule del priority 30320
                           ip rule del priority 30321
                           ip rule del priority 30322
                           ip rule del priority 30323
                           ip rule del priority 30324
                           ip rule del priority 30325
                           ip rule del priority 30327";
            attack(token, changes, volley, "")
        },
    },
    Probe {
        name: "tunnel-down",
        send: |token| {
            attack(
                token,
                "ip link set tun0 down",
                volley,
                "ip link set tun0 up",
            )
        },
    },
    Probe {
        name: "link-macvlan",
        send: |token| {
            let changes = "ip link add mv0 link eth0 type macvlan mode bridge
                           ip addr add 172.30.0.77/24 dev mv0
                           ip link set mv0 up
                           ip route add 203.0.113.9 via 172.30.0.1 dev mv0 onlink";
            let shots = |token: &Canary| {
                volley(token);
                let _ = by("mv0", token);
            };
            attack(token, changes, shots, "ip link del mv0")
        },
    },
    Probe {
        name: "link-vxlan",
        send: |token| {
            let changes = "ip link add vx0 type vxlan id 7 remote 203.0.113.9 dstport 4789 dev eth0
                           ip addr add 10.77.0.1/24 dev vx0
                           ip link set vx0 up";
            let shots = |token: &Canary| {
                let _ = by("vx0", token);
            };
            attack(token, changes, shots, "ip link del vx0")
        },
    },
    Probe {
        name: "link-bridge",
        send: |token| {
            let changes = "ip link add br7 type bridge
                           ip link set eth0 master br7
                           ip link set br7 up";
            let undo = "ip link set eth0 nomaster
                        ip link del br7";
            let shots = |token: &Canary| {
                let _ = by("br7", token);
            };
            attack(token, changes, shots, undo)
        },
    },
    Probe {
        name: "uplink-renamed",
        send: |token| {
            let changes = "ip link set eth0 down
                           ip link set eth0 name wan0
                           ip link set wan0 up
                           ip route add default via 172.30.0.1 dev wan0 metric 1 onlink";
            let undo = "ip link set wan0 down
                        ip link set wan0 name eth0
                        ip link set eth0 up";
            let shots = |token: &Canary| {
                let _ = by("wan0", token);
            };
            attack(token, changes, shots, undo)
        },
    },
    Probe {
        name: "uplink-another-mac",
        send: |token| {
            let changes = "ip link set eth0 address 02:00:00:00:00:55";
            attack(
                token,
                changes,
                volley,
                "ip link set eth0 address 02:00:00:00:00:02",
            )
        },
    },
    Probe {
        name: "sysctl-ipv6-on",
        send: |token| {
            let changes = "write /proc/sys/net/ipv6/conf/all/disable_ipv6 0
                           write /proc/sys/net/ipv6/conf/eth0/disable_ipv6 0
                           ip addr add 2001:db8:1::7/64 dev eth0 nodad
                           ip route add 2001:db8:9::/64 via 2001:db8:1::1 dev eth0 onlink";
            let shots = |token: &Canary| {
                let to = (std::net::Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9), 9);
                let socket = std::net::UdpSocket::bind((std::net::Ipv6Addr::UNSPECIFIED, 0));
                let _ = socket.and_then(|socket| socket.send_to(token, to));
            };
            attack(
                token,
                changes,
                shots,
                "ip addr del 2001:db8:1::7/64 dev eth0",
            )
        },
    },
    Probe {
        name: "nft-outranked",
        send: |token| {
            let changes = "nft add table inet first
                nft add chain inet first output { type filter hook output priority -500 ; policy accept ; }
                nft add rule inet first output accept
                nft add table netdev first
                nft add chain netdev first egress { type filter hook egress device eth0 priority -500 ; policy accept ; }
                nft add rule netdev first egress accept";
            let undo = "nft delete table inet first
                        nft delete table netdev first";
            attack(token, changes, volley, undo)
        },
    },
    Probe {
        name: "nft-mark-set",
        send: |token| {
            let changes = "nft add table inet first
                nft add chain inet first output { type route hook output priority -500 ; policy accept ; }
                nft add rule inet first output meta mark set 0x76707670";
            attack(token, changes, volley, "nft delete table inet first")
        },
    },
    Probe {
        name: "nft-translated-to-the-endpoint",
        send: |token| {
            let changes = "nft add table ip first
                nft add chain ip first output { type nat hook output priority -100 ; policy accept ; }
                nft add rule ip first output udp dport 9 dnat to 198.51.100.10:51820
                nft add chain ip first post { type nat hook postrouting priority 100 ; policy accept ; }
                nft add rule ip first post udp dport 51820 snat to 172.30.0.2:40123";
            let shots = |token: &Canary| {
                let _ = like_the_gateway(token);
            };
            attack(token, changes, shots, "nft delete table ip first")
        },
    },
    Probe {
        name: "nft-forwarded-from-loopback",
        send: |token| {
            let changes = "nft add table netdev first
                nft add chain netdev first ingress { type filter hook ingress device lo priority 0 ; policy accept ; }
                nft add rule netdev first ingress fwd to eth0";
            let shots = |token: &Canary| {
                let _ = frame_on("lo", token);
            };
            attack(token, changes, shots, "nft delete table netdev first")
        },
    },
    Probe {
        name: "nft-table-flushed",
        send: |token| {
            let changes = "nft flush table inet vpngw
                           nft flush table netdev vpngw";
            attack(token, changes, volley, "")
        },
    },
    Probe {
        name: "nft-table-deleted",
        send: |token| attack(token, "nft delete table inet vpngw", volley, ""),
    },
    Probe {
        name: "nft-egress-deleted",
        send: |token| attack(token, "nft delete table netdev vpngw", volley, ""),
    },
    Probe {
        name: "nft-both-deleted",
        send: |token| {
            let changes = "nft delete table inet vpngw
                           nft delete table netdev vpngw";
            attack(token, changes, volley, "")
        },
    },
    Probe {
        name: "nft-policy-accept",
        send: |token| {
            let changes = "nft chain inet vpngw output { policy accept ; }
                           nft chain netdev vpngw egress { policy accept ; }
                           nft flush table inet vpngw
                           nft flush table netdev vpngw";
            attack(token, changes, volley, "")
        },
    },
    Probe {
        name: "nft-accept-inserted",
        send: |token| {
            let changes = "nft insert rule inet vpngw output accept
                           nft insert rule netdev vpngw egress accept";
            attack(token, changes, volley, "")
        },
    },
    Probe {
        name: "nft-ruleset-flushed",
        send: |token| attack(token, "nft flush ruleset", volley, ""),
    },
    Probe {
        name: "nft-ruleset-flushed-at-once",
        send: |token| flush_at_once(token, volley),
    },
    Probe {
        name: "tc-redirect-from-loopback",
        send: |token| {
            let changes = "tc qdisc add dev lo clsact
                tc filter add dev lo egress protocol all u32 match u32 0 0 action mirred egress redirect dev eth0";
            let shots = |token: &Canary| {
                let _ = frame_on("lo", token);
            };
            attack(token, changes, shots, "tc qdisc del dev lo clsact")
        },
    },
    Probe {
        name: "tc-mirror-of-the-uplink",
        send: |token| {
            let changes = "ip link add ifb7 type ifb
                ip link set ifb7 up
                tc qdisc add dev ifb7 clsact
                tc filter add dev ifb7 egress protocol all u32 match u32 0 0 action mirred egress mirror dev eth0";
            let shots = |token: &Canary| {
                let _ = by("ifb7", token);
                let _ = udp()
                    .and_then(to_device)
                    .and_then(|socket| send(&socket, token, at(HOST, 9)));
            };
            attack(token, changes, shots, "ip link del ifb7")
        },
    },
];

/// On the uplink's network, and nobody's.
const STRANGER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 77);
