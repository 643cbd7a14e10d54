//! The socket by which an engine of another container finds its warden: SOCK_SEQPACKET at a path, and
//! who is at the other end.

#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    socket_with,
};
use rustix::process::geteuid;

use super::socket::{SocketError, claim};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// Anybody who sees the folder may connect; who it is decides ([`user`]).
const MODE: u32 = 0o666;

/// Like `/tmp`: everybody may make a socket here, nobody may take away that of another.
const VOLUME: u32 = 0o1777;

/// A non-blocking listener at `path`, mode 0666. Makes the folder; replaces a socket that nobody answers on.
/// A folder that is ours and a mount of its own, as a container's volume is, becomes writable for the other
/// half, which is another user and puts its control socket there.
///
/// # Errors
/// Where someone answers there, another kind of file is in the way, or the folder cannot be written.
pub fn listener(path: &Path) -> Result<OwnedFd, SocketError> {
    claim(path)?;
    let made = || {
        let socket = new()?;
        take_no_descriptors(&socket);
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
        listen(&socket, BACKLOG)?;
        if let Some(folder) = path.parent().filter(|folder| is_our_volume(folder)) {
            fs::set_permissions(folder, fs::Permissions::from_mode(VOLUME))?;
        }
        Ok(socket)
    };
    made().map_err(|source| SocketError::Unix {
        path: path.to_owned(),
        source,
    })
}

/// Connects to a listener.
///
/// # Errors
/// `NotFound` and `ConnectionRefused` where nobody listens, `WouldBlock` where too many wait.
pub fn dial(path: &Path) -> io::Result<OwnedFd> {
    let socket = new()?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// The next connection; it closes on exec and does not block.
///
/// # Errors
/// `WouldBlock` when there is none.
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(accept_with(listener, flags)?)
}

/// The user at the other end, as our user namespace numbers it: who connected, or who began to listen
/// (SO_PEERCRED, unix(7)). Not by rustix: a process of another PID namespace has number 0 there, which its
/// type cannot hold.
///
/// # Errors
/// Where the descriptor is no connected UNIX socket.
pub fn user(socket: impl AsFd) -> io::Result<u32> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `peer`, which outlives the call and whose layout is the
    // kernel's `struct ucred`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(peer.uid)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Has the kernel refuse descriptors that somebody sends us (SO_PASSRIGHTS, Linux 6.16): the last close of one can wait,
/// and would do so here. Sockets that a listener accepts inherit it. Older kernels do not know it.
pub(super) fn take_no_descriptors(socket: impl AsFd) {
    /// asm-generic/socket.h
    const SO_PASSRIGHTS: libc::c_int = 83;
    let no: libc::c_int = 0;
    // SAFETY: the pointer and the length describe `no`, which outlives the call.
    let _not_known = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const no).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
}

/// Bytes that we sent and the other end has not received; 0 where the kernel does not say (SIOCOUTQ,
/// `unix_ioctl`, net/unix/af_unix.c).
pub fn unread(socket: impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which has the number of TIOCOUTQ, writes one `int`.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 {
        usize::try_from(bytes).unwrap_or_default()
    } else {
        0
    }
}

fn new() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// Whether a file system, or a part of one, is mounted here. Its device number does not tell: a volume may be of
/// the same file system as the container's root.
fn is_our_volume(folder: &Path) -> bool {
    let found = statx(CWD, folder, AtFlags::empty(), StatxFlags::UID);
    let ours = geteuid().as_raw();
    found.is_ok_and(|it| {
        it.stx_uid == ours && it.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::sys::fdpass;

    #[test]
    fn the_other_end_is_known_and_what_it_has_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/warden.sock");
        let gone = dial(&path).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        let listener = listener(&path).unwrap();
        assert_eq!(
            accept(&listener).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let theirs = dial(&path).unwrap();
        let ours = accept(&listener).unwrap();
        let me = geteuid().as_raw();
        assert_eq!((user(&ours).unwrap(), user(&theirs).unwrap()), (me, me));
        assert_eq!(unread(&ours), 0);
        fdpass::send(&ours, b"hello", &[]).unwrap();
        assert!(unread(&ours) > 0);
        let mut buffer = [0; 100];
        fdpass::receive(&theirs, &mut buffer).unwrap();
        assert_eq!(unread(&ours), 0);
        // Descriptors to the listener's end are not even sent, or are refused where the kernel is older.
        if fdpass::send(&theirs, b"take this", &[listener.as_fd()]).is_ok() {
            assert!(fdpass::receive_bytes(&ours, &mut buffer).is_err());
        }
        fdpass::send(&ours, b"take this", &[listener.as_fd()]).unwrap();
        let (_, fds) = fdpass::receive(&theirs, &mut buffer).unwrap().unwrap();
        assert_eq!(fds.len(), 1);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("warden.sock");
        let first = listener(&path).unwrap();
        assert!(matches!(listener(&path), Err(SocketError::InUse(_))));
        drop(first);
        assert_eq!(
            dial(&path).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        let _second = listener(&path).unwrap();
    }

    #[test]
    fn a_folder_of_somebody_else_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let before = fs::metadata(folder.path()).unwrap().mode();
        let _listener = listener(&folder.path().join("warden.sock")).unwrap();
        assert_eq!(fs::metadata(folder.path()).unwrap().mode(), before);
    }
}
