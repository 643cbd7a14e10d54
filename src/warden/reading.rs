//! Reads the configuration again, beside everything else: a file that another program holds keeps nobody waiting.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::config::Config;

/// Reads the configuration; each line of the error is one thing that is wrong with it.
pub type Reader = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// How long it may take before the operator hears that it hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// A reading that is under way, if there is one.
pub(super) struct Reading {
    reader: Reader,
    outcome: Option<oneshot::Receiver<Result<Config, String>>>,
    since: Option<Instant>,
    /// Somebody asked for another one meanwhile: what he wrote may be newer than what is being read.
    again: bool,
}

impl Reading {
    pub(super) fn new(reader: Reader) -> Self {
        Self {
            reader,
            outcome: None,
            since: None,
            again: false,
        }
    }

    /// Begins to read. An error is one line for the operator.
    pub(super) fn begin(&mut self, now: Instant) -> Result<(), String> {
        if self.outcome.is_some() {
            self.again = true;
            return Ok(());
        }
        let (tell, outcome) = oneshot::channel();
        let reader = Arc::clone(&self.reader);
        let thread = thread::Builder::new().name("configuration".to_owned());
        let started = thread.spawn(move || {
            // The gateway ends meanwhile when nobody listens.
            let _ = tell.send(reader());
        });
        started.map_err(|error| format!("no thread to read the configuration: {error}"))?;
        self.outcome = Some(outcome);
        self.since = Some(now);
        Ok(())
    }

    /// What was read. Pending while nothing is being read.
    pub(super) async fn done(&mut self) -> Result<Config, String> {
        let Some(outcome) = &mut self.outcome else {
            return std::future::pending().await;
        };
        let read = outcome.await;
        self.outcome = None;
        self.since = None;
        read.unwrap_or_else(|_| Err("the thread that read the configuration ended".to_owned()))
    }

    /// Whether another reading is to begin after the one that is done.
    pub(super) fn is_wanted_again(&mut self) -> bool {
        std::mem::take(&mut self.again)
    }

    /// Whether it takes too long; said once a reading.
    pub(super) fn hangs(&mut self, now: Instant) -> bool {
        let late = |since: Instant| now.saturating_duration_since(since) >= PATIENCE;
        let hangs = self.since.is_some_and(late);
        if hangs {
            self.since = None;
        }
        hangs
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::*;
    use crate::config::example;

    #[tokio::test]
    async fn a_file_that_cannot_be_opened_keeps_nobody_waiting() {
        let (open, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        let mut reading = Reading::new(Arc::new(move || {
            let _ = held.lock().map(|held| held.recv());
            Ok(example::config())
        }));
        let now = Instant::now();
        reading.begin(now).unwrap();
        reading.begin(now).unwrap();
        assert!(!reading.hangs(now));
        assert!(reading.hangs(now + PATIENCE));
        assert!(!reading.hangs(now + PATIENCE), "said once");
        open.send(()).unwrap();
        assert_eq!(reading.done().await, Ok(example::config()));
        assert!(reading.is_wanted_again() && !reading.is_wanted_again());
    }
}
