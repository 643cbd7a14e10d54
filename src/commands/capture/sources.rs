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
use crate::sys::{async_fd, link, nft};

/// Bytes of frames that may wait, for each device.
const WAITING: usize = 8 << 20;

/// Bytes kept of a WireGuard message with data: its headers, and 70 bytes that nobody can read.
const HEAD: usize = 128;

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
    pub(super) fn open(limits: Limits, whole: bool) -> io::Result<Self> {
        let stopped = async_fd::nflog(Nflog::open(&[LOG_CAPTURE], limits)?)?;
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
        self.names = link::devices()
            .map_err(io::Error::other)?
            .into_iter()
            .map(|device| (device.index, device.name))
            .collect();
        let wanted = nft::devices()?;
        let names = &self.names;
        self.taps
            .retain(|name, tap| wanted.contains(name) && names.get(&tap.index) == Some(name));
        for name in wanted {
            let found = self.names.iter().find(|(_, known)| **known == name);
            let Some(index) = found
                .map(|(index, _)| *index)
                .filter(|_| !self.taps.contains_key(&name))
            else {
                continue;
            };
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
    match Frame::parse(bytes) {
        Frame::WireGuard {
            message: Message::Data,
            ..
        } => bytes.get(..HEAD).unwrap_or(bytes),
        Frame::WireGuard { .. }
        | Frame::Arp { .. }
        | Frame::Ipv6 { .. }
        | Frame::Dns { .. }
        | Frame::Tcp { .. }
        | Frame::Udp { .. }
        | Frame::Icmp { .. }
        | Frame::Fragment { .. }
        | Frame::Ipv4 { .. }
        | Frame::Other { .. } => bytes,
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
