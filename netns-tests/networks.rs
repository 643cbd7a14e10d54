//! Networks and default routes come and go in the plain way: `ip route add`, as Docker, DHCP clients and operators do it,
//! which fails where there is such a route already.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::lab::classify::LanFlow;
use crate::lab::flood::Flood;
use crate::lab::services::{Service, Services};
use crate::lab::tunnel::{Stream, assert_inside, ifindex};
use crate::lab::{APP, HOST, LAN, Lab, ROUTER, at, wait};

const PATIENCE: Duration = Duration::from_secs(30);

/// The neighbour's and our address on a second network.
const BESIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(172, 31, 0, 9), Ipv4Addr::new(172, 31, 0, 2)];

/// Long enough for what must not come.
const SILENCE: Duration = Duration::from_secs(2);

/// Another address of the router.
const SECOND: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 254);

/// Adds a default route; waits until the gateway's own flow goes by that router.
fn by_router(lab: &Lab, router: Ipv4Addr) {
    lab.app(&format!("ip route add default via {router}"));
    wait("the router is that of the uplink", PATIENCE, || {
        let ours = lab.app("ip route show table 30320");
        let taken = !lab.app("ip route show default").contains("via");
        (ours.contains(&format!("{router} dev")) && taken).then_some(())
    });
}

/// A lab whose router has two addresses on the link.
fn two_routers() -> Lab {
    let lab = Lab::new();
    lab.ns
        .run("rtr", &format!("ip addr add {SECOND}/24 dev br0"));
    lab.sensor.permit(|rules| rules.arp.push(SECOND));
    lab
}

#[test]
fn a_default_route_is_added_in_the_plain_way_at_every_moment() {
    let lab = two_routers();
    lab.app("ip route del default");
    // Without a route everything is on the link: this one is asked for by what waits for the kill switch.
    let asked = Ipv4Addr::new(203, 0, 113, 99);
    lab.sensor.permit(|rules| rules.arp.push(asked));
    let gateway = lab.start(&lab.conf());
    wait("it says that there is no uplink", PATIENCE, || {
        let status = gateway.status()?;
        status.reason.contains("uplink").then_some(())
    });
    by_router(&lab, ROUTER);
    gateway.wait_connected();
    for router in [SECOND, ROUTER] {
        by_router(&lab, router);
        gateway.wait_connected();
        assert_inside(&lab.ns, 1);
    }
    assert!(gateway.ctl(&["disconnect"]).status.success());
    by_router(&lab, SECOND);
    assert!(gateway.ctl(&["connect"]).status.success());
    gateway.wait_connected();
    assert_inside(&lab.ns, 1);
    lab.sensor.verdict();
}

/// What is left of a killed gateway holds the namespace closed, and takes nobody's place in the main table.
#[test]
fn a_default_route_is_added_in_the_plain_way_after_the_gateway_was_killed() {
    let lab = two_routers();
    let flood = Flood::start(&lab);
    let mut gateway = lab.connect(&lab.conf());
    gateway.kill();
    lab.app(&format!("ip route add default via {SECOND}"));
    flood.goes_on(500);
    drop(gateway);
    let _gateway = lab.connect(&lab.conf());
    assert!(
        lab.app("ip route show table 30320")
            .contains("172.30.0.254")
    );
    assert_inside(&lab.ns, 1);
    lab.sensor.verdict();
}

/// As `docker network disconnect` and `docker network connect` do it: the device goes, and another one comes, with an
/// address, and a default route by the device that leads to its router.
#[test]
fn a_network_goes_and_another_one_comes() {
    let lab = Lab::new();
    let flood = Flood::start(&lab);
    let gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let device = ifindex(&lab.ns, "app", "tun0");
    lab.sensor.verdict();
    lab.app("ip link del eth0");
    flood.goes_on(500);
    lab.ns.feed("rtr", "ip -batch -", "link add toapp1 type veth peer name eth1 netns app\naddr add 172.31.0.1/24 dev toapp1\nlink set toapp1 up\n");
    lab.app("ip addr add 172.31.0.2/24 dev eth1");
    lab.app("ip link set eth1 up");
    let asked = lab.app("ip route get 172.31.0.1");
    assert!(asked.contains("dev eth1"), "{asked}");
    lab.app("ip route add default via 172.31.0.1 dev eth1");
    for name in ["vpn1", "vpn2"] {
        lab.ns.run(
            name,
            "ip route replace 172.31.0.0/24 dev eth0 via 192.0.2.5 onlink",
        );
    }
    stream.echo(PATIENCE).unwrap();
    gateway.wait_connected();
    assert_eq!(ifindex(&lab.ns, "app", "tun0"), device);
    assert_inside(&lab.ns, 1);
    assert!(!log(&lab).contains("another program"), "{}", log(&lab));
}

/// As a DHCP client does it. What the kernel adds for the new address is nobody's attack.
#[test]
fn a_change_of_address_frightens_nobody() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    lab.sensor
        .permit(|rules| rules.uplink.push(Ipv4Addr::new(172, 30, 0, 3)));
    lab.app("ip addr del 172.30.0.2/24 dev eth0");
    lab.app("ip addr add 172.30.0.3/24 dev eth0");
    by_router(&lab, ROUTER);
    gateway.wait_connected();
    assert_inside(&lab.ns, 1);
    let log = log(&lab);
    assert!(log.contains("uplink changed"), "the control: {log}");
    for frightening in ["another program", "were lost"] {
        assert!(!log.contains(frightening), "{log}");
    }
    lab.sensor.verdict();
}

/// Docker refuses to connect a network that lies inside a route of the main table.
#[test]
fn an_exception_is_not_in_the_main_table() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    conf.toml = "[lan]\ninbound = [{ from = \"172.28.0.0/16\", to = \"tcp/8080\" }]".into();
    let _gateway = lab.connect(&conf);
    let main = lab.app("ip -4 route show table main");
    let lines: Vec<_> = main.lines().map(str::trim_end).collect();
    let expected = [
        "default dev tun0 proto 30 metric 30320",
        "10.64.0.0/24 dev tun0 proto kernel scope link src 10.64.0.2",
        "172.30.0.0/24 dev eth0 proto kernel scope link src 172.30.0.2",
    ];
    assert_eq!(lines, expected);
    assert!(
        lab.app("ip -4 route show table 30322")
            .contains("172.28.0.0/16")
    );
}

/// The friendly host of the LAN and the gateway in a second network together.
fn connect_second(lab: &Lab) {
    let [far, own] = BESIDE;
    let lines = format!(
        "link add eth9 type veth peer name eth1 netns app\naddr add {far}/24 dev eth9\nlink set eth9 up\n"
    );
    lab.ns.feed("lan", "ip -batch -", &lines);
    lab.app(&format!("ip addr add {own}/24 dev eth1"));
    lab.app("ip link set eth1 up");
}

fn greeting(lab: &Lab, namespace: &str, to: (Ipv4Addr, u16), patience: Duration) -> Option<String> {
    let stream = Stream::open(&lab.ns, namespace, at(to.0, to.1), patience);
    stream.ok().map(|stream| stream.greeting)
}

/// A reverse proxy beside the gateway, in a network that is not that of the uplink.
#[test]
fn an_exception_works_on_the_network_that_it_names() {
    let lab = Lab::new();
    let [far, own] = BESIDE;
    connect_second(&lab);
    let any = Ipv4Addr::UNSPECIFIED;
    let web = [8080, 8081].map(|port| Service::Tcp(at(any, port)));
    let _web = Services::start(&lab.ns, "app", "web", web.to_vec());
    let far_ports = [8989, 8990].map(|port| Service::Tcp(at(any, port)));
    let _far = Services::start(&lab.ns, "lan", "far", far_ports.to_vec());
    let open = || {
        let web = |to, from| {
            (
                greeting(&lab, "lan", (to, 8080), PATIENCE),
                Some(format!("web {from}\n")),
            )
        };
        let visits = [web(APP, LAN), web(own, far)];
        for (seen, wanted) in visits {
            assert_eq!(seen, wanted);
        }
        let seen = greeting(&lab, "app", (far, 8989), PATIENCE);
        assert_eq!(seen, Some(format!("far {own}\n")));
    };
    let closed = || {
        assert_eq!(greeting(&lab, "lan", (own, 8081), SILENCE), None);
        assert_eq!(greeting(&lab, "app", (far, 8990), SILENCE), None);
    };
    for port in [8080, 8081] {
        assert!(
            greeting(&lab, "lan", (own, port), PATIENCE).is_some(),
            "the control"
        );
    }
    for port in [8989, 8990] {
        assert!(
            greeting(&lab, "app", (far, port), PATIENCE).is_some(),
            "the control"
        );
    }
    lab.sensor.permit(|rules| {
        rules.lan = vec![LanFlow {
            protocol: 6,
            local: Some(8080),
            remote: LAN,
            remote_port: None,
        }];
        rules.arp.push(LAN);
    });
    let mut conf = lab.conf();
    conf.toml = "[lan]\ninbound = [{ from = \"172.30.0.0/24\", to = \"tcp/8080\" }, \
                 { from = \"172.16.0.0/12\", to = \"tcp/8080\" }]\n\
                 outbound = [{ to = \"172.31.0.9\", port = \"tcp/8989\" }]"
        .into();
    let gateway = lab.connect(&conf);
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    open();
    closed();
    let page = String::from_utf8(gateway.ctl(&["blocked"]).stdout).unwrap();
    assert!(page.contains("172.31.0.9 to tcp/8081"), "{page}");

    // It goes, and comes back: as `docker network disconnect` and `connect` do it. The tunnel is not touched.
    lab.app("ip link del eth1");
    stream.echo(PATIENCE).unwrap();
    connect_second(&lab);
    open();
    closed();
    stream.echo(PATIENCE).unwrap();
    assert_inside(&lab.ns, 1);
    let log = log(&lab);
    assert!(!log.contains("uplink changed"), "{log}");
    assert!(gateway.ctl(&["leaks"]).status.success());
    gateway.wait_connected();
    lab.sensor.verdict();
}

fn log(lab: &Lab) -> String {
    std::fs::read_to_string(lab.folder.path().join("app/log")).unwrap()
}
