//! The handshake of WireGuard, `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` (paper, section 5.4,
//! <https://www.wireguard.com/papers/wireguard.pdf>; the Noise framework, revision 34,
//! <https://noiseprotocol.org/noise.html>), and the two codes that each of its messages ends with.
//!
//! Values in, values out: keys, random bytes and time are the caller's. What is kept of secrets stands in
//! boxes that are wiped; of what the libraries compute with meanwhile only the curve's is.

mod handshake;
mod macs;
mod symmetric;

pub(super) use handshake::{Identity, Keys, Pending};
pub(super) use macs::Macs;
pub(super) use symmetric::{Secret, blank};

/// Bytes of an initiation (section 5.4.2).
pub(super) const INITIATION: usize = 148;
/// Bytes of a response (section 5.4.3).
pub(super) const RESPONSE: usize = 92;
/// Bytes of a cookie reply (section 5.4.7).
pub(super) const COOKIE_REPLY: usize = 64;

/// The first four bytes of each kind of message, a little-endian number.
pub(super) mod kind {
    pub(in crate::wireguard) const INITIATION: [u8; 4] = [1, 0, 0, 0];
    pub(in crate::wireguard) const RESPONSE: [u8; 4] = [2, 0, 0, 0];
    pub(in crate::wireguard) const COOKIE_REPLY: [u8; 4] = [3, 0, 0, 0];
    pub(in crate::wireguard) const DATA: [u8; 4] = [4, 0, 0, 0];
}

/// Bytes of a key or a hash.
pub(super) const KEY: usize = 32;
/// Bytes of a TAI64N timestamp.
pub(super) const TIMESTAMP: usize = 12;

#[cfg(test)]
mod tests;
