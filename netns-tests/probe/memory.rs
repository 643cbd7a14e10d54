//! Memory that the kernel reads and writes too.

#![allow(unsafe_code, reason = "mmap(2) has no safe wrapper")]

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicU32;

/// Memory that a socket shares with the kernel; unmapped when dropped.
pub struct Shared {
    start: *mut u8,
    len: usize,
}

impl Shared {
    /// Maps `len` bytes of what is behind the descriptor at `offset`.
    pub fn map(fd: RawFd, len: usize, offset: i64) -> io::Result<Self> {
        Self::new(fd, len, offset, 0)
    }

    /// Memory of our own, for the kernel to be told of.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        Self::new(-1, len, 0, libc::MAP_ANONYMOUS)
    }

    fn new(fd: RawFd, len: usize, offset: i64, kind: i32) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses a place that nothing else uses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                access,
                libc::MAP_SHARED | libc::MAP_POPULATE | kind,
                fd,
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = start.cast();
        Ok(Self { start, len })
    }

    /// Its address, as a socket option wants it.
    pub fn address(&self) -> u64 {
        self.start as u64
    }

    /// Copies bytes to an offset.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len, "outside of the mapping");
        // SAFETY: the range was checked, and nobody holds a reference to this memory.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(offset), bytes.len());
        }
    }

    /// A number that the kernel changes too.
    pub fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset + 4 <= self.len && offset.is_multiple_of(4));
        // SAFETY: in range, aligned because mappings begin on a page, and accessed by this type only.
        unsafe { AtomicU32::from_ptr(self.start.add(offset).cast()) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference outlives `self`.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}
