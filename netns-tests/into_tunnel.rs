//! Raw frames into the tunnel device pass no rule: the data plane holds them to the same policy.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::lab::canary::{self, Canary};
use crate::lab::capture::Capture;
use crate::lab::forge::{ipv4_syn, ipv4_udp};
use crate::lab::raw::{Layer, PacketSocket};
use crate::lab::tunnel::assert_inside;
use crate::lab::{APP, HOST, INNER, Lab, METADATA, ONES, PRIVATE, TUNNEL, wait};
use crate::status::scrape;

const PATIENCE: Duration = Duration::from_secs(20);

/// A packet, and when it may enter the tunnel.
struct Packet {
    what: &'static str,
    token: Canary,
    bytes: Vec<u8>,
    when: When,
}

#[derive(PartialEq, Eq)]
enum When {
    Always,
    /// The other resolver and the private network are configured.
    Configured,
    Never,
}

/// What the first server has got out of the tunnel.
struct Arrived {
    tokens: Arc<Mutex<BTreeSet<Canary>>>,
    /// Source ports of TCP.
    ports: Arc<Mutex<BTreeSet<u16>>>,
    _capture: Capture,
}

impl Arrived {
    fn start(lab: &Lab) -> Self {
        let tokens = Arc::<Mutex<BTreeSet<Canary>>>::default();
        let ports = Arc::<Mutex<BTreeSet<u16>>>::default();
        let (all, tcp) = (Arc::clone(&tokens), Arc::clone(&ports));
        let capture = Capture::start(&lab.ns, "vpn1", "wg1", move |frame| {
            let bytes = frame.bytes;
            if frame.outgoing || bytes.len() < 24 {
                return;
            }
            all.lock().unwrap().extend(canary::find(bytes));
            if bytes[9] == 6 {
                let port = u16::from_be_bytes([bytes[20], bytes[21]]);
                tcp.lock().unwrap().insert(port);
            }
        });
        Self {
            tokens,
            ports,
            _capture: capture,
        }
    }

    fn has(&self, token: &Canary) -> bool {
        self.tokens.lock().unwrap().contains(token)
    }

    fn wait_for(&self, what: &str, token: &Canary) {
        wait(what, PATIENCE, || self.has(token).then_some(()));
    }

    fn has_syn_from(&self, port: u16) -> bool {
        self.ports.lock().unwrap().contains(&port)
    }
}

/// Sends a packet, behind a virtio header where there is one.
fn send(lab: &Lab, virtio: Option<[u8; 10]>, packet: &[u8]) {
    lab.ns.enter("app", || {
        let socket = PacketSocket::open("tun0", Layer::Frame, 0).unwrap();
        let header = virtio.as_ref().map(<[u8; 10]>::as_slice);
        if header.is_some() {
            socket.virtio_headers().unwrap();
        }
        let bytes = [header.unwrap_or_default(), packet].concat();
        socket.send_to(&bytes, 0x0800, [0; 6]).unwrap();
    });
}

fn udp(to: (Ipv4Addr, u16), token: &Canary) -> Vec<u8> {
    ipv4_udp((TUNNEL, 4000), to, token)
}

/// Packets to resolvers and to private hosts, and such as always or never pass.
fn packets() -> Vec<Packet> {
    type Kind = (&'static str, fn(&Canary) -> Vec<u8>, When);
    let kinds: [Kind; 9] = [
        ("a public host", |t| udp((HOST, 9), t), When::Always),
        ("the resolver", |t| udp((INNER, 53), t), When::Always),
        ("another resolver", |t| udp((ONES, 53), t), When::Configured),
        ("another by TLS", |t| udp((ONES, 853), t), When::Configured),
        (
            "the first fragment of DNS",
            first_fragment,
            When::Configured,
        ),
        ("a private host", |t| udp((PRIVATE, 7), t), When::Configured),
        ("a later fragment", later_fragment, When::Configured),
        (
            "a metadata service",
            |t| udp((METADATA, 80), t),
            When::Never,
        ),
        (
            "another source",
            |t| ipv4_udp((APP, 4000), (HOST, 9), t),
            When::Never,
        ),
    ];
    let packets = kinds.into_iter().map(|(what, make, when)| {
        let token = canary::fresh();
        Packet {
            what,
            bytes: make(&token),
            token,
            when,
        }
    });
    packets.collect()
}

/// "More fragments" (RFC 791): the one with the ports.
fn first_fragment(token: &Canary) -> Vec<u8> {
    let mut bytes = udp((ONES, 53), token);
    bytes[6] = 0x20;
    bytes
}

/// One without ports.
fn later_fragment(token: &Canary) -> Vec<u8> {
    let mut bytes = udp((PRIVATE, 7), token);
    bytes[7] = 185;
    bytes
}

/// DNS to another resolver once its checksum is completed, by whom the sender chooses: over the port.
fn checksum_over_the_port(token: &Canary) -> ([u8; 10], Vec<u8>) {
    let filled = |filler: u16| {
        let payload = [&token[..], &filler.to_be_bytes()].concat();
        ipv4_udp((TUNNEL, 4000), (ONES, 0), &payload)
    };
    let sum = crate::lab::forge::checksum(&filled(0)[20..]);
    // Words add up to the complement of the port (RFC 1071): what is written is the port.
    let filler = u32::from(!53_u16) + u32::from(sum);
    let filler = (filler & 0xffff) + (filler >> 16);
    let (start, offset) = (20_u16.to_ne_bytes(), 2_u16.to_ne_bytes());
    let header = [1, 0, 0, 0, 0, 0, start[0], start[1], offset[0], offset[1]];
    (header, filled(filler as u16))
}

#[test]
fn a_raw_frame_into_the_tunnel_reaches_no_other_resolver_and_no_private_host() {
    let lab = Lab::new();
    let metrics = "[metrics]\nlisten = \"127.0.0.1:9586\"\n";
    let mut wide = lab.conf();
    wide.dns = format!("{INNER}, {ONES}");
    wide.toml = format!("{metrics}[tunnel]\nprivate = [\"10.9.9.0/24\"]");
    let mut narrow = lab.conf();
    narrow.toml = metrics.into();
    let gateway = lab.connect(&wide);
    assert_inside(&lab.ns, 1);
    let arrived = Arrived::start(&lab);

    // The control: configured, all of them arrive.
    for packet in packets() {
        send(&lab, None, &packet.bytes);
        if packet.when != When::Never {
            arrived.wait_for(packet.what, &packet.token);
        }
    }
    let token = canary::fresh();
    let (header, packet) = checksum_over_the_port(&token);
    send(&lab, Some(header), &packet);
    arrived.wait_for("a port by checksum", &token);
    send(&lab, None, &ipv4_syn((TUNNEL, 4001), (ONES, 53)));
    wait("a SYN", PATIENCE, || {
        arrived.has_syn_from(4001).then_some(())
    });

    // The policy follows a reload.
    gateway.reload(&narrow);
    gateway.wait_for("it asks one resolver", PATIENCE, |status| {
        status.dns.servers == [INNER]
    });
    let mut refused = Vec::new();
    for packet in packets() {
        send(&lab, None, &packet.bytes);
        if packet.when == When::Always {
            arrived.wait_for(packet.what, &packet.token);
        } else {
            refused.push((packet.what, packet.token));
        }
    }
    let token = canary::fresh();
    let (header, packet) = checksum_over_the_port(&token);
    send(&lab, Some(header), &packet);
    refused.push(("a port by checksum", token));
    send(&lab, None, &ipv4_syn((TUNNEL, 4002), (ONES, 53)));
    // Packets keep their order, so all have been judged when this one arrives.
    let last = canary::fresh();
    send(&lab, None, &udp((HOST, 9), &last));
    arrived.wait_for("the last one", &last);
    for (what, token) in refused {
        assert!(!arrived.has(&token), "{what} was reached");
    }
    assert!(!arrived.has_syn_from(4002), "a resolver was reached by TCP");

    // Each is counted: DNS by two transports, a fragment and the port by checksum, and with TLS.
    let text = scrape(&lab);
    for (reason, least) in [
        ("dns", 5),
        ("private_destination", 3),
        ("source_not_ours", 1),
    ] {
        let name = format!("vpngw_dropped_packets_total{{reason=\"{reason}\"}} ");
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix(&name)?.parse().ok());
        assert!(
            count.is_some_and(|count: u64| count >= least),
            "{reason}: {text}"
        );
    }
    assert_inside(&lab.ns, 1);
    lab.sensor.verdict();
}
