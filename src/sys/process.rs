//! Starts the engine, and collects children that ended.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{SocketType, sockopt};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Our own program, also after its file was replaced by an upgrade.
const SELF: &str = "/proc/self/exe";

/// A child could not be started.
#[derive(Debug, thiserror::Error)]
#[error("start {}", .program.display())]
pub struct SpawnError {
    program: PathBuf,
    source: io::Error,
}

/// Starts our own program again with these arguments and one descriptor that stays open across exec,
/// under the number it has here: pass that number in `arguments`. The environment is emptied: what the
/// child needs comes over the descriptor.
///
/// Call it from a thread that lives as long as the process: the child dies with that thread
/// ([`super::privilege::drop_all`]).
///
/// # Errors
/// Where the program cannot be run.
pub fn spawn(arguments: &[&str], inherited: BorrowedFd<'_>) -> Result<Pid, SpawnError> {
    let program = if Path::new(SELF).exists() {
        PathBuf::from(SELF)
    } else {
        std::env::current_exe().map_err(|source| SpawnError {
            program: SELF.into(),
            source,
        })?
    };
    let raw = inherited.as_raw_fd();
    let mut command = Command::new(&program);
    command
        .arg0("vpngw")
        .args(arguments)
        .env_clear()
        .envs(super::fault::files())
        .current_dir("/")
        .stdin(Stdio::null());
    let clear = move || {
        #[expect(
            unsafe_code,
            reason = "the descriptor is known by its number after fork"
        )]
        // SAFETY: `inherited` is open in the parent until `spawn` below returns, so its number is open in
        // the child from fork to exec.
        let fd = unsafe { BorrowedFd::borrow_raw(raw) };
        Ok(fcntl_setfd(fd.as_fd(), FdFlags::empty())?)
    };
    #[expect(unsafe_code, reason = "code between fork and exec")]
    // SAFETY: the closure makes one system call and allocates nothing (signal-safety(7)).
    unsafe {
        command.pre_exec(clear);
    }
    let child = command
        .spawn()
        .map_err(|source| SpawnError { program, source })?;
    // The kernel numbers processes from 1.
    Ok(Pid::from_child(&child))
}

/// The child's end of what [`spawn`] passed on, under the number it came as. It is not passed on to
/// programs that the child starts.
///
/// # Errors
/// Where nothing is open under that number, or it is no socket that keeps message boundaries: the
/// program was started by hand.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(Errno::BADF.into());
    }
    #[expect(unsafe_code, reason = "a descriptor is a number after exec")]
    // SAFETY: it is used for three system calls only, which refuse a number that is not open; nobody here
    // closes a descriptor that came across exec.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    if sockopt::socket_type(fd)? != SocketType::SEQPACKET {
        return Err(Errno::NOTSOCK.into());
    }
    fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    Ok(fcntl_dupfd_cloexec(fd, 3)?)
}

/// Every child that ended since the last call, adopted ones too: as process 1 of a container we are
/// the parent of all orphans. Call it on SIGCHLD.
pub fn reap() -> Vec<(Pid, ExitStatus)> {
    let mut ended = Vec::new();
    loop {
        match waitpid(None, WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => ended.push((pid, ExitStatus::from_raw(status.as_raw()))),
            Err(Errno::INTR) => {}
            // No child is left, or none has ended.
            Ok(None) | Err(_) => return ended,
        }
    }
}

/// Sends a signal. A process that has ended meanwhile is no error.
///
/// # Errors
/// Where we may not: another user's process without the capability KILL.
pub fn signal(pid: Pid, signal: Signal) -> io::Result<()> {
    match kill_process(pid, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_passed_on_is_no_link() {
        let file = std::fs::File::open("/dev/null").unwrap();
        for number in [-1, 100_000, file.as_raw_fd()] {
            assert!(inherited(number).is_err(), "{number}");
        }
    }
}
