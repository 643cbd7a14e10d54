//! Raw frames that resemble a permitted flow and are none.

use std::time::Duration;

use vpngw::policy::Reason;
use vpngw::ruleset::Hook;

use super::packets::lab;
use super::wire::{Wire, frame, udp};
use crate::lab::raw::{Layer, PacketSocket};

const SOON: Duration = Duration::from_millis(500);

/// An answer to a LAN client of the published port udp/9000.
fn reply() -> Vec<u8> {
    frame(&udp(
        ("172.30.0.2", 9000),
        ("192.168.16.5", 40000),
        b"reply",
    ))
}

/// The same with a "no operation" option (RFC 791 section 3.1), which moves the ports by four bytes.
fn with_options() -> Vec<u8> {
    let mut bytes = reply();
    bytes[14] = 0x46;
    bytes.splice(34..34, [1, 1, 1, 0]);
    bytes
}

/// A client's port decides where an answer goes: this one would be a question to a resolver.
fn to_port(port: u16) -> Vec<u8> {
    frame(&udp(
        ("172.30.0.2", 9000),
        ("192.168.16.5", port),
        b"question",
    ))
}

fn labelled(ethertype: [u8; 2]) -> Vec<u8> {
    let mut bytes = reply();
    bytes[12..14].copy_from_slice(&ethertype);
    bytes
}

fn tagged() -> Vec<u8> {
    let mut bytes = reply();
    bytes.splice(12..12, [0x81, 0, 0, 7]);
    bytes
}

#[test]
fn a_frame_that_only_resembles_a_permitted_one_dies_at_egress() {
    let lab = lab();
    lab.connect();
    let far = lab.world.run(|| Wire::open("w0"));
    let near = lab
        .app
        .run(|| PacketSocket::open("eth0", Layer::Frame, 0).unwrap());
    let send = |bytes: &[u8]| near.send_to(bytes, 0x0800, [0xff; 6]);
    send(&reply()).unwrap();
    assert!(
        far.seen(SOON).contains(&reply()),
        "what is permitted passes"
    );
    let forged = [
        ("IP options", with_options()),
        (
            "an experimental ethertype, called IPv4",
            labelled([0x88, 0xb5]),
        ),
        ("IPv6 by its ethertype, called IPv4", labelled([0x86, 0xdd])),
        ("a VLAN tag, called IPv4", tagged()),
        ("an answer to the DNS port", to_port(53)),
        ("an answer to the NAT-PMP port", to_port(5351)),
    ];
    for (what, bytes) in &forged {
        let error = send(bytes).expect_err(what);
        assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{what}");
    }
    let seen = far.seen(SOON);
    for (what, bytes) in &forged {
        assert!(!seen.contains(bytes), "{what}");
    }
    let dropped = [Reason::Raw, Reason::Dns, Reason::PortMapping];
    let counted = dropped.map(|reason| lab.counted(Hook::Egress, reason));
    assert_eq!(counted, [4, 1, 1]);
}
