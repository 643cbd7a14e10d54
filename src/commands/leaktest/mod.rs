//! `vpngw leaktest`: tries the ways out of the namespace it runs in, and says of each whether it held and
//! how that is known. Works inside the gateway's container and in any that is joined to it. Whatever it
//! sends goes to documentation addresses, where nobody is.

use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::exit::{Code, Failure};
use super::units::errno;
use super::{block_on, kernel};
use crate::control::client;

mod attempt;
mod place;
mod report;
mod watch;

use place::Place;
use watch::Watch;

/// How long a frame may be under way between the last attempt and the last look.
const SETTLE: Duration = Duration::from_millis(200);

/// How often each way is tried: the first packet may only cause address resolution.
const ROUNDS: u32 = 2;

/// What became of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// Nothing left.
    Held,
    /// No program with these capabilities can try it.
    Impossible,
    /// It was sent, and nobody could watch.
    Unknown,
    /// It would leave, and a gateway that sees it blocks everything: it was left out.
    NotTried,
    /// It left.
    Leaked,
}

/// One attempt, judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Line {
    /// What was tried.
    what: String,
    /// What became of it.
    outcome: Outcome,
    /// How that is known.
    why: String,
}

/// All attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Report {
    /// The worst of the outcomes.
    verdict: Outcome,
    /// Devices that frames could leave by.
    devices: Vec<String>,
    /// Whether every frame that left by them was looked at.
    watched: bool,
    /// In the order they were tried.
    attempts: Vec<Line>,
}

/// Whether a raw frame is sent where it may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawFrame {
    /// Only where the kernel can hold it.
    WhereHeld,
    /// Everywhere: the operator said so.
    Always,
}

const MAY_LEAVE: &str = "a raw frame may leave here (no netdev egress hook, Linux 5.16), and a running gateway that \
    sees one blocks everything until `vpngw connect`";

/// Tries every way, prints a table or JSON, and says in its code whether all held. `socket` is where a gateway may say
/// whether it holds raw frames.
///
/// # Errors
/// The namespace cannot be looked at, or the output cannot be written to.
pub fn run(json: bool, raw: RawFrame, socket: &Path) -> Result<Code, Failure> {
    let place = Place::look()?;
    let said = block_on(client::status(socket)).ok();
    let said = said.map(|status| status.kill_switch.raw_frames);
    let risky = place.has_way_out() && !are_held(said, &kernel::release());
    if risky && raw == RawFrame::Always {
        eprintln!("vpngw: {MAY_LEAVE}");
    }
    let left_out = risky && raw == RawFrame::WhereHeld;
    let mut watch = Watch::open(&place);
    let attempts = attempt::all(&place);
    let mut results = Vec::new();
    for attempt in &attempts {
        if left_out && attempt.is_raw_frame() {
            results.push(Answer::NotTried);
            continue;
        }
        let mut result = attempt.run();
        for _ in 1..ROUNDS {
            watch.look(&attempts);
            result = attempt.run();
        }
        watch.look(&attempts);
        results.push(result);
    }
    thread::sleep(SETTLE);
    watch.look(&attempts);
    let lines = attempts.iter().zip(results).map(|(attempt, result)| {
        let (outcome, why) = if attempt.stays_on_loopback() {
            judge_loopback(&result)
        } else {
            judge(&result, watch.saw(attempt), place.has_way_out())
        };
        Line {
            what: attempt.name.clone(),
            outcome,
            why,
        }
    });
    let report = Report::of(&place, watch.is_complete(), lines.collect());
    let mut out = io::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        out.write_all(report.page(&place).as_bytes())?;
    }
    Ok(report.code())
}

/// Whether raw frames are held: what the gateway says, or what a kernel of this release can do. What cannot be told is
/// taken for no.
fn are_held(said: Option<bool>, release: &str) -> bool {
    said.or_else(|| kernel::is_at_least(release, (5, 16))) == Some(true)
}

/// What the kernel said to an attempt.
enum Answer {
    /// It was left out.
    NotTried,
    /// It could not be tried at all.
    Impossible(io::Error),
    /// It was refused.
    Refused(io::Error),
    /// It was taken.
    Sent,
}

/// `seen` is whether a frame of it left; `None` if nobody could watch.
fn judge(result: &Answer, seen: Option<bool>, way_out: bool) -> (Outcome, String) {
    if seen == Some(true) {
        return (Outcome::Leaked, "a frame of it left".to_owned());
    }
    match result {
        Answer::NotTried => (
            Outcome::NotTried,
            format!("{MAY_LEAVE}; `vpngw leaktest --raw` tries it"),
        ),
        Answer::Impossible(error) => (Outcome::Impossible, errno(error)),
        Answer::Refused(error) => match proof(error) {
            Some(why) => (Outcome::Held, why),
            None if seen == Some(false) => {
                (Outcome::Held, format!("{}; no frame left", errno(error)))
            }
            None => (Outcome::Unknown, errno(error)),
        },
        Answer::Sent if !way_out => (
            Outcome::Held,
            "there is no device it could leave by".to_owned(),
        ),
        Answer::Sent if seen == Some(false) => {
            (Outcome::Held, "taken, and no frame left".to_owned())
        }
        Answer::Sent => (
            Outcome::Unknown,
            "taken, and frames cannot be watched: CAP_NET_RAW is missing".to_owned(),
        ),
    }
}

/// Whoever listens on loopback may ask from outside the namespace, which nobody here can watch.
fn judge_loopback(result: &Answer) -> (Outcome, String) {
    match result {
        Answer::Sent => (
            Outcome::Unknown,
            "taken: what listens there may ask from outside".to_owned(),
        ),
        Answer::NotTried | Answer::Impossible(_) | Answer::Refused(_) => judge(result, None, true),
    }
}

/// What an error proves by itself. EPERM comes from a rule that drops or rejects in `output`, a refused
/// connection from our reset, ENOBUFS from `egress`; the others from a namespace without a way there.
fn proof(error: &io::Error) -> Option<String> {
    let why = match error.raw_os_error()? {
        libc::EPERM | libc::EACCES => "refused by the rules",
        libc::ECONNREFUSED => "reset by the rules",
        libc::ENOBUFS => "dropped at egress",
        libc::ENETUNREACH
        | libc::EHOSTUNREACH
        | libc::EADDRNOTAVAIL
        | libc::EAFNOSUPPORT
        | libc::ENODEV
        | libc::ENETDOWN => "no way there",
        _ => return None,
    };
    Some(format!("{why}: {}", errno(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn a_frame_that_was_seen_is_a_leak_whatever_the_kernel_said() {
        for result in [Answer::Sent, Answer::Refused(errno(libc::EPERM))] {
            assert_eq!(judge(&result, Some(true), true).0, Outcome::Leaked);
        }
    }

    #[test]
    fn a_raw_frame_is_left_out_where_nothing_is_known_to_hold_it() {
        assert!(are_held(None, "6.1.0-50-cloud-amd64"));
        assert!(!are_held(None, "5.15.0-91-generic"));
        assert!(!are_held(None, "unknown"));
        // A kernel may have been built without the hook, and only the gateway knows.
        assert!(!are_held(Some(false), "6.1.0"));
        assert!(are_held(Some(true), "5.10.0"));
        let (outcome, why) = judge(&Answer::NotTried, Some(false), true);
        assert_eq!(outcome, Outcome::NotTried);
        assert!(why.contains("leaktest --raw"), "{why}");
    }

    #[test]
    fn what_nobody_watched_is_not_held() {
        let judged = |result, seen| judge(&result, seen, true).0;
        assert_eq!(judged(Answer::Sent, None), Outcome::Unknown);
        assert_eq!(judged(Answer::Sent, Some(false)), Outcome::Held);
        let refused = |number| Answer::Refused(errno(number));
        assert_eq!(judged(refused(libc::EPERM), None), Outcome::Held);
        assert_eq!(judged(refused(libc::EMSGSIZE), None), Outcome::Unknown);
        assert_eq!(judge(&Answer::Sent, None, false).0, Outcome::Held);
    }
}
