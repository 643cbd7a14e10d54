//! The text of the rulesets that matter, for readers.

use super::{Kernel, LOG_CAPTURE, Ruleset};
use crate::config::example;
use crate::net::{Fwmark, IfName};
use crate::policy::{Hole, Policy, Reason, TunnelPolicy, UplinkPolicy};

fn devices() -> [IfName; 1] {
    ["eth0".parse().unwrap()]
}

fn connected() -> Policy {
    Policy {
        uplink: Some(UplinkPolicy {
            device: "eth0".parse().unwrap(),
            address: "172.30.0.2".parse().unwrap(),
            endpoint: Some(Hole {
                mark: Fwmark(0x1234),
                source_port: 40000,
                remote: "198.51.100.10:51820".parse().unwrap(),
            }),
            resolver: None,
            inbound: Vec::new(),
            outbound: Vec::new(),
        }),
        beside: Vec::new(),
        tunnel: Some(TunnelPolicy {
            device: "tun0".parse().unwrap(),
            addresses: vec!["10.64.0.2/32".parse().unwrap()],
            dns: vec!["10.64.0.1".parse().unwrap()],
            private: Vec::new(),
            forward: vec![6881],
        }),
    }
}

/// The counters and the log options of each rule are the same everywhere.
fn short(ruleset: &Ruleset) -> String {
    let text = ruleset
        .to_string()
        .replace("counter packets 0 bytes 0", "counter");
    let text = Reason::ALL.iter().fold(text, |text, reason| {
        text.replace(&format!(" log prefix \"{reason}\" group {LOG_CAPTURE}"), "")
    });
    text.replace(" snaplen 128", "").replace('\t', "    ")
}

#[test]
fn deny_all() {
    let bare = Kernel {
        log: false,
        reject: false,
        ..Kernel::FULL
    };
    insta::assert_snapshot!(short(&Ruleset::deny_all(&devices(), bare)), @r#"
    table inet vpngw {
        chain input {
            type filter hook input priority filter; policy drop;
            meta nfproto ipv6 iifname != "lo" counter drop comment "ipv6"
            iifname "lo" ip daddr 127.0.0.11 counter drop comment "docker-resolver"
            iifname "lo" accept comment "loopback"
            counter drop comment "other"
        }

        chain forward {
            type filter hook forward priority filter; policy drop;
            meta nfproto ipv6 iifname != "lo" counter drop comment "ipv6"
            counter drop comment "forward"
        }

        chain output {
            type filter hook output priority filter; policy drop;
            meta nfproto ipv6 oifname != "lo" counter drop comment "ipv6"
            ip daddr 127.0.0.11 counter drop comment "docker-resolver"
            oifname "lo" accept comment "loopback"
            ip daddr 224.0.0.0/3 counter drop comment "multicast"
            ip daddr 169.254.169.254 counter drop comment "metadata"
            ip daddr 169.254.170.2 counter drop comment "metadata"
            ip daddr 100.100.100.200 counter drop comment "metadata"
            ip daddr 192.0.0.192 counter drop comment "metadata"
            ip daddr 168.63.129.16 counter drop comment "metadata"
            tcp dport 53 counter drop comment "dns"
            udp dport 53 counter drop comment "dns"
            tcp dport 853 counter drop comment "dns"
            udp dport 853 counter drop comment "dns"
            meta l4proto tcp counter drop comment "other"
            meta l4proto udp counter drop comment "other"
            meta l4proto icmp counter drop comment "other"
            counter drop comment "other"
        }
    }
    table netdev vpngw {
        chain egress {
            type filter hook egress devices = { eth0, eth1, eth2, eth3, eth4, eth5, eth6, eth7, eth8, eth9 } priority filter; policy drop;
            meta l4proto tcp counter drop comment "raw"
            meta l4proto udp counter drop comment "raw"
            meta l4proto icmp counter drop comment "raw"
            counter drop comment "raw"
        }
    }
    table arp vpngw {
        chain input {
            type filter hook input priority filter; policy drop;
        }

        chain output {
            type filter hook output priority filter; policy drop;
            counter drop comment "arp"
        }
    }
    "#);
}

#[test]
fn connected_without_exceptions() {
    let ruleset = Ruleset::of(&connected(), &devices(), Kernel::FULL);
    insta::assert_snapshot!(short(&ruleset), @r#"
    table inet vpngw {
        chain prerouting {
            type filter hook prerouting priority raw; policy accept;
            iifname "lo" notrack accept comment "loopback"
            iifname "eth0" ip saddr 198.51.100.10 ip daddr 172.30.0.2 udp sport 51820 udp dport 40000 @th,64,8 0x1-0x4 @th,72,24 0x0 notrack accept comment "endpoint"
            iifname "eth0" ip daddr 172.30.0.2 icmp type destination-unreachable icmp code frag-needed @th,136,8 0x11 @th,192,32 0xc633640a @th,224,16 0x9c40 @th,240,16 0xca6c notrack accept comment "endpoint"
            iifname != "lo" iifname != "tun0" ip daddr 10.64.0.2 counter drop comment "spoofed"
            iifname "tun0" ip saddr 10.64.0.2 counter drop comment "spoofed"
            iifname "tun0" ip saddr 127.0.0.0/8 counter drop comment "spoofed"
            iifname "tun0" ip saddr 172.30.0.2 counter drop comment "spoofed"
            iifname "tun0" ip saddr 224.0.0.0/3 counter drop comment "spoofed"
            iifname "eth0" ip daddr 172.30.0.2 tcp flags syn / syn,ack fib saddr . iif oif missing counter log prefix "inbound" group 8 drop comment "inbound"
            iifname "eth0" ip daddr 172.30.0.2 meta l4proto udp fib saddr . iif oif missing counter log prefix "inbound" group 8 drop comment "inbound"
            iifname != "lo" meta nfproto ipv4 fib saddr . iif oif missing counter drop comment "spoofed"
        }

        chain output_raw {
            type filter hook output priority raw; policy accept;
            oifname "lo" notrack accept comment "loopback"
            oifname "eth0" meta mark 0x00001234 ip saddr 172.30.0.2 ip daddr 198.51.100.10 udp sport 40000 udp dport 51820 @th,64,8 0x1-0x4 @th,72,24 0x0 notrack accept comment "endpoint"
        }

        chain input {
            type filter hook input priority filter; policy drop;
            meta nfproto ipv6 iifname != "lo" counter drop comment "ipv6"
            iifname "lo" ip daddr 127.0.0.11 counter drop comment "docker-resolver"
            iifname "lo" accept comment "loopback"
            iifname "eth0" ip saddr 198.51.100.10 ip daddr 172.30.0.2 udp sport 51820 udp dport 40000 @th,64,8 0x1-0x4 @th,72,24 0x0 counter accept comment "endpoint"
            iifname "eth0" ip daddr 172.30.0.2 icmp type destination-unreachable icmp code frag-needed @th,136,8 0x11 @th,192,32 0xc633640a @th,224,16 0x9c40 @th,240,16 0xca6c counter accept comment "endpoint"
            iifname "tun0" meta iifkind "tun" ip daddr 10.64.0.2 ct state established,related counter accept comment "tunnel"
            iifname "tun0" meta iifkind "tun" ip daddr 10.64.0.2 tcp dport 6881 counter accept comment "forwarded-port"
            iifname "tun0" meta iifkind "tun" ip daddr 10.64.0.2 udp dport 6881 counter accept comment "forwarded-port"
            iifname "eth0" ip daddr 172.30.0.2 meta l4proto tcp ct state new counter log prefix "inbound" group 8 drop comment "inbound"
            iifname "eth0" ip daddr 172.30.0.2 meta l4proto udp ct state new counter log prefix "inbound" group 8 drop comment "inbound"
            counter drop comment "other"
        }

        chain forward {
            type filter hook forward priority filter; policy drop;
            meta nfproto ipv6 iifname != "lo" counter drop comment "ipv6"
            counter drop comment "forward"
        }

        chain output {
            type filter hook output priority filter; policy drop;
            meta nfproto ipv6 oifname != "lo" counter log prefix "ipv6" group 5 drop comment "ipv6"
            ip daddr 127.0.0.11 counter log prefix "docker-resolver" group 5 reject with icmpx admin-prohibited comment "docker-resolver"
            oifname "lo" accept comment "loopback"
            oifname "eth0" meta mark 0x00001234 ip saddr 172.30.0.2 ip daddr 198.51.100.10 udp sport 40000 udp dport 51820 @th,64,8 0x1-0x4 @th,72,24 0x0 counter accept comment "endpoint"
            oifname "tun0" meta mark 0x00001234 counter drop comment "endpoint"
            ip daddr 224.0.0.0/3 counter log prefix "multicast" group 5 reject with icmpx admin-prohibited comment "multicast"
            ip daddr 169.254.169.254 counter log prefix "metadata" group 5 reject with icmpx admin-prohibited comment "metadata"
            ip daddr 169.254.170.2 counter log prefix "metadata" group 5 reject with icmpx admin-prohibited comment "metadata"
            ip daddr 100.100.100.200 counter log prefix "metadata" group 5 reject with icmpx admin-prohibited comment "metadata"
            ip daddr 192.0.0.192 counter log prefix "metadata" group 5 reject with icmpx admin-prohibited comment "metadata"
            ip daddr 168.63.129.16 counter log prefix "metadata" group 5 reject with icmpx admin-prohibited comment "metadata"
            oifname "tun0" meta oifkind "tun" ip saddr 10.64.0.2 ip daddr 10.64.0.1 tcp dport 53 counter accept comment "tunnel"
            oifname "tun0" meta oifkind "tun" ip saddr 10.64.0.2 ip daddr 10.64.0.1 udp dport 53 counter accept comment "tunnel"
            oifname "tun0" meta oifkind "tun" ip saddr 10.64.0.2 ip daddr 10.64.0.1 tcp dport 853 counter accept comment "tunnel"
            oifname "tun0" meta oifkind "tun" ip saddr 10.64.0.2 ip daddr 10.64.0.1 udp dport 853 counter accept comment "tunnel"
            tcp dport 53 tcp flags syn / syn,ack counter log prefix "dns" group 5 reject with tcp reset comment "dns"
            tcp dport 53 counter log prefix "dns" group 5 reject with icmpx admin-prohibited comment "dns"
            udp dport 53 counter log prefix "dns" group 5 reject with icmpx admin-prohibited comment "dns"
            tcp dport 853 tcp flags syn / syn,ack counter log prefix "dns" group 5 reject with tcp reset comment "dns"
            tcp dport 853 counter log prefix "dns" group 5 reject with icmpx admin-prohibited comment "dns"
            udp dport 853 counter log prefix "dns" group 5 reject with icmpx admin-prohibited comment "dns"
            oifname "tun0" meta oifkind "tun" ip saddr 10.64.0.2 ip daddr 10.64.0.1 counter accept comment "tunnel"
            oifname "tun0" ip daddr 0.0.0.0/8 counter log prefix "private" group 5 reject with icmpx admin-prohibited comment "private"
            oifname "tun0" ip daddr 10.0.0.0/8 counter log prefix "private" group 5 reject with icmpx admin-prohibited comment "private"
            oifname "tun0" ip daddr 100.64.0.0/10 counter log prefix "private" group 5 reject with icmpx admin-prohibited comment "private"
            oifname "tun0" ip daddr 127.0.0.0/8 counter log prefix "private" group 5 reject with icmpx admin-prohibited comment "private"
            oifname "tun0" ip daddr 169.254.0.0/16 counter log prefix "private" group 5 reject with icmpx admin-prohibited comment "private"
            oifname "tun0" ip daddr 172.16.0.0/12 counter log prefix "private" group 5 reject with icmpx admin-prohibited comment "private"
            oifname "tun0" ip daddr 192.168.0.0/16 counter log prefix "private" group 5 reject with icmpx admin-prohibited comment "private"
            oifname "tun0" meta oifkind "tun" ip saddr 10.64.0.2 counter accept comment "tunnel"
            oifname "eth0" tcp dport 1900 counter log prefix "port-mapping" group 5 reject with icmpx admin-prohibited comment "port-mapping"
            oifname "eth0" udp dport 1900 counter log prefix "port-mapping" group 5 reject with icmpx admin-prohibited comment "port-mapping"
            oifname "eth0" tcp dport 5350 counter log prefix "port-mapping" group 5 reject with icmpx admin-prohibited comment "port-mapping"
            oifname "eth0" udp dport 5350 counter log prefix "port-mapping" group 5 reject with icmpx admin-prohibited comment "port-mapping"
            oifname "eth0" tcp dport 5351 counter log prefix "port-mapping" group 5 reject with icmpx admin-prohibited comment "port-mapping"
            oifname "eth0" udp dport 5351 counter log prefix "port-mapping" group 5 reject with icmpx admin-prohibited comment "port-mapping"
            tcp flags syn / syn,ack counter log prefix "other" group 5 reject with tcp reset comment "other"
            meta l4proto tcp counter log prefix "other" group 5 reject with icmpx admin-prohibited comment "other"
            meta l4proto udp counter log prefix "other" group 5 reject with icmpx admin-prohibited comment "other"
            meta l4proto icmp counter log prefix "other" group 5 reject with icmpx admin-prohibited comment "other"
            counter log prefix "other" group 5 reject with icmpx admin-prohibited comment "other"
        }
    }
    table netdev vpngw {
        chain egress {
            type filter hook egress devices = { eth0, eth1, eth2, eth3, eth4, eth5, eth6, eth7, eth8, eth9 } priority filter; policy drop;
            ip frag-off & 16383 != 0 counter log prefix "raw" group 6 drop comment "raw"
            oifname "eth0" meta mark 0x00001234 ip saddr 172.30.0.2 ip daddr 198.51.100.10 udp sport 40000 udp dport 51820 @th,64,8 0x1-0x4 @th,72,24 0x0 ip hdrlength 5 @ll,96,16 0x800 counter accept comment "endpoint"
            oifname "eth0" arp saddr ip 172.30.0.2 @ll,96,16 0x806 meta length 42 counter accept comment "arp"
            meta l4proto tcp counter log prefix "raw" group 6 drop comment "raw"
            meta l4proto udp counter log prefix "raw" group 6 drop comment "raw"
            meta l4proto icmp counter log prefix "raw" group 6 drop comment "raw"
            counter log prefix "raw" group 6 drop comment "raw"
        }
    }
    table arp vpngw {
        chain input {
            type filter hook input priority filter; policy drop;
            iifname "eth0" arp daddr ip 172.30.0.2 counter accept comment "arp"
        }

        chain output {
            type filter hook output priority filter; policy drop;
            oifname "eth0" arp saddr ip 172.30.0.2 counter accept comment "arp"
            counter drop comment "arp"
        }
    }
    "#);
}

#[test]
fn lan_exceptions_and_a_resolver_add_these_lines() {
    let before = Ruleset::of(&connected(), &devices(), Kernel::FULL);
    let mut policy = connected();
    if let Some(uplink) = &mut policy.uplink {
        uplink
            .inbound
            .push(example::inbound("192.168.1.0/24", "tcp/8080"));
        uplink
            .outbound
            .push(example::outbound("192.168.1.20", "tcp/445"));
        uplink.resolver = Some(Hole {
            mark: Fwmark(0x1234),
            source_port: 40001,
            remote: "172.30.0.1:53".parse().unwrap(),
        });
    }
    let after = Ruleset::of(&policy, &devices(), Kernel::FULL);
    let old: Vec<_> = before.rules().collect();
    let added: Vec<_> = after
        .rules()
        .filter(|rule| !old.contains(rule))
        .map(|(family, hook, rule)| format!("{} {}: {rule}", family.as_str(), hook.chain()))
        .collect();
    let added = added
        .join("\n")
        .replace("counter packets 0 bytes 0", "counter");
    insta::assert_snapshot!(added, @r#"
    inet prerouting: iifname "eth0" ip saddr 172.30.0.1 ip daddr 172.30.0.2 udp sport 53 udp dport 40001 notrack accept comment "resolver"
    inet prerouting: iifname "tun0" ip saddr 192.168.1.0/24 counter drop comment "spoofed"
    inet prerouting: iifname "tun0" ip saddr 192.168.1.20 counter drop comment "spoofed"
    inet output_raw: oifname "eth0" meta mark 0x00001234 ip saddr 172.30.0.2 ip daddr 172.30.0.1 udp sport 40001 udp dport 53 notrack accept comment "resolver"
    inet input: iifname "eth0" ip saddr 172.30.0.1 ip daddr 172.30.0.2 udp sport 53 udp dport 40001 counter accept comment "resolver"
    inet input: iifname "eth0" ip saddr 192.168.1.0/24 ip daddr 172.30.0.2 tcp dport 8080 counter accept comment "lan-inbound"
    inet input: iifname "eth0" ip saddr 192.168.1.20 ip daddr 172.30.0.2 tcp sport 445 ct state established ct direction reply counter accept comment "lan-outbound"
    inet output: oifname "eth0" meta mark 0x00001234 ip saddr 172.30.0.2 ip daddr 172.30.0.1 udp sport 40001 udp dport 53 counter accept comment "resolver"
    inet output: oifname "eth0" ip saddr 172.30.0.2 ip daddr 192.168.1.0/24 tcp sport 8080 ct direction reply ct original proto-dst 8080 counter accept comment "lan-inbound"
    inet output: oifname "eth0" ip saddr 172.30.0.2 ip daddr 192.168.1.20 tcp dport 445 counter accept comment "lan-outbound"
    netdev egress: oifname "eth0" meta mark 0x00001234 ip saddr 172.30.0.2 ip daddr 172.30.0.1 udp sport 40001 udp dport 53 ip hdrlength 5 @ll,96,16 0x800 counter accept comment "resolver"
    netdev egress: ip daddr 224.0.0.0/3 counter log prefix "multicast" group 6 snaplen 128 log prefix "multicast" group 7 drop comment "multicast"
    netdev egress: ip daddr 169.254.169.254 counter log prefix "metadata" group 6 snaplen 128 log prefix "metadata" group 7 drop comment "metadata"
    netdev egress: ip daddr 169.254.170.2 counter log prefix "metadata" group 6 snaplen 128 log prefix "metadata" group 7 drop comment "metadata"
    netdev egress: ip daddr 100.100.100.200 counter log prefix "metadata" group 6 snaplen 128 log prefix "metadata" group 7 drop comment "metadata"
    netdev egress: ip daddr 192.0.0.192 counter log prefix "metadata" group 6 snaplen 128 log prefix "metadata" group 7 drop comment "metadata"
    netdev egress: ip daddr 168.63.129.16 counter log prefix "metadata" group 6 snaplen 128 log prefix "metadata" group 7 drop comment "metadata"
    netdev egress: tcp dport 53 counter log prefix "dns" group 6 snaplen 128 log prefix "dns" group 7 drop comment "dns"
    netdev egress: udp dport 53 counter log prefix "dns" group 6 snaplen 128 log prefix "dns" group 7 drop comment "dns"
    netdev egress: tcp dport 853 counter log prefix "dns" group 6 snaplen 128 log prefix "dns" group 7 drop comment "dns"
    netdev egress: udp dport 853 counter log prefix "dns" group 6 snaplen 128 log prefix "dns" group 7 drop comment "dns"
    netdev egress: tcp dport 1900 counter log prefix "port-mapping" group 6 snaplen 128 log prefix "port-mapping" group 7 drop comment "port-mapping"
    netdev egress: udp dport 1900 counter log prefix "port-mapping" group 6 snaplen 128 log prefix "port-mapping" group 7 drop comment "port-mapping"
    netdev egress: tcp dport 5350 counter log prefix "port-mapping" group 6 snaplen 128 log prefix "port-mapping" group 7 drop comment "port-mapping"
    netdev egress: udp dport 5350 counter log prefix "port-mapping" group 6 snaplen 128 log prefix "port-mapping" group 7 drop comment "port-mapping"
    netdev egress: tcp dport 5351 counter log prefix "port-mapping" group 6 snaplen 128 log prefix "port-mapping" group 7 drop comment "port-mapping"
    netdev egress: udp dport 5351 counter log prefix "port-mapping" group 6 snaplen 128 log prefix "port-mapping" group 7 drop comment "port-mapping"
    netdev egress: oifname "eth0" ip saddr 172.30.0.2 ip daddr 192.168.1.0/24 tcp sport 8080 ip hdrlength 5 @ll,96,16 0x800 counter accept comment "lan-inbound"
    netdev egress: oifname "eth0" ip saddr 172.30.0.2 ip daddr 192.168.1.20 tcp dport 445 ip hdrlength 5 @ll,96,16 0x800 counter accept comment "lan-outbound"
    "#);
}
