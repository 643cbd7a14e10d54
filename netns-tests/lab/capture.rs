//! Receives every frame of a device, in a thread inside the namespace of the device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use super::ns::Namespaces;
use super::raw::{ETH_P_ALL, Layer, PacketSocket};

/// One captured frame.
pub struct Frame<'a> {
    /// The frame, without the VLAN tag.
    pub bytes: &'a [u8],
    /// Whether the capturing side sent it.
    pub outgoing: bool,
    /// The 802.1Q tag.
    pub vlan: Option<u16>,
    /// When the kernel queued it.
    pub at: SystemTime,
}

/// A running capture; ends when dropped.
pub struct Capture {
    stop: Arc<AtomicBool>,
    dropped: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Returns once the socket receives.
    pub fn start(
        namespaces: &Namespaces,
        namespace: &str,
        device: &str,
        mut handle: impl FnMut(&Frame<'_>) + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let dropped = Arc::new(AtomicU32::new(0));
        let (ready, receiving) = mpsc::channel();
        let (device, stopped, lost) = (device.to_owned(), stop.clone(), dropped.clone());
        let thread = namespaces.spawn(namespace, move || {
            let socket = PacketSocket::open(&device, Layer::Frame, ETH_P_ALL).unwrap();
            socket.watch(Duration::from_millis(100)).unwrap();
            ready.send(()).unwrap();
            let mut buffer = vec![0; 1 << 17];
            while !stopped.load(Ordering::Relaxed) {
                let Ok(got) = socket.recv(&mut buffer) else {
                    lost.fetch_add(socket.dropped().unwrap_or(0), Ordering::Relaxed);
                    continue;
                };
                handle(&Frame {
                    bytes: &buffer[..got.len],
                    outgoing: got.outgoing,
                    vlan: got.vlan,
                    at: got.at,
                });
            }
        });
        receiving.recv().expect("the capture receives");
        Self {
            stop,
            dropped,
            thread: Some(thread),
        }
    }

    /// Frames that did not fit into the queue. Anything but 0 makes a statement of absence void.
    pub fn dropped(&self) -> u32 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
