//! Where a recording comes from: a packet socket on each device, and the copies of what the rules refuse.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};

use tokio::io::unix::AsyncFd;

use super::{BLOCKED, UPLINK, clock};
use crate::leak::frame::{Frame, Message};
use crate::leak::pcapng::{Link, Packet, SNAP, Way};
use crate::net::IfName;
use crate::ruleset::LOG_CAPTURE;
use crate::sys::capture::{Capture, Told};
use crate::sys::nflog::{Copy, Limits, Nflog};
use crate::sys::{async_fd, link};

/// Bytes of frames that may wait, for each device.
const WAITING: usize = 8 << 20;

/// Bytes kept of a WireGuard message with data: its headers, and 70 bytes that nobody can read.
const HEAD: usize = 128;

/// Whole packets (65,531 bytes are the most, `NFULNL_COPY_RANGE_MAX`, net/netfilter/nfnetlink_log.c), and
/// enough to outlast a disk that is busy.
const LIMITS: Limits = Limits {
    copy: 65_531,
    batch: 128 * 1024,
    waiting: 8 << 20,
};

/// Frames read from a device in one go, and pieces with stopped packets.
const BURST: usize = 256;

/// Everything that is listened to.
pub(super) struct Sources {
    taps: BTreeMap<IfName, Tap>,
    stopped: AsyncFd<Nflog>,
    /// Names of devices by their numbers, those of loopback and TUN too.
    names: BTreeMap<u32, IfName>,
    /// Whether some were left by the last burst.
    left: bool,
    /// Frames that did not fit a buffer.
    dropped: u64,
    buffer: Vec<u8>,
    whole: bool,
}

struct Tap {
    index: u32,
    socket: AsyncFd<Capture>,
}

impl Sources {
    /// Listens on every device that leads out.
    pub(super) fn open(whole: bool) -> io::Result<Self> {
        let stopped = async_fd::nflog(Nflog::open(&[LOG_CAPTURE], LIMITS)?)?;
        let mut sources = Self {
            taps: BTreeMap::new(),
            stopped,
            names: BTreeMap::new(),
            left: false,
            dropped: 0,
            buffer: vec![0; SNAP as usize],
            whole,
        };
        sources.follow()?;
        Ok(sources)
    }

    /// Listens on devices that came, and no longer on those that went.
    pub(super) fn follow(&mut self) -> io::Result<()> {
        self.count_dropped();
        let devices = link::devices().map_err(io::Error::other)?;
        let names = devices
            .iter()
            .map(|device| (device.index, device.name.clone()));
        self.names = names.collect();
        let wanted: BTreeMap<_, _> = devices
            .into_iter()
            .filter(|device| device.leads_out)
            .map(|device| (device.name, device.index))
            .collect();
        self.taps
            .retain(|name, tap| wanted.get(name) == Some(&tap.index));
        for (name, index) in wanted {
            if self.taps.contains_key(&name) {
                continue;
            }
            let capture = match Capture::open_both(index, &[], WAITING) {
                Ok(capture) => capture,
                // It went meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
                Err(error) => return Err(error),
            };
            let socket = async_fd::capture(capture)?;
            self.taps.insert(name, Tap { index, socket });
        }
        Ok(())
    }

    /// The devices, for a person.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self.taps.keys().map(IfName::as_str).collect();
        if names.is_empty() {
            "no device yet".to_owned()
        } else {
            names.join(", ")
        }
    }

    /// Packets that came too fast, as far as is known.
    pub(super) fn missed(&mut self) -> u64 {
        self.count_dropped();
        self.dropped + self.stopped.get_ref().lost()
    }

    /// Ready when something waits to be read.
    pub(super) async fn stirred(&self) {
        std::future::poll_fn(|context| self.poll(context)).await;
    }

    /// Hands over what waits, up to a burst.
    pub(super) fn read(
        &mut self,
        mut each: impl FnMut(&Packet<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut left = false;
        for (name, tap) in &self.taps {
            left |= tap.read(name, &mut self.buffer, |mut packet| {
                if !self.whole {
                    packet.bytes = worth_keeping(packet.bytes);
                }
                each(&packet)
            })?;
        }
        self.left = self.read_stopped(&mut each)? || left;
        Ok(())
    }

    /// Says whether some may be left.
    fn read_stopped(
        &mut self,
        each: &mut impl FnMut(&Packet<'_>) -> io::Result<()>,
    ) -> io::Result<bool> {
        let names = &self.names;
        for _ in 0..BURST {
            let mut outcome = Ok(());
            let more = self.stopped.get_mut().read(|copy| {
                let comment = comment(&copy, names);
                if outcome.is_ok() {
                    outcome = each(&refused(&copy, &comment));
                }
            })?;
            outcome?;
            if !more {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn count_dropped(&mut self) {
        for tap in self.taps.values() {
            // One that cannot be asked any more has nothing to say.
            self.dropped += u64::from(tap.socket.get_ref().dropped().unwrap_or(0));
        }
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.left {
            return Poll::Ready(());
        }
        // Each is asked, so that each wakes us.
        let mut some = waits(&self.stopped, context);
        for tap in self.taps.values() {
            some |= waits(&tap.socket, context);
        }
        if some { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Tap {
    /// Hands over the frames that wait, up to a burst; says whether some may be left.
    fn read(
        &self,
        device: &IfName,
        buffer: &mut [u8],
        mut each: impl FnMut(Packet<'_>) -> io::Result<()>,
    ) -> io::Result<bool> {
        for _ in 0..BURST {
            match self.socket.get_ref().receive_told(buffer) {
                Ok(Some(told)) => each(frame(&told, device.as_str()))?,
                Ok(None) => return Ok(false),
                // The device went down. The socket hears of its frames again when it is up.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Whether something waits. It is read before the next poll, or marked as left.
fn waits<T: AsRawFd>(socket: &AsyncFd<T>, context: &mut Context<'_>) -> bool {
    match socket.poll_read_ready(context) {
        Poll::Ready(Ok(mut ready)) => {
            ready.clear_ready();
            true
        }
        // Reading finds out what the error is.
        Poll::Ready(Err(_)) => true,
        Poll::Pending => false,
    }
}

/// All of a frame, or the head of a WireGuard message with data. Its length is told all the same.
fn worth_keeping(bytes: &[u8]) -> &[u8] {
    if let Frame::WireGuard {
        message: Message::Data,
        ..
    } = Frame::parse(bytes)
    {
        bytes.get(..HEAD).unwrap_or(bytes)
    } else {
        bytes
    }
}

fn frame<'a>(told: &Told<'a>, device: &'a str) -> Packet<'a> {
    Packet {
        interface: UPLINK,
        at: clock(),
        link: if told.ethernet {
            Link::Ethernet
        } else {
            Link::Bare(told.ethertype)
        },
        bytes: told.bytes,
        length: told.length,
        way: if told.outgoing { Way::Out } else { Way::In },
        comment: device,
    }
}

fn refused<'a>(copy: &Copy<'a>, comment: &'a str) -> Packet<'a> {
    Packet {
        interface: BLOCKED,
        at: clock(),
        link: if copy.frame {
            Link::Ethernet
        } else {
            Link::of_ip(copy.bytes)
        },
        bytes: copy.bytes,
        length: copy.bytes.len(),
        way: Way::Out,
        comment,
    }
}

/// `dns, by uid 1000, to eth0`
fn comment(copy: &Copy<'_>, names: &BTreeMap<u32, IfName>) -> String {
    let mut text = format!("blocked: {}", copy.prefix);
    if let Some(uid) = copy.uid {
        text += &format!(", by uid {uid}");
    }
    if let Some(name) = copy.device.and_then(|index| names.get(&index)) {
        text += &format!(", to {name}");
    }
    text
}
