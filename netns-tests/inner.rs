//! What comes out of the tunnel may be hostile: the provider, its other customers, the Internet.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::canary;
use crate::lab::capture::Capture;
use crate::lab::forge::ipv4_udp;
use crate::lab::services::{Service, Services};
use crate::lab::tunnel::{Stream, assert_inside};
use crate::lab::{APP, INNER, LAN, Lab, TUNNEL, at, wait};

const PATIENCE: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(3);

fn programs(lab: &Lab) -> Services {
    let any = Ipv4Addr::UNSPECIFIED;
    let list = vec![
        Service::Tcp(at(any, 9000)),
        Service::Udp(at(any, 9000)),
        Service::Tcp(at(any, 6881)),
        Service::Udp(at(any, 6881)),
    ];
    Services::start(&lab.ns, "app", "program", list)
}

fn knock(lab: &Lab, port: u16, patience: Duration) -> Option<String> {
    let stream = Stream::open(&lab.ns, "vpn1", at(TUNNEL, port), patience);
    stream.ok().map(|stream| stream.greeting)
}

#[test]
fn only_forwarded_ports_answer_to_the_tunnel() {
    let lab = Lab::new();
    let _programs = programs(&lab);
    let mut conf = lab.conf();
    conf.toml = "[forward]\nports = [6881]".into();
    let _gateway = lab.connect(&conf);
    assert_inside(&lab.ns, 1);
    let answers = Answers::start(&lab);
    assert_eq!(
        knock(&lab, 6881, PATIENCE).as_deref(),
        Some("program 10.64.0.1\n")
    );
    wait("the answer is seen", PATIENCE, || {
        (answers.of_port(6881) > 0).then_some(())
    });
    for port in [9000, 9001, 22, 80] {
        assert_eq!(knock(&lab, port, SILENCE), None, "port {port}");
        // Silence: no RST and no ICMP either.
        assert_eq!(answers.of_port(port), 0, "port {port}");
    }
    assert_eq!(answers.icmp(), 0);
    lab.sensor.verdict();
}

/// Packets out of the tunnel that claim to come from the LAN, from us, or from nowhere: an answer
/// would leave by the uplink.
#[test]
fn a_forged_source_inside_the_tunnel_gets_no_answer_on_the_uplink() {
    let lab = Lab::new();
    let programs = programs(&lab);
    let mut conf = lab.conf();
    conf.toml = "[forward]\nports = [6881]".into();
    let _gateway = lab.connect(&conf);
    assert_inside(&lab.ns, 1);
    let inject = |from: Ipv4Addr, to: Ipv4Addr, port: u16| {
        let token = canary::fresh();
        let packet = ipv4_udp((from, 4444), (to, port), &token);
        lab.ns.enter("vpn1", || {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
            socket.bind_device(Some(b"wg1")).unwrap();
            // wireguard-go itself refuses what is not for its peer.
            let _ = socket.send_to(&packet, &at(to, 0).into());
        });
        token
    };
    let arrived = |token: &canary::Canary| programs.visits().iter().any(|v| v.bytes == token);
    let token = inject(INNER, TUNNEL, 6881);
    wait("the control arrives", PATIENCE, || {
        arrived(&token).then_some(())
    });
    let mut tokens = Vec::new();
    for from in [
        LAN,
        APP,
        TUNNEL,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(224, 0, 0, 1),
    ] {
        for port in [6881, 9000] {
            tokens.push((from, port, inject(from, TUNNEL, port)));
        }
    }
    tokens.push((INNER, 9000, inject(INNER, TUNNEL, 9000)));
    let last = inject(INNER, TUNNEL, 6881);
    wait("the last control arrives", PATIENCE, || {
        arrived(&last).then_some(())
    });
    lab.sensor.verdict();
    for (from, port, token) in tokens {
        let refused = port == 9000 || from != LAN;
        assert!(!(refused && arrived(&token)), "{from} reached port {port}");
    }
}

/// What leaves the tunnel at the server's end, by source port.
struct Answers {
    packets: Arc<Mutex<Vec<(u8, u16)>>>,
    _capture: Capture,
}

impl Answers {
    fn start(lab: &Lab) -> Self {
        let packets = Arc::<Mutex<Vec<(u8, u16)>>>::default();
        let list = packets.clone();
        let capture = Capture::start(&lab.ns, "vpn1", "wg1", move |frame| {
            let bytes = frame.bytes;
            if !frame.outgoing && bytes.len() >= 24 && bytes[12..16] == TUNNEL.octets() {
                let port = u16::from_be_bytes([bytes[20], bytes[21]]);
                list.lock().unwrap().push((bytes[9], port));
            }
        });
        Self {
            packets,
            _capture: capture,
        }
    }

    fn of_port(&self, port: u16) -> usize {
        let packets = self.packets.lock().unwrap();
        packets
            .iter()
            .filter(|(protocol, p)| *protocol != 1 && *p == port)
            .count()
    }

    fn icmp(&self) -> usize {
        let packets = self.packets.lock().unwrap();
        packets
            .iter()
            .filter(|(protocol, _)| *protocol == 1)
            .count()
    }
}
