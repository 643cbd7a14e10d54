//! How long the machine itself stood still, so that a busy machine is not taken for a lost packet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a healthy machine may add to a short sleep.
const USUAL: Duration = Duration::from_millis(50);

/// A running watch; ends when dropped.
pub struct Machine {
    stalls: Arc<Mutex<Vec<(Instant, Duration)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    /// Begins to watch.
    pub fn watch() -> Self {
        let (stalls, stop) = (
            Arc::<Mutex<Vec<_>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let (list, stopped) = (stalls.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let nap = Duration::from_millis(20);
            while !stopped.load(Ordering::Relaxed) {
                let start = Instant::now();
                std::thread::sleep(nap);
                let late = start.elapsed().saturating_sub(nap);
                if late > USUAL {
                    list.lock().unwrap().push((Instant::now(), late));
                }
            }
        });
        Self {
            stalls,
            stop,
            thread: Some(thread),
        }
    }

    /// The time it stood still since then, all stalls together.
    pub fn stood_still_since(&self, since: Instant) -> Duration {
        let stalls = self.stalls.lock().unwrap();
        let recent = stalls.iter().filter(|(end, _)| *end >= since);
        recent.map(|(_, late)| *late).sum()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
