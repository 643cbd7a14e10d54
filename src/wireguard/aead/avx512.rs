//! ChaCha20-Poly1305 with AVX-512: which blocks are made at once, and what is authenticated when.
//!
//! The key stream of a packet is made in rounds of 16 blocks, after a first one of 4, 8, 16 or 24 that
//! leaves as little over as possible. The first block is the key of the authenticator, which then
//! runs on the integer units beside the later rounds; when they are through, the rest of the
//! ciphertext is authenticated in vectors.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::TAG;
use super::chacha::{BLOCK, Cipher};
use super::lanes::{Powers, STEP};
use super::poly::{self, Mac};

/// Blocks of Poly1305 that are authenticated beside a round.
const BESIDE: usize = 40;

/// Blocks of Poly1305 in a step.
const LANES: usize = STEP / poly::BLOCK;

/// Blocks of Poly1305 that are not worth the powers that a step needs.
const FEW: usize = 16;

/// Whether the CPU has what this module needs. `bmi2` is for multiplications that leave the flags
/// alone.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512ifma")
        && is_x86_feature_detected!("bmi2")
}

/// Seals `plain`, and as many zeros as `dst` has room for, into `dst`. The CPU must be `available`.
pub(super) fn seal(key: &[u8; 32], counter: u64, plain: &[u8], dst: &mut [u8]) {
    debug_assert!(available());
    // SAFETY: `Engine::Avx512`, the only caller, exists only where `available` is true.
    unsafe { seal_here(key, counter, plain, dst) }
}

/// Decrypts `cipher` into `dst`, which is as long, and says whether the tag is right. If it is not,
/// the caller wipes `dst`. The CPU must be `available`.
pub(super) fn open(
    key: &[u8; 32],
    counter: u64,
    cipher: &[u8],
    tag: &[u8; TAG],
    dst: &mut [u8],
) -> bool {
    debug_assert!(available());
    // SAFETY: `Engine::Avx512`, the only caller, exists only where `available` is true.
    let made = unsafe { open_here(key, counter, cipher, dst) };
    // One comparison of 128 bits: how long it takes does not tell where they differ.
    made == u128::from_le_bytes(*tag)
}

/// A packet to seal: as `seal`.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn seal_here(key: &[u8; 32], counter: u64, plain: &[u8], dst: &mut [u8]) {
    let padded = dst.len() - TAG;
    let (text, tag) = dst.split_at_mut(padded);
    let cipher = Cipher::new(key, counter);
    let mut blocks = first(padded);
    let mut tagger = Tagger::new(&start(&cipher, blocks, plain, text));
    while (blocks - 1) * BLOCK < padded {
        let (ready, rest) = text.split_at_mut((blocks - 1) * BLOCK);
        let mut part = tagger.part(ready, padded).iter();
        let stream = cipher.sixteen(blocks as u32, || tagger.beside(part.next()));
        apply(&stream, plain.get(ready.len()..).unwrap_or_default(), rest);
        blocks += 16;
    }
    tag.copy_from_slice(&tagger.finish(text).to_le_bytes());
}

/// A packet to open: as `open`, but with the tag that would be right as its result.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn open_here(key: &[u8; 32], counter: u64, text: &[u8], dst: &mut [u8]) -> u128 {
    let cipher = Cipher::new(key, counter);
    let mut blocks = first(text.len());
    let mut tagger = Tagger::new(&start(&cipher, blocks, text, dst));
    while (blocks - 1) * BLOCK < text.len() {
        let at = (blocks - 1) * BLOCK;
        let mut part = tagger.part(text, text.len()).iter();
        let stream = cipher.sixteen(blocks as u32, || tagger.beside(part.next()));
        apply(&stream, &text[at..], &mut dst[at..]);
        blocks += 16;
    }
    tagger.finish(text)
}

/// How many blocks to start with, of those that a text of this many bytes and the key in front of
/// it need: all of them up to 24, which is a packet of 1500 bytes on the wire, else what later
/// rounds of 16 leave over.
#[inline]
fn first(text: usize) -> usize {
    match 1 + text.div_ceil(BLOCK) {
        17..=24 => 24,
        needed => match needed % 16 {
            1..=4 => 4,
            5..=8 => 8,
            _ => 16,
        },
    }
}

/// Makes the first 4, 8, 16 or 24 blocks and applies them. What comes out is the one-time key of RFC
/// 8439, section 2.6.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn start(cipher: &Cipher, blocks: usize, src: &[u8], dst: &mut [u8]) -> [u8; 32] {
    match blocks {
        4 => {
            let [key, stream @ ..] = cipher.four();
            apply(&stream, src, dst);
            half(key)
        }
        8 => {
            let [key, stream @ ..] = cipher.eight();
            apply(&stream, src, dst);
            half(key)
        }
        24 => {
            let ([key, stream @ ..], more) = cipher.twenty_four();
            apply(&stream, src, dst);
            let at = stream.len() * BLOCK;
            apply(&more, src.get(at..).unwrap_or_default(), &mut dst[at..]);
            half(key)
        }
        _ => {
            let [key, stream @ ..] = cipher.sixteen(0, || ());
            apply(&stream, src, dst);
            half(key)
        }
    }
}

/// Writes the exclusive or of `src` and the stream to `dst`, until one of the two latter ends.
/// Past the end of `src` are zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn apply<const N: usize>(stream: &[__m512i; N], mut src: &[u8], mut dst: &mut [u8]) {
    for key in stream {
        if dst.is_empty() {
            return;
        }
        let (to, dst_rest) = dst.split_at_mut(dst.len().min(BLOCK));
        let (from, src_rest) = src.split_at(src.len().min(to.len()));
        if let (Ok(from), Ok(to)) = (from.try_into(), <&mut [u8; BLOCK]>::try_from(&mut *to)) {
            store(to, _mm512_xor_si512(load(from), *key));
        } else {
            store_part(to, _mm512_xor_si512(load_part(from), *key));
        }
        (src, dst) = (src_rest, dst_rest);
    }
}

/// The authenticator of a packet, as far as it got.
struct Tagger {
    mac: Mac,
    /// How many bytes are authenticated.
    taken: usize,
}

impl Tagger {
    #[inline]
    fn new(key: &[u8; 32]) -> Self {
        Self {
            mac: Mac::new(key),
            taken: 0,
        }
    }

    /// What to authenticate while sixteen blocks of key stream are made. Of the `total` bytes,
    /// `ready` is ciphertext already. What is left for `finish` should be whole steps.
    #[inline]
    fn part<'a>(&mut self, ready: &'a [u8], total: usize) -> &'a [[u8; poly::BLOCK]] {
        let (blocks, _) = ready[self.taken..].as_chunks();
        let most = blocks.len().min(BESIDE);
        let left = (total - self.taken) / poly::BLOCK;
        let over = (most + LANES - left % LANES) % LANES;
        let count = most.checked_sub(over).unwrap_or(most);
        self.taken += count * poly::BLOCK;
        &blocks[..count]
    }

    /// Takes a block, if there is one left.
    #[inline]
    fn beside(&mut self, block: Option<&[u8; poly::BLOCK]>) {
        if let Some(block) = block {
            self.mac.block(block);
        }
    }

    /// Authenticates what is left of the ciphertext, and its length. What comes out is the tag.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
    fn finish(mut self, text: &[u8]) -> u128 {
        let left = &text[self.taken..];
        let blocks = left.len() / poly::BLOCK;
        if blocks < FEW {
            self.mac.padded(left);
            return self.mac.finish(text.len());
        }
        // What is over goes first: the CPU is through with it before it has the powers.
        let front = blocks % LANES;
        let (front, left) = left.split_at(front * poly::BLOCK);
        let powers = Powers::new(&self.mac);
        self.mac.padded(front);
        let (steps, rest) = left.as_chunks();
        powers.absorb(&mut self.mac, steps);
        self.mac.padded(rest);
        self.mac.finish(text.len())
    }
}

/// The first half of a block.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn half(block: __m512i) -> [u8; 32] {
    let mut half = [0; 32];
    // SAFETY: 32 bytes may be written to `half`, and the instruction does not ask for alignment.
    unsafe { _mm256_storeu_si256(half.as_mut_ptr().cast(), _mm512_castsi512_si256(block)) }
    half
}

/// Loads a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
pub(super) fn load(from: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes may be read, and the instruction does not ask for alignment.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// Stores a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn store(to: &mut [u8; 64], vector: __m512i) {
    // SAFETY: 64 bytes may be written, and the instruction does not ask for alignment.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), vector) }
}

/// Loads up to 64 bytes, and zeros after them.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn load_part(from: &[u8]) -> __m512i {
    // SAFETY: only the bytes that the mask names are read, those of `from`.
    unsafe { _mm512_maskz_loadu_epi8(mask(from.len()), from.as_ptr().cast()) }
}

/// Stores the first bytes of a vector, as many as there is room for and up to 64.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn store_part(to: &mut [u8], vector: __m512i) {
    // SAFETY: only the bytes that the mask names are written, those of `to`.
    unsafe { _mm512_mask_storeu_epi8(to.as_mut_ptr().cast(), mask(to.len()), vector) }
}

/// The mask of the first bytes of a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn mask(bytes: usize) -> u64 {
    _bzhi_u64(u64::MAX, bytes as u32)
}
