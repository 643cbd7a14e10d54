//! A lease on a file (fcntl(2)): whoever opens it waits, up to 45 s, until the holder lets go. It takes no capability,
//! only that one owns the file.

#![allow(unsafe_code, reason = "leases have no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use super::wait;

/// `F_SETSIG` (asm-generic/fcntl.h).
const F_SETSIG: i32 = 10;

/// A held lease; let go of when dropped.
pub struct Lease(File);

impl Lease {
    /// Takes it as soon as nobody has the file open.
    pub fn take(path: &Path) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        wait("a lease", Duration::from_secs(10), || lease(&file).ok());
        Self(file)
    }

    /// Whether somebody has tried to open the file since.
    pub fn is_wanted(&self) -> bool {
        // SAFETY: the descriptor is open; the call takes no pointer.
        let held = unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_GETLEASE) };
        held != libc::F_WRLCK
    }
}

fn lease(file: &File) -> io::Result<()> {
    let fd = file.as_raw_fd();
    // The kernel tells a holder by SIGIO, which would end the test; SIGURG is for nobody.
    let calls = [(F_SETSIG, libc::SIGURG), (libc::F_SETLEASE, libc::F_WRLCK)];
    for (call, argument) in calls {
        // SAFETY: the descriptor is open; the calls take a number.
        if unsafe { libc::fcntl(fd, call, argument) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
