//! Two sessions after a handshake, and what they have to seal.

use std::net::Ipv4Addr;
use std::time::Instant;

use vpngw::config::{PublicKey, Secret};
use vpngw::wireguard::PeerSetup;
use vpngw::wireguard::session::{OVERHEAD, Opened, PADDING, SMALLEST_BUFFER, Session};

/// Bytes of the longest packet.
pub(crate) const MTU: usize = 1420;
/// Bytes that are enough for any message.
pub(crate) const ROOM: usize = MTU + PADDING + OVERHEAD + SMALLEST_BUFFER;

fn session(own: u8, other: u8, now: Instant) -> Session {
    let key = x25519_dalek::StaticSecret::from([other; 32]);
    let peer = PeerSetup {
        private_key: Secret::new([own; 32]),
        public_key: PublicKey(x25519_dalek::PublicKey::from(&key).to_bytes()),
        preshared_key: None,
        keepalive: None,
        allowed_ips: Vec::new(),
    };
    Session::new(&peer, Ipv4Addr::LOCALHOST, now).expect("the system has random bytes")
}

/// Two sessions after a handshake.
pub(crate) fn connected(now: Instant) -> (Session, Session) {
    let (mut near, mut far) = (session(1, 2, now), session(2, 1, now));
    let (mut there, mut back) = ([0; ROOM], [0; ROOM]);
    let initiation = near.initiate(now, &mut there).expect("an initiation");
    let Opened::Reply(response) = far.open(now, &there[..initiation], &mut back) else {
        panic!("no response");
    };
    let Opened::Reply(keepalive) = near.open(now, &back[..response], &mut there) else {
        panic!("no keepalive");
    };
    far.open(now, &there[..keepalive], &mut back);
    (near, far)
}

/// An IPv4 packet of `len` bytes.
pub(crate) fn packet(len: usize) -> Vec<u8> {
    let mut packet = vec![0x5a; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet
}
