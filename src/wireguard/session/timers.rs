//! When a session wants to say something by itself.

use std::time::{Duration, Instant};

use super::returns::{Return, Returns};
use super::{
    DOUBT, DOUBT_RETRY, KEEPALIVE_TIMEOUT, NOTICED, REJECT_AFTER_TIME, REKEY_AFTER_TIME,
    REKEY_ATTEMPT_TIME, REKEY_TIMEOUT, SILENCE, TICK, UNANSWERED, UNHEARD,
};

/// What the timers remember.
pub(super) struct Timers {
    /// How often the peer is to hear something of us.
    interval: Option<Duration>,
    /// When the last message of either side passed.
    passed: Instant,
    /// When the first initiation that is still unanswered left.
    waiting: Option<Instant>,
    /// When the next initiation may leave, while one is on its way.
    pub(super) retry: Option<Instant>,
    /// When the first packet arrived that nothing was sent after.
    heard: Option<Instant>,
    /// When the first packet left that nothing valid arrived after.
    asked: Option<Instant>,
    /// When something authentic arrived last.
    heard_last: Option<Instant>,
    /// Whether packets come back, and not just answers to handshakes.
    returns: Returns,
    /// The session has counted so far that it is to be renewed at once.
    renew: bool,
    silence: Silence,
    pub(super) next_tick: Instant,
}

#[derive(PartialEq, Eq)]
enum Silence {
    Unreported,
    Due,
    Reported,
}

/// What is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Initiation,
    Keepalive,
}

impl Timers {
    /// `interval`: seconds of `PersistentKeepalive`.
    pub(super) fn new(interval: Option<u16>, now: Instant) -> Self {
        let interval = interval.filter(|seconds| *seconds > 0);
        Self {
            interval: interval.map(|seconds| Duration::from_secs(seconds.into())),
            passed: now,
            waiting: None,
            retry: None,
            heard: None,
            asked: None,
            heard_last: None,
            returns: Returns::default(),
            renew: false,
            silence: Silence::Unreported,
            next_tick: now,
        }
    }

    pub(super) fn moved(&mut self) {
        self.waiting = None;
        self.silence = Silence::Unreported;
    }

    /// Whether no initiation is on its way, or only one that was lost.
    pub(super) fn may_initiate(&self, now: Instant) -> bool {
        self.retry.is_none_or(|next| now >= next)
    }

    /// An initiation leaves as soon as one may.
    pub(super) fn wait_for_retry(&mut self) {
        self.renew = true;
        self.next_tick = self
            .retry
            .map_or(self.next_tick, |next| next.min(self.next_tick));
    }

    pub(super) fn initiated(&mut self, now: Instant, jitter: Duration) {
        self.asked = None;
        self.waiting.get_or_insert(now);
        // A server that may be dead is asked often for a short while: a few losses are no death.
        let doubted = self.is_doubted(now) && !elapsed(self.heard_last, now, NOTICED);
        let timeout = if doubted { DOUBT_RETRY } else { REKEY_TIMEOUT };
        self.retry = Some(now + timeout + jitter);
    }

    /// There is a session, and both know.
    pub(super) fn completed(&mut self, now: Instant) {
        self.returns.begun(now);
        self.passed = now;
        self.waiting = None;
        self.retry = None;
        self.renew = false;
        self.silence = Silence::Unreported;
    }

    /// The session is to be renewed at the next tick.
    pub(super) fn renew(&mut self) {
        self.renew = true;
    }

    /// A packet leaves.
    pub(super) fn asked(&mut self, now: Instant) {
        self.returns.left(now);
        self.answered(now);
        self.asked.get_or_insert(now);
    }

    /// A packet or a keepalive leaves.
    pub(super) fn answered(&mut self, now: Instant) {
        self.heard = None;
        self.passed = now;
    }

    /// Something authentic has arrived.
    pub(super) fn heard_something(&mut self, now: Instant) {
        self.asked = None;
        self.passed = now;
        if elapsed(self.heard_last, now, UNHEARD) {
            self.returns.interrupted();
        }
        self.heard_last = Some(now);
    }

    /// A packet has arrived.
    pub(super) fn heard_packet(&mut self, now: Instant) {
        self.returns.came();
        self.heard.get_or_insert(now);
    }

    /// Whether nothing has arrived for so long that the server may be dead. An idle one says nothing by itself.
    fn is_doubted(&self, now: Instant) -> bool {
        elapsed(self.heard_last, now, DOUBT)
    }

    /// It is to be found out whether packets come back.
    pub(super) fn prove(&mut self) {
        self.returns.prove();
    }

    /// Whether a packet is to leave that has to be answered from beyond the server.
    pub(super) fn wants_return(&mut self, now: Instant) -> bool {
        self.returns.tick(now)
    }

    /// What there is to tell of packets that come back, or do not.
    pub(super) fn take_return(&mut self) -> Option<Return> {
        self.returns.take()
    }

    /// Whether what waits has waited for too long.
    pub(super) fn has_given_up(&self, now: Instant) -> bool {
        elapsed(self.waiting, now, REKEY_ATTEMPT_TIME)
    }

    /// What is due with a session of this age, if there is one, and whether we began it. Nothing is forgotten by
    /// asking: it is due until it is sent.
    pub(super) fn tick(&mut self, now: Instant, session: Option<(Duration, bool)>) -> Due {
        self.next_tick = now + TICK;
        if let Some(next) = self.retry.filter(|next| now < *next) {
            self.next_tick = self.next_tick.min(next);
        }
        // One answer that is lost now and then is no silence while other things arrive.
        let heard = self.heard_last.is_some_and(|at| now < at + UNHEARD);
        if self.silence == Silence::Unreported && !heard && elapsed(self.waiting, now, SILENCE) {
            self.silence = Silence::Due;
        }
        let renew = self.renew
            || self.waiting.is_some()
            || session.is_none_or(|(age, ours)| is_old(age, ours))
            || elapsed(self.asked, now, UNANSWERED)
            || (session.is_some() && self.is_doubted(now));
        let unheard = self.interval.is_some_and(|most| now >= self.passed + most);
        if renew && self.may_initiate(now) {
            Due::Initiation
        } else if unheard || elapsed(self.heard, now, KEEPALIVE_TIMEOUT) {
            Due::Keepalive
        } else {
            Due::Nothing
        }
    }

    pub(super) fn take_silence(&mut self) -> bool {
        let due = self.silence == Silence::Due;
        if due {
            self.silence = Silence::Reported;
        }
        due
    }
}

/// The initiator renews after 120 s, sent anything or not; the responder steps in when the
/// initiator has not by the time only a handshake's worth is left.
fn is_old(age: Duration, initiator: bool) -> bool {
    let most = if initiator {
        REKEY_AFTER_TIME
    } else {
        REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
    };
    age >= most
}

fn elapsed(since: Option<Instant>, now: Instant, time: Duration) -> bool {
    since.is_some_and(|since| now >= since + time)
}
