//! The two codes at the end of each message of a handshake (section 5.4.4): the first shows that the sender
//! knows the receiver's public key, the second that it owns its address, once a receiver under load has asked
//! for that with a cookie (section 5.4.7).

use std::time::{Duration, Instant};

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, Mac};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use zeroize::Zeroizing;

use super::super::aead::TAG;
use super::symmetric::hash;
use super::{COOKIE_REPLY, KEY};

/// Bytes of a code, and of a cookie.
const CODE: usize = 16;

/// How long a cookie is used: it is good for 120 s (section 5.4.7), the way to the peer included
/// (`COOKIE_SECRET_LATENCY`, drivers/net/wireguard/messages.h).
const COOKIE_LIFE: Duration = Duration::from_secs(115);

/// Signs our messages.
pub(in crate::wireguard) struct Macs {
    first: [u8; KEY],
    cookies: [u8; KEY],
    /// The first code of the last message, to which a cookie is bound.
    sent: Option<[u8; CODE]>,
    cookie: Option<(Instant, Zeroizing<[u8; CODE]>)>,
}

impl Macs {
    /// For messages to the owner of this public key.
    pub(in crate::wireguard) fn new(peer: &[u8; KEY]) -> Self {
        Self {
            first: hash([b"mac1----", peer]),
            cookies: hash([b"cookie--", peer]),
            sent: None,
            cookie: None,
        }
    }

    /// Writes both codes, the last 32 bytes of a message.
    pub(in crate::wireguard) fn sign(&mut self, now: Instant, message: &mut [u8]) {
        let Some((signed, second)) = message.split_last_chunk_mut::<CODE>() else {
            return;
        };
        let Some((text, first)) = signed.split_last_chunk_mut::<CODE>() else {
            return;
        };
        *first = code(&self.first, text);
        self.sent = Some(*first);
        let cookie = self.cookie.as_ref();
        *second = match cookie.filter(|(since, _)| now < *since + COOKIE_LIFE) {
            Some((_, cookie)) => code(&**cookie, signed),
            None => [0; CODE],
        };
    }

    /// Takes a cookie. False: it is not an answer of our peer to the last message.
    pub(in crate::wireguard) fn take_cookie(
        &mut self,
        now: Instant,
        message: &[u8; COOKIE_REPLY],
    ) -> bool {
        let Some(sent) = self.sent else {
            return false;
        };
        let mut cookie = [0; CODE];
        cookie.copy_from_slice(&message[32..32 + CODE]);
        let cipher = XChaCha20Poly1305::new(&self.cookies.into());
        let (nonce, tag) = (&message[8..32], &message[COOKIE_REPLY - TAG..]);
        let opened = cipher.decrypt_in_place_detached(nonce.into(), &sent, &mut cookie, tag.into());
        if opened.is_ok() {
            self.sent = None;
            self.cookie = Some((now, Zeroizing::new(cookie)));
        }
        opened.is_ok()
    }
}

/// MAC: keyed BLAKE2s with 16 bytes (section 5.4).
fn code(key: &[u8], text: &[u8]) -> [u8; CODE] {
    let mut mac = <Blake2sMac<U16> as Mac>::new_from_slice(key)
        .expect("BLAKE2s takes keys of up to 32 bytes");
    mac.update(text);
    mac.finalize_fixed().into()
}
