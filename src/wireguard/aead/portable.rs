//! ChaCha20-Poly1305 by ring, for a CPU that `avx512` is not for and for what is sealed with additional data.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};

use super::TAG;

/// Seals `plain`, and as many zeros as `dst` has room for, into `dst`.
pub(in crate::wireguard) fn seal(
    key: &[u8; 32],
    counter: u64,
    additional: &[u8],
    plain: &[u8],
    dst: &mut [u8],
) {
    let padded = dst.len() - TAG;
    let (text, tag) = dst.split_at_mut(padded);
    text[..plain.len()].copy_from_slice(plain);
    text[plain.len()..].fill(0);
    let made = keyed(key)
        .seal_in_place_separate_tag(nonce(counter), Aad::from(additional), text)
        // ring refuses more than 2^32 blocks only, and a packet has 2^16 bytes.
        .unwrap_or_else(|_| unreachable!("a packet is short"));
    tag.copy_from_slice(made.as_ref());
}

/// Decrypts `cipher` into `dst`, which is as long, and says whether the tag is right. If it is not,
/// the caller wipes `dst`.
pub(in crate::wireguard) fn open(
    key: &[u8; 32],
    counter: u64,
    additional: &[u8],
    cipher: &[u8],
    tag: &[u8; TAG],
    dst: &mut [u8],
) -> bool {
    dst.copy_from_slice(cipher);
    keyed(key)
        .open_in_place_separate_tag(
            nonce(counter),
            Aad::from(additional),
            Tag::from(*tag),
            dst,
            0..,
        )
        .is_ok()
}

/// The key as ring takes it. Made for each packet, as ring's type does not wipe what it holds; that
/// is a copy of 32 bytes.
fn keyed(key: &[u8; 32]) -> LessSafeKey {
    // The algorithm's keys have 32 bytes.
    let key = UnboundKey::new(&CHACHA20_POLY1305, key)
        .unwrap_or_else(|_| unreachable!("a key has 32 bytes"));
    LessSafeKey::new(key)
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}
