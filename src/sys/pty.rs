//! Terminals: the one that a command was started from, and one that is made for a program.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, fchown, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Pid, Uid, getpgrp, ioctl_tiocsctty};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::stdio;
use rustix::termios::{
    OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr, tcsetpgrp,
    tcsetwinsize,
};

use super::enter::TERMINALS;

/// The terminal of whoever started us.
pub(super) struct Terminal {
    descriptor: OwnedFd,
    /// How it was, while it is raw.
    cooked: Option<Termios>,
}

impl Terminal {
    /// The terminal behind this descriptor. It is opened anew where that is permitted, so that what is set here
    /// (no waiting) is not set for the shell that started us.
    ///
    /// # Errors
    /// Where there is no descriptor left.
    pub(super) fn behind(descriptor: BorrowedFd<'_>) -> io::Result<Self> {
        use std::os::fd::AsRawFd as _;
        let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let descriptor = match open(path, flags, Mode::empty()) {
            Ok(anew) => anew,
            // It may belong to somebody else, as after su(1).
            Err(_) => fcntl_dupfd_cloexec(descriptor, 3)?,
        };
        Ok(Self {
            descriptor,
            cooked: None,
        })
    }

    /// Whether what is typed is for our process group, or there are no such groups, since it is not the terminal of
    /// this session (tty_check_change, drivers/tty/tty_jobctrl.c).
    pub(super) fn is_ours(&self) -> bool {
        match tcgetpgrp(&self.descriptor) {
            Ok(group) => group == getpgrp(),
            Err(errno) => errno == Errno::NOTTY,
        }
    }

    /// Whether it passes on every key as it is.
    pub(super) fn is_raw(&self) -> bool {
        self.cooked.is_some()
    }

    /// Makes it pass on every key as it is, if what is typed is for us.
    pub(super) fn take(&mut self) {
        if self.cooked.is_some() || !self.is_ours() {
            return;
        }
        let Ok(cooked) = tcgetattr(&self.descriptor) else {
            return;
        };
        let mut raw = cooked.clone();
        raw.make_raw();
        if tcsetattr(&self.descriptor, OptionalActions::Drain, &raw).is_ok() {
            self.cooked = Some(cooked);
        }
    }

    /// Makes it as it was. What was typed, or answered by the terminal, and nobody has read is thrown away: it
    /// was not meant for the shell.
    pub(super) fn give_back(&mut self) {
        if let Some(cooked) = self.cooked.take()
            && self.is_ours()
        {
            let _ = tcsetattr(&self.descriptor, OptionalActions::Flush, &cooked);
        }
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// A terminal that is made for a program.
pub(super) struct Pty {
    /// What the program writes is read here, and what it reads is written.
    master: OwnedFd,
    /// The terminal itself.
    pub(super) slave: OwnedFd,
}

impl Pty {
    /// Makes one like `model`, which belongs to `owner`. Reading and writing its master never waits.
    ///
    /// # Errors
    /// Where there are no terminals to be had.
    pub(super) fn like(model: &Terminal, owner: Option<u32>) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let master = open(Path::new(TERMINALS).join("ptmx"), flags, Mode::empty())?;
        unlockpt(&master)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        if let Some(owner) = owner {
            fchown(&slave, Some(Uid::from_raw(owner)), None)?;
        }
        // In the background they are those of the shell that reads a line, which shows its keys by itself.
        let settings = model.is_ours().then(|| tcgetattr(model));
        if let Some(Ok(settings)) = settings {
            tcsetattr(&slave, OptionalActions::Now, &settings)?;
        }
        resize(&master, model);
        Ok(Self { master, slave })
    }

    /// The side of whoever watches the program.
    pub(super) fn into_master(self) -> OwnedFd {
        self.master
    }

    /// Makes it the controlling terminal of this session, and puts it in the place of those standard descriptors
    /// that are `replaced`. Its master is closed.
    ///
    /// # Errors
    /// Where this process leads no session.
    pub(super) fn occupy(self, replaced: [bool; 3]) -> io::Result<OwnedFd> {
        drop(self.master);
        ioctl_tiocsctty(&self.slave)?;
        let put: [fn(&OwnedFd) -> rustix::io::Result<()>; 3] = [
            |slave| stdio::dup2_stdin(slave),
            |slave| stdio::dup2_stdout(slave),
            |slave| stdio::dup2_stderr(slave),
        ];
        for (put, _) in put.iter().zip(replaced).filter(|(_, replaced)| *replaced) {
            put(&self.slave)?;
        }
        Ok(self.slave)
    }
}

/// As large as `model`; the program is told by SIGWINCH.
pub(super) fn resize(master: &OwnedFd, model: &Terminal) {
    if let Ok(size) = tcgetwinsize(model) {
        let _ = tcsetwinsize(master, size);
    }
}

/// Lets a process group read what is typed there.
pub(super) fn pass_on(terminal: &OwnedFd, group: Pid) -> io::Result<()> {
    Ok(tcsetpgrp(terminal, group)?)
}
