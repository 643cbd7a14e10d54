//! Congestion that routers mark outside is told to those who talk inside, and the other way round (RFC 6040).

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::mpsc;
use std::time::Duration;

use rustix::net::sockopt;
use vpngw::sys::socket::uninterrupted;

use crate::lab::capture::Capture;
use crate::lab::tunnel::assert_inside;
use crate::lab::{HOST, Lab, at};

const PATIENCE: Duration = Duration::from_secs(20);
const NOT_ECT: u8 = 0;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// ECN of the datagrams with this many bytes that a device of a namespace sees, outgoing ones aside. `start` is
/// the bytes before the IPv4 header.
fn seen(lab: &Lab, place: (&str, &str), start: usize, len: usize) -> (mpsc::Receiver<u8>, Capture) {
    let (tell, told) = mpsc::channel();
    let capture = Capture::start(&lab.ns, place.0, place.1, move |frame| {
        let bytes = frame.bytes.get(start..).unwrap_or_default();
        if !frame.outgoing && bytes.len() == len && bytes[9] == 17 {
            let _ = tell.send(bytes[1] & 3);
        }
    });
    (told, capture)
}

fn socket(lab: &Lab, namespace: &str, address: Ipv4Addr) -> UdpSocket {
    let socket = lab
        .ns
        .enter(namespace, || UdpSocket::bind((address, 0)).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn a_mark_of_a_router_arrives_inside_where_it_is_understood() {
    let lab = Lab::new();
    let _gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    let (inside, _capture) = seen(&lab, ("app", "tun0"), 0, 20 + 8 + 500);
    let program = socket(&lab, "app", Ipv4Addr::UNSPECIFIED);
    let server = socket(&lab, "vpn1", HOST);
    let port = server.local_addr().unwrap().port();
    program.send_to(b"hello", at(HOST, port)).unwrap();
    let (_, back) = uninterrupted(|| server.recv_from(&mut [0; 9])).unwrap();
    let answer = |ecn: u8, first: u8| {
        sockopt::set_ip_tos(&server, ecn).unwrap();
        server.send_to(&[first; 500], back).unwrap();
    };
    let arrives = |first: u8| {
        let mut buffer = [0; 500];
        uninterrupted(|| program.recv(&mut buffer)).unwrap();
        assert_eq!(buffer[0], first);
        inside.recv_timeout(PATIENCE).unwrap()
    };
    answer(ECT_0, 1);
    assert_eq!(arrives(1), ECT_0, "nobody has marked it");
    answer(NOT_ECT, 2);
    assert_eq!(arrives(2), NOT_ECT);
    lab.ns.feed(
        "rtr",
        "nft -f -",
        "add table ip congested\n\
         add chain ip congested forward { type filter hook forward priority 0; }\n\
         add rule ip congested forward ip saddr 198.51.100.10 udp sport 51820 ip ecn set ce\n",
    );
    answer(ECT_0, 3);
    assert_eq!(arrives(3), CE);
    // Whoever does not understand a mark must notice the congestion by a loss.
    answer(NOT_ECT, 4);
    answer(ECT_0, 5);
    assert_eq!(arrives(5), CE, "the one before is gone");
    lab.sensor.verdict();
}

#[test]
fn a_packet_that_understands_marks_says_so_outside() {
    let lab = Lab::new();
    let _gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    // 528 bytes with headers, and what the tunnel adds.
    let (outside, _capture) = seen(&lab, ("rtr", "toapp"), 14, 528 + 60);
    let program = socket(&lab, "app", Ipv4Addr::UNSPECIFIED);
    for ecn in [NOT_ECT, ECT_0, ECT_0, CE, NOT_ECT] {
        sockopt::set_ip_tos(&program, ecn).unwrap();
        program.send_to(&[7; 500], at(HOST, 7)).unwrap();
        assert_eq!(outside.recv_timeout(PATIENCE), Ok(ecn));
    }
    lab.sensor.verdict();
}
