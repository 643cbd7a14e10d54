use proptest::prelude::*;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::{Engine, Key, TAG};

/// Counters around which a word of the nonce changes.
const COUNTERS: [u64; 6] = [
    0,
    1,
    u32::MAX as u64,
    u32::MAX as u64 + 1,
    0x0200_0000_0000_0000,
    u64::MAX,
];

/// A key in each of the ways in which this CPU can use it.
fn keys(bytes: &[u8; 32]) -> Vec<Key> {
    let ring = Key {
        engine: Engine::Ring,
        ..Key::new(bytes)
    };
    vec![Key::new(bytes), ring]
}

/// What ring makes of a packet.
fn oracle(key: &[u8; 32], counter: u64, plain: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).unwrap());
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    let mut sealed = plain.to_vec();
    key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::empty(),
        &mut sealed,
    )
    .unwrap();
    sealed
}

/// Bytes that look random, the same each time: SplitMix64 (Steele, Lea and Flood, 2014).
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let word = |i: usize| {
        let z = (seed << 32).wrapping_add(i as u64 + 1);
        let z = z.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(word).take(len).collect()
}

fn key(seed: u64) -> [u8; 32] {
    noise(seed, 32).try_into().unwrap()
}

/// The packet as `key` seals it, into a buffer that was not empty.
fn sealed(key: &Key, counter: u64, plain: &[u8], padded: usize) -> Vec<u8> {
    let mut dst = vec![0xa5; padded + TAG];
    key.seal(counter, plain, padded, &mut dst);
    dst
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

#[test]
fn every_short_length_is_as_ring_seals_it() {
    for len in 0..=2100 {
        let (bytes, plain) = (key(len as u64), noise(len as u64 + 5000, len));
        let counter = COUNTERS[len % COUNTERS.len()];
        let expected = oracle(&bytes, counter, &plain);
        for key in keys(&bytes) {
            assert_eq!(sealed(&key, counter, &plain, len), expected, "{len} bytes");
            let mut opened = vec![0xa5; len + 3];
            assert_eq!(key.open(counter, &expected, &mut opened), Some(len));
            assert_eq!(opened[..len], plain, "{len} bytes");
            assert_eq!(opened[len..], [0xa5; 3], "only the packet is written");
        }
    }
}

#[test]
fn a_flipped_bit_is_refused_and_nothing_is_left_behind() {
    for len in [
        0, 1, 16, 63, 64, 191, 192, 300, 447, 448, 900, 961, 1424, 2000,
    ] {
        let bytes = key(7);
        let packet = oracle(&bytes, 3, &noise(1, len));
        for key in keys(&bytes) {
            // A step that is no multiple of 8, so that each bit of a byte has its turn.
            for bit in (0..packet.len() * 8).step_by(61) {
                let mut forged = packet.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                let mut dst = vec![0xa5; len];
                assert_eq!(key.open(3, &forged, &mut dst), None, "{len}: bit {bit}");
                assert!(dst.iter().all(|&byte| byte == 0), "{len}: bit {bit}");
            }
            assert_eq!(key.open(4, &packet, &mut vec![0; len]), None);
        }
    }
}

#[test]
fn what_is_shorter_than_a_tag_is_refused() {
    for key in keys(&key(1)) {
        assert_eq!(key.open(0, &[0; TAG - 1], &mut []), None);
    }
}

#[test]
fn padding_is_zeros() {
    for len in (0..200).chain(430..530).chain(930..1030).chain(1410..1500) {
        for more in 0..=15 {
            let (bytes, mut plain) = (key(9), noise(2, len));
            let results: Vec<_> = keys(&bytes)
                .iter()
                .map(|key| sealed(key, 1, &plain, len + more))
                .collect();
            plain.resize(len + more, 0);
            let expected = oracle(&bytes, 1, &plain);
            assert!(results.iter().all(|r| *r == expected), "{len} + {more}");
        }
    }
}

#[test]
#[should_panic]
fn padding_is_no_more_than_to_sixteen() {
    Key::new(&key(1)).seal(0, &[1; 16], 32, &mut [0; 48]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_packet_is_as_ring_seals_it(
        bytes in any::<[u8; 32]>(),
        counter in prop_oneof![
            any::<u64>(),
            (u64::from(u32::MAX) - 2)..=(u64::from(u32::MAX) + 2),
        ],
        seed in any::<u32>(),
        len in prop_oneof![0..=1500usize, 0..=65535usize],
    ) {
        let plain = noise(seed.into(), len);
        let expected = oracle(&bytes, counter, &plain);
        for key in keys(&bytes) {
            prop_assert_eq!(&sealed(&key, counter, &plain, len), &expected);
            let mut opened = vec![0xa5; len];
            prop_assert_eq!(key.open(counter, &expected, &mut opened), Some(len));
            prop_assert_eq!(&opened, &plain);
        }
    }
}

/// RFC 8439, appendix A.1, test vectors 2 to 4: a packet begins with block 1. (key, block, stream)
#[test]
fn the_key_stream_is_that_of_the_rfc() {
    let last = |value: u8| {
        let mut key = [0; 32];
        key[31] = value;
        key
    };
    let second = {
        let mut key = [0; 32];
        key[1] = 0xff;
        key
    };
    let vectors = [
        (
            [0; 32],
            1,
            "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed
             29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
        ),
        (
            last(1),
            1,
            "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a
             8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0",
        ),
        (
            second,
            2,
            "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca
             13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096",
        ),
    ];
    for (bytes, block, stream) in vectors {
        for key in keys(&bytes) {
            for len in [128, 400, 900, 1424, 2048] {
                let made = sealed(&key, 0, &[0; 2048][..len], len);
                assert_eq!(made[block * 64 - 64..block * 64], hex(stream)[..], "{len}");
            }
        }
    }
}

/// RFC 8439, appendix A.5, whose nonce has WireGuard's form. Its tag covers additional data, which
/// WireGuard has none of, so that it is the ciphertext that is compared.
#[test]
fn the_ciphertext_is_that_of_the_rfc() {
    let bytes = hex("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0");
    let plain = "Internet-Drafts are draft documents valid for a maximum of six months and may be \
        updated, replaced, or obsoleted by other documents at any time. It is inappropriate to use \
        Internet-Drafts as reference material or to cite them other than as /\u{201c}work in \
        progress./\u{201d}";
    let cipher = "
        64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb2
        4c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f03b7f355894cf
        332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855
        9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4
        b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523e
        af4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a
        0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a10
        49e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29
        a6ad5cb4022b02709b";
    for key in keys(&bytes.try_into().unwrap()) {
        let counter = u64::from_le_bytes([1, 2, 3, 4, 5, 6, 7, 8]);
        let made = sealed(&key, counter, plain.as_bytes(), plain.len());
        assert_eq!(made[..plain.len()], hex(cipher)[..]);
    }
}

/// Poly1305 by itself, whose extremes no AEAD can be asked for.
#[cfg(target_arch = "x86_64")]
mod poly1305 {
    #![allow(unsafe_code)]

    use super::super::avx512;
    use super::super::lanes::{Powers, STEP};
    use super::super::poly::Mac;
    use super::{hex, key, noise};

    /// The tag of a message of any length: RFC 8439, section 2.5.
    fn tag(key: &[u8], message: &[u8]) -> [u8; 16] {
        let mut mac = Mac::new(key.try_into().unwrap());
        let (blocks, rest) = message.as_chunks();
        blocks.iter().for_each(|block| mac.block(block));
        if !rest.is_empty() {
            let mut last = [0; 16];
            last[..rest.len()].copy_from_slice(rest);
            last[rest.len()] = 1;
            mac.add(u128::from_le_bytes(last), 0);
            mac.multiply();
        }
        mac.tag().to_le_bytes()
    }

    /// RFC 8439, section 2.5.2.
    #[test]
    fn the_example() {
        let key = hex("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b");
        let made = tag(&key, b"Cryptographic Forum Research Group");
        assert_eq!(made[..], hex("a8061dc1305136c6c22b8baf0c0127a9"));
    }

    /// RFC 8439, appendix A.3, test vectors 5 to 11: (r, s, message, tag).
    #[test]
    fn the_extremes() {
        let ones = "ffffffffffffffffffffffffffffffff";
        let zeros = "00000000000000000000000000000000";
        let two = "02000000000000000000000000000000";
        let one = "01000000000000000000000000000000";
        let long = "e33594d7505e43b9000000000000000033 94d7505e4379cd0100000000000000
            0000000000000000000000000000000001000000000000000000000000000000";
        let mixed = "01000000000000000400000000000000";
        let vectors = [
            (two, zeros, ones.to_owned(), "03"),
            (two, ones, two.to_owned(), "03"),
            (
                one,
                zeros,
                format!("{ones} f0ffffffffffffffffffffffffffffff 11{}", &zeros[2..]),
                "05",
            ),
            (
                one,
                zeros,
                format!(
                    "{ones} fbfefefefefefefefefefefefefefefe {}",
                    "01".repeat(16)
                ),
                "00",
            ),
            (
                two,
                zeros,
                format!("fd{}", &ones[2..]),
                "faffffffffffffffffffffffffffffff",
            ),
            (
                mixed,
                zeros,
                long.to_owned(),
                "14000000000000005500000000000000",
            ),
            (mixed, zeros, long[..long.len() - 32].to_owned(), "13"),
        ];
        for (r, s, message, expected) in vectors {
            let mut expected = hex(expected);
            expected.resize(16, 0);
            let key = hex(&format!("{r}{s}"));
            assert_eq!(tag(&key, &hex(&message))[..], expected, "{r} {message}");
        }
    }

    /// As in RFC 8439, appendix A.3, test vectors 2 and 3, where r or s is zero.
    #[test]
    fn without_a_multiplier_the_tag_is_what_is_added() {
        let message = noise(3, 375);
        let s = hex("36e5f6b5c5e06070f0efca96227a863e");
        assert_eq!(tag(&[vec![0; 16], s.clone()].concat(), &message)[..], s);
        let with = u128::from_le_bytes(tag(&[s.clone(), s.clone()].concat(), &message));
        let without = u128::from_le_bytes(tag(&[s.clone(), vec![0; 16]].concat(), &message));
        let added = u128::from_le_bytes(s.try_into().unwrap());
        assert_eq!(with, without.wrapping_add(added));
    }

    /// Eight lanes against one, also where each number is as large as it can be. On a CPU without
    /// AVX-512 there is nothing to compare.
    #[test]
    fn eight_lanes_come_to_the_same_as_one() {
        if !avx512::available() {
            return;
        }
        let steps = |len| {
            [
                vec![0xff; len],
                vec![0; len],
                vec![0xfe; len],
                noise(4, len),
            ]
        };
        let keys = [[0xff; 32], [0; 32], [1; 32], key(1), key(2)];
        let starts = [
            (0, 0),
            (u128::MAX, 4),
            (u128::MAX, 3),
            (u128::MAX - 4, 3),
            (5, 0),
        ];
        for (key, (low, high)) in keys.iter().flat_map(|k| starts.map(|s| (k, s))) {
            for message in (1..=9).flat_map(|n| steps(n * STEP)) {
                let mut one = Mac::new(key);
                one.resume(low, high);
                one.padded(&message);
                let mut eight = Mac::new(key);
                eight.resume(low, high);
                // SAFETY: `available` is true.
                unsafe { Powers::new(&eight).absorb(&mut eight, message.as_chunks().0) };
                assert_eq!(one.tag(), eight.tag());
                // What comes out is fit to go on with.
                one.padded(&message);
                eight.padded(&message);
                assert_eq!(one.tag(), eight.tag());
            }
        }
    }
}
