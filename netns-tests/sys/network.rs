//! Devices, the tunnel, sysctls, sockets, notifications.

use std::io::{Read, Write};

use vpngw::config::Offload;
use vpngw::plan::Tunnel;
use vpngw::sys::sysctl::{Outcome, ipv6_is_off};
use vpngw::sys::tun::{self, TunError};
use vpngw::sys::watch::{Change, Watch};
use vpngw::sys::{link, socket, sysctl};

use super::*;

fn tunnel() -> Tunnel {
    Tunnel {
        device: name("tun0"),
        mtu: 1380,
        tx_queue: 1000,
        addresses: vec!["10.64.0.2/32".parse().unwrap()],
    }
}

#[test]
fn devices_are_listed_with_what_they_are() {
    isolated(|| {
        uplink();
        let _tun = tun::create(&name("tun0"), Offload::Auto).unwrap();
        let devices = link::devices().unwrap();
        let kind = |wanted: &str| {
            let device = devices.iter().find(|device| device.name.as_str() == wanted);
            let device = device.unwrap();
            (device.kind.as_deref(), device.up, device.loopback)
        };
        assert_eq!(kind("lo"), (None, true, true));
        assert_eq!(kind("eth0"), (Some("veth"), true, false));
        assert_eq!(kind("tun0"), (Some("tun"), false, false));
    });
}

#[test]
fn the_tunnel_is_configured_and_has_no_ipv6_address() {
    isolated(|| {
        for (offload, vnet_hdr) in [(Offload::Auto, true), (Offload::Off, false)] {
            let tun = tun::create(&name("tun0"), offload).unwrap();
            assert_eq!(tun.vnet_hdr, vnet_hdr);
            link::configure(&tunnel()).unwrap();
            let text = ip("-d link show dev tun0") + &ip("address show dev tun0");
            for wanted in [
                "mtu 1380",
                "qlen 1000",
                "UP",
                "inet 10.64.0.2/32",
                "addrgenmode none",
            ] {
                assert!(text.contains(wanted), "{wanted}: {text}");
            }
            assert!(!text.contains("inet6"), "{text}");
        }
    });
}

#[test]
fn an_address_that_is_not_planned_any_more_goes() {
    isolated(|| {
        let _tun = tun::create(&name("tun0"), Offload::Auto).unwrap();
        link::configure(&tunnel()).unwrap();
        let mut other = tunnel();
        other.addresses = vec!["10.99.0.2/24".parse().unwrap()];
        link::configure(&other).unwrap();
        let text = ip("-4 address show dev tun0");
        assert!(
            text.contains("10.99.0.2/24") && !text.contains("10.64"),
            "{text}"
        );
    });
}

#[test]
fn a_device_of_another_kind_is_not_taken_over() {
    isolated(|| {
        ip("link add tun0 type veth peer name other");
        let error = tun::create(&name("tun0"), Offload::Auto).unwrap_err();
        assert!(matches!(error, TunError::NotTun { .. }), "{error:?}");
        ip("link del tun0");
        ip("tuntap add dev tun0 mode tap");
        let error = tun::create(&name("tun0"), Offload::Auto).unwrap_err();
        assert!(matches!(error, TunError::Foreign(..)), "{error:?}");
    });
}

#[test]
fn a_tunnel_in_use_is_not_taken_over() {
    isolated(|| {
        let _tun = tun::create(&name("tun0"), Offload::Auto).unwrap();
        let error = tun::create(&name("tun0"), Offload::Auto).unwrap_err();
        assert!(matches!(error, TunError::Busy(_)), "{error:?}");
    });
}

#[test]
fn as_the_last_resort_every_device_goes_down() {
    isolated(|| {
        uplink();
        link::all_down().unwrap();
        let up = link::devices().unwrap().into_iter().filter(|d| d.up);
        let up: Vec<_> = up.map(|device| device.name.to_string()).collect();
        assert_eq!(up, ["lo"]);
    });
}

#[test]
fn ipv6_is_off_on_every_device_and_on_those_to_come() {
    isolated(|| {
        let uplink = uplink();
        assert!(!ipv6_is_off());
        let wanted = vpngw::plan::sysctls(&[uplink.device]);
        for (sysctl, outcome) in sysctl::apply(&wanted) {
            assert_eq!(outcome, Outcome::Set, "{sysctl}");
        }
        ip("link add late0 type veth peer name late1");
        ip("link set late0 up");
        ip("link set late1 up");
        assert!(ipv6_is_off());
        assert_eq!(sysctl_value("net/ipv4/conf/eth0/arp_ignore"), "1");
        assert!(!ip("address show").contains("inet6"));
        let verified = sysctl::verify(&wanted);
        assert!(verified.iter().all(|(_, outcome)| *outcome == Outcome::Set));
    });
}

#[test]
fn parameters_that_cannot_be_written_are_reported() {
    isolated(|| {
        let uplink = uplink();
        // As Docker does it. The mount namespace is this thread's own.
        run("mount", "--make-rprivate /");
        run("mount", "--bind /proc/sys /proc/sys");
        run("mount", "-o remount,bind,ro /proc/sys");
        let outcomes = sysctl::apply(&vpngw::plan::sysctls(&[uplink.device]));
        let disable = outcomes
            .iter()
            .find(|(sysctl, _)| sysctl.name == "disable_ipv6" && sysctl.scope == "eth0");
        assert!(
            matches!(disable, Some((_, Outcome::Refused(_)))),
            "{disable:?}"
        );
        assert!(!ipv6_is_off());
    });
}

#[test]
fn the_udp_socket_is_marked_and_its_port_is_its_own() {
    isolated(|| {
        let (near, port) = socket::udp(Some(MARK), 0).unwrap();
        assert_ne!(port, 0);
        assert_eq!(near.local_addr().unwrap().port(), port);
        let near = socket2::SockRef::from(&near);
        assert_eq!(near.mark().unwrap(), MARK.0);
        assert!(near.recv_buffer_size().unwrap() >= 4 << 20);
        let taken = socket::udp(Some(MARK), port);
        assert!(taken.unwrap_err().to_string().contains("port"));
    });
}

#[test]
fn changes_of_the_network_are_told() {
    isolated(|| {
        let watch = Watch::network().unwrap();
        assert_eq!(watch.read().unwrap(), []);
        uplink();
        ip("rule add fwmark 1 lookup 100");
        let changes = watch.read().unwrap();
        for wanted in [
            Change::Link(name("eth0")),
            Change::Address,
            Change::Route,
            Change::Rule,
        ] {
            assert!(changes.contains(&wanted), "{wanted:?}: {changes:?}");
        }
        ip("link del eth0");
        let changes = watch.read().unwrap();
        assert!(
            changes.contains(&Change::LinkGone(name("eth0"))),
            "{changes:?}"
        );
    });
}

#[test]
fn lost_notifications_are_told() {
    isolated(|| {
        let watch = Watch::network().unwrap();
        uplink();
        let routes =
            (0..4000).map(|n| format!("route add 10.{}.{}.0/24 dev eth0\n", n / 250, n % 250));
        let batch: String = routes.collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(batch.as_bytes()).unwrap();
        ip(&format!("-batch {}", file.path().display()));
        assert!(watch.read().unwrap().contains(&Change::Lost));
        assert_eq!(watch.read().unwrap(), []);
    });
}

#[test]
fn a_transaction_of_the_firewall_is_told_with_its_program() {
    isolated(|| {
        let watch = Watch::firewall().unwrap();
        run("nft", "add table inet somebody");
        let changes = watch.read().unwrap();
        let [
            Change::Ruleset {
                generation,
                program,
            },
        ] = &changes[..]
        else {
            panic!("{changes:?}");
        };
        assert_eq!(
            (generation.is_some(), program.as_deref()),
            (true, Some("nft"))
        );
    });
}

#[test]
fn the_tunnel_passes_packets() {
    isolated(|| {
        let tun = tun::create(&name("tun0"), Offload::Off).unwrap();
        link::configure(&tunnel()).unwrap();
        ip("route add default dev tun0");
        let app = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        app.send_to(b"hello", "1.1.1.1:53").unwrap();
        let mut packet = [0; 2000];
        let length = std::fs::File::from(tun.fd).read(&mut packet).unwrap();
        assert_eq!(packet[0] >> 4, 4);
        assert!(packet[..length].ends_with(b"hello"));
    });
}
