//! The MTU of the tunnel follows the path to the VPN server. The sensor takes a fragment on the uplink for a
//! leak, so each verdict says that there was none.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use vpngw::sys::socket::uninterrupted;

use crate::lab::capture::Capture;
use crate::lab::conf::Conf;
use crate::lab::forge::{checksum, ipv4_udp};
use crate::lab::tunnel::assert_inside;
use crate::lab::{APP, HOST, LISTEN, Lab, at, wait};

const PATIENCE: Duration = Duration::from_secs(30);
const BULK: usize = 8 << 20;
/// Below what one UDP datagram may have, 65507.
const LARGE: usize = 65_000;

/// Both ends of the cable between router and gateway.
fn uplink_mtu(lab: &Lab, mtu: u16) {
    lab.ns.run("rtr", &format!("ip link set toapp mtu {mtu}"));
    lab.app(&format!("ip link set eth0 mtu {mtu}"));
}

/// The cable between router and server: the router has to refuse what it cannot pass on.
fn behind_mtu(lab: &Lab, mtu: u16) {
    lab.ns.run("rtr", &format!("ip link set tovpn1 mtu {mtu}"));
    lab.servers[0].run(&format!("ip link set eth0 mtu {mtu}"));
}

fn tunnel_mtu(lab: &Lab) -> u16 {
    let said = lab.app("ip -o link show dev tun0");
    let mut words = said.split_whitespace().skip_while(|word| *word != "mtu");
    words.nth(1).unwrap().parse().unwrap()
}

fn wait_mtu(lab: &Lab, mtu: u16, patience: Duration) {
    wait(&format!("the tunnel has MTU {mtu}"), patience, || {
        (tunnel_mtu(lab) == mtu).then_some(())
    });
}

/// Sends bulk to the server by a new connection, and takes bulk from it.
fn bulk(lab: &Lab) {
    upload(lab);
    let mut source = connect(lab, 19);
    source.read_exact(&mut vec![0; BULK]).unwrap();
}

fn upload(lab: &Lab) {
    let listener = lab
        .ns
        .enter("vpn1", || TcpListener::bind((HOST, 9)).unwrap());
    let sink = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut total = 0;
        let mut block = vec![0; 1 << 16];
        while total < BULK {
            let len = stream.read(&mut block).unwrap();
            assert!(len > 0);
            total += len;
        }
        stream.write_all(b"done").unwrap();
    });
    let mut stream = connect(lab, 9);
    for _ in 0..BULK >> 16 {
        stream.write_all(&[7; 1 << 16]).unwrap();
    }
    stream.read_exact(&mut [0; 4]).unwrap();
    sink.join().unwrap();
}

fn connect(lab: &Lab, port: u16) -> TcpStream {
    let stream = lab.ns.enter("app", || {
        TcpStream::connect_timeout(&at(HOST, port), PATIENCE).unwrap()
    });
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A datagram as long as there are, there and back: the tunnel carries it in fragments. It is sent again as
/// one does with UDP: what first meets a narrow path is lost.
fn large_datagram(lab: &Lab) {
    let server = lab
        .ns
        .enter("vpn1", || UdpSocket::bind((HOST, 10)).unwrap());
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let (stop, stopped) = mpsc::channel::<()>();
    let echo = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while stopped.try_recv().is_err() {
            if let Ok((len, from)) = server.recv_from(&mut buffer) {
                let _ = server.send_to(&buffer[..len], from);
            }
        }
    });
    let client = lab.ns.enter("app", || {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap()
    });
    client
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let sent: Vec<u8> = (0..LARGE).map(|n| (n % 251) as u8).collect();
    let mut back = vec![0; 1 << 16];
    let begun = Instant::now();
    loop {
        client.send_to(&sent, at(HOST, 10)).unwrap();
        if let Ok(len) = uninterrupted(|| client.recv(&mut back)) {
            assert!(back[..len] == sent[..], "it came back changed");
            break;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "a large datagram never came back"
        );
    }
    stop.send(()).unwrap();
    client.send_to(b"end", at(HOST, 10)).unwrap();
    echo.join().unwrap();
}

fn passes_on_an_uplink_of(uplink: u16, tunnel: u16, configured: &str) {
    let lab = Lab::new();
    uplink_mtu(&lab, uplink);
    let mut conf = lab.conf();
    conf.toml = configured.to_owned();
    let gateway = lab.connect(&conf);
    assert_eq!(tunnel_mtu(&lab), tunnel);
    let says = |status: &vpngw::control::api::Status| status.tunnel.mtu == tunnel;
    gateway.wait_for("the status says the MTU", PATIENCE, says);
    assert_inside(&lab.ns, 1);
    bulk(&lab);
    large_datagram(&lab);
    lab.sensor.verdict();
}

#[test]
fn everything_passes_on_an_uplink_of_1280_bytes() {
    passes_on_an_uplink_of(1280, 1220, "");
}

#[test]
fn everything_passes_on_an_uplink_of_1400_bytes() {
    passes_on_an_uplink_of(1400, 1340, "");
}

#[test]
fn everything_passes_on_an_uplink_of_1500_bytes() {
    passes_on_an_uplink_of(1500, 1420, "");
}

#[test]
fn a_wide_uplink_does_not_widen_what_is_configured() {
    passes_on_an_uplink_of(9000, 1420, "");
}

#[test]
fn a_wide_tunnel_on_a_wide_uplink_is_used() {
    passes_on_an_uplink_of(9000, 8000, "[tunnel]\nmtu = 8000");
}

#[test]
fn a_tunnel_wider_than_the_uplink_is_narrowed() {
    passes_on_an_uplink_of(9000, 8940, "[tunnel]\nmtu = 9000");
}

#[test]
fn the_tunnel_follows_an_uplink_that_changes() {
    let lab = Lab::new();
    let _gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    for (uplink, tunnel) in [(1300, 1240), (1500, 1420), (1400, 1340)] {
        uplink_mtu(&lab, uplink);
        wait_mtu(&lab, tunnel, PATIENCE);
        bulk(&lab);
    }
    large_datagram(&lab);
    lab.sensor.verdict();
}

/// The segment sizes that connections offer (RFC 9293, section 3.7.1), as the server sees them.
fn offered(lab: &Lab) -> (mpsc::Receiver<u16>, Capture) {
    let (tell, told) = mpsc::channel();
    let capture = Capture::start(&lab.ns, "vpn1", "wg1", move |frame| {
        let bytes = frame.bytes;
        // SYN without ACK, and its first option is the segment size.
        let opens = bytes.len() >= 44 && bytes[9] == 6 && bytes[33] & 0x12 == 0x02;
        if opens && bytes[40..42] == [2, 4] {
            let _ = tell.send(u16::from_be_bytes([bytes[42], bytes[43]]));
        }
    });
    (told, capture)
}

#[test]
fn a_narrow_path_is_found_by_what_routers_say_and_forgotten_in_time() {
    let lab = Lab::new();
    // 600 s by default (RFC 1191, section 6.3).
    lab.ns.enter("app", || {
        std::fs::write("/proc/sys/net/ipv4/route/mtu_expires", "15").unwrap();
    });
    behind_mtu(&lab, 1380);
    let _gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    assert_eq!(tunnel_mtu(&lab), 1420, "nothing was too long yet");
    let (sizes, _capture) = offered(&lab);
    // One that is open already.
    bulk(&lab);
    wait_mtu(&lab, 1320, PATIENCE);
    assert_eq!(sizes.recv_timeout(PATIENCE), Ok(1380));
    while sizes.try_recv().is_ok() {}
    large_datagram(&lab);
    bulk(&lab);
    assert_eq!(
        sizes.recv_timeout(PATIENCE),
        Ok(1280),
        "programs learn of it, and tell the other end"
    );
    lab.servers[0].run("ip link set eth0 mtu 1500");
    lab.ns.run("rtr", "ip link set tovpn1 mtu 1500");
    wait_mtu(&lab, 1420, Duration::from_secs(60));
    bulk(&lab);
    lab.sensor.verdict();
}

#[test]
fn another_endpoint_starts_with_what_its_own_path_takes() {
    let lab = Lab::new();
    behind_mtu(&lab, 1380);
    let gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    bulk(&lab);
    wait_mtu(&lab, 1320, PATIENCE);
    let conf = Conf::new(&lab.keys, &[&lab.servers[1]]);
    lab.sensor
        .permit(|rules| rules.endpoints.extend(conf.permitted()));
    gateway.reload(&conf);
    wait_mtu(&lab, 1420, PATIENCE);
    assert_inside(&lab.ns, 2);
    lab.sensor.verdict();
}

/// ICMP "fragmentation needed" with this MTU from a router far away about a datagram of ours, or what looks like one.
fn say_too_big(lab: &Lab, source_port: u16, endpoint: SocketAddrV4, mtu: u16) {
    let quoted = ipv4_udp(
        (APP, source_port),
        (*endpoint.ip(), endpoint.port()),
        &[4, 0, 0, 0],
    );
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend(&quoted[..28]);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    lab.ns.enter("inet", || {
        Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))
            .unwrap()
            .send_to(&message, &at(APP, 0).into())
            .unwrap();
    });
}

#[test]
fn only_what_a_router_says_of_our_own_flow_is_heeded() {
    let lab = Lab::new();
    let _gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    let endpoint = lab.servers[0].endpoint;
    let other = SocketAddrV4::new(*lab.servers[1].endpoint.ip(), endpoint.port());
    for (port, remote) in [(LISTEN + 1, endpoint), (LISTEN, other)] {
        for _ in 0..20 {
            say_too_big(&lab, port, remote, 1000);
        }
        // A datagram of the flow, behind the lies.
        assert_inside(&lab.ns, 1);
        assert_eq!(tunnel_mtu(&lab), 1420);
    }
    say_too_big(&lab, LISTEN, endpoint, 1000);
    wait_mtu(&lab, 940, PATIENCE);
    assert_inside(&lab.ns, 1);
    // Less than anybody has: the tunnel stays usable.
    say_too_big(&lab, LISTEN, endpoint, 68);
    wait_mtu(&lab, 576, PATIENCE);
    bulk(&lab);
    lab.sensor.verdict();
}

/// Nobody tells of the narrow path, so the tunnel keeps its MTU; TCP finds out what passes.
#[test]
fn a_connection_gets_through_a_path_that_swallows_long_packets_in_silence() {
    let lab = Lab::new();
    lab.ns.run("rtr", "ip link set tovpn1 mtu 1380");
    lab.ns.feed(
        "rtr",
        "nft -f -",
        "add table ip silence\n\
         add chain ip silence output { type filter hook output priority 0; }\n\
         add rule ip silence output icmp type destination-unreachable drop\n",
    );
    let _gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    upload(&lab);
    assert_eq!(tunnel_mtu(&lab), 1420);
    lab.sensor.verdict();
}
