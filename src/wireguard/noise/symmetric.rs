//! The state both sides of a handshake carry along: a chaining key and a hash of all that was said.

use blake2::digest::{Digest, FixedOutput, Mac};
use hmac::SimpleHmac;
use zeroize::Zeroizing;

use super::super::aead::{TAG, portable};
use super::KEY;

pub(super) const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
pub(super) const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// Each key of a handshake seals once.
const NONCE: u64 = 0;

/// A key, in one place until it is wiped: what is moved is the pointer to it.
pub(in crate::wireguard) type Secret = Box<Zeroizing<[u8; KEY]>>;

/// A key of zeros, to be filled in.
pub(in crate::wireguard) fn blank() -> Secret {
    Box::new(Zeroizing::new([0; KEY]))
}

/// HASH of the parts, one after the other: BLAKE2s with 32 bytes (section 5.4).
pub(super) fn hash(parts: [&[u8]; 2]) -> [u8; KEY] {
    let mut hash = blake2::Blake2s256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

fn hmac(key: &[u8; KEY], parts: [&[u8]; 2]) -> Secret {
    let mut hmac = <SimpleHmac<blake2::Blake2s256> as Mac>::new_from_slice(key)
        .expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| hmac.update(part));
    let mut secret = blank();
    hmac.finalize_into((&mut **secret).into());
    secret
}

/// Chaining key and transcript hash.
#[derive(Clone)]
pub(super) struct Symmetric {
    chain: Secret,
    hash: [u8; KEY],
}

impl Symmetric {
    /// What both know before the first message: the responder's public key.
    pub(super) fn new(responder: &[u8; KEY]) -> Self {
        let mut chain = blank();
        **chain = hash([CONSTRUCTION, &[]]);
        let hash = hash([&**chain, IDENTIFIER]);
        let mut state = Self { chain, hash };
        state.mix_hash(responder);
        state
    }

    pub(super) fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash([&self.hash, data]);
    }

    /// Mixes an ephemeral public key, which is sent in the clear.
    pub(super) fn mix_ephemeral(&mut self, public: &[u8; KEY]) {
        self.mix_hash(public);
        self.mix_key(public);
    }

    /// KDF1.
    pub(super) fn mix_key(&mut self, input: &[u8]) {
        let [chain, ..] = self.derive(input);
        self.chain = chain;
    }

    /// KDF2: a key to seal the next part with.
    pub(super) fn mix_key_for_sealing(&mut self, input: &[u8]) -> Secret {
        let [chain, key, _] = self.derive(input);
        self.chain = chain;
        key
    }

    /// KDF3 with the key both share: a key to seal the next part with.
    pub(super) fn mix_preshared_key(&mut self, preshared: &[u8; KEY]) -> Secret {
        let [chain, temporary, key] = self.derive(preshared);
        self.chain = chain;
        self.mix_hash(&**temporary);
        key
    }

    /// The keys of the two directions, the initiator's first (section 5.4.5).
    pub(super) fn split(&self) -> (Secret, Secret) {
        let [first, second, _] = self.derive(&[]);
        (first, second)
    }

    /// Seals `plain` into `sealed`, which is 16 bytes longer, and mixes the result.
    pub(super) fn seal(&mut self, key: &Secret, plain: &[u8], sealed: &mut [u8]) {
        portable::seal(key, NONCE, &self.hash, plain, sealed);
        self.mix_hash(sealed);
    }

    /// Opens what was sealed, and mixes it. `None`: it was not sealed by one who knows the key, and the state
    /// is of no use any more.
    pub(super) fn open<const LEN: usize>(
        &mut self,
        key: &Secret,
        sealed: &[u8],
    ) -> Option<[u8; LEN]> {
        let (text, tag) = sealed.split_last_chunk::<TAG>()?;
        let mut plain = [0; LEN];
        let genuine =
            text.len() == LEN && portable::open(key, NONCE, &self.hash, text, tag, &mut plain);
        if !genuine {
            return None;
        }
        self.mix_hash(sealed);
        Some(plain)
    }

    /// HKDF with HMAC-BLAKE2s, up to three keys (section 5.4).
    fn derive(&self, input: &[u8]) -> [Secret; 3] {
        let secret = hmac(&self.chain, [input, &[]]);
        let first = hmac(&secret, [&[1], &[]]);
        let second = hmac(&secret, [&**first, &[2]]);
        let third = hmac(&secret, [&**second, &[3]]);
        [first, second, third]
    }
}
