//! Accounting: what the devices say they sent, against what the rules say they let leave.

use std::collections::BTreeMap;
use std::time::Instant;

use super::record::{Seen, unix_ms};
use super::renames::Renames;
use crate::config::Lan;
pub(super) use crate::leak::account::RING as EXCUSED;
use crate::leak::account::{Account, Reading};
use crate::leak::evidence::{Evidence, Sensor};
use crate::link::Accounting as Fact;
use crate::net::{IfName, Transport};
use crate::sys::ethtool;
use crate::sys::link::{self, Traffic};

/// What a device must do itself. Otherwise the kernel cuts a packet into frames after the rules counted it as
/// one (net/core/dev.c, `validate_xmit_skb`), and the device counts more than they did.
const SEGMENTATION: [&str; 2] = ["tx-tcp-segmentation", "tx-udp-segmentation"];

/// The balance, and whether there is one.
#[derive(Default)]
pub(super) struct Accounting {
    account: Account,
    renames: Renames,
    fact: Fact,
}

/// What is accounted for.
pub(super) struct Scope<'a> {
    /// Devices that the rules hold.
    pub(super) devices: &'a [IfName],
    /// The uplink among them.
    pub(super) uplink: Option<&'a IfName>,
    /// Those beside the uplink that LAN exceptions are on.
    pub(super) beside: Vec<&'a IfName>,
    /// Whether the kernel counts what leaves.
    pub(super) egress_hook: bool,
    /// LAN exceptions.
    pub(super) lan: &'a Lan,
}

impl Accounting {
    /// Whether all that leaves is accounted for.
    pub(super) fn fact(&self) -> &Fact {
        &self.fact
    }

    /// Somebody changed the rules, and what they had counted may be gone.
    pub(super) fn excuse(&mut self) {
        self.account.excuse();
    }

    /// What the devices sent so far. Read before the rules' counters: a frame is counted before it is sent.
    pub(super) fn traffic(&mut self, scope: &Scope<'_>) -> BTreeMap<u32, u64> {
        let traffic = match link::traffic() {
            Ok(traffic) => traffic,
            Err(error) => {
                self.fact = Fact::Off(error.to_string());
                return BTreeMap::new();
            }
        };
        if self.renames.heard(&traffic) {
            self.account.excuse();
        }
        if !scope.egress_hook {
            self.fact = Fact::Off("the kernel has no egress hook".to_owned());
            return BTreeMap::new();
        }
        let guarded = |it: &&Traffic| scope.devices.contains(&it.name);
        let mut sent: BTreeMap<_, _> = traffic
            .iter()
            .filter(guarded)
            .map(|it| (it.index, it.sent))
            .collect();
        self.fact = Fact::On;
        let carries =
            |it: &&Traffic| Some(&it.name) == scope.uplink || scope.beside.contains(&&it.name);
        for device in traffic.iter().filter(carries) {
            if let Some(why) = uncounted(device, scope.lan) {
                sent.remove(&device.index);
                self.fact = Fact::Off(format!("{}: {why}", device.name));
            }
        }
        sent
    }

    /// Compares what the devices sent with what the rules let leave.
    pub(super) fn compare(
        &mut self,
        sent: BTreeMap<u32, u64>,
        counted: u64,
        scope: &Scope<'_>,
        now: Instant,
    ) -> Option<Seen> {
        let uncounted = self.account.read(Reading { sent, counted }, now);
        let device = scope.devices.first().filter(|_| uncounted > 0)?;
        let device = scope.uplink.unwrap_or(device).clone();
        let what = format!("frames by {device} that no rule let leave");
        let evidence = Evidence::new(unix_ms(), Sensor::Accounting, "uncounted", &what);
        Some(Seen {
            device,
            evidence: evidence.times(uncounted),
        })
    }

    /// The rules were replaced.
    pub(super) fn turn(&mut self, scope: &Scope<'_>, now: Instant) {
        let sent = self.traffic(scope);
        self.account.turn(sent, now);
    }
}

/// Why what a device sends cannot be held against the counters.
fn uncounted(device: &Traffic, lan: &Lan) -> Option<String> {
    let device = inexact(device).map(|why| why.to_string());
    device.or_else(|| may_be_cut(lan))
}

/// Whether programs may send datagrams that the kernel cuts after they were counted: UDP_SEGMENT goes past
/// what a device cuts itself.
fn may_be_cut(lan: &Lan) -> Option<String> {
    let inbound = lan.inbound.iter().map(|it| it.to().transport);
    let outbound = lan.outbound.iter().map(|it| it.port().transport);
    inbound
        .chain(outbound)
        .any(|transport| transport == Transport::Udp)
        .then(|| "there is a LAN exception for UDP".to_owned())
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
