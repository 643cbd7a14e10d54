//! What a neighbour on the link, or another customer of the server, finds out by sending packets.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use vpngw::sys::socket::uninterrupted;

use crate::lab::canary;
use crate::lab::forge::{checksum, ipv4, ipv4_syn, ipv4_udp};
use crate::lab::raw::{ETH_P_ALL, Layer, PacketSocket};
use crate::lab::services::{Service, Services};
use crate::lab::tunnel::{Stream, assert_inside};
use crate::lab::{APP, APP_MAC, EVIL, HOST, INNER, LISTEN, Lab, TUNNEL, at, settled, wait};

const PATIENCE: Duration = Duration::from_secs(20);

/// Flags of TCP (RFC 9293 section 3.1).
const SYN: u8 = 2;
const ACK: u8 = 16;

/// A TCP segment from the hostile neighbour.
fn segment(to: (Ipv4Addr, u16), flags: u8, sequence: u32) -> Vec<u8> {
    let mut packet = ipv4_syn((EVIL, 41000), to);
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    packet[28..32].copy_from_slice(&sequence.to_be_bytes());
    packet[33] = flags;
    packet[36..38].fill(0);
    let mut pseudo = [EVIL.octets(), to.0.octets()].concat();
    pseudo.extend([0, 6, 0, 20]);
    pseudo.extend(&packet[20..]);
    let sum = checksum(&pseudo);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn echo(to: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0, 7, 0, 1];
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = ipv4(1, EVIL, to, 8);
    packet.extend(message);
    packet
}

/// The first part of a datagram whose rest never comes.
fn fragment(to: Ipv4Addr) -> Vec<u8> {
    let mut packet = ipv4_udp((EVIL, 41000), (to, 7777), &[7; 24]);
    packet[6] = 0x20;
    packet[10..12].fill(0);
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Everything by which a stack that has the address gives itself away.
fn questions(to: Ipv4Addr) -> Vec<Vec<u8>> {
    let mut packets = vec![echo(to), fragment(to)];
    for port in [7777, 51820, LISTEN] {
        packets.push(ipv4_udp((EVIL, 41000), (to, port), b"anybody?"));
        for (flags, sequence) in [(SYN, 9), (SYN | ACK, 9), (ACK, 9), (ACK, 1 << 31)] {
            packets.push(segment((to, port), flags, sequence));
        }
    }
    packets
}

/// Sends packets by way of the uplink, whatever their destination is.
fn throw(lab: &Lab, packets: &[Vec<u8>]) {
    lab.ns.enter("evil", || {
        let socket = PacketSocket::open("eth0", Layer::Payload, 0).unwrap();
        for packet in packets {
            socket.send_to(packet, 0x0800, APP_MAC).unwrap();
        }
    });
}

/// A neighbour sends to each address that the tunnel might have. The right one is silent like the
/// others, and nothing leaves because of it, not even encrypted.
#[test]
fn cve_2019_14899_the_tunnels_address_cannot_be_guessed() {
    let lab = Lab::new();
    lab.app("ip addr add 10.64.0.2/32 dev lo");
    let before = settled(|| lab.sensor.tally().frames);
    throw(&lab, &questions(TUNNEL));
    wait("without a gateway it answers", PATIENCE, || {
        (lab.sensor.tally().frames >= before + 8).then_some(())
    });
    lab.app("ip addr del 10.64.0.2/32 dev lo");

    let _gateway = lab.connect(&lab.conf());
    let mut stream = Stream::open(&lab.ns, "app", at(HOST, 7), PATIENCE).unwrap();
    stream.echo(PATIENCE).unwrap();
    let quiet = || settled(|| lab.sensor.tally().wireguard);
    let sent = |to: Ipv4Addr| {
        let before = quiet();
        for _ in 0..20 {
            throw(&lab, &questions(to));
        }
        quiet() - before
    };
    // The gateway has messages of its own, so now and then there is one more.
    let right = sent(TUNNEL);
    assert!(right < 20, "{right} messages left because of 280 packets");
    for last in 0..=255 {
        throw(&lab, &questions(Ipv4Addr::new(10, 64, 0, last)));
    }
    throw(&lab, &questions(APP));
    throw(&lab, &questions(HOST));
    throw(&lab, &questions(Ipv4Addr::LOCALHOST));
    stream.echo(PATIENCE).unwrap();
    lab.sensor.verdict();
}

/// Asks by ARP for every address; those that were answered.
fn who_has(lab: &Lab, targets: &[Ipv4Addr]) -> BTreeSet<Ipv4Addr> {
    lab.ns.enter("evil", || {
        let socket = PacketSocket::open("eth0", Layer::Payload, ETH_P_ALL).unwrap();
        socket.watch(Duration::from_millis(300)).unwrap();
        let mut found = BTreeSet::new();
        let mut buffer = [0; 256];
        for some in targets.chunks(512) {
            for target in some {
                let mut request = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0x66];
                request.extend(EVIL.octets());
                request.extend([0; 6]);
                request.extend(target.octets());
                socket.send_to(&request, 0x0806, [0xff; 6]).unwrap();
            }
            while let Ok(got) = uninterrupted(|| socket.recv(&mut buffer)) {
                let arp = got.len >= 28 && buffer[..8] == [0, 1, 8, 0, 6, 4, 0, 2];
                if arp && !got.outgoing {
                    found.insert(Ipv4Addr::new(
                        buffer[14], buffer[15], buffer[16], buffer[17],
                    ));
                }
            }
        }
        found
    })
}

/// A neighbour asks for 4,096 addresses, the tunnel's and the uplink's among them, by ARP.
#[test]
fn mllvd_cr_24_03_a_sweep_by_arp_finds_the_uplinks_address_only() {
    let lab = Lab::new();
    let sweep: Vec<_> = (0..4096_u16)
        .map(|n| Ipv4Addr::new(10, 64, (n >> 8) as u8, n as u8))
        .chain([APP, Ipv4Addr::LOCALHOST])
        .collect();
    lab.app("ip addr add 10.64.0.2/32 dev lo");
    let control = who_has(&lab, &sweep);
    assert!(
        control.contains(&TUNNEL) && control.contains(&APP),
        "the control: {control:?}"
    );
    lab.app("ip addr del 10.64.0.2/32 dev lo");
    let mut gateway = lab.connect(&lab.conf());
    assert_eq!(who_has(&lab, &sweep), BTreeSet::from([APP]));
    gateway.stop();
    // Stopped, it answers to nothing at all.
    assert_eq!(who_has(&lab, &sweep), BTreeSet::new());
    lab.sensor.verdict();
}

/// Another customer of the server takes over ports of the shared exit: what he sends in is no answer to
/// anything, and our own port is another each time.
#[test]
fn cve_2021_3773_a_port_that_is_shadowed_at_the_exit_leads_nowhere() {
    let lab = Lab::new();
    let any = Ipv4Addr::UNSPECIFIED;
    let ports = [5353, 6881, 40000, 51820];
    let list = ports.map(|port| Service::Udp(at(any, port)));
    let programs = Services::start(&lab.ns, "app", "program", list.to_vec());
    let arrived = |token: &canary::Canary| programs.visits().iter().any(|v| v.bytes == token);
    // The control: where no gateway runs, anybody on the link reaches the program.
    for port in ports {
        let token = canary::fresh();
        wait("without a gateway it arrives", PATIENCE, || {
            throw(&lab, &[ipv4_udp((EVIL, 4444), (APP, port), &token)]);
            arrived(&token).then_some(())
        });
    }

    let mut conf = lab.conf();
    conf.listen_port = None;
    conf.toml = "[forward]\nports = [6881]".into();
    let gateway = lab.connect(&conf);
    assert_inside(&lab.ns, 1);
    let inject = |from: Ipv4Addr, port| {
        let token = canary::fresh();
        let packet = ipv4_udp((from, 51820), (TUNNEL, port), &token);
        lab.ns.enter("vpn1", || {
            let socket = PacketSocket::open("wg1", Layer::Payload, 0).unwrap();
            socket.send_to(&packet, 0x0800, [0; 6]).unwrap();
        });
        token
    };
    let strangers = [
        INNER,
        Ipv4Addr::new(10, 64, 0, 99),
        HOST,
        lab.servers[0].endpoint.ip().to_owned(),
    ];
    let tokens: Vec<_> = strangers
        .into_iter()
        .flat_map(|from| ports.map(|port| (from, port)))
        .map(|(from, port)| (from, port, inject(from, port)))
        .collect();
    for (from, port, token) in &tokens {
        if *port == 6881 {
            wait("the forwarded port is reached", PATIENCE, || {
                arrived(token).then_some(())
            });
        } else {
            assert!(!arrived(token), "{from} reached port {port}");
        }
    }
    // Once more, after those that arrive have arrived.
    let wrong = tokens
        .iter()
        .filter(|(_, port, token)| *port != 6881 && arrived(token));
    assert_eq!(wrong.count(), 0);

    let port = || lab.sensor.handshakes().last().map(|it| it.message.source);
    let mut seen = BTreeSet::from([port()]);
    drop(gateway);
    for _ in 0..3 {
        drop(lab.connect(&conf));
        seen.insert(port());
    }
    assert!(seen.len() > 2 && !seen.contains(&Some(51820)), "{seen:?}");
    lab.sensor.verdict();
}
