//! The two messages of a handshake, written and read.

use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};

use crate::config;

use super::symmetric::{Secret, Symmetric, blank};
use super::{INITIATION, KEY, RESPONSE, TIMESTAMP, kind};

/// Who we are and whom we talk to.
pub(in crate::wireguard) struct Identity {
    private: StaticSecret,
    public: PublicKey,
    peer: PublicKey,
    /// The Diffie-Hellman of the two, which each handshake needs.
    shared: SharedSecret,
    preshared: Secret,
}

/// An initiation that was sent.
pub(in crate::wireguard) struct Pending {
    symmetric: Symmetric,
    ephemeral: Secret,
}

/// An initiation that our peer has sent.
pub(in crate::wireguard) struct Initiation {
    symmetric: Symmetric,
    ephemeral: PublicKey,
    /// The index that messages to the peer carry.
    pub(in crate::wireguard) index: u32,
    /// Each initiation of a peer has a greater one: none is taken twice (section 5.1).
    pub(in crate::wireguard) timestamp: [u8; TIMESTAMP],
}

/// What a handshake leads to.
pub(in crate::wireguard) struct Keys {
    pub(in crate::wireguard) send: Secret,
    pub(in crate::wireguard) receive: Secret,
    /// The index that messages to the peer carry.
    pub(in crate::wireguard) index: u32,
}

impl Identity {
    pub(in crate::wireguard) fn new(
        private: &config::Secret,
        peer: config::PublicKey,
        preshared: Option<&config::Secret>,
    ) -> Self {
        let private = StaticSecret::from(*private.expose());
        let peer = PublicKey::from(peer.0);
        // Without one it is all zero (section 5.4).
        let mut shared = blank();
        if let Some(key) = preshared {
            shared.copy_from_slice(key.expose());
        }
        Self {
            public: PublicKey::from(&private),
            shared: private.diffie_hellman(&peer),
            private,
            peer,
            preshared: shared,
        }
    }

    /// Our public key.
    pub(in crate::wireguard) fn public(&self) -> &[u8; KEY] {
        self.public.as_bytes()
    }

    /// The peer's public key.
    pub(in crate::wireguard) fn peer(&self) -> &[u8; KEY] {
        self.peer.as_bytes()
    }

    /// Writes an initiation up to its codes (section 5.4.2). `index` is what answers to it carry, `random` 32
    /// bytes nobody else knows.
    pub(in crate::wireguard) fn initiate(
        &self,
        index: u32,
        timestamp: &[u8; TIMESTAMP],
        random: Secret,
        message: &mut [u8; INITIATION],
    ) -> Option<Pending> {
        let ephemeral = StaticSecret::from(**random);
        let public = PublicKey::from(&ephemeral);
        let mut symmetric = Symmetric::new(self.peer.as_bytes());
        symmetric.mix_ephemeral(public.as_bytes());
        let secret = exchange(&ephemeral, &self.peer)?;
        let key = symmetric.mix_key_for_sealing(secret.as_bytes());
        symmetric.seal(&key, self.public.as_bytes(), &mut message[40..88]);
        let key = symmetric.mix_key_for_sealing(self.shared()?);
        symmetric.seal(&key, timestamp, &mut message[88..116]);
        message[..4].copy_from_slice(&kind::INITIATION);
        message[4..8].copy_from_slice(&index.to_le_bytes());
        message[8..40].copy_from_slice(public.as_bytes());
        Some(Pending {
            symmetric,
            ephemeral: random,
        })
    }

    /// Reads an initiation. `None`: it is not our peer's.
    pub(in crate::wireguard) fn read(&self, message: &[u8; INITIATION]) -> Option<Initiation> {
        let ephemeral = key(&message[8..40]);
        let mut symmetric = Symmetric::new(self.public.as_bytes());
        symmetric.mix_ephemeral(ephemeral.as_bytes());
        let secret = exchange(&self.private, &ephemeral)?;
        let sealing = symmetric.mix_key_for_sealing(secret.as_bytes());
        let peer: [u8; KEY] = symmetric.open(&sealing, &message[40..88])?;
        if peer != *self.peer.as_bytes() {
            return None;
        }
        let sealing = symmetric.mix_key_for_sealing(self.shared()?);
        let timestamp = symmetric.open(&sealing, &message[88..116])?;
        Some(Initiation {
            symmetric,
            ephemeral,
            index: number(&message[4..8]),
            timestamp,
        })
    }

    /// Writes the response to an initiation up to its codes (section 5.4.3).
    pub(in crate::wireguard) fn respond(
        &self,
        initiation: Initiation,
        index: u32,
        random: &Secret,
        message: &mut [u8; RESPONSE],
    ) -> Option<Keys> {
        let ephemeral = StaticSecret::from(***random);
        let public = PublicKey::from(&ephemeral);
        let mut symmetric = initiation.symmetric;
        symmetric.mix_ephemeral(public.as_bytes());
        symmetric.mix_key(exchange(&ephemeral, &initiation.ephemeral)?.as_bytes());
        symmetric.mix_key(exchange(&ephemeral, &self.peer)?.as_bytes());
        let sealing = symmetric.mix_preshared_key(&self.preshared);
        symmetric.seal(&sealing, &[], &mut message[44..60]);
        message[..4].copy_from_slice(&kind::RESPONSE);
        message[4..8].copy_from_slice(&index.to_le_bytes());
        message[8..12].copy_from_slice(&initiation.index.to_le_bytes());
        message[12..44].copy_from_slice(public.as_bytes());
        let (receive, send) = symmetric.split();
        Some(Keys {
            send,
            receive,
            index: initiation.index,
        })
    }

    /// Reads the response to our initiation. `None`: it is not our peer's.
    pub(in crate::wireguard) fn finish(
        &self,
        pending: &Pending,
        message: &[u8; RESPONSE],
    ) -> Option<Keys> {
        let ephemeral = key(&message[12..44]);
        // A forged response leaves what is pending as it was.
        let mut symmetric = pending.symmetric.clone();
        symmetric.mix_ephemeral(ephemeral.as_bytes());
        let own = StaticSecret::from(**pending.ephemeral);
        symmetric.mix_key(exchange(&own, &ephemeral)?.as_bytes());
        symmetric.mix_key(exchange(&self.private, &ephemeral)?.as_bytes());
        let sealing = symmetric.mix_preshared_key(&self.preshared);
        let []: [u8; 0] = symmetric.open(&sealing, &message[44..60])?;
        let (send, receive) = symmetric.split();
        Some(Keys {
            send,
            receive,
            index: number(&message[4..8]),
        })
    }

    fn shared(&self) -> Option<&[u8]> {
        let known = self.shared.was_contributory();
        known.then(|| self.shared.as_bytes().as_slice())
    }
}

/// `None`: the public key is one of the few with which the result is zero for everybody (RFC 7748, section 6.1).
pub(super) fn exchange(private: &StaticSecret, public: &PublicKey) -> Option<SharedSecret> {
    let shared = private.diffie_hellman(public);
    shared.was_contributory().then_some(shared)
}

pub(super) fn key(bytes: &[u8]) -> PublicKey {
    let mut key = [0; KEY];
    key.copy_from_slice(bytes);
    PublicKey::from(key)
}

fn number(bytes: &[u8]) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(bytes);
    u32::from_le_bytes(number)
}
