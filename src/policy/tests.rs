//! Which permissions are refused, and the verdicts that a person would ask about first.

use std::net::IpAddr;

use super::*;
use crate::config::{Config, Lan, Resolvers, example};
use crate::net::Uplink;

/// A tunnel with a wide prefix of its own, a private network behind it and a forwarded port.
fn config() -> Config {
    let mut config = example::config();
    config.tunnel.addresses = vec!["10.64.0.2/16".parse().unwrap()];
    config.tunnel.dns = Resolvers::new(vec!["10.66.0.1".parse().unwrap()]);
    config.tunnel.private = vec!["10.99.0.0/24".parse().unwrap()];
    config.lan = Lan::default();
    config.forward = vec![6881];
    config
}

fn uplink() -> Uplink {
    Uplink {
        device: "eth0".parse().unwrap(),
        address: "172.30.0.2/24".parse().unwrap(),
        gateway: Some("172.30.0.1".parse().unwrap()),
    }
}

fn hole(remote: &str) -> Hole {
    Hole {
        mark: Fwmark(0x1234),
        source_port: 40000,
        remote: remote.parse().unwrap(),
    }
}

fn endpoint(remote: &str) -> Holes {
    Holes {
        endpoint: Some(hole(remote)),
        resolver: None,
    }
}

fn resolver(remote: &str) -> Holes {
    Holes {
        endpoint: None,
        resolver: Some(hole(remote)),
    }
}

fn with_inbound(from: &str) -> Config {
    let mut config = config();
    config.lan.inbound.push(example::inbound(from, "tcp/8080"));
    config
}

fn with_outbound(to: &str, port: &str) -> Config {
    let mut config = config();
    config.lan.outbound.push(example::outbound(to, port));
    config
}

#[test]
fn a_policy_holds_what_is_configured_and_the_holes() {
    let policy = Policy::of(&config(), &uplink(), endpoint("198.51.100.10:51820")).unwrap();
    let on_uplink = policy.uplink.as_ref().unwrap();
    assert_eq!(on_uplink.address, "172.30.0.2".parse::<Ipv4Addr>().unwrap());
    assert_eq!(on_uplink.endpoint, Some(hole("198.51.100.10:51820")));
    assert_eq!(on_uplink.resolver, None);
    let tunnel = policy.tunnel.as_ref().unwrap();
    assert_eq!(tunnel.forward, [6881]);
    let down = Policy::without_uplink(&config());
    assert_eq!((down.uplink, down.tunnel), (None, policy.tunnel));
}

#[test]
fn an_endpoint_is_one_host_outside() {
    for (bad, why) in [
        ("127.0.0.1:51820", "this machine itself"),
        ("127.0.0.11:51820", "Docker"),
        ("0.0.0.0:51820", "no address of a host"),
        ("239.1.1.1:51820", "multicast"),
        ("255.255.255.255:51820", "broadcast"),
        ("169.254.169.254:51820", "metadata"),
        ("172.30.0.2:51820", "our own address"),
        ("10.64.0.2:51820", "the tunnel's address"),
        ("10.64.9.9:51820", "the tunnel's address 10.64.0.2/16"),
        ("10.66.0.1:51820", "the tunnel's resolver"),
        ("10.99.0.7:51820", "the tunnel's private network"),
        ("172.30.0.255:51820", "broadcast address of the uplink"),
        ("198.51.100.10:0", "port 0"),
    ] {
        let error = Policy::of(&config(), &uplink(), endpoint(bad)).unwrap_err();
        assert!(matches!(error, PolicyError::Endpoint(..)), "{bad}: {error}");
        assert!(error.to_string().contains(why), "{bad}: {error}");
    }
    let mut unmarked = endpoint("198.51.100.10:51820");
    unmarked.endpoint.as_mut().unwrap().mark = Fwmark(0);
    Policy::of(&config(), &uplink(), unmarked).unwrap_err();
    Policy::of(&config(), &uplink(), endpoint("172.30.0.9:51820")).unwrap();
}

#[test]
fn an_endpoint_inside_an_exception_names_the_exception() {
    let hole = endpoint("192.168.1.9:51820");
    let error = Policy::of(&with_inbound("192.168.1.0/24"), &uplink(), hole).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the endpoint 192.168.1.9 is inside the LAN exception \
         { from = \"192.168.1.0/24\", to = \"tcp/8080\" }: narrow the exception"
    );
    let outbound = with_outbound("192.168.1.9", "tcp/445");
    let error = Policy::of(&outbound, &uplink(), hole).unwrap_err();
    assert!(matches!(error, PolicyError::EndpointInLan { .. }));
}

#[test]
fn a_resolver_may_be_on_the_lan_and_is_asked_on_port_53() {
    let lan = with_inbound("172.30.0.0/24");
    Policy::of(&lan, &uplink(), resolver("172.30.0.1:53")).unwrap();
    let error = Policy::of(&lan, &uplink(), resolver("172.30.0.1:5353")).unwrap_err();
    assert_eq!(error, PolicyError::ResolverPort(5353));
    let error = Policy::of(&lan, &uplink(), resolver("127.0.0.11:53")).unwrap_err();
    assert!(matches!(error, PolicyError::Resolver(..)), "{error}");
}

#[test]
fn an_exception_names_hosts_that_are_neither_the_tunnels_nor_ours() {
    for bad in ["10.64.0.0/24", "10.0.0.0/8", "10.99.0.0/25", "10.66.0.1/32"] {
        let error = Policy::of(&with_inbound(bad), &uplink(), Holes::default()).unwrap_err();
        assert!(
            matches!(error, PolicyError::LanInTunnel { .. }),
            "{bad}: {error}"
        );
        assert_eq!(Policy::sealed(&with_inbound(bad)), Err(error));
    }
    for (to, why) in [
        (
            "172.30.0.255",
            "the network or broadcast address of the uplink",
        ),
        (
            "172.30.0.0",
            "the network or broadcast address of the uplink",
        ),
        ("172.30.0.2", "our own address"),
    ] {
        let config = with_outbound(to, "tcp/80");
        let error = Policy::of(&config, &uplink(), Holes::default()).unwrap_err();
        assert!(error.to_string().contains(why), "{to}: {error}");
        // Without an uplink nobody can tell.
        assert!(Policy::sealed(&config).is_ok());
    }
    let good = with_outbound("192.168.1.1", "tcp/80");
    Policy::of(&good, &uplink(), Holes::default()).unwrap();
}

#[test]
fn an_uplink_is_neither_the_tunnel_nor_inside_it() {
    let on = |device: &str, address: &str| {
        let uplink = Uplink {
            device: device.parse().unwrap(),
            address: address.parse().unwrap(),
            gateway: None,
        };
        Policy::of(&config(), &uplink, Holes::default())
    };
    for (device, address) in [
        ("tun0", "172.30.0.2/24"),
        ("lo", "172.30.0.2/24"),
        ("eth0", "10.64.7.7/24"),
        ("eth0", "10.0.0.9/8"),
        ("eth0", "127.0.0.5/8"),
    ] {
        assert!(on(device, address).is_err(), "{device} {address}");
    }
    on("eth1", "192.168.0.5/24").unwrap();
}

#[test]
fn a_reason_reads_as_it_prints() {
    for reason in Reason::ALL {
        assert_eq!(reason.to_string().parse(), Ok(reason));
    }
    assert_eq!("else".parse::<Reason>(), Err(()));
}

#[test]
fn the_first_questions_have_the_expected_answers() {
    let policy = Policy::of(
        &with_outbound("192.168.1.20", "tcp/445"),
        &uplink(),
        endpoint("198.51.100.10:51820"),
    );
    let policy = policy.unwrap();
    let ask = |device: &str, from: &str, to: &str, port: u16| {
        let kind = match device {
            "lo" => DeviceKind::Loopback,
            "tun0" => DeviceKind::Tun,
            _ => DeviceKind::Other,
        };
        let name = device.parse().unwrap();
        let flow = Flow {
            direction: Direction::Out,
            device: Device { name, kind },
            source: IpAddr::V4(from.parse().unwrap()),
            destination: IpAddr::V4(to.parse().unwrap()),
            protocol: Protocol::Tcp {
                source: 50000,
                destination: port,
            },
            mark: Fwmark(0),
            reply: false,
        };
        let verdict = verdict(&policy, &flow);
        (verdict.accept, verdict.rule)
    };
    let (uplink, tunnel) = ("172.30.0.2", "10.64.0.2");
    assert_eq!(ask("tun0", tunnel, "1.1.1.1", 443), (true, Reason::Tunnel));
    assert_eq!(ask("tun0", uplink, "1.1.1.1", 443), (false, Reason::Other));
    assert_eq!(ask("tun0", tunnel, "1.1.1.1", 53), (false, Reason::Dns));
    assert_eq!(ask("tun0", tunnel, "10.66.0.1", 53), (true, Reason::Tunnel));
    assert_eq!(
        ask("tun0", tunnel, "10.64.200.1", 80),
        (true, Reason::Tunnel)
    );
    assert_eq!(
        ask("tun0", tunnel, "192.168.1.20", 445),
        (false, Reason::Private)
    );
    assert_eq!(
        ask("eth0", uplink, "192.168.1.20", 445),
        (true, Reason::LanOutbound)
    );
    assert_eq!(
        ask("eth0", uplink, "192.168.1.20", 139),
        (false, Reason::Other)
    );
    assert_eq!(
        ask("eth0", uplink, "198.51.100.10", 51820),
        (false, Reason::Other)
    );
    assert_eq!(ask("eth0", uplink, "1.1.1.1", 443), (false, Reason::Other));
    assert_eq!(
        ask("lo", "127.0.0.1", "127.0.0.11", 53),
        (false, Reason::DockerResolver)
    );
    assert_eq!(
        ask("lo", "127.0.0.1", "127.0.0.1", 53),
        (true, Reason::Loopback)
    );
}
