//! Descriptors as tokio waits for them. The one place in `sys` that knows of tokio: registering a
//! descriptor is a promise about the kernel's object behind it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use tokio::io::unix::AsyncFd;

use super::capture::Capture;
use super::nflog::Nflog;
use super::watch::Watch;

/// Waits for a descriptor we own, to be read and written. It must be non-blocking. Inside a tokio runtime.
///
/// # Errors
/// Where the kernel does not poll this kind of descriptor.
pub fn owned(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd)
}

/// Waits for changes. Inside a tokio runtime.
///
/// # Errors
/// Where the process has no descriptors left.
pub fn watch(watch: Watch) -> io::Result<AsyncFd<Watch>> {
    register(watch)
}

/// Waits for frames. Inside a tokio runtime.
///
/// # Errors
/// Where the process has no descriptors left.
pub fn capture(capture: Capture) -> io::Result<AsyncFd<Capture>> {
    register(capture)
}

/// Waits for logged packets. Inside a tokio runtime.
///
/// # Errors
/// Where the process has no descriptors left.
pub fn nflog(nflog: Nflog) -> io::Result<AsyncFd<Nflog>> {
    register(nflog)
}

/// Not public: `T` is one of the types above.
#[expect(
    unsafe_code,
    reason = "tokio cannot check that the descriptor stays the same"
)]
fn register<T: AsRawFd>(fd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: `OwnedFd`, and the socket inside a `Watch`, a `Capture` or an `Nflog`, own one open descriptor from birth to drop,
    // and give its number and no other.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
