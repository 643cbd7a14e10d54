//! The four kinds of messages with fixed keys, held against implementations that share no line with ours: snow's
//! `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s`, and for the two codes and the cookie Python's hashlib and the ciphers as the
//! RFCs write them. Byte for byte, in both roles.

use std::time::Instant;

use snow::{Builder, HandshakeState};

use super::super::aead::TAG;
use super::symmetric::{CONSTRUCTION, IDENTIFIER, hash};
use super::*;
use crate::config;

/// Private keys of the one who begins and the one who answers, and the random bytes of each.
const FIRST: [u8; KEY] = [1; KEY];
const SECOND: [u8; KEY] = [2; KEY];
const RANDOM: [[u8; KEY]; 2] = [[3; KEY], [4; KEY]];
const STAMP: [u8; TIMESTAMP] = [0x40, 0, 0, 0, 0x65, 0x53, 0xf1, 0, 0x3b, 0, 0, 0];
/// None, and one.
const PRESHARED: [Option<[u8; KEY]>; 2] = [None, Some([5; KEY])];

fn public(private: [u8; KEY]) -> [u8; KEY] {
    x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(private)).to_bytes()
}

fn secret(bytes: [u8; KEY]) -> Secret {
    let mut secret = blank();
    secret.copy_from_slice(&bytes);
    secret
}

fn ours(private: [u8; KEY], peer: [u8; KEY], preshared: Option<[u8; KEY]>) -> Identity {
    let peer = config::PublicKey(public(peer));
    let preshared = preshared.map(config::Secret::new);
    Identity::new(&config::Secret::new(private), peer, preshared.as_ref())
}

/// Snow in one of the two roles.
fn theirs(begins: bool, preshared: Option<[u8; KEY]>) -> HandshakeState {
    let pattern = std::str::from_utf8(CONSTRUCTION).unwrap();
    let (own, peer, random) = if begins {
        (FIRST, public(SECOND), RANDOM[0])
    } else {
        (SECOND, public(FIRST), RANDOM[1])
    };
    let preshared = preshared.unwrap_or_default();
    let builder = Builder::new(pattern.parse().unwrap()).prologue(IDENTIFIER);
    let builder = builder.unwrap().psk(2, &preshared).unwrap();
    let builder = builder.local_private_key(&own).unwrap();
    let builder = builder.fixed_ephemeral_key_for_testing_only(&random);
    if begins {
        let builder = builder.remote_public_key(&peer).unwrap();
        builder.build_initiator().unwrap()
    } else {
        builder.build_responder().unwrap()
    }
}

fn said(state: &mut HandshakeState, payload: &[u8]) -> Vec<u8> {
    let mut buffer = [0; 200];
    let len = state.write_message(payload, &mut buffer).unwrap();
    buffer[..len].to_vec()
}

fn heard(state: &mut HandshakeState, message: &[u8]) -> Vec<u8> {
    let mut buffer = [0; 200];
    let len = state.read_message(message, &mut buffer).unwrap();
    buffer[..len].to_vec()
}

/// A packet each way, with our keys and with snow's, which is the one who begins or the one who answers.
fn data_is_the_same(keys: &Keys, state: HandshakeState) {
    let mut theirs = state.into_transport_mode().unwrap();
    let (seal, open) = (
        super::super::aead::Key::new(&keys.send),
        super::super::aead::Key::new(&keys.receive),
    );
    for (counter, len) in (0..).zip([0, 16, 100, 1408, 1420]) {
        let packet: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let mut sealed = vec![0; len + TAG];
        seal.seal(counter, &packet, len, &mut sealed);
        let mut opened = vec![0; len + TAG];
        let got = theirs.read_message(&sealed, &mut opened).unwrap();
        assert_eq!(opened[..got], packet);
        let got = theirs.write_message(&packet, &mut sealed).unwrap();
        assert_eq!(open.open(counter, &sealed[..got], &mut opened), Some(len));
        assert_eq!(opened[..len], packet);
    }
}

#[test]
fn what_we_begin_is_what_another_implementation_begins_and_its_answer_is_taken() {
    for preshared in PRESHARED {
        let identity = ours(FIRST, SECOND, preshared);
        let mut message = [0; INITIATION];
        let pending = identity.initiate(0x0403_0201, &STAMP, secret(RANDOM[0]), &mut message);
        assert_eq!(message[..8], [1, 0, 0, 0, 1, 2, 3, 4]);
        let expected = said(&mut theirs(true, preshared), &STAMP);
        assert_eq!(message[8..116], expected);
        assert_eq!(message[116..], [0; 32], "the codes come later");

        let mut answers = theirs(false, preshared);
        assert_eq!(heard(&mut answers, &message[8..116]), STAMP);
        let body = said(&mut answers, &[]);
        let mut response = [0; RESPONSE];
        response[..12].copy_from_slice(&[2, 0, 0, 0, 9, 0, 0, 0, 1, 2, 3, 4]);
        response[12..60].copy_from_slice(&body);
        let keys = identity.finish(&pending.unwrap(), &response).unwrap();
        assert_eq!(keys.index, 9);
        data_is_the_same(&keys, answers);
    }
}

#[test]
fn what_we_answer_is_what_another_implementation_answers_and_takes() {
    for preshared in PRESHARED {
        let identity = ours(SECOND, FIRST, preshared);
        let (mut begins, mut answers) = (theirs(true, preshared), theirs(false, preshared));
        let body = said(&mut begins, &STAMP);
        heard(&mut answers, &body);
        let mut message = [0; INITIATION];
        message[..8].copy_from_slice(&[1, 0, 0, 0, 9, 0, 0, 0]);
        message[8..116].copy_from_slice(&body);
        let initiation = identity.read(&message).unwrap();
        assert_eq!((initiation.index, initiation.timestamp), (9, STAMP));

        let mut response = [0; RESPONSE];
        let keys = identity.respond(initiation, 0x0403_0201, &secret(RANDOM[1]), &mut response);
        assert_eq!(response[..12], [2, 0, 0, 0, 1, 2, 3, 4, 9, 0, 0, 0]);
        assert_eq!(response[12..60], said(&mut answers, &[]));
        assert_eq!(response[60..], [0; 32], "the codes come later");
        assert!(heard(&mut begins, &response[12..60]).is_empty());
        data_is_the_same(&keys.unwrap(), begins);
    }
}

#[test]
fn a_preshared_key_that_differs_is_noticed() {
    let identity = ours(FIRST, SECOND, PRESHARED[1]);
    let mut message = [0; INITIATION];
    let pending = identity.initiate(1, &STAMP, secret(RANDOM[0]), &mut message);
    let mut answers = theirs(false, None);
    heard(&mut answers, &message[8..116]);
    let mut response = [0; RESPONSE];
    response[12..60].copy_from_slice(&said(&mut answers, &[]));
    assert!(identity.finish(&pending.unwrap(), &response).is_none());
}

/// For a message of the bytes 0 to 115 to the public key of [`SECOND`]: both codes, and a cookie of the bytes 0x30 to
/// 0x3f under a nonce of 0x40 to 0x57.
#[test]
fn codes_and_cookie_are_those_of_another_implementation() {
    let mut message: Vec<u8> = (0..148).collect();
    let mut macs = Macs::new(&public(SECOND));
    let now = Instant::now();
    macs.sign(now, &mut message);
    let first = hex("1d38233ae3ddff29a4c0787ae7e64b86");
    assert_eq!(message[116..132], first);
    assert_eq!(message[132..], [0; 16]);
    let reply = hex(
        "0300000007000000404142434445464748494a4b4c4d4e4f5051525354555657\
         525614d10070b79dd8e2a3c1be04599a4cf4e1d617bf897dcc5d116149d5703a",
    );
    let mut reply: [u8; COOKIE_REPLY] = reply.try_into().unwrap();
    reply[40] ^= 1;
    assert!(!macs.take_cookie(now, &reply), "a forged one");
    reply[40] ^= 1;
    assert!(macs.take_cookie(now, &reply));
    macs.sign(now, &mut message);
    assert_eq!(message[116..132], first);
    assert_eq!(message[132..], hex("0ecd56057cfea99a2ee47155dd1d3472"));
}

/// RFC 7748, section 5.2: (private, public, shared).
#[test]
fn the_curve_is_that_of_rfc_7748() {
    for [private, public, shared] in [
        [
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ],
        [
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ],
    ] {
        let private: [u8; KEY] = hex(private).try_into().unwrap();
        let private = x25519_dalek::StaticSecret::from(private);
        let found = handshake::exchange(&private, &handshake::key(&hex(public)));
        assert_eq!(found.unwrap().as_bytes()[..], hex(shared));
    }
    // Of low order: the same for everybody (section 6.1).
    for low in [[0; KEY], std::array::from_fn(|at| u8::from(at == 0))] {
        let private = x25519_dalek::StaticSecret::from(FIRST);
        assert!(handshake::exchange(&private, &handshake::key(&low)).is_none());
    }
}

/// RFC 7693, appendix B.
#[test]
fn the_hash_is_that_of_rfc_7693() {
    let abc = hex("508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982");
    assert_eq!(hash([b"a", b"bc"])[..], abc);
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair[1]) as u8)
        .collect()
}
