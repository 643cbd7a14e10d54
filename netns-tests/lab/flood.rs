//! A joined program that never stops trying: out of the uplink and wherever the routes lead, each once a
//! millisecond.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Lab, wait};
use crate::probes::program::{Persona, Program};

/// A running flood; ends when dropped.
pub struct Flood {
    program: RefCell<Program>,
    tried: Arc<AtomicU64>,
}

impl Flood {
    /// Starts it in `app`.
    pub fn start(lab: &Lab) -> Self {
        Self::of(lab, Persona::Lab, &["ip/udp", "device/udp"])
    }

    /// Starts one of these probes, tried by somebody.
    pub fn of(lab: &Lab, persona: Persona, probes: &[&str]) -> Self {
        let mut program = Program::start(&lab.ns, persona);
        program.flood(probes);
        Self {
            program: RefCell::new(program),
            tried: lab.sensor.tries(),
        }
    }

    /// Waits until it has tried this many times more.
    pub fn goes_on(&self, more: u64) {
        let total = || self.program.borrow_mut().flooded();
        let goal = total() + more;
        wait("the flood goes on", Duration::from_secs(60), || {
            (total() >= goal).then_some(())
        });
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let total = self.program.borrow_mut().flooded();
            self.tried.fetch_add(total, Ordering::Relaxed);
        }
    }
}
