//! The frame sensor: looks at every frame that leaves by any device but loopback and the tunnel, and
//! tells those that the policy does not permit. It does not ask the rules, so it sees what they miss.

use std::collections::BTreeMap;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::Instant;
use tracing::warn;

use crate::leak::frame::Frame;
use crate::leak::{filter, permitted};
use crate::net::IfName;
use crate::policy::Policy;
use crate::sys::capture::Capture;
use crate::sys::{async_fd, link};

/// Bytes of frames that may wait to be looked at, for each device.
const BUFFER: usize = 1 << 20;

/// How long what the policy before permitted is no leak: frames that left just before the rules changed
/// may be looked at just after.
const GRACE: Duration = Duration::from_millis(500);

/// Frames looked at in one go. More than that are looked at in the next.
const BURST: usize = 256;

/// The sensor. Without CAP_NET_RAW it has no sockets and says so.
#[derive(Default)]
pub(super) struct Sensor {
    taps: BTreeMap<IfName, Tap>,
    policy: Policy,
    before: Policy,
    changed: Option<Instant>,
    /// Why a device is not looked at.
    blind: Option<String>,
}

struct Tap {
    index: u32,
    socket: AsyncFd<Capture>,
}

impl Sensor {
    /// Looks at these devices, by this policy, from now on.
    pub(super) fn follow(&mut self, devices: &[IfName], policy: &Policy, now: Instant) {
        if self.policy != *policy {
            self.before = std::mem::replace(&mut self.policy, policy.clone());
            self.changed = Some(now);
        }
        self.taps.retain(|device, _| devices.contains(device));
        let mut blind = None;
        for device in devices {
            if let Err(error) = self.tap(device) {
                blind = Some(format!("{device}: {error}"));
            }
        }
        if blind != self.blind {
            if let Some(why) = &blind {
                warn!(why, "frames that leave cannot be looked at");
            }
            self.blind = blind;
        }
    }

    /// Whether every device is looked at.
    pub(super) fn is_watching(&self) -> bool {
        self.blind.is_none()
    }

    /// Ready when a frame waits to be looked at.
    pub(super) async fn stirred(&self) {
        std::future::poll_fn(|context| self.poll(context)).await;
    }

    /// The frames since the last call that no policy permitted, in words.
    pub(super) fn leaks(&mut self, now: Instant) -> Vec<String> {
        let grace = self.changed.is_some_and(|at| now < at + GRACE);
        let mut leaks = Vec::new();
        let mut gone = Vec::new();
        for (device, tap) in &self.taps {
            let mut buffer = [0; 512];
            for _ in 0..BURST {
                match tap.socket.get_ref().receive(&mut buffer) {
                    Ok(Some(bytes)) => {
                        let frame = Frame::parse(bytes);
                        let fine = permitted(&self.policy, device, &frame)
                            || (grace && permitted(&self.before, device, &frame));
                        if !fine {
                            leaks.push(format!("{frame} by {device}"));
                        }
                    }
                    Ok(None) => break,
                    // The device went down or away. It gets a new socket when it is back.
                    Err(_) => {
                        gone.push(device.clone());
                        break;
                    }
                }
            }
        }
        self.taps.retain(|device, _| !gone.contains(device));
        leaks
    }

    fn tap(&mut self, device: &IfName) -> io::Result<()> {
        let uplink = self
            .policy
            .uplink
            .as_ref()
            .filter(|uplink| uplink.device == *device);
        let filter = filter::outgoing(uplink);
        let index = link::index(device).map_err(io::Error::other)?;
        if let Some(tap) = self.taps.get(device).filter(|tap| tap.index == index) {
            return tap.socket.get_ref().refilter(&filter);
        }
        let capture = Capture::open_both(index, &filter, BUFFER)?;
        let socket = async_fd::capture(capture)?;
        self.taps.insert(device.clone(), Tap { index, socket });
        Ok(())
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        for tap in self.taps.values() {
            // An error is a device that went down: `leaks` finds out.
            if let Poll::Ready(ready) = tap.socket.poll_read_ready(context) {
                if let Ok(mut ready) = ready {
                    // Whatever waits is read before the next poll, up to a burst; a rest is told of by
                    // the frame after it, or found by the next tick.
                    ready.clear_ready();
                }
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}
