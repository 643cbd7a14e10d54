//! The engine: a child process that is started again when it ends, or one that comes to the door.

use std::cell::Cell;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tokio::time;
use tracing::{debug, error, info, warn};

use super::outbox::Outbox;
use crate::link::{Link, LinkError, ToEngine, ToWarden};
use crate::sys::{fdpass, process};

/// An engine that lived this long was well: the next one starts at once.
const WELL: Duration = Duration::from_secs(5);

/// An engine that takes no message for this long, with a full buffer before it, hangs.
const HUNG: Duration = Duration::from_secs(1);

/// Ticks of the warden without a word of the engine, which says something each second: after so many the log says so,
/// and after so many more it counts as hanging and is ended. Ticks, since a machine that slept has missed none.
const QUIET: u32 = 3;
const DEAF: u32 = 10;

/// The longest pause before the next start. Joined programs wait for it, so it stays short.
const LONGEST: Duration = Duration::from_secs(2);

/// The engine, or the wait for the next one.
pub(super) struct Child {
    running: Option<Running>,
    started: Instant,
    due: Option<Instant>,
    /// Engines in a row that ended before they were well.
    failures: u32,
    /// Ticks since it said something.
    quiet: u32,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
enum LaunchError {
    #[error("no socket to it")]
    Pair(#[from] std::io::Error),
    #[error(transparent)]
    Spawn(#[from] process::SpawnError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

struct Running {
    /// Its process, if it is a child of ours.
    pid: Option<Pid>,
    link: Link,
    /// What it is to be told.
    outbox: Outbox,
    /// Whether it said who it is. Before that it is told nothing.
    attached: bool,
    /// Whether it was ended, and is not gone yet.
    ended: Cell<bool>,
}

impl Child {
    /// Starts the first engine.
    pub(super) fn spawn(now: Instant) -> Self {
        let mut child = Self::none(now);
        child.start(now);
        child
    }

    /// No engine yet: one will come to the door.
    pub(super) fn none(now: Instant) -> Self {
        Self {
            running: None,
            started: now,
            due: None,
            failures: 0,
            quiet: 0,
        }
    }

    /// Takes an engine that came to the door.
    pub(super) fn adopt(&mut self, link: Link, now: Instant) {
        self.started = now;
        self.quiet = 0;
        self.running = Some(Running {
            pid: None,
            link,
            outbox: Outbox::default(),
            attached: false,
            ended: Cell::new(false),
        });
    }

    /// Whether there is an engine.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// A second has passed. An engine that has not said anything for too long is ended: programs wait for the next.
    pub(super) fn tick(&mut self) {
        if self.running.is_none() {
            return;
        }
        self.quiet += 1;
        if self.quiet == QUIET {
            warn!(seconds = QUIET, "the engine is silent");
        }
        if self.quiet >= DEAF {
            warn!("the engine hangs; it is ended");
            self.quiet = 0;
            self.kill();
        }
    }

    /// It said something.
    pub(super) fn heard(&mut self) {
        self.quiet = 0;
    }

    /// Starts an engine; when that fails, plans the next attempt.
    pub(super) fn start(&mut self, now: Instant) {
        self.started = now;
        self.quiet = 0;
        self.due = None;
        match launch() {
            Ok(running) => {
                let pid = running.pid.map(|pid| pid.as_raw_nonzero().get());
                info!(pid, "engine started");
                self.running = Some(running);
            }
            Err(error) => {
                error!(%error, "the engine cannot be started");
                self.restart(now);
            }
        }
    }

    /// Ends what is left of the engine and plans the next one: at once, unless they keep ending early. One
    /// that came to the door comes again by itself.
    pub(super) fn restart(&mut self, now: Instant) {
        self.kill();
        let came = |running: Running| running.pid.is_none();
        if self.running.take().is_some_and(came) {
            return;
        }
        self.failures = if now - self.started >= WELL {
            0
        } else {
            self.failures.saturating_add(1)
        };
        self.due = Some(now + pause(self.failures));
    }

    /// Ready when the next engine is to be started.
    pub(super) async fn due(&self) {
        match self.due {
            Some(due) => time::sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }

    /// The engine's next message. `None` when it is gone, or said something that does not fit.
    pub(super) async fn receive(&self) -> Option<ToWarden> {
        let Some(running) = &self.running else {
            return std::future::pending().await;
        };
        match running.link.receive::<ToWarden>().await {
            // Descriptors that an engine sends are not wanted: they close here.
            Ok(message) => message.map(|(message, _)| message),
            Err(error) => {
                warn!(%error, "the engine said something that does not fit; it is ended");
                None
            }
        }
    }

    /// Has the first message sent, to an engine that said who it is.
    pub(super) fn welcome(&mut self, message: ToEngine, fds: &[BorrowedFd<'_>]) {
        if let Some(running) = &mut self.running {
            running.attached = true;
        }
        self.send(message, fds);
    }

    /// Has a message sent, if there is an engine. Never waits: [`Child::served`] does the sending.
    pub(super) fn send(&mut self, message: ToEngine, fds: &[BorrowedFd<'_>]) {
        let speaks = |running: &&mut Running| running.attached && !running.ended.get();
        let Some(running) = self.running.as_mut().filter(speaks) else {
            return;
        };
        if let Err(error) = running.outbox.put(message, fds, Instant::now()) {
            warn!(%error, "the engine hangs; it is ended");
            self.kill();
        }
    }

    /// Sends what waits to be sent, for as long as the engine takes it. Ready when it takes nothing more, and has been
    /// ended for that.
    pub(super) async fn served(&self) {
        let live = self.running.as_ref().filter(|running| !running.ended.get());
        let Some(running) = live else {
            return std::future::pending().await;
        };
        let hung = async {
            match running.outbox.since() {
                Some(since) => time::sleep_until((since + HUNG).into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // It will be found gone.
            error = running.outbox.flush(&running.link) => {
                debug!(%error, "the engine does not listen");
                std::future::pending().await
            }
            () = hung => {
                // The first message may have been sent, and others be new.
                let still = running.outbox.since().is_some_and(|since| since.elapsed() >= HUNG);
                if still {
                    warn!("the engine hangs; it is ended");
                    self.kill();
                }
            }
        }
    }

    /// Collects children that ended: as process 1 of a container we inherit every orphan.
    pub(super) fn reap(&self) {
        for (pid, status) in process::reap() {
            if self
                .running
                .as_ref()
                .is_some_and(|running| running.pid == Some(pid))
            {
                warn!(pid = pid.as_raw_nonzero().get(), %status, "the engine's process ended");
            }
        }
    }

    /// Ends the engine now.
    pub(super) fn kill(&self) {
        if let Some(running) = &self.running {
            running.ended.set(true);
        }
        self.signal(Signal::KILL);
    }

    /// Asks the engine to end, then ends it.
    pub(super) async fn stop(&mut self, patience: Duration) {
        self.signal(Signal::TERM);
        if self.running.is_some() {
            let gone = async { while self.receive().await.is_some() {} };
            if time::timeout(patience, gone).await.is_err() {
                self.kill();
            }
        }
        self.reap();
        self.running = None;
        self.due = None;
    }

    fn signal(&self, signal: Signal) {
        let Some(running) = &self.running else { return };
        match running.pid.map(|pid| process::signal(pid, signal)) {
            Some(Ok(())) => {}
            Some(Err(error)) => warn!(%error, "the engine cannot be signalled"),
            None => running.link.shut(),
        }
    }
}

fn launch() -> Result<Running, LaunchError> {
    let (ours, theirs): (OwnedFd, OwnedFd) = fdpass::pair()?;
    let number = theirs.as_raw_fd().to_string();
    let pid = process::spawn(
        &["engine", "--link-fd", &number],
        std::os::fd::AsFd::as_fd(&theirs),
    )?;
    Ok(Running {
        pid: Some(pid),
        link: Link::new(ours)?,
        outbox: Outbox::default(),
        attached: false,
        ended: Cell::new(false),
    })
}

/// Nothing after an engine that was well; then 100 ms, 200 ms and so on.
fn pause(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => Duration::from_millis(100 << (more - 2).min(10)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_keeps_ending_early_is_started_less_often() {
        let pauses: Vec<_> = (0..9).map(|failures| pause(failures).as_millis()).collect();
        assert_eq!(pauses, [0, 0, 100, 200, 400, 800, 1600, 2000, 2000]);
    }
}
