//! Key material that is wiped on drop and never printed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A 32-byte key: private, or preshared.
///
/// `Debug` prints no byte of it. It serialises for one purpose, the socket between warden and engine.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
pub struct Secret([u8; 32]);

impl Secret {
    /// No key: what stands where a configuration has none to give.
    pub(super) const NONE: Self = Self([0; 32]);

    /// Wraps a key.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the code that computes with them.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads the base64 form of wg(8): 44 characters.
    pub fn from_base64(text: &str) -> Option<Self> {
        decode(text).map(|bytes| Self(*bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A peer's public key (Curve25519). Not a secret; printed in base64 as wg(8) does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Reads the base64 form of wg(8): 44 characters.
    pub fn from_base64(text: &str) -> Option<Self> {
        decode(text).map(|bytes| Self(*bytes))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn decode(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    Some(Zeroizing::new(bytes.as_slice().try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";

    #[test]
    fn a_key_is_44_characters_of_base64() {
        assert_eq!(PublicKey::from_base64(TEXT).unwrap().to_string(), TEXT);
        for bad in ["", "AQID", &TEXT[1..], "not base64 at all!"] {
            assert!(Secret::from_base64(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_secret_never_prints_itself() {
        let secret = Secret::from_base64(TEXT).unwrap();
        assert_eq!(format!("{secret:?}"), "(secret)");
    }
}
