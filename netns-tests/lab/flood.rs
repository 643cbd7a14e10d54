//! A program that never stops trying: a datagram a millisecond, out of the uplink and wherever the
//! routes lead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::ns::Namespaces;
use super::{HOST, at, canary, wait};

/// A running flood; ends when dropped.
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Starts it in `app`.
    pub fn start(ns: &Namespaces) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (sent, refused) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (stopped, passed, failed) = (stop.clone(), sent.clone(), refused.clone());
        let thread = ns.spawn("app", move || {
            let routed = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            let bound = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            bound.bind_device(Some(b"eth0")).unwrap();
            let to = at(HOST, 9).into();
            while !stopped.load(Ordering::Relaxed) {
                for socket in [&routed, &bound] {
                    match socket.send_to(&canary::fresh(), &to) {
                        Ok(_) => passed.fetch_add(1, Ordering::Relaxed),
                        Err(_) => failed.fetch_add(1, Ordering::Relaxed),
                    };
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self {
            stop,
            sent,
            refused,
            thread: Some(thread),
        }
    }

    /// Waits until it has tried this many times more.
    pub fn goes_on(&self, more: u64) {
        let total = || self.sent.load(Ordering::Relaxed) + self.refused.load(Ordering::Relaxed);
        let goal = total() + more;
        wait("the flood goes on", Duration::from_secs(60), || {
            (total() >= goal).then_some(())
        });
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
