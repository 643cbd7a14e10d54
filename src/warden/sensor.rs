//! The frame sensor: looks at every frame that leaves by any device but loopback and the tunnel, and
//! tells those that the policy does not permit. It does not ask the rules, so it sees what they miss.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use std::time::Instant;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use super::record::Seen;
use crate::leak::evidence::{Evidence, Sensor as Kind};
use crate::leak::frame::Frame;
use crate::leak::{filter, permitted};
use crate::net::IfName;
use crate::policy::Policy;
use crate::sys::capture::Capture;
use crate::sys::{async_fd, link};

/// Bytes of frames that may wait to be looked at, for each device.
const BUFFER: usize = 1 << 20;

/// How long what a policy before permitted is no leak: frames that left just before the rules changed
/// may be looked at just after.
const GRACE: Duration = Duration::from_millis(500);

/// The same for our own WireGuard flow, which nobody can read: a queue of the device (tbf, fq_codel) may
/// hold frames back for seconds after the rules let them pass.
const QUEUED: Duration = Duration::from_secs(30);

/// Policies that are remembered, however often they change.
const MOST_BEFORE: usize = 64;

/// Frames looked at in one go. More than that are looked at in the next.
const BURST: usize = 256;

/// More than wait for one device at any time: each takes up 256 bytes of the buffer at least (`SKB_TRUESIZE`,
/// linux/skbuff.h).
const MOST_WAITING: usize = BUFFER / 256 * 2;

/// The sensor. Without CAP_NET_RAW it has no sockets and says so.
#[derive(Default)]
pub(super) struct Sensor {
    taps: BTreeMap<IfName, Tap>,
    /// Of devices that went or have another name, with frames that nobody has looked at yet.
    left: Vec<(IfName, Tap)>,
    policy: Policy,
    /// The policies before and when they ended, for as long as [`QUEUED`].
    before: VecDeque<(Policy, Instant)>,
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
            let ended = std::mem::replace(&mut self.policy, policy.clone());
            self.before.retain(|(_, end)| now < *end + QUEUED);
            self.before.push_back((ended, now));
            if self.before.len() > MOST_BEFORE {
                self.before.pop_front();
            }
        }
        let gone = |device: &IfName, _: &mut Tap| !devices.contains(device);
        self.left.extend(self.taps.extract_if(.., gone));
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

    /// The frames since the last call that no policy permitted. `unix` is the wall clock, milliseconds.
    pub(super) fn leaks(&mut self, now: Instant, unix: u64) -> Vec<Seen> {
        let mut leaks = Vec::new();
        let mut gone = Vec::new();
        for (device, tap) in &self.taps {
            if self
                .look(device, tap, BURST, now, unix, &mut leaks)
                .is_err()
            {
                gone.push(device.clone());
            }
        }
        // It gets a new socket when it is back.
        let gone = |device: &IfName, _: &mut Tap| gone.contains(device);
        self.left.extend(self.taps.extract_if(.., gone));
        for (device, tap) in std::mem::take(&mut self.left) {
            // Whatever it ended with, all that waited has been read.
            let _ = self.look(&device, &tap, MOST_WAITING, now, unix, &mut leaks);
        }
        leaks
    }

    /// Looks at frames that wait, `most` of them. An error is a device that went down or away; the kernel tells of that
    /// first, and once (`__skb_try_recv_datagram`, net/core/datagram.c), so it goes on to the frames after it.
    fn look(
        &self,
        device: &IfName,
        tap: &Tap,
        most: usize,
        now: Instant,
        unix: u64,
        leaks: &mut Vec<Seen>,
    ) -> io::Result<()> {
        let mut buffer = [0; 512];
        let mut outcome = Ok(());
        for _ in 0..most {
            let bytes = match tap.socket.get_ref().receive(&mut buffer) {
                Ok(Some(bytes)) => bytes,
                Err(error) if outcome.is_ok() => {
                    outcome = Err(error);
                    continue;
                }
                Ok(None) | Err(_) => break,
            };
            let frame = Frame::parse(bytes);
            let fine = permitted(&self.policy, device, &frame)
                || was_permitted(&self.before, device, &frame, now);
            if !fine {
                let what = format!("{frame} by {device}");
                let evidence = Evidence::new(unix, Kind::Frame, frame.kind(), &what);
                leaks.push(Seen {
                    device: device.clone(),
                    evidence: evidence.with_frame(bytes),
                });
            }
        }
        outcome
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
        let before = self.taps.insert(device.clone(), Tap { index, socket });
        self.left.extend(before.map(|tap| (device.clone(), tap)));
        Ok(())
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if !self.left.is_empty() {
            return Poll::Ready(());
        }
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

/// Whether a policy that has ended permitted the frame so lately that it may have left under it.
fn was_permitted(
    before: &VecDeque<(Policy, Instant)>,
    device: &IfName,
    frame: &Frame,
    now: Instant,
) -> bool {
    // A WireGuard message of a LAN exception is given the longer time too: it has the same form.
    let grace = if matches!(frame, Frame::WireGuard { .. }) {
        QUEUED
    } else {
        GRACE
    };
    before
        .iter()
        .any(|(policy, end)| now < *end + grace && permitted(policy, device, frame))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::example;
    use crate::leak::frame::Message;
    use crate::net::{Fwmark, Uplink};
    use crate::policy::{Hole, Holes};

    fn policy(source_port: u16) -> Policy {
        let uplink = Uplink {
            device: "eth0".parse().unwrap(),
            address: "172.30.0.2/24".parse().unwrap(),
            gateway: Some("172.30.0.1".parse().unwrap()),
        };
        let endpoint = Some(Hole {
            mark: Fwmark::DEFAULT,
            source_port,
            remote: "198.51.100.10:51820".parse().unwrap(),
        });
        let resolver = None;
        Policy::of(&example::config(), &uplink, Holes { endpoint, resolver }).unwrap()
    }

    #[test]
    fn what_a_queue_held_back_is_no_leak_after_the_rules_changed() {
        let start = Instant::now();
        let mut sensor = Sensor::default();
        for policy in [policy(40000), Policy::default(), policy(40001)] {
            sensor.follow(&[], &policy, start);
        }
        let was = |frame: &Frame, after: u64| {
            let (device, now) = ("eth0".parse().unwrap(), start + Duration::from_secs(after));
            was_permitted(&sensor.before, &device, frame, now)
        };
        let ours = |from: &str| Frame::WireGuard {
            message: Message::Data,
            bytes: 48,
            from: from.parse().unwrap(),
            to: "198.51.100.10:51820".parse().unwrap(),
        };
        let web = Frame::Tcp {
            from: "172.30.0.2:8080".parse().unwrap(),
            to: "192.168.1.7:50000".parse().unwrap(),
        };
        assert!(was(&ours("172.30.0.2:40000"), 20));
        assert!(!was(&ours("172.30.0.2:40000"), 31));
        assert!(!was(&ours("172.30.0.2:40002"), 0));
        assert!(was(&web, 0));
        assert!(!was(&web, 1));
    }
}
