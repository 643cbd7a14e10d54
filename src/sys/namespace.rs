//! Namespaces of the calling thread, and children that end with it.

#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getegid, geteuid, set_parent_process_death_signal};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves the calling thread into a network namespace of its own, which has a loopback device that
/// is down and nothing else.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn new_network() -> io::Result<()> {
    unshare(UnshareFlags::NEWNET)
}

/// Moves the calling thread into network and mount namespaces of its own.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn new_network_and_mounts() -> io::Result<()> {
    unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS)
}

/// Moves the calling thread into a mount namespace of its own.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn new_mounts() -> io::Result<()> {
    unshare(UnshareFlags::NEWNS)
}

/// The same as [`new_network_and_mounts`] inside a new user namespace in which this user is root; needs no privilege.
///
/// # Errors
/// EINVAL in a process with several threads; EPERM, ENOSPC or EACCES where the system does not let
/// this user make user namespaces.
pub fn new_user_network_and_mounts() -> io::Result<()> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWNS)?;
    // user_namespaces(7): one's own ids may be mapped once setgroups is given up.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// The user namespace that a namespace belongs to; `None` where that is neither this one nor made in it, or the kernel
/// has none (`ns_get_owner`, kernel/user_namespace.c).
///
/// # Errors
/// What else the kernel says.
pub fn user_namespace_of(namespace: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    // NS_GET_USERNS, _IO(0xb7, 1) (linux/nsfs.h)
    related(namespace, 0xb701)
}

/// The user namespace that a user namespace was made in; `None` as above.
///
/// # Errors
/// What else the kernel says.
pub fn parent(user_namespace: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    // NS_GET_PARENT, _IO(0xb7, 2) (linux/nsfs.h)
    related(user_namespace, 0xb702)
}

fn related(namespace: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<Option<OwnedFd>> {
    // SAFETY: neither request takes an argument or touches memory of ours.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), request) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        let none = error.raw_os_error() == Some(libc::EPERM);
        return if none { Ok(None) } else { Err(error) };
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Who made a user namespace: has every capability in it from outside (user_namespaces(7)).
///
/// # Errors
/// What the kernel says.
pub fn maker(user_namespace: BorrowedFd<'_>) -> io::Result<u32> {
    // NS_GET_OWNER_UID, _IO(0xb7, 4) (linux/nsfs.h)
    const GET_OWNER_UID: libc::Ioctl = 0xb704;
    let mut uid: libc::uid_t = 0;
    // SAFETY: this request writes one uid_t, and `uid` outlives the call.
    let done = unsafe {
        libc::ioctl(
            user_namespace.as_raw_fd(),
            GET_OWNER_UID,
            std::ptr::from_mut(&mut uid),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(uid)
}

/// Sends SIGTERM to the child when the thread that started it ends (PR_SET_PDEATHSIG, prctl(2)).
pub fn end_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: the closure runs between fork and exec and only makes one system call; it allocates
    // nothing and takes no lock.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
    command
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: the table of file descriptors is not unshared (`FILES` is never among the flags), so
    // descriptors stay valid in every thread.
    Ok(unsafe { unshare_unsafe(flags) }?)
}
