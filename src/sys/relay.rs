//! Copies between the caller's terminal and the program's, never waiting for one of them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};

use super::pty::{self, Terminal};

/// Bytes that are on their way at once.
const ROOM: usize = 16 << 10;

/// More than the kernel holds of what a program has written and nobody has read (`TTYB_DEFAULT_MEM_LIMIT`,
/// drivers/tty/tty_buffer.c): what comes after that is of somebody who goes on writing.
const MOST_LEFT: usize = 1 << 20;

/// Bytes that were read and are not written yet.
struct Way {
    bytes: [u8; ROOM],
    from: usize,
    to: usize,
    /// Whether more may come.
    open: bool,
}

impl Way {
    fn new() -> Self {
        Self {
            bytes: [0; ROOM],
            from: 0,
            to: 0,
            open: true,
        }
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Reads, where nothing waits to be written. Returns how much came.
    fn fill(&mut self, source: BorrowedFd<'_>) -> usize {
        if !self.is_empty() || !self.open {
            return 0;
        }
        match read(source, &mut self.bytes) {
            Ok(0) => self.open = false,
            Ok(length) => (self.from, self.to) = (0, length),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Whoever was there is gone.
            Err(_) => self.open = false,
        }
        self.to - self.from
    }

    /// Writes as much as there is room for.
    fn drain(&mut self, sink: BorrowedFd<'_>) {
        if self.is_empty() {
            return;
        }
        match write(sink, &self.bytes[self.from..self.to]) {
            Ok(length) => self.from += length,
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Nobody is there to take it.
            Err(_) => self.from = self.to,
        }
    }
}

/// The two terminals.
pub(super) struct Relay {
    terminal: Terminal,
    master: OwnedFd,
    /// What the caller typed.
    typed: Way,
    /// What the program wrote.
    shown: Way,
    /// Whether the program is to read what is typed.
    wanted: bool,
}

impl Relay {
    /// Between these two. What is typed stays for others until it is [`Self::want`]ed.
    pub(super) fn new(terminal: Terminal, master: OwnedFd) -> Self {
        Self {
            terminal,
            master,
            typed: Way::new(),
            shown: Way::new(),
            wanted: false,
        }
    }

    /// The program reads what is typed from now on. `false` while that is for other processes.
    pub(super) fn want(&mut self) -> bool {
        self.wanted = true;
        self.terminal.take();
        self.terminal.is_raw()
    }

    /// The caller's terminal is as it was, until [`Self::resume`].
    pub(super) fn rest(&mut self) {
        self.flush();
        self.terminal.give_back();
    }

    /// Goes on after a pause, in which the terminal may have changed.
    pub(super) fn resume(&mut self) {
        // Somebody else may have read or hung up meanwhile.
        self.typed.open = true;
        if self.wanted {
            self.terminal.take();
        }
        self.resize();
    }

    /// Passes on how large the caller's terminal is.
    pub(super) fn resize(&self) {
        pty::resize(&self.master, &self.terminal);
    }

    /// What to wait for at the caller's terminal, and at the program's.
    pub(super) fn interests(&self) -> [Option<PollFd<'_>>; 2] {
        let keys = self.terminal.is_raw() && self.typed.open && self.typed.is_empty();
        let news = self.shown.open && self.shown.is_empty();
        [
            interest(self.terminal.as_fd(), keys, !self.shown.is_empty()),
            interest(self.master.as_fd(), news, !self.typed.is_empty()),
        ]
    }

    /// Copies what there is, where waiting ended with these answers.
    pub(super) fn copy(&mut self, outer: PollFlags, inner: PollFlags) {
        let comes = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        if outer.intersects(comes) && self.terminal.is_raw() {
            self.typed.fill(self.terminal.as_fd());
        }
        self.typed.drain(self.master.as_fd());
        if inner.intersects(comes) {
            self.shown.fill(self.master.as_fd());
        }
        self.shown.drain(self.terminal.as_fd());
    }

    /// Shows what the program has written until now.
    fn flush(&mut self) {
        let mut left = MOST_LEFT;
        loop {
            while !self.shown.is_empty() {
                let mut sink = [PollFd::from_borrowed_fd(
                    self.terminal.as_fd(),
                    PollFlags::OUT,
                )];
                let _ = poll(&mut sink, None);
                self.shown.drain(self.terminal.as_fd());
            }
            let came = self.shown.fill(self.master.as_fd());
            left = left.saturating_sub(came);
            if came == 0 || left == 0 {
                return;
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.rest();
    }
}

/// `None` where nothing is waited for: poll(2) would tell of the other end's end all the same, again and again.
fn interest(terminal: BorrowedFd<'_>, reads: bool, writes: bool) -> Option<PollFd<'_>> {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, reads);
    flags.set(PollFlags::OUT, writes);
    (!flags.is_empty()).then(|| PollFd::from_borrowed_fd(terminal, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_and_an_end_is_noticed() {
        let (near, far) = std::io::pipe().unwrap();
        let (out, into) = std::io::pipe().unwrap();
        let mut way = Way::new();
        write(&far, b"one").unwrap();
        assert_eq!(way.fill(near.as_fd()), 3);
        // Nothing is read over what waits.
        write(&far, b"two").unwrap();
        assert_eq!(way.fill(near.as_fd()), 0);
        way.drain(into.as_fd());
        assert_eq!(way.fill(near.as_fd()), 3);
        way.drain(into.as_fd());
        assert!(way.is_empty());
        drop(far);
        assert_eq!((way.fill(near.as_fd()), way.open), (0, false));
        let mut all = [0; 6];
        assert_eq!(read(&out, &mut all), Ok(6));
        assert_eq!(&all, b"onetwo");
        // A reader that is gone is no reason to wait for it.
        way.open = true;
        let (near, far) = std::io::pipe().unwrap();
        write(&far, b"three").unwrap();
        drop(out);
        assert_eq!(way.fill(near.as_fd()), 5);
        way.drain(into.as_fd());
        assert!(way.is_empty());
    }
}
