//! What the sensors found, kept and told.

use std::time::SystemTime;

use crate::leak::evidence::{Evidence, Findings, Found, Sensor};
use crate::net::IfName;

/// Frames that left without permission, as a sensor saw them.
pub(super) struct Seen {
    /// By which device.
    pub(super) device: IfName,
    /// What was seen.
    pub(super) evidence: Evidence,
}

/// All findings since the start, as far as they are kept.
#[derive(Default)]
pub(super) struct Record {
    findings: Findings,
    /// Whether the engine has not heard of all.
    untold: bool,
    /// Leaks since the start.
    leaks: u64,
    last_leak: Option<String>,
}

impl Record {
    /// Keeps a finding.
    pub(super) fn note(&mut self, evidence: Evidence) {
        self.findings.add(evidence);
        self.untold = true;
    }

    /// Keeps a leak.
    pub(super) fn leak(&mut self, evidence: &Evidence) {
        self.leaks += evidence.count;
        // A frame says more than a number.
        if evidence.sensor == Sensor::Frame || self.last_leak.is_none() {
            self.last_leak = Some(evidence.what.clone());
        }
        self.note(evidence.clone());
    }

    /// Keeps that somebody changed what guards the way out, and that it was undone.
    pub(super) fn undone(&mut self, kind: &str, what: &str) {
        self.note(Evidence::undone(unix_ms(), kind, what));
    }

    /// Leaks since the start, and the last one in words.
    pub(super) fn leaks(&self) -> (u64, Option<String>) {
        (self.leaks, self.last_leak.clone())
    }

    /// How much was found, by kind.
    pub(super) fn counts(&self) -> Vec<Found> {
        self.findings.counts()
    }

    /// An engine that has heard of nothing is there.
    pub(super) fn tell_anew(&mut self) {
        self.untold = true;
    }

    /// What was found last, if that has changed since it was told.
    pub(super) fn untold(&mut self) -> Option<Vec<Evidence>> {
        std::mem::take(&mut self.untold).then(|| self.findings.last())
    }
}

/// The wall clock, milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
