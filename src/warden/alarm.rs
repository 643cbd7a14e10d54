//! What becomes of what the sensors see: it is kept and told, everything is blocked, and a device that goes
//! on sending what nobody permits is set down.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::namespace::Namespace;
use super::renames::Renames;
use crate::gateway::BlockReason;
use crate::leak::account::{Account, Reading};
use crate::leak::evidence::{Evidence, Findings, Sensor};
use crate::link::Accounting;
use crate::net::{IfName, Transport};
use crate::sys::link::Traffic;
use crate::sys::{ethtool, link, socket};

/// How long frames may go on leaving after everything was blocked because of a leak: what was under way is
/// gone by then. Whatever still leaves does so past the rules, and only a device that is down stops it.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a device must do itself. Otherwise the kernel cuts a packet into frames after the rules counted it as
/// one (net/core/dev.c, `validate_xmit_skb`), and the device counts more than they did.
const SEGMENTATION: [&str; 2] = ["tx-tcp-segmentation", "tx-udp-segmentation"];

/// A frame, or frames, that left without permission.
pub(super) struct Leak {
    pub(super) device: IfName,
    pub(super) evidence: Evidence,
}

/// What was found, and what was done about it.
#[derive(Default)]
pub(super) struct Alarm {
    pub(super) findings: Findings,
    /// Whether the engine has not heard of all findings.
    pub(super) untold: bool,
    account: Account,
    renames: Renames,
    /// Found by accounting and probes, not yet acted upon.
    found: Vec<Leak>,
    /// Since when everything is blocked because of a leak.
    since: Option<Instant>,
    /// Devices that were set down for good.
    down: Vec<IfName>,
}

impl Namespace {
    /// Acts upon what the sensors saw since the last call: blocks, and sets down a device that leaks in spite
    /// of that. Returns the first leak in words.
    pub(super) fn leaked(&mut self, now: Instant) -> Option<String> {
        let leaks = self.seen(now);
        let first = leaks.first()?.evidence.what.clone();
        let late = self.alarm.since.is_some_and(|since| now > since + PATIENCE);
        for Leak { device, .. } in leaks {
            if late && !self.alarm.down.contains(&device) {
                error!(%device, "frames go on leaving although everything is blocked; the device is set down");
                self.alarm.down.push(device);
            }
        }
        self.alarm.since.get_or_insert(now);
        // Rules that are gone are loaded again here: blocked already, they would be taken for being in force.
        self.verify();
        // The first one stays the reason; it is what the operator has to hear of.
        self.block(BlockReason::Leak(first.clone()));
        self.hold_down();
        Some(first)
    }

    /// What the sensors saw since the last call, kept.
    fn seen(&mut self, now: Instant) -> Vec<Leak> {
        let mut leaks = self.sensor.leaks(now, unix_ms());
        leaks.append(&mut self.alarm.found);
        for Leak { evidence, .. } in &leaks {
            self.facts.leaks += evidence.count;
            // A frame says more than a number.
            if evidence.sensor == Sensor::Frame || self.facts.last_leak.is_none() {
                self.facts.last_leak = Some(evidence.what.clone());
            }
            self.note(evidence.clone());
        }
        leaks
    }

    /// Tries the way out by each device, as a program would. Only a refusal by the rules is a proof; a
    /// datagram that was taken is a leak, whatever the other sensors saw.
    pub(super) fn probe(&mut self) {
        let mut proven = true;
        for device in self.facts.devices.clone() {
            match socket::try_out(&device) {
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
                Err(error) => {
                    debug!(%device, %error, "the probe proves nothing");
                    proven = false;
                }
                Ok(()) => {
                    let what =
                        format!("udp to {} by {device}: no rule refused it", socket::NOWHERE);
                    let evidence = Evidence::new(unix_ms(), Sensor::Probe, "udp", &what);
                    self.alarm.found.push(Leak { device, evidence });
                    proven = false;
                }
            }
        }
        if proven {
            self.facts.proven = Some(unix_ms());
        }
    }

    /// Keeps a finding.
    pub(super) fn note(&mut self, evidence: Evidence) {
        self.alarm.findings.add(evidence);
        self.facts.found = self.alarm.findings.counts();
        self.alarm.untold = true;
    }

    /// What the sensors saw last, if that has changed since it was told.
    pub(super) fn untold(&mut self) -> Option<Vec<Evidence>> {
        std::mem::take(&mut self.alarm.untold).then(|| self.alarm.findings.last())
    }

    /// Keeps that somebody changed what guards the way out, and that it was undone.
    pub(super) fn undone(&mut self, kind: &str, what: &str) {
        self.note(Evidence::undone(unix_ms(), kind, what));
    }

    /// Sets devices that leaked in spite of the rules down, again if somebody set them up.
    pub(super) fn hold_down(&self) {
        for device in &self.alarm.down {
            match link::set_down(device) {
                Ok(()) => {}
                Err(error) if error.is_gone() => {}
                Err(error) => error!(%error, "a device that leaks could not be set down"),
            }
        }
    }

    /// The operator lifted the block: what was set down comes up again. What was seen until now is kept and
    /// blocks nothing any more.
    pub(super) fn release(&mut self, now: Instant) {
        self.count();
        self.seen(now);
        self.alarm.since = None;
        for device in std::mem::take(&mut self.alarm.down) {
            match link::set_up(&device) {
                Ok(()) => info!(%device, "set up again"),
                Err(error) => warn!(%error, "a device that was set down stays so"),
            }
        }
    }

    /// What the devices sent so far. Read before the rules' counters: a frame is counted before it is sent.
    pub(super) fn traffic(&mut self) -> BTreeMap<u32, u64> {
        let traffic = match link::traffic() {
            Ok(traffic) => traffic,
            Err(error) => {
                self.facts.accounting = Accounting::Off(error.to_string());
                return BTreeMap::new();
            }
        };
        if self.alarm.renames.heard(&traffic) {
            self.alarm.account.excuse();
        }
        let guarded = |it: &&Traffic| self.facts.devices.contains(&it.name);
        let mut sent: BTreeMap<_, _> = traffic
            .iter()
            .filter(guarded)
            .map(|it| (it.index, it.sent))
            .collect();
        let uplink = self.uplink.as_ref();
        let uplink = uplink.and_then(|uplink| traffic.iter().find(|it| it.name == uplink.device));
        self.facts.accounting = match (self.kernel.egress_hook, uplink) {
            (false, _) => Accounting::Off("the kernel has no egress hook".to_owned()),
            (true, None) => Accounting::On,
            (true, Some(uplink)) => match self.uncounted(uplink) {
                None => Accounting::On,
                Some(why) => {
                    sent.remove(&uplink.index);
                    Accounting::Off(format!("{}: {why}", uplink.name))
                }
            },
        };
        if self.kernel.egress_hook {
            sent
        } else {
            BTreeMap::new()
        }
    }

    /// Why what the uplink sends cannot be held against the counters.
    fn uncounted(&self, uplink: &Traffic) -> Option<String> {
        let device = inexact(uplink).map(|why| why.to_string());
        device.or_else(|| self.may_be_cut())
    }

    /// Whether programs may send datagrams that the kernel cuts after they were counted: UDP_SEGMENT goes past
    /// what a device cuts itself.
    fn may_be_cut(&self) -> Option<String> {
        let lan = &self.config.lan;
        let inbound = lan.inbound.iter().map(|it| it.to().transport);
        let outbound = lan.outbound.iter().map(|it| it.port().transport);
        inbound
            .chain(outbound)
            .any(|transport| transport == Transport::Udp)
            .then(|| "there is a LAN exception for UDP".to_owned())
    }

    /// Compares what the devices sent with what the rules let leave.
    pub(super) fn account(&mut self, sent: BTreeMap<u32, u64>, counted: u64, now: Instant) {
        let uncounted = self
            .alarm
            .account
            .read(Reading { sent, counted }, now.into_std());
        let Some(device) = self.facts.devices.first().filter(|_| uncounted > 0) else {
            return;
        };
        let device = self.uplink.as_ref().map_or(device, |it| &it.device).clone();
        let what = format!("frames by {device} that no rule let leave");
        let evidence = Evidence::new(unix_ms(), Sensor::Accounting, "uncounted", &what);
        self.alarm.found.push(Leak {
            device,
            evidence: evidence.times(uncounted),
        });
    }

    /// The rules were replaced.
    pub(super) fn account_anew(&mut self, now: Instant) {
        let sent = self.traffic();
        self.alarm.account.turn(sent, now.into_std());
    }
}

/// Why a device counts other frames than the rules do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inexact {
    /// A queue of this kind holds frames back and drops some, and nobody tells how many.
    #[error("it has a queue ({0})")]
    Queue(String),
    /// It cuts no more than so many bytes, or into no more than so many segments.
    #[error("it cuts at most {0} bytes or {1} segments")]
    Cut(u32, u32),
    /// It does not say what it does; why.
    #[error("its features are not known: {0}")]
    Unread(String),
    /// It leaves cutting to the kernel, which does it after the rules counted: the feature that is off.
    #[error("{0} is off")]
    Off(&'static str),
}

/// Whether a device counts other frames than the rules do, and why.
pub fn inexact(device: &Traffic) -> Option<Inexact> {
    if device.queue != "noqueue" {
        return Some(Inexact::Queue(device.queue.clone()));
    }
    // What we send at once has less than 64 KiB and at most 64 segments.
    if device.gso_max.0 < 64 << 10 || device.gso_max.1 < 64 {
        let (bytes, segments) = device.gso_max;
        return Some(Inexact::Cut(bytes, segments));
    }
    match ethtool::features(&device.name) {
        Err(error) => Some(Inexact::Unread(error.to_string())),
        Ok(active) => {
            let active = |it: &str| active.iter().any(|name| name == it);
            let missing = SEGMENTATION.into_iter().find(|it| !active(it))?;
            Some(Inexact::Off(missing))
        }
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
