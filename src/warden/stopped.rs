//! Listens to what the rules refuse, to programs here and to hosts on the LAN, so that a person can be told. A
//! flood costs a bounded part of a processor: what comes faster is lost, and said to be.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{self, Instant};
use tracing::{debug, trace, warn};

use crate::leak::packet::{Packet, Protocol, Target};
use crate::leak::refused::Refused;
use crate::leak::stopped::{Group, Report, Stopped as Kept};
use crate::net::{Port, Transport};
use crate::policy::Reason;
use crate::ruleset::{LOG_BYTES, LOG_EGRESS, LOG_INPUT, LOG_OUTPUT};
use crate::sys::async_fd;
use crate::sys::nflog::{Copy, Limits, Nflog};
use crate::sys::socket::{NOWHERE, PROBE};

/// What is asked of the kernel: about 50 packets in one piece, and 1,000 that may wait.
const LIMITS: Limits = Limits {
    copy: LOG_BYTES,
    batch: 16 * 1024,
    waiting: 512 * 1024,
};

/// The same of hosts on the LAN, which are many fewer: 300 that may wait.
const LAN_LIMITS: Limits = Limits {
    waiting: 128 * 1024,
    ..LIMITS
};

/// Pieces read in one go, and the pause after it: about 10,000 packets a second, of hosts on the LAN 2,500. Under
/// a flood of 120,000 a second that took 5 % of a processor, not optimised.
const BURST: usize = 8;
const LAN_BURST: usize = 2;
const PAUSE: Duration = Duration::from_millis(50);

/// What the kill switch stopped, as far as it could be heard.
pub(super) struct Stopped {
    /// Of programs here.
    sent: Ear,
    /// Of hosts on the LAN. They share no queue, so neither hides what the other did.
    came: Ear,
    /// Why something is not heard.
    problem: Option<String>,
    kept: Kept,
    refused: Refused,
    began: Instant,
}

/// Reads one socket, so much at a time.
struct Ear {
    /// `None` where the kernel does not say.
    source: Option<AsyncFd<Nflog>>,
    burst: usize,
    /// When the next packets are read.
    next: Instant,
    /// Whether some were left by the last burst: a full queue takes nothing new, so nothing would tell
    /// of them.
    left: bool,
}

impl Stopped {
    /// Listens from now on. `unheard` is why the rules tell nothing, if they do not.
    pub(super) fn listen(now: Instant, unheard: Option<String>) -> Self {
        let (sent, no_sent) = Ear::open(&[LOG_OUTPUT, LOG_EGRESS], LIMITS, BURST, now);
        let (came, no_came) = Ear::open(&[LOG_INPUT], LAN_LIMITS, LAN_BURST, now);
        let problem = no_sent.or(no_came);
        if let Some(why) = &problem {
            warn!(why, "`vpngw blocked` will not know what is stopped");
        }
        // That one was said at the start.
        let problem = problem.or(unheard);
        Self {
            sent,
            came,
            problem,
            kept: Kept::default(),
            refused: Refused::default(),
            began: now,
        }
    }

    /// Ready when packets wait to be looked at, and it is time to.
    pub(super) async fn stirred(&self) {
        tokio::select! {
            () = self.sent.stirred() => {}
            () = self.came.stirred() => {}
        }
    }

    /// Looks at the packets that wait, up to a burst.
    pub(super) fn read(&mut self, now: Instant) {
        if now >= self.sent.next {
            self.read_sent(now);
        }
        if now >= self.came.next {
            self.read_came(now);
        }
    }

    fn read_sent(&mut self, now: Instant) {
        let (kept, age) = (&mut self.kept, now - self.began);
        let read = self.sent.read(now, |copy| note(kept, copy, age));
        self.outcome(read);
    }

    fn read_came(&mut self, now: Instant) {
        let (refused, age) = (&mut self.refused, now - self.began);
        let read = self.came.read(now, |copy| refuse(refused, copy, age));
        self.outcome(read);
    }

    fn outcome(&mut self, read: io::Result<()>) {
        if let Err(error) = read {
            warn!(%error, "`vpngw blocked` knows nothing newer");
            self.problem = Some(unheard(&error));
        }
    }

    /// What a person is told, with what waits until now.
    pub(super) fn report(&mut self, now: Instant) -> Report {
        self.read_sent(now);
        self.read_came(now);
        let age = now - self.began;
        let report = Report {
            problem: self.problem.clone(),
            lost: self.sent.lost() + self.came.lost(),
            ..self.kept.report(age)
        };
        report.join(self.refused.report(age))
    }
}

impl Ear {
    /// One that hears these groups, or nothing, and then why.
    fn open(groups: &[u16], limits: Limits, burst: usize, now: Instant) -> (Self, Option<String>) {
        let opened = Nflog::open(groups, limits).and_then(async_fd::nflog);
        let (source, problem) = match opened {
            Ok(source) => (Some(source), None),
            Err(error) => (None, Some(unheard(&error))),
        };
        let ear = Self {
            source,
            burst,
            next: now,
            left: false,
        };
        (ear, problem)
    }

    async fn stirred(&self) {
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

    fn read(&mut self, now: Instant, mut each: impl FnMut(&Copy<'_>)) -> io::Result<()> {
        let Some(source) = &mut self.source else {
            return Ok(());
        };
        self.next = now + PAUSE;
        self.left = true;
        for _ in 0..self.burst {
            match source.get_mut().read(|copy| each(&copy)) {
                Ok(true) => {}
                Ok(false) => {
                    self.left = false;
                    break;
                }
                Err(error) => {
                    self.source = None;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn lost(&self) -> u64 {
        self.source
            .as_ref()
            .map_or(0, |source| source.get_ref().lost())
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

/// A host on the LAN that no exception lets in.
fn refuse(refused: &mut Refused, copy: &Copy<'_>, age: Duration) {
    let packet = Packet::of_ip(copy.bytes);
    let (Some(Packet { protocol, to, from }), Some(number)) =
        (packet, packet.and_then(|packet| packet.to.port))
    else {
        return;
    };
    let transport = match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
        Protocol::Icmp | Protocol::Icmp6 | Protocol::Ip(_) | Protocol::Arp | Protocol::Ether(_) => {
            return;
        }
    };
    trace!(?from, ?to, "refused");
    let port = Port { transport, number };
    if let Some(IpAddr::V4(client)) = from
        && let Some(advice) = refused.note(client, port, age)
    {
        debug!(%client, %port, "a client was refused: no [lan] inbound lets it in; {advice}");
    }
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

fn unheard(error: &io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EBUSY) => "another program reads NFLOG group 5, 6 or 8 in this namespace",
        Some(libc::EPERM) => "CAP_NET_ADMIN is needed",
        _ => "the kernel's module nfnetlink_log is needed",
    };
    format!("{hint}: {error}")
}
