//! A session and another implementation, boringtun's, which may begin and which may answer.

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;

use super::*;

/// A session, and the peer it is for.
fn pair() -> (Session, Tunn) {
    let (ours, _) = super::pair();
    let theirs = Tunn::new(
        x25519::StaticSecret::from([2; 32]),
        x25519::PublicKey::from(&x25519::StaticSecret::from([1; 32])),
        Some([3; 32]),
        None,
        77,
        None,
    );
    (ours, theirs)
}

fn theirs(tunn: &mut Tunn, datagram: &[u8]) -> Vec<u8> {
    let mut dst = [0; 2000];
    match tunn.decapsulate(None, datagram, &mut dst) {
        TunnResult::WriteToNetwork(bytes) | TunnResult::WriteToTunnelV4(bytes, _) => bytes.to_vec(),
        TunnResult::Done => Vec::new(),
        TunnResult::Err(error) => panic!("boringtun says {error:?}"),
        TunnResult::WriteToTunnelV6(..) => panic!("no IPv6 was sent"),
    }
}

fn talk(ours: &mut Session, tunn: &mut Tunn) {
    for len in [20, 100, 1419, 1420] {
        let sent = packet(len, 9);
        let (_, datagram) = seal(ours, &sent);
        assert_eq!(theirs(tunn, &datagram), sent);
        let mut dst = [0; 2000];
        let TunnResult::WriteToNetwork(datagram) = tunn.encapsulate(&sent, &mut dst) else {
            panic!("boringtun seals");
        };
        assert_eq!(open(ours, datagram), (Opened::Packet(len), sent));
    }
}

#[test]
fn it_answers_our_initiation() {
    let (mut ours, mut tunn) = pair();
    let first = initiation(&mut ours, Instant::now());
    let response = theirs(&mut tunn, &first);
    let (opened, keepalive) = open(&mut ours, &response);
    assert_eq!(opened, Opened::Reply(32));
    assert!(theirs(&mut tunn, &keepalive).is_empty());
    talk(&mut ours, &mut tunn);
}

#[test]
fn we_answer_its_initiation() {
    let (mut ours, mut tunn) = pair();
    let mut dst = [0; 2000];
    let TunnResult::WriteToNetwork(first) = tunn.format_handshake_initiation(&mut dst, false)
    else {
        panic!("boringtun begins");
    };
    let (opened, response) = open(&mut ours, first);
    assert_eq!(opened, Opened::Reply(92));
    let keepalive = theirs(&mut tunn, &response);
    assert_eq!(open(&mut ours, &keepalive).0, Opened::Nothing);
    assert!(ours.take_handshake());
    talk(&mut ours, &mut tunn);
}

#[test]
fn both_begin_at_once() {
    let (mut ours, mut tunn) = pair();
    let mut dst = [0; 2000];
    let ask = initiation(&mut ours, Instant::now());
    let TunnResult::WriteToNetwork(its) = tunn.format_handshake_initiation(&mut dst, false) else {
        panic!("boringtun begins");
    };
    let (_, our_answer) = open(&mut ours, its);
    let its_answer = theirs(&mut tunn, &ask);
    let its_keepalive = theirs(&mut tunn, &our_answer);
    let (_, our_keepalive) = open(&mut ours, &its_answer);
    theirs(&mut tunn, &our_keepalive);
    assert_eq!(open(&mut ours, &its_keepalive).0, Opened::Nothing);
    talk(&mut ours, &mut tunn);
}

/// It asks for a cookie from the eleventh message of a second on, and takes what is signed with that.
#[test]
fn its_cookie_is_of_use() {
    let (mut ours, mut tunn) = pair();
    let now = Instant::now();
    for _ in 0..10 {
        let message = initiation(&mut ours, now);
        let mut dst = [0; 2000];
        let _ = tunn.decapsulate(Some(ours.remote), &message, &mut dst);
    }
    let ask = |message: &[u8], tunn: &mut Tunn, remote| {
        let mut dst = [0; 2000];
        match tunn.decapsulate(Some(remote), message, &mut dst) {
            TunnResult::WriteToNetwork(answer) => answer.to_vec(),
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => panic!("no answer"),
        }
    };
    let remote = ours.remote;
    let cookie = ask(&initiation(&mut ours, now), &mut tunn, remote);
    assert_eq!(cookie.len(), COOKIE_REPLY);
    let mut forged = cookie.clone();
    forged[40] ^= 1;
    assert_eq!(open(&mut ours, &forged).0, Opened::Rejected);
    assert_eq!(open(&mut ours, &cookie).0, Opened::Nothing);
    assert_eq!(open(&mut ours, &cookie).0, Opened::Rejected, "a repeat");
    let response = ask(&initiation(&mut ours, now), &mut tunn, remote);
    assert_eq!(response.len(), RESPONSE);
    assert_eq!(open(&mut ours, &response).0, Opened::Reply(32));
    let late = now + Duration::from_secs(116);
    let cookie = ask(&initiation(&mut ours, late), &mut tunn, remote);
    assert_eq!(
        cookie.len(),
        COOKIE_REPLY,
        "a cookie is used for less than two minutes"
    );
}
