//! Deny-all when the kernel will not take all of it: as much of the second layer as it does take.

use super::{ApplyError, Armed, devices};
use crate::net::IfName;
use crate::ruleset::{Kernel, Ruleset};

/// Deny-all is in force, and so far.
#[derive(Debug)]
pub struct Closed {
    /// What is in force.
    pub ruleset: Ruleset,
    /// Devices on which nothing holds back a raw frame: whoever closes sets them down.
    pub uncovered: Vec<IfName>,
    /// Why, if there are any.
    pub why: Option<ApplyError>,
}

impl Armed {
    /// Makes deny-all be in force. Where the kernel refuses the second layer, fewer devices get it, the first ones
    /// of `found` the longest; a device that is gone meanwhile needs none. In a kernel that has no second layer
    /// ([`Kernel::egress_hook`]) none is uncovered: it is known that raw frames pass.
    ///
    /// # Errors
    ///
    /// The first layer was refused, or what became of it is not known: every link has to be set down.
    pub fn close(&mut self, found: &[IfName], kernel: Kernel) -> Result<Closed, ApplyError> {
        let mut tries = Tries::new(found, kernel);
        let mut why = None;
        loop {
            let (covered, kernel) = tries.next();
            let ruleset = Ruleset::deny_all(covered, kernel);
            let error = match self.apply(&ruleset) {
                Ok(()) => {
                    return Ok(Closed {
                        ruleset,
                        uncovered: tries.uncovered(),
                        why,
                    });
                }
                Err(error) => error,
            };
            if !error.is_about_egress() || !tries.fewer(&error) {
                return Err(error);
            }
            why = why.or(Some(error));
        }
    }
}

/// How much of the second layer is tried next.
struct Tries {
    devices: Vec<IfName>,
    covered: usize,
    kernel: Kernel,
}

impl Tries {
    fn new(found: &[IfName], kernel: Kernel) -> Self {
        Self {
            devices: found.to_vec(),
            covered: found.len(),
            kernel,
        }
    }

    fn next(&self) -> (&[IfName], Kernel) {
        // Invariant: `covered` only falls, from the number of devices.
        (&self.devices[..self.covered], self.kernel)
    }

    fn uncovered(&self) -> Vec<IfName> {
        self.devices[self.covered..].to_vec()
    }

    /// Less than before; false when there is no less.
    fn fewer(&mut self, error: &ApplyError) -> bool {
        if self.kernel.absent_devices {
            self.kernel.absent_devices = false;
            return true;
        }
        if error.device_gone() && self.forget_gone() {
            return true;
        }
        if self.covered > 0 {
            self.covered /= 2;
            return true;
        }
        // Not even an empty table: the one before stays, with what it held.
        std::mem::take(&mut self.kernel.egress_hook)
    }

    /// Forgets the devices that are gone; false if none is, or if that cannot be told.
    fn forget_gone(&mut self) -> bool {
        let Ok(there) = devices() else {
            return false;
        };
        let before = self.devices.len();
        let covered: Vec<_> = self
            .devices
            .drain(..self.covered)
            .filter(|it| there.contains(it))
            .collect();
        self.covered = covered.len();
        let rest = std::mem::take(&mut self.devices)
            .into_iter()
            .filter(|it| there.contains(it));
        self.devices = covered.into_iter().chain(rest).collect();
        self.devices.len() < before
    }
}
