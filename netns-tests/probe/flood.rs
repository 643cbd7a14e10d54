//! A program that never stops trying: some probes, each once a millisecond.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::canary;
use crate::socket::Probe;

/// The flood, running or not.
#[derive(Default)]
pub struct Flood {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
    refused: AtomicU64,
}

impl Flood {
    /// Begins, with these probes.
    pub fn start(&mut self, probes: Vec<&'static Probe>) {
        self.stop();
        let shared = self.shared.clone();
        shared.stop.store(false, Ordering::Relaxed);
        self.thread = Some(std::thread::spawn(move || {
            while !shared.stop.load(Ordering::Relaxed) {
                for probe in &probes {
                    let count = match (probe.send)(&canary::fresh()) {
                        Ok(_) => &shared.sent,
                        Err(_) => &shared.refused,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }));
    }

    /// Ends; returns when the last probe has been tried.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// How many were sent, and how many the kernel refused.
    pub fn count(&self) -> String {
        let [sent, refused] =
            [&self.shared.sent, &self.shared.refused].map(|n| n.load(Ordering::Relaxed));
        format!("count {sent} {refused}")
    }
}
