//! What a session takes from whom.

use super::*;

#[test]
fn an_initiation_is_taken_once() {
    let (mut a, mut b) = pair();
    let first = initiation(&mut a, Instant::now());
    let second = initiation(&mut a, Instant::now());
    assert_eq!(open(&mut b, &second).0, Opened::Reply(92));
    assert_eq!(open(&mut b, &second).0, Opened::Rejected, "a repeat");
    assert_eq!(open(&mut b, &first).0, Opened::Rejected, "an older one");
}

#[test]
fn a_response_is_taken_once() {
    let (mut a, mut b) = pair();
    let first = initiation(&mut a, Instant::now());
    let (_, response) = open(&mut b, &first);
    assert_eq!(open(&mut a, &response).0, Opened::Reply(32));
    assert_eq!(open(&mut a, &response).0, Opened::Rejected);
}

/// Who knows the public keys can make both codes right, and no more.
fn signed(mut message: Vec<u8>, receiver: &Session) -> Vec<u8> {
    Macs::new(receiver.identity.public()).sign(Instant::now(), &mut message);
    message
}

fn unlimited(session: &mut Session) {
    session.limiter = RateLimiter::new(&(*session.identity.public()).into(), u64::MAX);
}

#[test]
fn forged_handshakes_change_nothing() {
    let (mut a, mut b) = pair();
    unlimited(&mut a);
    unlimited(&mut b);
    let first = initiation(&mut a, Instant::now());
    // The index that answers carry is not sealed, and is of use to nobody but the one who waits.
    for at in (0..4).chain(8..116) {
        let mut forged = first.clone();
        forged[at] ^= 1;
        assert_eq!(open(&mut b, &forged).0, Opened::Rejected, "byte {at}");
        let forged = signed(forged, &b);
        assert_eq!(open(&mut b, &forged).0, Opened::Rejected, "byte {at}");
        assert_eq!(b.received, [0; TIMESTAMP]);
    }
    let (opened, response) = open(&mut b, &first);
    assert_eq!(opened, Opened::Reply(92));
    for at in (0..4).chain(8..60) {
        let mut forged = response.clone();
        forged[at] ^= 1;
        assert_eq!(open(&mut a, &forged).0, Opened::Rejected, "byte {at}");
        let forged = signed(forged, &a);
        assert_eq!(open(&mut a, &forged).0, Opened::Rejected, "byte {at}");
    }
    assert_eq!(open(&mut a, &response).0, Opened::Reply(32));
}

#[test]
fn a_key_of_zeros_is_no_partner() {
    let (mut a, mut b) = pair();
    let first = initiation(&mut a, Instant::now());
    let (_, mut response) = open(&mut b, &first);
    response[12..44].fill(0);
    let response = signed(response, &a);
    assert_eq!(open(&mut a, &response).0, Opened::Rejected);
    let mut zeros = first;
    zeros[8..40].fill(0);
    let zeros = signed(zeros, &b);
    assert_eq!(open(&mut b, &zeros).0, Opened::Rejected);
    // A peer whose own key is zero is never asked, and is a silent one.
    let nobody = PeerSetup {
        private_key: Secret::new([1; 32]),
        public_key: PublicKey([0; 32]),
        preshared_key: None,
        keepalive: None,
        allowed_ips: Vec::new(),
    };
    let address = Ipv4Addr::new(192, 0, 2, 1);
    let start = Instant::now();
    let mut nobody = Session::new(&nobody, address, start).unwrap();
    let mut dst = vec![0; SMALLEST_BUFFER];
    assert_eq!(nobody.begin(start, &mut dst), None);
    nobody.tick(start + SILENCE, &mut dst);
    assert!(nobody.take_silence());
}

#[test]
fn a_cookie_for_somebody_else_is_not_taken() {
    let (mut a, mut b) = pair();
    b.limiter = RateLimiter::new(&(*b.identity.public()).into(), 0);
    let first = initiation(&mut a, Instant::now());
    let (opened, cookie) = open(&mut b, &first);
    assert_eq!(opened, Opened::Reply(COOKIE_REPLY));
    let mut foreign = cookie.clone();
    foreign[4] ^= 1;
    assert_eq!(open(&mut a, &foreign).0, Opened::Rejected);
    assert_eq!(open(&mut a, &cookie).0, Opened::Nothing);
}

#[test]
fn pairs_follow_each_other_as_in_the_kernel() {
    // We ask while the peer does: each answers, and what either seals is opened.
    let (mut a, mut b) = connected();
    let (_, before) = seal(&mut b, &packet(60, 1));
    let now = Instant::now();
    let (from_a, from_b) = (initiation(&mut a, now), initiation(&mut b, now));
    let (_, answer_b) = open(&mut b, &from_a);
    let (_, answer_a) = open(&mut a, &from_b);
    // An offer ends the pair before the current one, not the current one.
    assert_eq!(open(&mut a, &before).0, Opened::Packet(60));
    let (_, keepalive_a) = open(&mut a, &answer_b);
    let (_, keepalive_b) = open(&mut b, &answer_a);
    assert_eq!(open(&mut b, &keepalive_a).0, Opened::Nothing);
    assert_eq!(open(&mut a, &keepalive_b).0, Opened::Nothing);
    let (_, there) = seal(&mut a, &packet(60, 1));
    let (_, back) = seal(&mut b, &packet(60, 1));
    assert_eq!(open(&mut b, &there).0, Opened::Packet(60));
    assert_eq!(open(&mut a, &back).0, Opened::Packet(60));
    // The next offer ends what is the previous pair by now.
    assert!(a.take_handshake() && b.take_handshake());
    let (_, old) = seal(&mut b, &packet(60, 2));
    let again = initiation(&mut a, now + REKEY_TIMEOUT);
    shake(&mut a, &mut b, &again);
    let third = initiation(&mut b, now + REKEY_TIMEOUT);
    assert_eq!(open(&mut a, &third).0, Opened::Reply(92));
    assert_eq!(open(&mut a, &old).0, Opened::Rejected);
}

#[test]
fn counters_rise_by_one() {
    let (mut a, _) = connected();
    let counters: Vec<_> = (0..3)
        .map(|n| {
            let (_, datagram) = seal(&mut a, &packet(60, n));
            u64::from_le_bytes(datagram[8..16].try_into().unwrap())
        })
        .collect();
    // The keepalive of the handshake was the first message.
    assert_eq!(counters, [1, 2, 3]);
}

#[test]
fn somebody_elses_handshake_is_refused() {
    let (a, mut b) = pair();
    let stranger = PeerSetup {
        private_key: Secret::new([9; 32]),
        public_key: PublicKey(*b.identity.public()),
        preshared_key: Some(Secret::new([3; 32])),
        keepalive: None,
        allowed_ips: Vec::new(),
    };
    let address = Ipv4Addr::new(192, 0, 2, 1);
    let mut stranger = Session::new(&stranger, address, Instant::now()).unwrap();
    let forged = initiation(&mut stranger, Instant::now());
    assert_eq!(open(&mut b, &forged).0, Opened::Rejected);
    drop(a);
}

#[test]
fn another_preshared_key_leads_to_nothing() {
    let (mut a, mut b) = pair();
    let other = PeerSetup {
        private_key: Secret::new([1; 32]),
        public_key: PublicKey(*a.identity.peer()),
        preshared_key: None,
        keepalive: None,
        allowed_ips: Vec::new(),
    };
    let address = Ipv4Addr::new(192, 0, 2, 1);
    a = Session::new(&other, address, Instant::now()).unwrap();
    let first = initiation(&mut a, Instant::now());
    let (_, response) = open(&mut b, &first);
    assert_eq!(open(&mut a, &response).0, Opened::Rejected);
}

#[test]
fn what_was_sealed_before_a_renewal_arrives_after_it() {
    let (mut a, mut b) = connected();
    let (_, before) = seal(&mut a, &packet(60, 1));
    let (_, back) = seal(&mut b, &packet(60, 2));
    let again = initiation(&mut a, Instant::now());
    shake(&mut a, &mut b, &again);
    assert_eq!(open(&mut b, &before).0, Opened::Packet(60));
    assert_eq!(open(&mut a, &back).0, Opened::Packet(60));
    assert_eq!(open(&mut b, &before).0, Opened::Rejected);
}

#[test]
fn message_limits_are_those_of_the_paper() {
    use keypair::{Limit, limit};
    assert_eq!(limit((1 << 60) - 1), Limit::Within);
    assert_eq!(limit(1 << 60), Limit::Rekey);
    assert_eq!(limit(u64::MAX - (1 << 13) - 1), Limit::Rekey);
    assert_eq!(limit(u64::MAX - (1 << 13)), Limit::Reject);
}

#[test]
fn a_session_that_has_counted_to_the_end_seals_no_more() {
    let (mut a, mut b) = connected();
    let mut dst = vec![0; 2000];
    a.keypairs.current.as_mut().unwrap().count_from(1 << 60);
    assert_eq!(seal(&mut a, &packet(60, 1)).0, Sealed::Send(96));
    assert_eq!(
        a.tick(Instant::now(), &mut dst),
        Some(148),
        "it renews itself"
    );
    let last = u64::MAX - (1 << 13) - 1;
    a.keypairs.current.as_mut().unwrap().count_from(last);
    let (_, datagram) = seal(&mut a, &packet(60, 1));
    assert_eq!(open(&mut b, &datagram).0, Opened::Packet(60));
    for _ in 0..2 {
        assert_eq!(seal(&mut a, &packet(60, 1)).0, Sealed::Exhausted);
        assert_eq!(a.keepalive(Instant::now(), &mut dst), None);
    }
}

#[test]
fn a_message_beyond_the_limit_is_not_opened() {
    let (mut a, mut b) = connected();
    let keypair = b.keypairs.current.as_mut().unwrap();
    let limit = u64::MAX - (1 << 13);
    let now = Instant::now();
    let (mut body, mut dst) = (vec![0; 32], [0; 100]);
    for (counter, opens) in [(limit, false), (limit - 1, true)] {
        a.keypairs
            .current
            .as_mut()
            .unwrap()
            .seal_as(counter, &packet(16, 1), &mut body);
        assert_eq!(keypair.open(now, counter, &body, &mut dst).is_some(), opens);
    }
}

#[test]
fn no_datagram_makes_it_panic() {
    use proptest::prelude::*;
    let (mut a, mut b) = connected();
    unlimited(&mut b);
    let (_, sealed) = seal(&mut a, &packet(60, 1));
    let lengths = prop_oneof![
        Just(INITIATION),
        Just(RESPONSE),
        Just(COOKIE_REPLY),
        0..200_usize
    ];
    let bytes = lengths.prop_flat_map(|len| prop::collection::vec(any::<u8>(), len));
    let kinds = prop::sample::select(vec![1_u8, 2, 3, 4, 5]);
    let receiver = std::cell::RefCell::new(b);
    let mut runner = proptest::test_runner::TestRunner::default();
    runner
        .run(&(kinds, bytes, any::<bool>()), |(kind, mut bytes, ours)| {
            for (at, byte) in [kind, 0, 0, 0].into_iter().enumerate().take(bytes.len()) {
                bytes[at] = byte;
            }
            if ours && bytes.len() >= 12 {
                bytes[4..8].copy_from_slice(&sealed[4..8]);
            }
            if bytes.len() > 32 {
                bytes = signed(bytes, &receiver.borrow());
            }
            let opened = open(&mut receiver.borrow_mut(), &bytes).0;
            prop_assert_eq!(opened, Opened::Rejected);
            Ok(())
        })
        .unwrap();
    let opened = open(&mut receiver.borrow_mut(), &sealed).0;
    assert_eq!(opened, Opened::Packet(60));
}
