//! Signals as values that are read from a descriptor, in a process with one thread.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, kill_process};

/// Signals that are held back until they are read. A child made by [`fork`] reads its own from the same descriptor.
pub(super) struct Signals {
    descriptor: OwnedFd,
    /// What was held back before.
    before: libc::sigset_t,
}

impl Signals {
    /// Holds these back from now on.
    ///
    /// # Errors
    /// Where the kernel has no descriptor left.
    pub(super) fn hold(signals: &[Signal]) -> io::Result<Self> {
        // Whoever started us may have it ignored, and then no child is ever waited for (sigaction(2)).
        reset(Signal::CHILD);
        let set = set(signals);
        let before = mask(libc::SIG_BLOCK, &set)?;
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        #[expect(unsafe_code, reason = "rustix has no signalfd")]
        // SAFETY: `set` lives until the call returns, and the descriptor that it returns is nobody else's.
        let descriptor = unsafe {
            let raw = libc::signalfd(-1, &raw const set, flags);
            if raw < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(raw)
        };
        Ok(Self { descriptor, before })
    }

    /// The next signal that came; `None` when there is none, or none that has a name.
    pub(super) fn next(&self) -> Option<Signal> {
        // `struct signalfd_siginfo` has 128 bytes, and begins with the number (signalfd(2)).
        let mut info = [0; 128];
        let length = rustix::io::read(&self.descriptor, &mut info).ok()?;
        let number = info.first_chunk().filter(|_| length == info.len())?;
        Signal::from_named_raw(i32::from_ne_bytes(*number))
    }

    /// Holds back again what was held back before: for a program that follows.
    ///
    /// # Errors
    /// None that is known.
    pub(super) fn let_go(&self) -> io::Result<()> {
        mask(libc::SIG_SETMASK, &self.before).map(drop)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Makes a child; `None` in it.
///
/// # Errors
/// Where there may be no more processes.
pub(super) fn fork() -> io::Result<Option<Pid>> {
    #[expect(unsafe_code, reason = "std only starts other programs")]
    // SAFETY: callers have one thread, so the child finds no lock taken, and may do whatever its parent may.
    let number = unsafe { libc::fork() };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(number))
}

/// Ends this process as `signal` ends one that does nothing about it. Returns where it ends none.
pub(super) fn die_of(signal: Signal) {
    reset(signal);
    let _ = mask(libc::SIG_UNBLOCK, &set(&[signal]));
    let _ = kill_process(getpid(), signal);
}

/// Does by default what it does.
fn reset(signal: Signal) {
    #[expect(unsafe_code, reason = "rustix does not set what a signal does")]
    // SAFETY: the default action runs no code of ours.
    unsafe {
        libc::signal(signal.as_raw(), libc::SIG_DFL);
    }
}

fn set(signals: &[Signal]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    #[expect(unsafe_code, reason = "the type is the C library's")]
    // SAFETY: sigemptyset(3) initializes the whole set, sigaddset(3) changes it, and each number is a signal's.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal.as_raw());
        }
        set.assume_init()
    }
}

/// Changes what is held back; returns what was before.
fn mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<libc::sigset_t> {
    let mut before = MaybeUninit::uninit();
    #[expect(unsafe_code, reason = "rustix leaves the mask to the C library")]
    // SAFETY: both sets live until the call returns; where it succeeds `before` is initialized.
    unsafe {
        libc::sigemptyset(before.as_mut_ptr());
        match libc::pthread_sigmask(how, ptr::from_ref(set), before.as_mut_ptr()) {
            0 => Ok(before.assume_init()),
            number => Err(Errno::from_raw_os_error(number).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_is_read_in_its_place() {
        let there = std::thread::spawn(|| {
            let signals = Signals::hold(&[Signal::WINCH]).unwrap();
            assert_eq!(signals.next(), None);
            // To this thread: others would take one that is sent to the process.
            let number = Signal::WINCH.as_raw();
            #[expect(unsafe_code, reason = "a signal to a thread")]
            // SAFETY: this thread lives, and holds the signal back.
            let sent = unsafe { libc::pthread_kill(libc::pthread_self(), number) };
            assert_eq!((sent, signals.next()), (0, Some(Signal::WINCH)));
            signals.let_go().unwrap();
        });
        there.join().unwrap();
    }
}
