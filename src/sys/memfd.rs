//! Bytes too long for a message, as a file in memory that nobody can change any more (memfd_create(2), and
//! F_ADD_SEALS in fcntl(2)).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};
use rustix::io::{Errno, pread, write};

/// What the reader asks for: neither length nor content can change.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// A sealed file that holds these bytes.
///
/// # Errors
/// No memory or no descriptor is left.
pub fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // A machine may allow no others (`vm.memfd_noexec`); Linux before 6.3 does not know the flag.
    let file = match memfd_create("vpngw", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create("vpngw", flags)?,
        other => other?,
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = write(&file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    fcntl_add_seals(&file, SEALS | SealFlags::SEAL)?;
    Ok(file)
}

/// What a sealed file of exactly this length holds. Never waits, whatever the descriptor is: all but a sealed file in
/// memory is refused before anything is read from it, since to read a pipe or a file of FUSE is to wait for whoever
/// made it. Only a file of that kind has seals (`memfd_file_seals_ptr`, mm/memfd.c).
///
/// # Errors
/// `InvalidData` for anything else, with what it is.
pub fn read(file: impl AsFd, length: usize) -> io::Result<Vec<u8>> {
    match fcntl_get_seals(&file) {
        Ok(seals) if seals.contains(SEALS) => {}
        Ok(seals) => return Err(unfit(&format!("is not sealed ({seals:?})"))),
        Err(_) => return Err(unfit("is no file in memory")),
    }
    let size = fstat(&file)?.st_size;
    if u64::try_from(size).ok() != u64::try_from(length).ok() {
        return Err(unfit(&format!("has {size} bytes instead of {length}")));
    }
    let mut bytes = vec![0; length];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match pread(&file, rest, done as u64)? {
            0 => return Err(unfit("ends early")),
            count => done += count,
        }
    }
    Ok(bytes)
}

fn unfit(what: &str) -> io::Error {
    let text = format!("the file that holds a long message {what}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, OFlags, ftruncate, mknodat, open};

    use super::*;

    #[test]
    fn what_was_sealed_is_read_and_cannot_be_changed() {
        for length in [1, 4096, 1_000_000] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let file = sealed(&bytes).unwrap();
            assert!(write(&file, b"x").is_err());
            assert!(ftruncate(&file, 0).is_err());
            assert_eq!(read(&file, length).unwrap(), bytes);
        }
    }

    #[test]
    fn another_length_is_refused() {
        let file = sealed(b"hello").unwrap();
        for length in [0, 4, 6, usize::MAX] {
            let error = read(&file, length).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        assert_eq!(read(&file, 5).unwrap(), b"hello");
    }

    #[test]
    fn what_is_not_sealed_is_refused() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("test", flags).unwrap();
        write(&file, b"hello").unwrap();
        for seals in [SealFlags::SHRINK, SealFlags::GROW] {
            assert!(read(&file, 5).is_err());
            fcntl_add_seals(&file, seals).unwrap();
        }
        assert!(read(&file, 5).is_err());
        fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
        assert_eq!(read(&file, 5).unwrap(), b"hello");
    }

    /// Each of these would wait for ever, or read what somebody else holds.
    #[test]
    fn what_is_no_file_in_memory_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let fifo = open(&fifo, OFlags::RDWR, Mode::empty()).unwrap();
        let (pipe, _writer) = io::pipe().unwrap();
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"hello").unwrap();
        let file = std::fs::File::open(path).unwrap();
        let fds: [OwnedFd; 4] = [fifo, pipe.into(), socket.into(), file.into()];
        for fd in fds {
            let error = read(fd, 5).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
