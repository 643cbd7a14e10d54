//! Looks at every frame that leaves by a device but loopback and the tunnel. Frames that the egress rules
//! drop are not seen: they did not leave.

use super::attempt::Attempt;
use super::place::Place;
use crate::leak::filter;
use crate::sys::capture::Capture;

/// Bytes of frames that may wait, for each device.
const BUFFER: usize = 4 << 20;

/// The taps, and what they saw.
pub(super) struct Watch {
    taps: Vec<Capture>,
    /// Names of attempts of which a frame was seen.
    seen: Vec<String>,
    /// Whether each device has a tap and no frame was missed.
    complete: bool,
}

impl Watch {
    /// Opens a tap on each device.
    pub(super) fn open(place: &Place) -> Self {
        let filter = filter::outgoing(None);
        let open = |index| Capture::open_both(index, &filter, BUFFER).ok();
        let taps: Vec<_> = place
            .devices
            .iter()
            .filter_map(|it| open(it.index))
            .collect();
        Self {
            complete: taps.len() == place.devices.len(),
            taps,
            seen: Vec::new(),
        }
    }

    /// Looks at the frames that left since the last call.
    pub(super) fn look(&mut self, attempts: &[Attempt]) {
        for tap in &self.taps {
            let mut buffer = [0; 512];
            loop {
                match tap.receive(&mut buffer) {
                    Ok(Some(frame)) => {
                        let of = attempts.iter().filter(|it| it.is_in(frame));
                        self.seen.extend(of.map(|it| it.name.clone()));
                    }
                    Ok(None) => break,
                    Err(_) => {
                        self.complete = false;
                        break;
                    }
                }
            }
            self.complete &= tap.dropped().is_ok_and(|dropped| dropped == 0);
        }
    }

    /// Whether a frame of this attempt left; `None` if that could not be told.
    pub(super) fn saw(&self, attempt: &Attempt) -> Option<bool> {
        let seen = self.seen.contains(&attempt.name);
        (seen || self.complete).then_some(seen)
    }

    /// Whether every frame was looked at.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }
}
