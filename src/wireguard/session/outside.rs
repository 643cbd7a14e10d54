//! What a session asks the machine for: the wall clock, how long it has slept, random bytes.
#![allow(unsafe_code)]

use std::io;
use std::time::{Duration, SystemTime};

use super::super::noise::{Secret, blank};

/// "Some random value between 0 and 333 ms" is added to each retry (section 6.4).
pub(super) const MOST_JITTER: Duration = Duration::from_millis(333);

/// The wall clock.
#[cfg(not(feature = "netns"))]
pub(super) fn clock() -> SystemTime {
    SystemTime::now()
}

/// The wall clock, set forward or back by as many seconds as stand in the file that a variable names.
#[cfg(feature = "netns")]
pub(super) fn clock() -> SystemTime {
    let now = SystemTime::now();
    let read = |path| std::fs::read_to_string(path).ok()?.trim().parse().ok();
    let seconds: i64 = std::env::var_os("NETNS_CLOCK").and_then(read).unwrap_or(0);
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { now - by } else { now + by }
}

/// How long the machine has slept since it started: a boot-time clock counts that, the one of
/// `std::time::Instant` does not.
pub(super) fn asleep() -> Duration {
    read(libc::CLOCK_BOOTTIME).saturating_sub(read(libc::CLOCK_MONOTONIC))
}

/// A clock, by the C library: it reads one without a system call, which rustix does for some only, and this happens
/// after each wait.
fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one `timespec`, which is ours.
    let done = unsafe { libc::clock_gettime(clock, &raw mut time) };
    let (secs, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    match (done, secs, nanos) {
        (0, Ok(secs), Ok(nanos)) => Duration::new(secs, nanos),
        // These clocks exist on each Linux; without them nothing has slept.
        _ => Duration::ZERO,
    }
}

/// Random bytes.
///
/// # Errors
/// The kernel gives none.
pub(in crate::wireguard) fn random<const LEN: usize>() -> io::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    let flags = rustix::rand::GetRandomFlags::empty();
    // The kernel gives up to 256 bytes whole (getrandom(2)).
    rustix::rand::getrandom(&mut bytes, flags)?;
    Ok(bytes)
}

/// A key nobody else knows; `None`: the kernel gives no random bytes.
pub(super) fn new_key() -> Option<Secret> {
    let mut key = blank();
    let flags = rustix::rand::GetRandomFlags::empty();
    rustix::rand::getrandom(&mut key[..], flags).ok()?;
    Some(key)
}

/// By how much the next retry comes later.
pub(super) fn jitter() -> Duration {
    // Without random bytes there is no jitter.
    let random = random().map_or(0, u16::from_le_bytes);
    MOST_JITTER.mul_f64(f64::from(random) / f64::from(u16::MAX))
}
