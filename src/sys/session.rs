//! Gives a program a session and, where its caller has one, a terminal of its own: what it types into is not the
//! shell that started it. The caller's terminal stays with this process, which copies between the two.
//!
//! Three processes: this one, in the caller's session; a leader of the new session, which waits for the program and so
//! makes Ctrl-Z work (a group without a parent in its session is never stopped by a terminal, setpgid(2)); and the
//! program. Where there is no terminal to be cut off from, this process becomes the program.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, getpgrp, getpid, getppid, getsid,
    kill_current_process_group, kill_process, kill_process_group, set_dumpable_behavior,
    set_parent_process_death_signal, setpgid, setsid, waitpid,
};
use rustix::stdio;
use rustix::termios::isatty;
use rustix::thread::CapabilitySet;

use super::enter::{self, EnterError, Identity};
use super::joined;
use super::privilege::{self, PrivilegeError};
use super::pty::{self, Pty, Terminal};
use super::relay::Relay;
use super::seccomp::SeccompError;
use super::signals::{self, Signals};

/// What is read instead of acted upon: our own, and what is passed on.
const HELD: [Signal; 13] = [
    Signal::CHILD,
    Signal::WINCH,
    Signal::CONT,
    Signal::TSTP,
    Signal::TTIN,
    Signal::TTOU,
    Signal::INT,
    Signal::QUIT,
    Signal::HUP,
    Signal::TERM,
    Signal::ALARM,
    Signal::USR1,
    Signal::USR2,
];

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// It would run without the filter.
    #[error("the program is not started, because what it may ask of the kernel cannot be limited")]
    Limit(#[from] SeccompError),
    /// What leads back could not be given up.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// The same, of this process.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// Another step.
    #[error("{what}")]
    Step {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How a program would be tied to the terminal of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ties {
    /// Which of the three standard descriptors are terminals.
    terminals: [bool; 3],
    /// Whether the output is read by another program, which then may be the one that reads keys.
    piped: bool,
    /// Whether what is typed is for this process now.
    foreground: bool,
    /// Whether the session has a terminal, or that cannot be told.
    controlling: bool,
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Nothing: there is none.
    Nothing,
    /// A session without a terminal.
    Session,
    /// A session with another terminal.
    Terminal {
        /// In the place of which descriptors.
        replaced: [bool; 3],
        /// Whether what is typed is for the program from the start, not only once it reads it.
        at_once: bool,
    },
}

impl Cut {
    fn of(ties: Ties) -> Self {
        match ties.terminals {
            [false, false, false] if ties.controlling => Self::Session,
            [false, false, false] => Self::Nothing,
            replaced => Self::Terminal {
                replaced,
                at_once: replaced[0] && !ties.piped && ties.foreground,
            },
        }
    }
}

/// Whoever started this process.
pub struct Caller {
    cut: Cut,
    terminal: Option<Terminal>,
}

impl Caller {
    /// Looks at the terminals of this process. To be called before it enters anything.
    ///
    /// # Errors
    /// Where there is no descriptor left.
    pub fn look() -> Result<Self, SessionError> {
        let terminals = [
            isatty(stdio::stdin()),
            isatty(stdio::stdout()),
            isatty(stdio::stderr()),
        ];
        let standard = [stdio::stderr(), stdio::stdout(), stdio::stdin()];
        let terminal = standard.into_iter().find(|it| isatty(it));
        let terminal = terminal.map(Terminal::behind).transpose();
        let terminal = terminal.map_err(step("open the terminal"))?;
        let cut = Cut::of(Ties {
            terminals,
            piped: fstat(stdio::stdout())
                .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Fifo),
            foreground: terminal.as_ref().is_some_and(Terminal::is_ours),
            controlling: has_terminal(),
        });
        Ok(Self { cut, terminal })
    }
}

/// Whether this session has a terminal (tty(4)); what cannot be told counts as one.
fn has_terminal() -> bool {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    !matches!(open("/dev/tty", flags, Mode::empty()), Err(Errno::NXIO))
}

/// Returns in a process that is confined, is `identity` if there is one, has no terminal of the caller's, and is to
/// become the program. This process itself, if it has to stay, ends as the program ends. For a process with one
/// thread that has entered the namespace.
///
/// # Errors
/// Names the step. The process must end then.
pub fn start(caller: Caller, identity: Option<&Identity>) -> Result<(), SessionError> {
    joined::limit()?;
    let (replaced, at_once) = match caller.cut {
        Cut::Nothing => {
            // A leader without a terminal stays what it is: that is what systemd starts.
            let _ = setsid();
            return Ok(enter::confine(identity)?);
        }
        Cut::Session => ([false; 3], false),
        Cut::Terminal { replaced, at_once } => (replaced, at_once),
    };
    let owner = identity.map(|identity| identity.uid);
    let pty = caller.terminal.as_ref();
    let pty = pty.map(|model| Pty::like(model, owner)).transpose();
    let pty = pty.map_err(step("make a terminal for the program"))?;
    let (asks, wish) = io::pipe().map_err(step("make a pipe"))?;
    let signals = Signals::hold(&HELD).map_err(step("hold signals back"))?;
    // A program that stays root may have what this process keeps, and would be let into it; exec takes it back.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step("hide from ptrace"))?;
    let parent = getpid();
    if let Some(leader) = signals::fork().map_err(step("make a process"))? {
        drop(wish);
        let relay = caller
            .terminal
            .zip(pty)
            .map(|(terminal, pty)| Relay::new(terminal, pty.into_master()));
        let relay = relay.map(|mut relay| {
            if at_once {
                relay.want();
            }
            relay
        });
        privilege::keep_only(CapabilitySet::KILL)?;
        watch(leader, &signals, relay, asks)
    }
    drop((caller.terminal, asks));
    setsid().map_err(step("make a session"))?;
    let terminal = pty.map(|pty| pty.occupy(replaced)).transpose();
    let terminal = terminal.map_err(step("change the terminal"))?;
    enter::confine(identity)?;
    die_with(parent)?;
    lead(&signals, terminal, at_once, wish)
}

/// The leader of the session. Returns in the process that is to become the program.
fn lead(
    signals: &Signals,
    terminal: Option<OwnedFd>,
    at_once: bool,
    mut wish: PipeWriter,
) -> Result<(), SessionError> {
    let parent = getpid();
    let Some(program) = signals::fork().map_err(step("make a process"))? else {
        let own = getpid();
        setpgid(None, None).map_err(step("make a process group"))?;
        if let Some(terminal) = terminal.filter(|_| at_once) {
            pty::pass_on(&terminal, own).map_err(step("take the terminal"))?;
        }
        die_with(parent)?;
        return signals.let_go().map_err(step("let signals go"));
    };
    // The child does the same: whoever is first.
    let _ = setpgid(Some(program), Some(program));
    privilege::no_dumps()?;
    let mut given = at_once;
    loop {
        let _ = poll(&mut [PollFd::new(signals, PollFlags::IN)], None);
        while let Some(signal) = signals.next() {
            if signal != Signal::CHILD {
                pass_on(signal, program);
                continue;
            }
            while let Some(status) = changed(program) {
                if !status.stopped() {
                    end_like(status);
                }
                match &terminal {
                    Some(terminal) if !given && wants_terminal(status) => {
                        given = true;
                        let _ = pty::pass_on(terminal, program);
                        let _ = wish.write_all(&[0]);
                        let _ = kill_process_group(program, Signal::CONT);
                    }
                    // Until it is continued; SIGCONT is then read, and passed on. It may be in the background then,
                    // and has to ask again.
                    other => {
                        let _ = kill_process(getpid(), Signal::STOP);
                        given = false;
                        if let Some(terminal) = other {
                            let _ = pty::pass_on(terminal, getpgrp());
                        }
                    }
                }
            }
        }
    }
}

/// What a terminal sends goes to the whole group, as from there; what is sent to this process, to the program.
fn pass_on(signal: Signal, program: Pid) {
    let group = [
        Signal::INT,
        Signal::QUIT,
        Signal::TSTP,
        Signal::HUP,
        Signal::CONT,
    ];
    let single = [Signal::TERM, Signal::ALARM, Signal::USR1, Signal::USR2];
    // One that is gone needs no signal.
    if group.contains(&signal) {
        let _ = kill_process_group(program, signal);
    } else if single.contains(&signal) {
        let _ = kill_process(program, signal);
    }
}

/// In the caller's session: copies, until the leader ends, and then ends in the same way.
fn watch(leader: Pid, signals: &Signals, mut relay: Option<Relay>, mut asks: PipeReader) -> ! {
    let mut may_ask = true;
    loop {
        let [outer, inner, asking] = wait(signals, relay.as_ref(), may_ask.then_some(&asks));
        if let Some(relay) = &mut relay {
            relay.copy(outer, inner);
        }
        if !asking.is_empty() {
            may_ask = asks.read(&mut [0]).is_ok_and(|length| length > 0);
            if let Some(relay) = relay.as_mut().filter(|_| may_ask)
                && !relay.want()
            {
                // As the shell knows it of a program in the background that reads.
                rest(Some(relay), leader);
            }
        }
        while let Some(signal) = signals.next() {
            match signal {
                Signal::CHILD => {
                    while let Some(status) = changed(leader) {
                        if status.stopped() {
                            rest(relay.as_mut(), leader);
                        } else {
                            // What was written is shown, and the terminal is as it was.
                            drop(relay);
                            end_like(status);
                        }
                    }
                }
                Signal::WINCH => relay.iter().for_each(Relay::resize),
                Signal::TTIN | Signal::TTOU => {}
                other => {
                    if let Some(relay) = relay.as_mut().filter(|_| other == Signal::CONT) {
                        relay.resume();
                    }
                    let _ = kill_process(leader, other);
                }
            }
        }
    }
}

/// Waits for a signal, for either terminal, or for the leader's wish.
fn wait(signals: &Signals, relay: Option<&Relay>, asks: Option<&PipeReader>) -> [PollFlags; 3] {
    let [outer, inner] = relay.map_or([None, None], Relay::interests);
    let slots = [
        outer,
        inner,
        asks.map(|asks| PollFd::new(asks, PollFlags::IN)),
    ];
    let signals = PollFd::new(signals, PollFlags::IN);
    let mut all: Vec<_> = std::iter::once(signals)
        .chain(slots.iter().flatten().cloned())
        .collect();
    // It fails where a signal comes that is not held back; there is nothing to do then.
    let _ = poll(&mut all, None);
    let mut answers = all.iter().skip(1).map(PollFd::revents);
    slots.map(|slot| {
        slot.and_then(|_| answers.next())
            .unwrap_or(PollFlags::empty())
    })
}

/// Stops with the program, so that the shell that started us goes on; where there is none, the program goes on.
fn rest(relay: Option<&mut Relay>, leader: Pid) {
    if is_orphan() {
        let _ = kill_process(leader, Signal::CONT);
        return;
    }
    if let Some(relay) = relay {
        relay.rest();
    }
    stop();
    // SIGCONT is read next: then the relay resumes.
}

/// Stops our process group: whoever else is in the same pipeline, and then this process itself. SIGCONT takes back
/// the stop that is held back here (signal(7)).
fn stop() {
    let _ = kill_current_process_group(Signal::TSTP);
    let _ = kill_process(getpid(), Signal::STOP);
}

/// Whether no shell is there that would continue us: our parent is in another session.
fn is_orphan() -> bool {
    let own = getsid(None).ok();
    getppid().is_none_or(|parent| getsid(Some(parent)).ok() != own)
}

/// What became of a child since it was asked last.
fn changed(child: Pid) -> Option<WaitStatus> {
    let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
    Some(waitpid(Some(child), options).ok()??.1)
}

/// Whether a program stopped, because it is in the background of its terminal and wants to use it.
fn wants_terminal(status: WaitStatus) -> bool {
    let signal = status.stopping_signal().and_then(Signal::from_named_raw);
    matches!(signal, Some(Signal::TTIN | Signal::TTOU))
}

/// Ends this process as that one ended.
fn end_like(status: WaitStatus) -> ! {
    if let Some(number) = status.terminating_signal() {
        if let Some(signal) = Signal::from_named_raw(number) {
            signals::die_of(signal);
        }
        // As a shell says it, where the signal ended nothing.
        std::process::exit(128 + number);
    }
    std::process::exit(status.exit_status().unwrap_or(1));
}

/// Ends this process when its parent ends, however that ends.
fn die_with(parent: Pid) -> Result<(), SessionError> {
    let asked = set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from);
    let asked = asked.and_then(|()| {
        let lives = getppid() == Some(parent);
        lives.then_some(()).ok_or_else(|| Errno::SRCH.into())
    });
    asked.map_err(step("be bound to the process that started this one"))
}

fn step<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> SessionError {
    move |error| SessionError::Step {
        what,
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(terminals: [bool; 3], piped: bool, controlling: bool) -> Cut {
        Cut::of(Ties {
            terminals,
            piped,
            foreground: true,
            controlling,
        })
    }

    #[test]
    fn whoever_has_a_terminal_is_cut_off_from_it() {
        let terminal = |replaced, at_once| Cut::Terminal { replaced, at_once };
        let all = [true; 3];
        assert_eq!(cut(all, false, true), terminal(all, true));
        // Also where the session has none, as behind setsid(1).
        assert_eq!(cut(all, false, false), terminal(all, true));
        // In a pipeline another program may be the one that reads keys.
        let piped = [true, false, true];
        assert_eq!(cut(piped, true, true), terminal(piped, false));
        assert_eq!(cut(piped, false, true), terminal(piped, true));
        let fed = [false, true, true];
        assert_eq!(cut(fed, false, true), terminal(fed, false));
        // In the background it has to ask first.
        let background = Cut::of(Ties {
            terminals: all,
            piped: false,
            foreground: false,
            controlling: true,
        });
        assert_eq!(background, terminal(all, false));
        let complains = [false, false, true];
        assert_eq!(cut(complains, true, true), terminal(complains, false));
    }

    #[test]
    fn without_a_terminal_no_process_stays_behind() {
        assert_eq!(cut([false; 3], true, true), Cut::Session);
        assert_eq!(cut([false; 3], true, false), Cut::Nothing);
    }
}
