//! Poly1305 eight blocks at a time, with the 52-bit multiplications of AVX-512 IFMA.
//!
//! As in Goll and Gueron, "Vectorization of Poly1305 message authentication code" (2015): a lane
//! has every eighth block, goes ahead by the multiplier's eighth power, and in the end is multiplied
//! by the power that its place in the message asks for. Numbers are three limbs of 44, 44 and 42
//! bits.

use std::arch::x86_64::*;
use std::array::from_fn;

use super::avx512::load;
use super::poly::Mac;

/// Bytes that go into one step: a block per lane.
pub(super) const STEP: usize = 128;

const MASK_44: u64 = (1 << 44) - 1;
const MASK_42: u64 = (1 << 42) - 1;

/// A number below 2^130, in 44, 44 and 42 bits.
type Limbs = [u64; 3];

/// Eight numbers, a vector per limb.
type Lanes = [__m512i; 3];

/// What a message is multiplied by, from powers of the multiplier.
pub(super) struct Powers {
    /// The eighth power in each lane: what a step goes ahead by.
    eighth: Multiplier,
    /// The powers that the eight blocks of the last step end with.
    last: Multiplier,
}

impl Powers {
    /// Makes the powers, by three multiplications of eight lanes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
    pub(super) fn new(mac: &Mac) -> Self {
        let [r0, r1] = mac.multiplier();
        let r = limbs(u128::from(r0) | u128::from(r1) << 64, 0);
        let one = r.map(|limb| _mm512_set1_epi64(limb as i64));
        let two = Multiplier::new(one).multiply(one);
        // The powers that the lanes end with are 8, 4, 7, 3, 6, 2, 5, 1: one each, then one more
        // where the power less one has the bit 1, two more where it has 2, four more where it has 4.
        let last = select(0b0011_0011, one, two);
        let more = Multiplier::new(two).multiply(last);
        // The first lane has all three bits.
        let four = more.map(|limb| _mm512_broadcastq_epi64(_mm512_castsi512_si128(limb)));
        let last = select(0b0000_1111, last, more);
        let last = select(0b0101_0101, last, Multiplier::new(four).multiply(last));
        let eight = last.map(|limb| _mm512_broadcastq_epi64(_mm512_castsi512_si128(limb)));
        Self {
            eighth: Multiplier::new(eight),
            last: Multiplier::new(last),
        }
    }

    /// Takes whole steps of a message.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
    pub(super) fn absorb(&self, mac: &mut Mac, steps: &[[u8; STEP]]) {
        let Some((last, before)) = steps.split_last() else {
            return;
        };
        let (low, high) = mac.accumulator();
        // What was taken so far is added to the first block, which is in the first lane.
        let mut sum = limbs(low, high).map(|limb| _mm512_maskz_set1_epi64(1, limb as i64));
        let (odd, pairs) = before.as_rchunks::<2>();
        for step in odd {
            sum = self.eighth.multiply(add(sum, blocks(step)));
        }
        if !pairs.is_empty() {
            let sixteenth = Multiplier::new(self.eighth.multiply(self.eighth.r));
            for [first, second] in pairs {
                // One carry for two steps. What does not wait for the sum comes first.
                let behind = self.eighth.products(blocks(second), Products::none());
                sum = carry(sixteenth.products(add(sum, blocks(first)), behind));
            }
        }
        let sum = self.last.multiply(add(sum, blocks(last)));
        let (low, high) = join(sum.map(|limb| _mm512_reduce_add_epi64(limb) as u64));
        mac.resume(low, high);
    }
}

/// The lanes of `b` where the mask has a bit, of `a` elsewhere.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn select(mask: u8, a: Lanes, b: Lanes) -> Lanes {
    from_fn(|i| _mm512_mask_blend_epi64(mask, a[i], b[i]))
}

/// Sums of products, three limbs of their lower 52 bits and three of their upper 52 bits.
struct Products {
    low: Lanes,
    high: Lanes,
}

impl Products {
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
    fn none() -> Self {
        let zero = _mm512_setzero_si512();
        Self {
            low: [zero; 3],
            high: [zero; 3],
        }
    }
}

/// A multiplier of eight lanes.
struct Multiplier {
    r: Lanes,
    /// Limbs 1 and 2 times 20: what they are worth past 2^132, that is 4 * 2^130.
    folded: [__m512i; 2],
}

impl Multiplier {
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
    fn new(r: Lanes) -> Self {
        let twenty = _mm512_set1_epi64(20);
        let fold = |limb| _mm512_madd52lo_epu64(_mm512_setzero_si512(), limb, twenty);
        Self {
            r,
            folded: [fold(r[1]), fold(r[2])],
        }
    }

    /// Multiplies each lane. Limbs below 2^46 become limbs below 2^45.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
    fn multiply(&self, h: Lanes) -> Lanes {
        carry(self.products(h, Products::none()))
    }

    /// The products of each lane, added to others.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
    fn products(&self, [h0, h1, h2]: Lanes, to: Products) -> Products {
        let [r0, r1, r2] = self.r;
        let [s1, s2] = self.folded;
        // The second limb is the last one that `carry` is through with.
        let factors = [
            [(h0, r0), (h2, s1), (h1, s2)],
            [(h0, r1), (h2, s2), (h1, r0)],
            [(h0, r2), (h2, r0), (h1, r1)],
        ];
        Products {
            high: from_fn(|i| {
                let sum = |sum, (h, r): (__m512i, __m512i)| _mm512_madd52hi_epu64(sum, h, r);
                factors[i].into_iter().fold(to.high[i], sum)
            }),
            low: from_fn(|i| {
                let sum = |sum, (h, r): (__m512i, __m512i)| _mm512_madd52lo_epu64(sum, h, r);
                factors[i].into_iter().fold(to.low[i], sum)
            }),
        }
    }
}

/// Brings sums of half products back to limbs. The upper halves are worth 2^52, which is 2^8 of the
/// next limb, or past the last limb 2^10 * 2^130.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn carry(products: Products) -> Lanes {
    let [d0, d1, d2] = products.low;
    let [e0, e1, e2] = products.high;
    let mask_44 = _mm512_set1_epi64(MASK_44 as i64);
    let mask_42 = _mm512_set1_epi64(MASK_42 as i64);
    let d1 = _mm512_add_epi64(d1, _mm512_slli_epi64::<8>(e0));
    let d2 = _mm512_add_epi64(d2, _mm512_slli_epi64::<8>(e1));
    let past = _mm512_add_epi64(_mm512_slli_epi64::<10>(e2), _mm512_srli_epi64::<42>(d2));
    let five = _mm512_add_epi64(past, _mm512_slli_epi64::<2>(past));
    let d1 = _mm512_add_epi64(d1, _mm512_srli_epi64::<44>(d0));
    let d0 = _mm512_add_epi64(_mm512_and_si512(d0, mask_44), five);
    let d2 = _mm512_and_si512(d2, mask_42);
    let d2 = _mm512_add_epi64(d2, _mm512_srli_epi64::<44>(d1));
    let d1 = _mm512_and_si512(d1, mask_44);
    // The fold made the first limb up to 52 bits long.
    let d1 = _mm512_add_epi64(d1, _mm512_srli_epi64::<44>(d0));
    [_mm512_and_si512(d0, mask_44), d1, d2]
}

/// Eight blocks of a message as numbers, each with the bit that RFC 8439, section 2.5, puts past
/// its end. The order of the lanes is 0, 4, 1, 5, 2, 6, 3, 7.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn blocks(step: &[u8; STEP]) -> Lanes {
    let (halves, _) = step.as_chunks::<64>();
    let (first, second) = (load(&halves[0]), load(&halves[1]));
    let low = _mm512_unpacklo_epi64(first, second);
    let high = _mm512_unpackhi_epi64(first, second);
    let mask = _mm512_set1_epi64(MASK_44 as i64);
    let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
    let end = _mm512_set1_epi64(1 << 40);
    [
        _mm512_and_si512(low, mask),
        _mm512_and_si512(middle, mask),
        _mm512_or_si512(_mm512_srli_epi64::<24>(high), end),
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn add(a: Lanes, b: Lanes) -> Lanes {
    from_fn(|i| _mm512_add_epi64(a[i], b[i]))
}

/// `low + high * 2^128` as limbs.
#[inline]
fn limbs(low: u128, high: u64) -> Limbs {
    [
        low as u64 & MASK_44,
        (low >> 44) as u64 & MASK_44,
        (low >> 88) as u64 | high << 40,
    ]
}

/// Limbs below 2^48 as `low + high * 2^128`, with `high` at most 4.
#[inline]
fn join(sum: Limbs) -> (u128, u64) {
    let [l0, l1, l2] = settle(sum);
    let (low, first) = u128::from(l0).overflowing_add(u128::from(l1) << 44);
    let (low, second) = low.overflowing_add(u128::from(l2) << 88);
    (low, (l2 >> 40) + u64::from(first) + u64::from(second))
}

/// Carries from limb to limb. The second limb may be left one bit longer.
#[inline]
fn settle([d0, d1, d2]: Limbs) -> Limbs {
    let d1 = d1 + (d0 >> 44);
    let d2 = d2 + (d1 >> 44);
    let l0 = (d0 & MASK_44) + (d2 >> 42) * 5;
    let l1 = (d1 & MASK_44) + (l0 >> 44);
    [l0 & MASK_44, l1, d2 & MASK_42]
}
