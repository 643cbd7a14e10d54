//! Why a server does not answer, as far as that can be told from here. Pure.

use std::time::{Duration, SystemTime};

/// So long a server may take before a person is told what is likely: a handshake has had three tries by then.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// This program is younger than any clock that is right: 2026-01-01, in seconds since 1970.
const YOUNGER: u64 = 1_767_225_600;

/// What was seen of a server that does not answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    /// How long it has been asked.
    pub(super) waited: Duration,
    /// What came from it, and was no valid message.
    pub(super) rejected: u64,
    /// The wall clock.
    pub(super) clock: SystemTime,
}

/// What is likely; `None` while it is too early to tell.
pub(super) fn diagnosis(silence: Silence) -> Option<String> {
    let Silence {
        waited,
        rejected,
        clock,
    } = silence;
    if waited < PATIENCE {
        return None;
    }
    let seconds = waited.as_secs();
    let age = clock
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Some(if age.as_secs() < YOUNGER {
        format!(
            "no answer for {seconds} s, and the clock of this machine is years behind: a server takes no handshake that is \
             older than the last one, so set the clock"
        )
    } else if rejected > 0 {
        format!(
            "the server answers, and its answers do not fit our keys, for {seconds} s: compare PresharedKey and PublicKey \
             with the provider's file"
        )
    } else {
        format!(
            "no answer for {seconds} s: mostly a key is wrong (PrivateKey, or the server's PublicKey), since a server is \
             silent to keys that it does not know; else UDP to its port is blocked on the way, or the same key is in use \
             elsewhere"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence(waited: u64, rejected: u64, clock: u64) -> Silence {
        Silence {
            waited: Duration::from_secs(waited),
            rejected,
            clock: SystemTime::UNIX_EPOCH + Duration::from_secs(clock),
        }
    }

    #[test]
    fn a_person_hears_what_is_likely_once_it_can_be_told() {
        let now = YOUNGER + 1;
        assert_eq!(diagnosis(silence(14, 3, now)), None);
        insta::assert_snapshot!(
            diagnosis(silence(15, 0, now)).unwrap(),
            @"no answer for 15 s: mostly a key is wrong (PrivateKey, or the server's PublicKey), since a server is silent to keys that it does not know; else UDP to its port is blocked on the way, or the same key is in use elsewhere"
        );
        insta::assert_snapshot!(
            diagnosis(silence(20, 4, now)).unwrap(),
            @"the server answers, and its answers do not fit our keys, for 20 s: compare PresharedKey and PublicKey with the provider's file"
        );
        insta::assert_snapshot!(
            diagnosis(silence(20, 0, 86_400)).unwrap(),
            @"no answer for 20 s, and the clock of this machine is years behind: a server takes no handshake that is older than the last one, so set the clock"
        );
    }
}
