//! Sixteen bytes that occur nowhere but in one probe, so that a sensor recognises it in clear text.

use std::io::BufRead;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A token: eight bytes shared by all, eight of its own, of which the first two count.
pub type Canary = [u8; 16];

/// What tells a packet apart that has no room for a token: protocol, source port, destination, destination
/// port. For a membership report (IGMP, MLD) the destination is the group.
pub type Flow = (u8, u16, IpAddr, u16);

const PREFIX: [u8; 8] = [0xf1, b'v', b'p', b'n', b'g', b'w', 0xca, 0x17];

/// A token that was never used before.
pub fn fresh() -> Canary {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let count = NEXT.fetch_add(1, Ordering::Relaxed) << 48;
    let own = (nanos.as_nanos() as u64) & (u64::MAX >> 16) | count;
    let mut token = [0; 16];
    token[..8].copy_from_slice(&PREFIX);
    token[8..].copy_from_slice(&own.to_be_bytes());
    token
}

/// The tokens in some bytes.
pub fn find(bytes: &[u8]) -> Vec<Canary> {
    let mut found = Vec::new();
    let mut rest = bytes;
    // `skip_until` is a fast search even in a build without optimisation.
    while rest.skip_until(PREFIX[0]).is_ok_and(|n| n > 0) {
        if rest.len() >= 15 && rest[..7] == PREFIX[1..] {
            let mut token = [PREFIX[0]; 16];
            token[1..].copy_from_slice(&rest[..15]);
            found.push(token);
        }
    }
    found
}

#[test]
fn a_canary_is_found_wherever_it_stands() {
    let (a, b) = (fresh(), fresh());
    assert_ne!(a, b);
    let mut bytes = vec![PREFIX[0]; 3];
    bytes.extend(a);
    bytes.extend([0; 5]);
    bytes.extend(b);
    assert_eq!(find(&bytes), [a, b]);
    assert_eq!(find(&bytes[..bytes.len() - 1]), [a]);
}
