//! Whether anything comes back from beyond the server: a server may answer every handshake and forward nothing, because an
//! account ended or a key was withdrawn. Pure.

use std::time::{Duration, Instant};

/// So long nothing has to come back before it is asked for: many programs send what nobody answers.
const DOUBT: Duration = Duration::from_secs(30);

/// How often it is asked for then.
const AGAIN: Duration = Duration::from_secs(5);

/// So long nothing has to come back, questions included, before it is told.
const MOST: Duration = Duration::from_secs(60);

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// Packets leave through the tunnel, and nothing comes back.
    Missing,
    /// After that was told something came back.
    Seen,
}

/// What left and what came back.
#[derive(Debug, Default)]
pub(super) struct Returns {
    /// When the first packet left after the last one came back.
    left: Option<Instant>,
    /// When something was asked for last.
    asked: Option<Instant>,
    /// It was told that nothing comes back, of this server or of the one before.
    owed: bool,
    /// It was told of this server.
    told: bool,
    /// Whether anything comes back is to be asked as soon as there is a session.
    proof_wanted: bool,
    news: Option<Return>,
}

impl Returns {
    /// A packet leaves.
    pub(super) fn left(&mut self, now: Instant) {
        self.left.get_or_insert(now);
    }

    /// A packet came back.
    pub(super) fn came(&mut self) {
        self.left = None;
        if self.owed {
            (self.owed, self.told) = (false, false);
            self.news = Some(Return::Seen);
        }
    }

    /// It is to be found out whether anything comes back as soon as there is a session: from the server before nothing did.
    pub(super) fn prove(&mut self) {
        (self.owed, self.proof_wanted) = (true, true);
    }

    /// There is a session.
    pub(super) fn begun(&mut self, now: Instant) {
        if std::mem::take(&mut self.proof_wanted) {
            self.left = now.checked_sub(DOUBT).or(Some(now));
        }
    }

    /// The server was dead: what left meanwhile says nothing about it.
    pub(super) fn interrupted(&mut self) {
        self.left = None;
    }

    /// To be called now and then. Whether something is to be asked for, which takes a question as a packet that leaves.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        let Some(left) = self.left else { return false };
        if now >= left + MOST && !self.told {
            (self.owed, self.told) = (true, true);
            self.news = Some(Return::Missing);
        }
        let again = self.asked.is_none_or(|asked| now >= asked + AGAIN);
        let due = now >= left + DOUBT && again;
        if due {
            self.asked = Some(now);
        }
        due
    }

    /// What was not told yet.
    pub(super) fn take(&mut self) -> Option<Return> {
        self.news.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    /// Ticks each second; the seconds in which it asked, and what it told.
    fn watch(returns: &mut Returns, start: Instant, until: u64) -> (Vec<u64>, Vec<(u64, Return)>) {
        let (mut asked, mut told) = (Vec::new(), Vec::new());
        for second in 0..until {
            if returns.tick(after(start, second)) {
                asked.push(second);
            }
            told.extend(returns.take().map(|news| (second, news)));
        }
        (asked, told)
    }

    #[test]
    fn what_sends_nothing_owes_no_answer() {
        let mut returns = Returns::default();
        assert_eq!(watch(&mut returns, Instant::now(), 600), (vec![], vec![]));
    }

    #[test]
    fn a_minute_without_an_answer_is_told_once_and_asked_about_before() {
        let (mut returns, start) = (Returns::default(), Instant::now());
        returns.left(start);
        let (asked, told) = watch(&mut returns, start, 71);
        assert_eq!(asked, [30, 35, 40, 45, 50, 55, 60, 65, 70]);
        assert_eq!(told, [(60, Return::Missing)]);
        returns.came();
        assert_eq!(returns.take(), Some(Return::Seen));
        returns.came();
        assert_eq!(returns.take(), None);
    }

    #[test]
    fn an_answer_to_the_question_is_enough() {
        let (mut returns, start) = (Returns::default(), Instant::now());
        for round in 0..20 {
            let start = after(start, round * 31);
            returns.left(start);
            assert_eq!(
                watch(&mut returns, start, 31),
                (vec![30], vec![]),
                "{round}"
            );
            returns.came();
            assert_eq!(returns.take(), None);
        }
    }

    #[test]
    fn what_left_while_the_server_was_dead_is_not_missed() {
        let (mut returns, start) = (Returns::default(), Instant::now());
        returns.left(start);
        returns.interrupted();
        assert_eq!(watch(&mut returns, start, 100), (vec![], vec![]));
    }

    #[test]
    fn the_next_server_is_asked_at_once_and_has_half_a_minute() {
        let (mut returns, start) = (Returns::default(), Instant::now() + MOST);
        returns.prove();
        assert!(!returns.tick(start), "there is no session yet");
        returns.begun(start);
        let (asked, told) = watch(&mut returns, start, 40);
        assert_eq!(asked[..3], [0, 5, 10]);
        assert_eq!(told, [(30, Return::Missing)]);
        let mut returns = Returns::default();
        returns.prove();
        returns.begun(start);
        assert!(returns.tick(start));
        returns.came();
        assert_eq!(returns.take(), Some(Return::Seen));
    }
}
