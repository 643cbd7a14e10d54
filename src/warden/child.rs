//! The engine: a child process that is started again when it ends, or one that comes to the door.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::{self, Instant};
use tracing::{debug, error, info, warn};

use crate::link::{Link, LinkError, ToEngine, ToWarden};
use crate::sys::{fdpass, process};

/// An engine that lived this long was well: the next one starts at once.
const WELL: Duration = Duration::from_secs(5);

/// An engine that takes no message for this long, with a full buffer before it, hangs.
const HUNG: Duration = Duration::from_secs(1);

/// A sealed engine with messages that it has not read for this long hangs: it gets one a second.
const DEAF: Duration = Duration::from_secs(10);

/// The longest pause before the next start. Joined programs wait for it, so it stays short.
const LONGEST: Duration = Duration::from_secs(2);

/// The engine, or the wait for the next one.
pub(super) struct Child {
    running: Option<Running>,
    started: Instant,
    due: Option<Instant>,
    /// Engines in a row that ended before they were well.
    failures: u32,
    /// Since when it has not read everything.
    deaf_since: Option<Instant>,
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
    /// Whether it said who it is. Before that it is told nothing.
    attached: bool,
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
            deaf_since: None,
        }
    }

    /// Takes an engine that came to the door.
    pub(super) fn adopt(&mut self, link: Link, now: Instant) {
        self.started = now;
        self.deaf_since = None;
        self.running = Some(Running {
            pid: None,
            link,
            attached: false,
        });
    }

    /// Whether there is an engine.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Ends a sealed engine that has not read its messages for too long: another one may wait for its
    /// place. To be asked when the last message is no fresh one.
    pub(super) fn listen_for_life(&mut self, now: Instant) {
        let Some(running) = self
            .running
            .as_ref()
            .filter(|running| running.pid.is_none())
        else {
            return;
        };
        if running.link.unread() == 0 {
            self.deaf_since = None;
        } else if now - *self.deaf_since.get_or_insert(now) > DEAF {
            warn!("the engine hangs; it is ended");
            self.kill();
        }
    }

    /// Starts an engine; when that fails, plans the next attempt.
    pub(super) fn start(&mut self, now: Instant) {
        self.started = now;
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
            Some(due) => time::sleep_until(due).await,
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

    /// Sends the first message, to an engine that said who it is.
    pub(super) async fn welcome(&mut self, message: &ToEngine, fds: &[BorrowedFd<'_>]) {
        if let Some(running) = &mut self.running {
            running.attached = true;
        }
        self.send(message, fds).await;
    }

    /// Sends a message, if there is an engine. One that hangs is ended: the warden has more to do than to
    /// wait for it.
    pub(super) async fn send(&self, message: &ToEngine, fds: &[BorrowedFd<'_>]) {
        let Some(running) = self.running.as_ref().filter(|running| running.attached) else {
            return;
        };
        match time::timeout(HUNG, running.link.send(message, fds)).await {
            Ok(Ok(())) => {}
            // It will be found gone.
            Ok(Err(error)) => debug!(%error, "the engine does not listen"),
            Err(_) => {
                warn!("the engine hangs; it is ended");
                self.kill();
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
        attached: false,
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
