//! Listens to what the rules refuse, so that a person can be told. A flood costs a bounded part of a
//! processor: what comes faster is lost, and said to be.

use std::net::IpAddr;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{self, Instant};
use tracing::{trace, warn};

use crate::leak::packet::{Packet, Protocol, Target};
use crate::leak::stopped::{Group, Report, Stopped as Kept};
use crate::policy::Reason;
use crate::ruleset::{LOG_BYTES, LOG_EGRESS, LOG_OUTPUT};
use crate::sys::async_fd;
use crate::sys::nflog::{Copy, Limits, Nflog};
use crate::sys::socket::{NOWHERE, PROBE};

/// What is asked of the kernel: about 50 packets in one piece, and 1,000 that may wait.
const LIMITS: Limits = Limits {
    copy: LOG_BYTES,
    batch: 16 * 1024,
    waiting: 512 * 1024,
};

/// Pieces read in one go, and the pause after it: about 10,000 packets a second. Under a flood of 120,000 a
/// second that took 5 % of a processor, not optimised.
const BURST: usize = 8;
const PAUSE: Duration = Duration::from_millis(50);

/// What the kill switch stopped, as far as it could be heard.
pub(super) struct Stopped {
    /// `None` where the kernel does not say.
    source: Option<AsyncFd<Nflog>>,
    /// Why it does not.
    problem: Option<String>,
    kept: Kept,
    began: Instant,
    /// When the next packets are read.
    next: Instant,
    /// Whether some were left by the last burst: a full queue takes nothing new, so nothing would tell
    /// of them.
    left: bool,
}

impl Stopped {
    /// Listens from now on.
    pub(super) fn listen(now: Instant) -> Self {
        let opened = Nflog::open(&[LOG_OUTPUT, LOG_EGRESS], LIMITS).and_then(async_fd::nflog);
        let (source, problem) = match opened {
            Ok(source) => (Some(source), None),
            Err(error) => (None, Some(unheard(&error))),
        };
        if let Some(why) = &problem {
            warn!(why, "`vpngw blocked` will not know what is stopped");
        }
        Self {
            source,
            problem,
            kept: Kept::default(),
            began: now,
            next: now,
            left: false,
        }
    }

    /// Ready when packets wait to be looked at, and it is time to.
    pub(super) async fn stirred(&self) {
        time::sleep_until(self.next).await;
        let Some(source) = &self.source else {
            return std::future::pending().await;
        };
        if self.left {
            return;
        }
        match source.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Looks at the packets that wait, up to a burst.
    pub(super) fn read(&mut self, now: Instant) {
        let Some(source) = &mut self.source else {
            return;
        };
        let (kept, age) = (&mut self.kept, now - self.began);
        self.left = true;
        for _ in 0..BURST {
            match source.get_mut().read(|copy| note(kept, &copy, age)) {
                Ok(true) => {}
                Ok(false) => {
                    self.left = false;
                    break;
                }
                Err(error) => {
                    warn!(%error, "`vpngw blocked` knows nothing newer");
                    self.problem = Some(unheard(&error));
                    self.source = None;
                    break;
                }
            }
        }
        self.next = now + PAUSE;
    }

    /// What a person is told, with what waits until now.
    pub(super) fn report(&mut self, now: Instant) -> Report {
        self.read(now);
        Report {
            problem: self.problem.clone(),
            lost: self.source.as_ref().map_or(0, |s| s.get_ref().lost()),
            ..self.kept.report(now - self.began)
        }
    }
}

fn note(kept: &mut Kept, copy: &Copy<'_>, age: Duration) {
    let (protocol, to) = what(copy);
    let group = Group {
        // Nobody else logs to our groups; a prefix we do not know is still a packet that was stopped.
        reason: copy.prefix.parse().unwrap_or(Reason::Other),
        protocol,
        uid: copy.uid,
        own: is_own(copy, protocol, to),
    };
    trace!(reason = copy.prefix, %protocol, uid = copy.uid, "stopped");
    kept.note(group, to, age);
}

/// Whether it is a probe of the alarm's. A program of the same user can only pass for it with a datagram to an
/// address where nobody is.
fn is_own(copy: &Copy<'_>, protocol: Protocol, to: Target) -> bool {
    let nowhere = Target {
        address: Some(IpAddr::V4(*NOWHERE.ip())),
        port: Some(NOWHERE.port()),
    };
    let ours = copy.uid == Some(rustix::process::geteuid().as_raw());
    ours && protocol == Protocol::Udp && to == nowhere && copy.bytes.ends_with(PROBE)
}

fn what(copy: &Copy<'_>) -> (Protocol, Target) {
    let packet = if copy.frame {
        Some(Packet::of_frame(copy.bytes))
    } else {
        Packet::of_ip(copy.bytes)
    };
    match packet {
        Some(packet) => (packet.protocol, packet.to),
        None => (Protocol::Ether(0), Target::default()),
    }
}

fn unheard(error: &std::io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EBUSY) => "another program reads NFLOG group 5 or 6 in this namespace",
        Some(libc::EPERM) => "CAP_NET_ADMIN is needed",
        _ => "the kernel's module nfnetlink_log is needed",
    };
    format!("{hint}: {error}")
}
