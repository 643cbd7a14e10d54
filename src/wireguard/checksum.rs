//! The Internet checksum (RFC 1071).

/// A one's complement sum of 16-bit words, in the machine's byte order: the sum does not depend on the
/// order as long as it is read as it was written (RFC 1071, section 2 B).
#[derive(Clone, Copy, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds bytes that begin at an even offset of what is summed.
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        // Eight lanes of 32 bits, which compilers turn into vector instructions.
        let mut lanes = [0_u64; 8];
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let mut sum = lanes.iter().fold(self.0, |sum, lane| sum + lane);
        let (pairs, last) = rest.as_chunks::<2>();
        for pair in pairs {
            sum += u64::from(u16::from_ne_bytes(*pair));
        }
        if let [byte] = last {
            sum += u64::from(u16::from_ne_bytes([*byte, 0]));
        }
        Self(sum)
    }

    /// Adds one number of the header.
    pub(super) fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word.to_be()))
    }

    /// The sum as the two bytes of the header, not complemented: what `VIRTIO_NET_HDR_F_NEEDS_CSUM`
    /// expects in the place of the checksum.
    pub(super) fn partial(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        // Two folds leave no more than 16 bits.
        (sum as u16).to_ne_bytes()
    }

    /// The checksum as the two bytes of the header.
    pub(super) fn finish(self) -> [u8; 2] {
        let [a, b] = self.partial();
        [!a, !b]
    }

    /// Whether bytes that hold their own checksum are intact.
    pub(super) fn is_intact(self) -> bool {
        self.partial() == [0xff, 0xff]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::packets::checksum;
    use super::*;

    #[test]
    fn the_example_of_the_rfc_sums_up() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().bytes(&bytes).partial(), [0xdd, 0xf2]);
    }

    proptest! {
        #[test]
        fn a_checksum_is_that_of_the_plain_algorithm(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let sum = Sum::default().bytes(&bytes).finish();
            prop_assert_eq!(u16::from_be_bytes(sum), checksum(&bytes));
        }

        #[test]
        fn a_sum_of_parts_is_the_sum_of_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..150_usize, word: u16) {
            let at = (2 * at).min(bytes.len() & !1);
            let parts = Sum::default().bytes(&bytes[..at]).word(word).bytes(&bytes[at..]);
            let mut whole = word.to_be_bytes().to_vec();
            whole.extend(&bytes);
            prop_assert_eq!(u16::from_be_bytes(parts.finish()), checksum(&whole));
        }
    }
}
