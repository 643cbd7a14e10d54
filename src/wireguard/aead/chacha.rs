//! The ChaCha20 key stream (RFC 8439, section 2.3), 4, 8, 16 or 24 blocks at once.
//!
//! All but four blocks are made with a vector per word of the state and a block per lane, which
//! needs the lanes turned into blocks in the end; four with a vector per row of the state, which
//! needs the rows turned for every second round. A short packet takes as long as its slowest chain
//! of instructions, and is done soonest by the latter.

use std::arch::x86_64::*;
use std::array::from_fn;

/// Bytes of a block.
pub(super) const BLOCK: usize = 64;

/// The first row of the state: "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// What the key stream of a packet is made of.
pub(super) struct Cipher {
    key: [u32; 8],
    counter: u64,
}

impl Cipher {
    /// The key stream of one packet. The nonce is four zero bytes, then the counter.
    #[inline]
    pub(super) fn new(key: &[u8; 32], counter: u64) -> Self {
        let (words, _) = key.as_chunks::<4>();
        Self {
            key: from_fn(|i| u32::from_le_bytes(words[i])),
            counter,
        }
    }

    /// The state of a block, as rows.
    #[inline]
    fn rows(&self, block: u32) -> [[u32; 4]; 4] {
        let [k0, k1, k2, k3, k4, k5, k6, k7] = self.key;
        let nonce = [self.counter as u32, (self.counter >> 32) as u32];
        [
            CONSTANTS,
            [k0, k1, k2, k3],
            [k4, k5, k6, k7],
            [block, 0, nonce[0], nonce[1]],
        ]
    }

    /// The first four blocks.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
    pub(super) fn four(&self) -> [__m512i; 4] {
        let mut start = self.rows(0).map(|[x0, x1, x2, x3]| {
            let row = _mm_setr_epi32(x0 as i32, x1 as i32, x2 as i32, x3 as i32);
            _mm512_broadcast_i32x4(row)
        });
        let block = _mm512_setr_epi32(0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0);
        start[3] = _mm512_add_epi32(start[3], block);
        let [mut a, mut b, mut c, mut d] = start;
        for _ in 0..10 {
            quarter(&mut a, &mut b, &mut c, &mut d);
            // The second row stays, and the others turn around it: it is the last one ready.
            a = _mm512_shuffle_epi32::<0x93>(a);
            c = _mm512_shuffle_epi32::<0x39>(c);
            d = _mm512_shuffle_epi32::<0x4e>(d);
            quarter(&mut a, &mut b, &mut c, &mut d);
            a = _mm512_shuffle_epi32::<0x39>(a);
            c = _mm512_shuffle_epi32::<0x93>(c);
            d = _mm512_shuffle_epi32::<0x4e>(d);
        }
        transpose_lanes([
            _mm512_add_epi32(a, start[0]),
            _mm512_add_epi32(b, start[1]),
            _mm512_add_epi32(c, start[2]),
            _mm512_add_epi32(d, start[3]),
        ])
    }

    /// The first eight blocks.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
    pub(super) fn eight(&self) -> [__m512i; 8] {
        let start = self.narrow(0);
        let mut state = start;
        for _ in 0..10 {
            narrow_round(&mut state);
            state = to_diagonals(state);
            narrow_round(&mut state);
            state = to_columns(state);
        }
        narrow_blocks(&start, &state)
    }

    /// The first twenty-four blocks, as sixteen and eight whose instructions take turns: either
    /// alone leaves units idle, and the state of both just fits into the registers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
    pub(super) fn twenty_four(&self) -> ([__m512i; 16], [__m512i; 8]) {
        let (wide_start, narrow_start) = (self.wide(0), self.narrow(16));
        let (mut wide, mut narrow) = (wide_start, narrow_start);
        for _ in 0..10 {
            both_round(&mut wide, &mut narrow);
            (wide, narrow) = (to_diagonals(wide), to_diagonals(narrow));
            both_round(&mut wide, &mut narrow);
            (wide, narrow) = (to_columns(wide), to_columns(narrow));
        }
        (
            wide_blocks(&wide_start, &wide),
            narrow_blocks(&narrow_start, &narrow),
        )
    }

    /// The sixteen blocks from this one on. `beside` is called forty times in between, to do work
    /// that the vector units are not needed for.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
    pub(super) fn sixteen(&self, block: u32, mut beside: impl FnMut()) -> [__m512i; 16] {
        let start = self.wide(block);
        let mut state = start;
        for _ in 0..10 {
            wide_round(&mut state, &mut beside);
            state = to_diagonals(state);
            wide_round(&mut state, &mut beside);
            state = to_columns(state);
        }
        wide_blocks(&start, &state)
    }

    /// The state of sixteen blocks.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
    fn wide(&self, block: u32) -> Wide {
        let rows = self.rows(block);
        let mut state = rows.map(|row| row.map(|word| _mm512_set1_epi32(word as i32)));
        let lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        state[3][0] = _mm512_add_epi32(state[3][0], lane);
        state
    }

    /// The state of eight blocks.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
    fn narrow(&self, block: u32) -> Narrow {
        let rows = self.rows(block);
        let mut state = rows.map(|row| row.map(|word| _mm256_set1_epi32(word as i32)));
        let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        state[3][0] = _mm256_add_epi32(state[3][0], lane);
        state
    }
}

/// The words of a state, as rows.
type State<V> = [[V; 4]; 4];

/// A state with a block in each of sixteen lanes.
type Wide = State<__m512i>;

/// A state with a block in each of eight lanes.
type Narrow = State<__m256i>;

/// Makes columns of the diagonals: turns each row.
#[inline]
fn to_diagonals<V>([a, b, c, d]: State<V>) -> State<V> {
    let ([b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3]) = (b, c, d);
    [a, [b1, b2, b3, b0], [c2, c3, c0, c1], [d3, d0, d1, d2]]
}

/// Turns each row back.
#[inline]
fn to_columns<V>([a, b, c, d]: State<V>) -> State<V> {
    let ([b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3]) = (b, c, d);
    [a, [b3, b0, b1, b2], [c2, c3, c0, c1], [d1, d2, d3, d0]]
}

/// The quarter round: RFC 8439, section 2.1.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn quarter(a: &mut __m512i, b: &mut __m512i, c: &mut __m512i, d: &mut __m512i) {
    *a = _mm512_add_epi32(*a, *b);
    *d = _mm512_rol_epi32::<16>(_mm512_xor_si512(*d, *a));
    *c = _mm512_add_epi32(*c, *d);
    *b = _mm512_rol_epi32::<12>(_mm512_xor_si512(*b, *c));
    *a = _mm512_add_epi32(*a, *b);
    *d = _mm512_rol_epi32::<8>(_mm512_xor_si512(*d, *a));
    *c = _mm512_add_epi32(*c, *d);
    *b = _mm512_rol_epi32::<7>(_mm512_xor_si512(*b, *c));
}

/// A quarter of a quarter round in column `i`: row `x` grows by row `y`, and row `z` becomes the
/// exclusive or of itself and row `x`, turned left by `BITS`.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn wide_step<const BITS: i32>(state: &mut Wide, [x, y, z]: [usize; 3], i: usize) {
    state[x][i] = _mm512_add_epi32(state[x][i], state[y][i]);
    let mixed = _mm512_xor_si512(state[z][i], state[x][i]);
    state[z][i] = _mm512_rol_epi32::<BITS>(mixed);
}

/// As `wide_step`, with eight lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn narrow_step<const BITS: i32>(state: &mut Narrow, [x, y, z]: [usize; 3], i: usize) {
    state[x][i] = _mm256_add_epi32(state[x][i], state[y][i]);
    let mixed = _mm256_xor_si256(state[z][i], state[x][i]);
    state[z][i] = _mm256_rol_epi32::<BITS>(mixed);
}

/// The rows of the first and third, and of the second and fourth, step of a quarter round.
const ABD: [usize; 3] = [0, 1, 3];
const CDB: [usize; 3] = [2, 3, 1];

/// Four quarter rounds with sixteen lanes. A step is done column by column, not all additions
/// first: only two of the four vector units can turn.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn wide_round(state: &mut Wide, beside: &mut impl FnMut()) {
    (0..4).for_each(|i| wide_step::<16>(state, ABD, i));
    (0..4).for_each(|i| wide_step::<12>(state, CDB, i));
    beside();
    (0..4).for_each(|i| wide_step::<8>(state, ABD, i));
    (0..4).for_each(|i| wide_step::<7>(state, CDB, i));
    beside();
}

/// Four quarter rounds with eight lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn narrow_round(state: &mut Narrow) {
    (0..4).for_each(|i| narrow_step::<16>(state, ABD, i));
    (0..4).for_each(|i| narrow_step::<12>(state, CDB, i));
    (0..4).for_each(|i| narrow_step::<8>(state, ABD, i));
    (0..4).for_each(|i| narrow_step::<7>(state, CDB, i));
}

/// A step of sixteen lanes and of eight others.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn both_step<const BITS: i32>(wide: &mut Wide, narrow: &mut Narrow, rows: [usize; 3]) {
    for i in 0..4 {
        wide_step::<BITS>(wide, rows, i);
        narrow_step::<BITS>(narrow, rows, i);
    }
}

/// Four quarter rounds with sixteen lanes and with eight others.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn both_round(wide: &mut Wide, narrow: &mut Narrow) {
    both_step::<16>(wide, narrow, ABD);
    both_step::<12>(wide, narrow, CDB);
    both_step::<8>(wide, narrow, ABD);
    both_step::<7>(wide, narrow, CDB);
}

/// The sixteen blocks of a state: the sums of its start and its end.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn wide_blocks(start: &Wide, end: &Wide) -> [__m512i; 16] {
    transpose_sixteen(from_fn(|i| {
        _mm512_add_epi32(start[i / 4][i % 4], end[i / 4][i % 4])
    }))
}

/// The eight blocks of a state: the sums of its start and its end.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn narrow_blocks(start: &Narrow, end: &Narrow) -> [__m512i; 8] {
    let word = |i: usize| _mm256_add_epi32(start[i / 4][i % 4], end[i / 4][i % 4]);
    // Words 0 to 7, each with the word eight further in the upper half.
    transpose_eight(from_fn(|i| {
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(word(i)), word(i + 8))
    }))
}

/// Four vectors of four 128-bit lanes, transposed: lane j of vector i becomes lane i of vector j.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn transpose_lanes([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let ab_even = _mm512_shuffle_i32x4::<0x88>(a, b);
    let ab_odd = _mm512_shuffle_i32x4::<0xdd>(a, b);
    let cd_even = _mm512_shuffle_i32x4::<0x88>(c, d);
    let cd_odd = _mm512_shuffle_i32x4::<0xdd>(c, d);
    [
        _mm512_shuffle_i32x4::<0x88>(ab_even, cd_even),
        _mm512_shuffle_i32x4::<0x88>(ab_odd, cd_odd),
        _mm512_shuffle_i32x4::<0xdd>(ab_even, cd_even),
        _mm512_shuffle_i32x4::<0xdd>(ab_odd, cd_odd),
    ]
}

/// Four vectors, with the 32-bit words of each 128-bit lane transposed: word j of vector i becomes
/// word i of vector j.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn transpose_words([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let ab_low = _mm512_unpacklo_epi32(a, b);
    let ab_high = _mm512_unpackhi_epi32(a, b);
    let cd_low = _mm512_unpacklo_epi32(c, d);
    let cd_high = _mm512_unpackhi_epi32(c, d);
    [
        _mm512_unpacklo_epi64(ab_low, cd_low),
        _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// Sixteen words of sixteen blocks, as sixteen blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn transpose_sixteen(words: [__m512i; 16]) -> [__m512i; 16] {
    let (rows, _) = words.as_chunks::<4>();
    // Vector i of row r has words 4r to 4r+3 of blocks i, i+4, i+8 and i+12.
    let rows: [[__m512i; 4]; 4] = from_fn(|row| transpose_words(rows[row]));
    let blocks: [[__m512i; 4]; 4] = from_fn(|i| transpose_lanes(from_fn(|row| rows[row][i])));
    from_fn(|block| blocks[block % 4][block / 4])
}

/// Words 0 to 7 of eight blocks, with words 8 to 15 in the upper halves, as eight blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512ifma,bmi2")]
fn transpose_eight(pairs: [__m512i; 8]) -> [__m512i; 8] {
    let (rows, _) = pairs.as_chunks::<4>();
    // Vector i has words of block i, of block i+4, and their words eight further.
    let first = transpose_words(rows[0]);
    let second = transpose_words(rows[1]);
    let even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    let odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    from_fn(|block| {
        let lanes = if block < 4 { even } else { odd };
        _mm512_permutex2var_epi64(first[block % 4], lanes, second[block % 4])
    })
}
