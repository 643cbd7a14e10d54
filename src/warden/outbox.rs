//! Messages to the engine that wait to be sent. The warden puts them here and goes on: one that the engine does not
//! take is found by the time it has waited.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use crate::link::{Link, LinkError, ToEngine};

/// Messages that may wait. More than a reload and its facts come to; an engine that is behind by as many is lost.
const MOST: usize = 256;

/// Messages in the order that they are sent.
#[derive(Default)]
pub(super) struct Outbox {
    letters: RefCell<VecDeque<Rc<Letter>>>,
    /// Since when the first one has been the first.
    since: Cell<Option<Instant>>,
}

struct Letter {
    message: ToEngine,
    fds: Vec<OwnedFd>,
}

/// Why a message cannot wait.
#[derive(Debug, thiserror::Error)]
pub(super) enum PutError {
    /// Too many wait.
    #[error("{MOST} messages wait for it")]
    Full,
    /// A descriptor of the message could not be copied.
    #[error("a descriptor could not be copied")]
    Descriptor(#[source] std::io::Error),
}

impl Outbox {
    /// Puts a message at the end. Of facts only the newest are kept.
    pub(super) fn put(
        &mut self,
        message: ToEngine,
        fds: &[BorrowedFd<'_>],
        now: Instant,
    ) -> Result<(), PutError> {
        let fds: Result<Vec<_>, _> = fds.iter().map(BorrowedFd::try_clone_to_owned).collect();
        let fds = fds.map_err(PutError::Descriptor)?;
        let letters = self.letters.get_mut();
        if matches!(message, ToEngine::Facts(_)) {
            letters.retain(|letter| !matches!(letter.message, ToEngine::Facts(_)));
        }
        if letters.len() >= MOST {
            return Err(PutError::Full);
        }
        letters.push_back(Rc::new(Letter { message, fds }));
        if self.since.get().is_none() {
            self.since.set(Some(now));
        }
        Ok(())
    }

    /// Sends what waits, as far as the engine takes it; pending when there is nothing. Cancelled, a message was sent
    /// whole, or waits still.
    pub(super) async fn flush(&self, link: &Link) -> LinkError {
        loop {
            let first = self.letters.borrow().front().cloned();
            let Some(letter) = first else {
                return std::future::pending().await;
            };
            let fds: Vec<_> = letter.fds.iter().map(AsFd::as_fd).collect();
            if let Err(error) = link.send(&letter.message, &fds).await {
                return error;
            }
            let mut letters = self.letters.borrow_mut();
            letters.pop_front();
            let more = (!letters.is_empty()).then(Instant::now);
            self.since.set(more);
        }
    }

    /// Since when the first message has waited.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since.get()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::link::Facts;
    use crate::sys::fdpass;

    fn facts(leaks: u64) -> ToEngine {
        ToEngine::Facts(Box::new(Facts {
            leaks,
            ..Facts::default()
        }))
    }

    #[tokio::test]
    async fn messages_keep_their_order_and_only_the_newest_facts_wait() {
        let (ours, theirs) = fdpass::pair().unwrap();
        let (ours, theirs) = (Link::new(ours).unwrap(), Link::new(theirs).unwrap());
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        let messages = [facts(1), ToEngine::UplinkChanged, facts(2)];
        for message in messages {
            outbox.put(message, &[], now).unwrap();
        }
        assert_eq!(outbox.since(), Some(now));
        let wait = tokio::time::timeout(Duration::from_millis(20), outbox.flush(&ours));
        assert!(wait.await.is_err(), "pending when all is sent");
        assert_eq!(outbox.since(), None);
        for expected in [ToEngine::UplinkChanged, facts(2)] {
            let (message, _) = theirs.receive::<ToEngine>().await.unwrap().unwrap();
            assert_eq!(message, expected);
        }
    }

    #[tokio::test]
    async fn an_engine_that_does_not_read_is_known_by_how_long_the_first_has_waited() {
        let (ours, _theirs) = fdpass::pair().unwrap();
        let ours = Link::new(ours).unwrap();
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        let full = loop {
            if let Err(error) = outbox.put(ToEngine::UplinkChanged, &[], now) {
                break error;
            }
            let _ = tokio::time::timeout(Duration::ZERO, outbox.flush(&ours)).await;
        };
        assert!(matches!(full, PutError::Full));
        assert!(outbox.since().is_some());
    }
}
