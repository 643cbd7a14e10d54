//! A VPN server that means harm: what it sends into the tunnel reaches forwarded ports, and nothing else.

use std::collections::{BTreeSet, HashSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::lab::capture::Capture;
use crate::lab::flood::Flood;
use crate::lab::forge::{checksum, ipv4, ipv4_syn, ipv4_udp};
use crate::lab::raw::{Layer, PacketSocket};
use crate::lab::services::{Service, Services};
use crate::lab::tunnel::{Stream, assert_inside};
use crate::lab::{APP, EVIL, HOST, INNER, LAN, LISTEN, Lab, ROUTER, TUNNEL, at, settled, wait};

const PATIENCE: Duration = Duration::from_secs(60);

/// The port that is forwarded, and others on which programs listen to all addresses.
const FORWARDED: u16 = 6881;
const LISTENING: [u16; 3] = [22, 8080, 9000];

/// Packets and the ports they go to, by protocol.
type Seen = Arc<Mutex<HashSet<(u8, u16)>>>;

fn programs(lab: &Lab) -> Services {
    let any = Ipv4Addr::UNSPECIFIED;
    let ports = LISTENING.into_iter().chain([FORWARDED]);
    let list = ports.flat_map(|port| [Service::Tcp(at(any, port)), Service::Udp(at(any, port))]);
    Services::start(&lab.ns, "app", "program", list.collect())
}

/// A gateway with one forwarded port, and a server that sends it whatever it likes.
fn connect(lab: &Lab) -> crate::lab::gateway::Gateway {
    let mut conf = lab.conf();
    conf.toml = format!("[forward]\nports = [{FORWARDED}]");
    let gateway = lab.connect(&conf);
    assert_inside(&lab.ns, 1);
    // wireguard-go itself refuses what is not for its peer.
    lab.servers[0].run(&format!(
        "wg set wg1 peer {} allowed-ips 0.0.0.0/0",
        lab.keys.public
    ));
    gateway
}

/// Sends packets into the tunnel at the server's end, not faster than a debug build takes them.
fn inject(lab: &Lab, packets: &[Vec<u8>]) {
    lab.ns.enter("vpn1", || {
        let socket = PacketSocket::open("wg1", Layer::Payload, 0).unwrap();
        for (number, packet) in packets.iter().enumerate() {
            socket.send_to(packet, 0x0800, [0; 6]).unwrap();
            if number % 32 == 31 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    });
}

/// Remembers protocol and a port of packets at a device: the destination of those that `wanted` takes.
fn watch(
    lab: &Lab,
    namespace: &str,
    device: &str,
    port_at: usize,
    wanted: fn(&[u8], bool) -> bool,
) -> (Seen, Capture) {
    let seen = Seen::default();
    let list = seen.clone();
    let capture = Capture::start(&lab.ns, namespace, device, move |frame| {
        let bytes = frame.bytes;
        if bytes.len() >= 24 && bytes[0] == 0x45 && wanted(bytes, frame.outgoing) {
            let port = u16::from_be_bytes([bytes[port_at], bytes[port_at + 1]]);
            list.lock().unwrap().insert((bytes[9], port));
        }
    });
    (seen, capture)
}

/// Every port of TCP and of UDP, and all that arrived: the control of the silence.
#[test]
fn a_scan_of_every_port_from_the_tunnel_finds_the_forwarded_one() {
    let lab = Lab::new();
    let programs = programs(&lab);
    let flood = Flood::start(&lab);
    let gateway = connect(&lab);
    let from_scanner = |bytes: &[u8], outgoing: bool| !outgoing && bytes[12..16] == [10, 64, 0, 99];
    let (arrived, _near) = watch(&lab, "app", "tun0", 22, from_scanner);
    let to_scanner = |bytes: &[u8], outgoing: bool| !outgoing && bytes[16..20] == [10, 64, 0, 99];
    let (answers, _far) = watch(&lab, "vpn1", "wg1", 20, to_scanner);
    let scanner = (Ipv4Addr::new(10, 64, 0, 99), 44444);
    let mut wanted: BTreeSet<(u8, u16)> = (1..=u16::MAX)
        .flat_map(|port| [(6, port), (17, port)])
        .collect();
    for round in 0.. {
        let packets: Vec<_> = wanted
            .iter()
            .map(|&(protocol, port)| match protocol {
                6 => ipv4_syn(scanner, (TUNNEL, port)),
                _ => ipv4_udp(scanner, (TUNNEL, port), b"anybody?"),
            })
            .collect();
        inject(&lab, &packets);
        settled(|| arrived.lock().unwrap().len());
        let seen = arrived.lock().unwrap();
        wanted.retain(|port| !seen.contains(port));
        println!(
            "round {round}: {} ports arrived, {} are left",
            seen.len(),
            wanted.len()
        );
        if wanted.is_empty() {
            break;
        }
        assert!(round < 20, "{} ports never arrived", wanted.len());
    }
    settled(|| answers.lock().unwrap().len());
    let answers = answers.lock().unwrap().clone();
    assert_eq!(answers, HashSet::from([(6, FORWARDED), (17, FORWARDED)]));
    let visits = programs.visits();
    assert!(
        visits.iter().all(|visit| visit.service.port() == FORWARDED),
        "{visits:?}"
    );
    flood.goes_on(100);
    gateway.wait_connected();
    lab.sensor.verdict();
}

/// Destinations that are not the tunnel's address: the uplink's, loopback, the LAN, groups.
#[test]
fn what_is_not_for_the_tunnels_address_reaches_nobody() {
    let lab = Lab::new();
    let programs = programs(&lab);
    lab.ns.enter("app", || {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    });
    let _gateway = connect(&lab);
    let from_server = |bytes: &[u8], outgoing: bool| !outgoing && bytes[20..22] == [0xad, 0x9c];
    let (arrived, _near) = watch(&lab, "app", "tun0", 16, from_server);
    let targets = [
        APP,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(127, 0, 0, 11),
        LAN,
        ROUTER,
        EVIL,
        HOST,
        Ipv4Addr::new(172, 30, 0, 255),
        Ipv4Addr::new(10, 64, 0, 255),
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(224, 0, 0, 251),
        Ipv4Addr::new(239, 255, 255, 250),
        *lab.servers[0].endpoint.ip(),
    ];
    let sources = [
        INNER,
        HOST,
        LAN,
        ROUTER,
        APP,
        TUNNEL,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::BROADCAST,
    ];
    let ports = [7, 22, 53, 8080, 9000, FORWARDED, LISTEN, 51820];
    let mut packets = Vec::new();
    for (target, source) in targets.iter().flat_map(|t| sources.map(|s| (*t, s))) {
        for port in ports {
            packets.push(ipv4_syn((source, 44444), (target, port)));
            packets.push(ipv4_udp((source, 44444), (target, port), b"anybody?"));
        }
    }
    // The tunnel's own address from where nobody can be, to the ports that are not forwarded too.
    for source in [
        LAN,
        ROUTER,
        APP,
        TUNNEL,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(224, 0, 0, 1),
    ] {
        packets.extend(ports.map(|port| ipv4_udp((source, 44444), (TUNNEL, port), b"anybody?")));
    }
    let before = lab.lan.visits().len() + lab.router.visits().len();
    for _ in 0..2 {
        inject(&lab, &packets);
    }
    wait("they arrive", PATIENCE, || {
        inject(&lab, &packets[..ports.len() * 2]);
        // One entry for each destination: its first two bytes.
        (arrived.lock().unwrap().len() >= 7).then_some(())
    });
    assert_inside(&lab.ns, 1);
    // To the forwarded port from somebody whom an answer would reach through the tunnel is what is
    // forwarded; that is true of a LAN host too that no exception speaks of.
    let forwarded = |visit: &crate::lab::services::Visit| {
        visit.service.port() == FORWARDED
            && ![ROUTER, APP, TUNNEL]
                .map(Into::into)
                .contains(&visit.peer.ip())
    };
    let visits = programs.visits();
    assert!(visits.iter().all(forwarded), "{visits:?}");
    assert_eq!(lab.lan.visits().len() + lab.router.visits().len(), before);
    lab.sensor.verdict();
}

/// An ICMP redirect (RFC 792): hosts behind the tunnel are better reached by way of the hostile neighbour.
fn redirect(from: Ipv4Addr, to: Ipv4Addr, target: Ipv4Addr, by: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![5, 1, 0, 0];
    message.extend(by.octets());
    message.extend(&ipv4_udp((to, LISTEN), (target, 51820), &[0; 8])[..28]);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = ipv4(1, from, to, message.len() as u16);
    packet.extend(message);
    packet
}

/// Bytes that are almost a packet: each is a whole one with one thing wrong.
fn malformed() -> Vec<Vec<u8>> {
    let whole = ipv4_udp((INNER, 44444), (TUNNEL, FORWARDED), &[0x77; 64]);
    let mut packets = Vec::new();
    // Header lengths, total lengths, fragment offsets, protocols, every single byte of the headers.
    for at in 0..28 {
        for value in [0, 1, 0x0f, 0x40, 0x44, 0x4f, 0x65, 0x7f, 0x80, 0xff] {
            let mut packet = whole.clone();
            packet[at] = value;
            packets.push(packet);
        }
    }
    // Cut short everywhere.
    packets.extend((1..whole.len()).map(|length| whole[..length].to_vec()));
    // As long as the device takes, and lies about it.
    for length in [1392, 1393, 1399, 1400] {
        let mut packet = ipv4_udp((INNER, 44444), (TUNNEL, 9), &vec![1; length - 28]);
        packets.push(packet.clone());
        packet[2..4].copy_from_slice(&u16::MAX.to_be_bytes());
        packets.push(packet);
    }
    let mut source_routed = vec![0x48, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0];
    source_routed.extend([INNER.octets(), TUNNEL.octets()].concat());
    source_routed.extend([131, 11, 4, 172, 30, 0, 66, 172, 30, 0, 1, 0]);
    source_routed.extend([0; 8]);
    packets.push(source_routed);
    packets
}

#[test]
fn malformed_packets_and_redirects_out_of_the_tunnel_change_nothing() {
    let lab = Lab::new();
    let flood = Flood::start(&lab);
    let gateway = connect(&lab);
    let halves = (gateway.warden(), gateway.engine());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    let routes = || {
        let tables = lab.app("ip -4 route show table all");
        (
            tables,
            lab.app("ip rule"),
            lab.app("ip -4 route get 198.51.100.10 mark 0x76707670"),
        )
    };
    let before = routes();
    let endpoint = *lab.servers[0].endpoint.ip();
    let mut packets = malformed();
    for target in [endpoint, HOST, ROUTER] {
        for by in [EVIL, INNER, ROUTER] {
            packets.extend([INNER, ROUTER, HOST].map(|from| redirect(from, TUNNEL, target, by)));
            packets.push(redirect(ROUTER, APP, target, by));
        }
    }
    for _ in 0..5 {
        inject(&lab, &packets);
        stream.echo(PATIENCE).unwrap();
    }
    // Larger than the tunnel: what the server's end sends in many parts.
    lab.servers[0].run("ip link set wg1 mtu 9000");
    let large =
        |length: usize| ipv4_udp((INNER, 44444), (TUNNEL, FORWARDED), &vec![3; length - 28]);
    inject(&lab, &[1421, 1500, 2000, 4000, 8999].map(large));
    flood.goes_on(500);
    stream.echo(PATIENCE).unwrap();
    lab.servers[0].run("ip link set wg1 mtu 1420");
    assert_eq!(routes(), before);
    assert_eq!(
        (gateway.warden(), gateway.engine()),
        halves,
        "a half was replaced"
    );
    assert_eq!(gateway.wait_connected().leaks.detected, 0);
    assert_inside(&lab.ns, 1);
    lab.sensor.verdict();
}
