//! The AEAD of WireGuard's data packets: ChaCha20-Poly1305 (RFC 8439) out of place, so that what
//! was read from one buffer is sealed into the next without a copy in between.
//!
//! A packet is short: the cost of a start counts for as much as the cost of a byte. `chacha` makes
//! 4, 8 or 16 blocks of key stream at once, `poly` authenticates on the integer units while they
//! are made, `lanes` authenticates what is left eight blocks at a time, and `avx512` puts the three
//! together. A CPU without these instructions gets ring.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod chacha;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod poly;
pub(in crate::wireguard) mod portable;
#[cfg(test)]
mod tests;

use zeroize::Zeroizing;

/// Bytes of the tag that follows the ciphertext: RFC 8439, section 2.8.
pub(in crate::wireguard) const TAG: usize = 16;

/// What one packet may be padded by at most: the WireGuard paper, section 5.4.6, pads to a multiple
/// of 16 bytes.
pub(in crate::wireguard) const PADDING: usize = 15;

/// A key of one direction of a WireGuard session. It stands in one place, wherever this moves to, and is wiped
/// there when it is dropped.
pub(in crate::wireguard) struct Key {
    bytes: Box<Zeroizing<[u8; 32]>>,
    engine: Engine,
}

/// Who does the work.
#[derive(Clone, Copy)]
enum Engine {
    /// The functions of `avx512`. Made only where the CPU has what they need.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    Ring,
}

impl Engine {
    fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if avx512::available() {
            return Self::Avx512;
        }
        Self::Ring
    }
}

impl Key {
    /// Takes a key, and the fastest way this CPU has to use it.
    pub(in crate::wireguard) fn new(bytes: &[u8; 32]) -> Self {
        let mut own = Box::new(Zeroizing::new([0; 32]));
        own.copy_from_slice(bytes);
        Self {
            bytes: own,
            engine: Engine::detect(),
        }
    }

    /// Seals a packet: ciphertext and tag of RFC 8439, section 2.8, without additional data and
    /// with the nonce of the WireGuard paper, section 5.4.6: four zero bytes, then the counter in
    /// little endian. `plain` is taken as if zeros followed up to `padded` bytes.
    ///
    /// # Panics
    /// If `padded` is shorter than `plain` or more than 15 bytes longer, or if `dst` is not
    /// `padded` + 16 bytes long.
    pub(in crate::wireguard) fn seal(
        &self,
        counter: u64,
        plain: &[u8],
        padded: usize,
        dst: &mut [u8],
    ) {
        assert!(plain.len() <= padded && padded - plain.len() <= PADDING);
        assert_eq!(dst.len(), padded + TAG);
        match self.engine {
            #[cfg(target_arch = "x86_64")]
            Engine::Avx512 => avx512::seal(&self.bytes, counter, plain, dst),
            Engine::Ring => portable::seal(&self.bytes, counter, &[], plain, dst),
        }
    }

    /// Opens what `seal` made, ciphertext and tag, and says how many bytes it wrote to the front
    /// of `dst`. With a wrong tag it is `None`, and those bytes are zeros.
    ///
    /// # Panics
    /// If `dst` has no room for the ciphertext.
    pub(in crate::wireguard) fn open(
        &self,
        counter: u64,
        sealed: &[u8],
        dst: &mut [u8],
    ) -> Option<usize> {
        let (cipher, tag) = sealed.split_last_chunk::<TAG>()?;
        let dst = &mut dst[..cipher.len()];
        let genuine = match self.engine {
            #[cfg(target_arch = "x86_64")]
            Engine::Avx512 => avx512::open(&self.bytes, counter, cipher, tag, dst),
            Engine::Ring => portable::open(&self.bytes, counter, &[], cipher, tag, dst),
        };
        if !genuine {
            dst.fill(0);
            return None;
        }
        Some(dst.len())
    }
}
