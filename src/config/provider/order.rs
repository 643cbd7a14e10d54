//! In which order servers are tried.

/// In which order servers are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By chance, anew at each start.
    Random,
    /// That of the list.
    Ordered,
}

impl Order {
    /// As it is written.
    pub(in crate::config) fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Ordered => "ordered",
        }
    }
}

/// Puts items into an order that the seed alone decides (Fisher and Yates; Knuth, 3.4.2, algorithm P).
pub(super) fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        // The bias of a remainder is below one in 2^40 for lists of this length.
        let other = next(&mut state) % (last as u64 + 1);
        items.swap(last, other as usize);
    }
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_paper() {
        // The first outputs for the seed 1234567, as in the reference implementation's test vectors.
        let mut state = 1_234_567;
        let first: Vec<_> = (0..3).map(|_| next(&mut state)).collect();
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn a_seed_decides_the_order_and_nothing_is_lost() {
        let shuffled = |seed| {
            let mut items: Vec<u32> = (0..100).collect();
            shuffle(&mut items, seed);
            items
        };
        assert_eq!(shuffled(7), shuffled(7));
        assert_ne!(shuffled(7), shuffled(8));
        let mut sorted = shuffled(7);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        shuffle::<u32>(&mut [], 7);
    }

    #[test]
    fn each_comes_first_about_as_often() {
        let mut first = [0u32; 8];
        for seed in 0..8_000 {
            let mut items: Vec<usize> = (0..8).collect();
            shuffle(&mut items, seed);
            first[items[0]] += 1;
        }
        assert!(first.iter().all(|n| (800..1200).contains(n)), "{first:?}");
    }
}
