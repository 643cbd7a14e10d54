//! Two sessions that talk to each other, and one that talks to nobody.

mod independent;
mod silence;
mod time;
mod trust;

use super::*;
use crate::config::{PublicKey, Secret};

const MTU: usize = 1420;

fn pair() -> (Session, Session) {
    let (a, b) = ([1; 32], [2; 32]);
    let public = |key: [u8; 32]| {
        let key = x25519_dalek::StaticSecret::from(key);
        PublicKey(x25519_dalek::PublicKey::from(&key).to_bytes())
    };
    let session = |own, other| {
        let peer = PeerSetup {
            private_key: Secret::new(own),
            public_key: public(other),
            preshared_key: Some(Secret::new([3; 32])),
            keepalive: None,
            allowed_ips: Vec::new(),
        };
        Session::new(&peer, Ipv4Addr::new(192, 0, 2, 1), Instant::now()).unwrap()
    };
    (session(a, b), session(b, a))
}

fn packet(len: usize, mark: u8) -> Vec<u8> {
    let mut packet = vec![mark; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet
}

fn seal(session: &mut Session, packet: &[u8]) -> (Sealed, Vec<u8>) {
    let mut dst = vec![0; packet.len() + PADDING + OVERHEAD + SMALLEST_BUFFER];
    let sealed = session.seal(Instant::now(), packet, MTU, &mut dst);
    if let Sealed::Send(len) | Sealed::Ask(len) = sealed {
        dst.truncate(len);
    }
    (sealed, dst)
}

fn open(session: &mut Session, datagram: &[u8]) -> (Opened, Vec<u8>) {
    let mut dst = vec![0; datagram.len() + SMALLEST_BUFFER];
    let opened = session.open(Instant::now(), datagram, &mut dst);
    if let Opened::Packet(len) | Opened::Reply(len) = opened {
        dst.truncate(len);
    }
    (opened, dst)
}

fn queued(session: &mut Session) -> Vec<Vec<u8>> {
    let mut dst = vec![0; 2000];
    let mut all = Vec::new();
    while let Some(len) = session.next_queued(Instant::now(), &mut dst) {
        all.push(dst[..len].to_vec());
    }
    all
}

/// Completes a handshake that `a` begins with this initiation.
fn shake(a: &mut Session, b: &mut Session, initiation: &[u8]) {
    let (opened, response) = open(b, initiation);
    assert_eq!(opened, Opened::Reply(92));
    assert!(!b.take_handshake());
    let (opened, keepalive) = open(a, &response);
    assert_eq!(opened, Opened::Reply(32));
    assert!(a.take_handshake());
    assert_eq!(open(b, &keepalive).0, Opened::Nothing);
    assert!(b.take_handshake());
}

fn initiation(session: &mut Session, now: Instant) -> Vec<u8> {
    let mut dst = vec![0; SMALLEST_BUFFER];
    assert_eq!(session.initiate(now, &mut dst), Some(148));
    dst
}

fn connected() -> (Session, Session) {
    let (mut a, mut b) = pair();
    let first = initiation(&mut a, Instant::now());
    shake(&mut a, &mut b, &first);
    (a, b)
}

#[test]
fn two_sessions_talk() {
    let (mut a, mut b) = connected();
    for len in [20, 21, 36, 1000, 1419, 1420] {
        let sent = packet(len, 9);
        let (sealed, datagram) = seal(&mut a, &sent);
        let padded = len.next_multiple_of(16).min(MTU);
        assert_eq!(sealed, Sealed::Send(padded + OVERHEAD));
        assert_eq!(open(&mut b, &datagram), (Opened::Packet(len), sent.clone()));
        let (_, datagram) = seal(&mut b, &sent);
        assert_eq!(open(&mut a, &datagram), (Opened::Packet(len), sent));
    }
}

#[test]
fn packets_sent_before_the_handshake_arrive_after_it() {
    let (mut a, mut b) = pair();
    let (sealed, first) = seal(&mut a, &packet(100, 1));
    assert_eq!(sealed, Sealed::Ask(148));
    assert_eq!(seal(&mut a, &packet(101, 2)).0, Sealed::Queued);
    assert!(queued(&mut a).is_empty());
    shake(&mut a, &mut b, &first);
    let waiting = queued(&mut a);
    assert_eq!(waiting.len(), 2);
    assert_eq!(open(&mut b, &waiting[0]).1, packet(100, 1));
    assert_eq!(open(&mut b, &waiting[1]).1, packet(101, 2));
}

#[test]
fn loss_and_reordering_lose_only_what_was_lost() {
    let (mut a, mut b) = connected();
    let mut datagrams: Vec<_> = (0..100).map(|n| seal(&mut a, &packet(60, n)).1).collect();
    datagrams.remove(50);
    datagrams.swap(10, 40);
    for datagram in &datagrams {
        assert_eq!(open(&mut b, datagram).0, Opened::Packet(60));
    }
    assert_eq!(open(&mut b, &datagrams[3]).0, Opened::Rejected, "a repeat");
}

#[test]
fn a_lost_response_is_made_up_for_by_the_next_initiation() {
    let (mut a, mut b) = pair();
    let now = Instant::now();
    let lost = initiation(&mut a, now);
    assert_eq!(open(&mut b, &lost).0, Opened::Reply(92));
    let next = initiation(&mut a, now + REKEY_TIMEOUT);
    shake(&mut a, &mut b, &next);
}

#[test]
fn forged_datagrams_are_rejected() {
    let (mut a, mut b) = connected();
    let (_, datagram) = seal(&mut a, &packet(60, 1));
    for at in 0..datagram.len() {
        let mut forged = datagram.clone();
        forged[at] ^= 1;
        assert_eq!(open(&mut b, &forged).0, Opened::Rejected, "byte {at}");
    }
    for len in 0..datagram.len() {
        assert_eq!(open(&mut b, &datagram[..len]).0, Opened::Rejected);
    }
    assert_eq!(open(&mut b, &datagram).0, Opened::Packet(60));
}

#[test]
fn an_inner_length_beyond_the_datagram_is_rejected() {
    let (mut a, mut b) = connected();
    let mut long = packet(60, 1);
    long[2..4].copy_from_slice(&100_u16.to_be_bytes());
    let (_, datagram) = seal(&mut a, &long);
    assert_eq!(open(&mut b, &datagram).0, Opened::Rejected);
}

#[test]
fn the_initiator_renews_an_idle_session_before_the_responder() {
    let (mut a, mut b) = connected();
    let mut dst = vec![0; SMALLEST_BUFFER];
    let later = |seconds| Instant::now() + Duration::from_secs(seconds);
    // Otherwise it would ask whether the other end lives.
    a.timers.heard_something(later(118));
    b.timers.heard_something(later(163));
    assert_eq!(a.tick(later(119), &mut dst), None);
    assert_eq!(b.tick(later(164), &mut dst), None);
    assert_eq!(a.tick(later(121), &mut dst), Some(148));
    assert_eq!(b.tick(later(166), &mut dst), Some(148));
}

#[test]
fn what_was_heard_is_answered_within_ten_seconds_and_once() {
    let (mut a, mut b) = connected();
    let start = Instant::now();
    let mut dst = vec![0; SMALLEST_BUFFER];
    // A question and its answer, closer together than two ticks.
    let (_, question) = seal(&mut a, &packet(60, 1));
    open(&mut b, &question);
    let (_, answer) = seal(&mut b, &packet(60, 2));
    open(&mut a, &answer);
    let after = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(b.tick(after(11), &mut dst), None, "it has answered");
    assert_eq!(a.tick(after(9), &mut dst), None);
    assert_eq!(a.tick(after(11), &mut dst), Some(32));
    assert_eq!(open(&mut b, &dst[..32]).0, Opened::Nothing);
    assert_eq!(a.tick(after(12), &mut dst), None);
    assert_eq!(b.tick(after(16), &mut dst), None);
}

#[test]
fn a_question_without_answer_begins_a_handshake_after_fifteen_seconds() {
    let (mut a, mut b) = connected();
    let start = Instant::now();
    let mut dst = vec![0; SMALLEST_BUFFER];
    let (_, before) = seal(&mut b, &packet(60, 1));
    open(&mut a, &before);
    seal(&mut a, &packet(60, 1));
    assert_eq!(a.tick(start + Duration::from_secs(14), &mut dst), None);
    assert_eq!(a.tick(start + Duration::from_secs(16), &mut dst), Some(148));
}

#[test]
fn a_silence_is_told_once_until_the_next_handshake() {
    let (mut a, mut b) = pair();
    let start = Instant::now();
    let mut dst = vec![0; SMALLEST_BUFFER];
    initiation(&mut a, start);
    a.tick(start + Duration::from_secs(14), &mut dst);
    assert!(!a.take_silence());
    a.tick(start + Duration::from_secs(16), &mut dst);
    assert!(a.take_silence());
    a.tick(start + Duration::from_secs(40), &mut dst);
    assert!(!a.take_silence());
    let again = initiation(&mut a, start);
    shake(&mut a, &mut b, &again);
    initiation(&mut a, start);
    a.tick(start + Duration::from_secs(60), &mut dst);
    assert!(a.take_silence());
}

#[test]
fn a_retry_waits_for_its_jitter() {
    let (mut a, _) = pair();
    let start = Instant::now();
    initiation(&mut a, start);
    let next = a.timers.retry.unwrap();
    assert!(next >= start + REKEY_TIMEOUT && next <= start + REKEY_TIMEOUT + outside::MOST_JITTER);
    let mut dst = vec![0; SMALLEST_BUFFER];
    a.tick(next - Duration::from_micros(1), &mut dst);
    assert_eq!(a.deadline(), next);
}

#[test]
fn padding_stays_within_the_mtu() {
    for (len, mtu, expected) in [
        (1, 1420, 16),
        (16, 1420, 16),
        (1409, 1420, 1420),
        (1420, 1420, 1420),
        (1500, 1420, 1500),
    ] {
        assert_eq!(padded(len, mtu), expected);
    }
}

#[test]
fn packets_that_waited_in_vain_are_counted() {
    let (mut a, _) = pair();
    for _ in 0..QUEUE {
        seal(&mut a, &packet(20, 1));
    }
    assert_eq!(a.take_lost(), 0);
    assert_eq!(seal(&mut a, &packet(20, 1)).0, Sealed::Queued);
    assert_eq!(a.take_lost(), 1);
    assert_eq!(a.take_lost(), 0);
}
