//! Poly1305 (RFC 8439, section 2.5) on the integer units, a block at a time.

/// Bytes of a block.
pub(super) const BLOCK: usize = 16;

/// A message authentication under way.
///
/// The accumulator is `low + high * 2^128` with `high` at most 4: it is reduced only as far as the
/// next multiplication needs.
pub(super) struct Mac {
    low: u128,
    high: u64,
    r: [u64; 2],
    /// `r[1] * 5 / 4`: what `r[1]` is worth past 2^130. It is exact, as the clamp clears the two
    /// lowest bits of `r[1]`.
    folded: u64,
    pad: u128,
}

impl Mac {
    /// Starts with a one-time key: RFC 8439, section 2.5.
    #[inline]
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let [r, pad] = halves(key);
        let r = r & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
        let r = [r as u64, (r >> 64) as u64];
        Self {
            low: 0,
            high: 0,
            r,
            folded: r[1] + (r[1] >> 2),
            pad,
        }
    }

    /// The clamped multiplier, least significant word first.
    #[inline]
    pub(super) fn multiplier(&self) -> [u64; 2] {
        self.r
    }

    /// The accumulator, as `low + high * 2^128`.
    #[inline]
    pub(super) fn accumulator(&self) -> (u128, u64) {
        (self.low, self.high)
    }

    /// Goes on from another accumulator, whose `high` is at most 4.
    #[inline]
    pub(super) fn resume(&mut self, low: u128, high: u64) {
        (self.low, self.high) = (low, high);
    }

    /// Takes a block of 16 bytes.
    #[inline]
    pub(super) fn block(&mut self, block: &[u8; BLOCK]) {
        self.add(u128::from_le_bytes(*block), 1);
        self.multiply();
    }

    /// Takes whole blocks, and what is left over as a block that zeros fill up, which is what RFC
    /// 8439, section 2.8, does to a ciphertext.
    #[inline]
    pub(super) fn padded(&mut self, text: &[u8]) {
        let (blocks, rest) = text.as_chunks::<BLOCK>();
        for block in blocks {
            self.block(block);
        }
        if !rest.is_empty() {
            let mut last = [0; BLOCK];
            last[..rest.len()].copy_from_slice(rest);
            self.block(&last);
        }
    }

    /// Takes the lengths that end the message of RFC 8439, section 2.8: no additional data, and
    /// this many bytes of ciphertext. What comes out is the tag.
    #[inline]
    pub(super) fn finish(mut self, ciphertext: usize) -> u128 {
        self.block(&((ciphertext as u128) << 64).to_le_bytes());
        self.tag()
    }

    /// The tag: the accumulator modulo 2^130 - 5, plus the second half of the key, modulo 2^128.
    #[inline]
    pub(super) fn tag(&self) -> u128 {
        // It is less than 2^131, so the modulus goes into it at most once more after the fold.
        let (low, carry) = self.low.overflowing_add(u128::from(self.high >> 2) * 5);
        let high = (self.high & 3) + u64::from(carry);
        // Not less than the modulus, if and only if 5 more reaches 2^130.
        let (less, carry) = low.overflowing_add(5);
        let reached = (high + u64::from(carry)) >> 2;
        // A mask and not a branch: the accumulator is secret.
        let mask = 0u128.wrapping_sub(u128::from(reached));
        ((less & mask) | (low & !mask)).wrapping_add(self.pad)
    }

    /// Adds `low + high * 2^128`.
    #[inline]
    pub(super) fn add(&mut self, low: u128, high: u64) {
        let (sum, carry) = self.low.overflowing_add(low);
        self.low = sum;
        self.high += high + u64::from(carry);
    }

    /// Multiplies the accumulator by `r` modulo 2^130 - 5.
    #[inline]
    pub(super) fn multiply(&mut self) {
        let wide = |a: u64, b: u64| u128::from(a) * u128::from(b);
        let [r0, r1] = self.r;
        let (h0, h1, h2) = (self.low as u64, (self.low >> 64) as u64, self.high);
        // r and `folded` are below 2^61 and h2 is below 8: no sum overflows.
        let d0 = wide(h0, r0) + wide(h1, self.folded);
        let d1 = wide(h0, r1) + wide(h1, r0) + u128::from(h2 * self.folded) + (d0 >> 64);
        let d2 = h2 * r0 + (d1 >> 64) as u64;
        // What is past 2^130 counts five times: (d2 / 4) * 4 + d2 / 4.
        let past = (d2 & !3) + (d2 >> 2);
        let low = u128::from(d0 as u64) | (d1 << 64);
        let (low, carry) = low.overflowing_add(u128::from(past));
        self.low = low;
        self.high = (d2 & 3) + u64::from(carry);
    }
}

/// The two halves of a one-time key: the multiplier, not clamped yet, and what is added in the end.
#[inline]
fn halves(key: &[u8; 32]) -> [u128; 2] {
    let (halves, _) = key.as_chunks::<16>();
    [
        u128::from_le_bytes(halves[0]),
        u128::from_le_bytes(halves[1]),
    ]
}
