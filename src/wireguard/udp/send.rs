//! Datagrams on their way out.

use std::io;
use std::mem;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use super::super::counters::{Counters, DropReason};
use super::super::ecn::Ecn;
use super::{Beside, Control, Controls, Path, sockaddr};

/// Segments of one send (`UDP_MAX_SEGMENTS`, include/linux/udp.h, before Linux 6.9).
const MOST_SEGMENTS: usize = 64;

/// Bytes of the payload of one send with segments: with 42 bytes of headers it stays below 64 KiB, from where on
/// the kernel cuts it itself before the device (`netif_skb_features`, net/core/dev.c).
const MOST_BYTES: usize = 65535 - 42;

/// Bytes after which a batch is sent: one more superpacket would need another send anyway.
const FULL: usize = 60 * 1024;

/// Bytes the batch can hold: a full one, and the longest message after it.
const CAPACITY: usize = 2 * 64 * 1024;

/// How long a full send buffer is waited for before the batch is dropped.
const PATIENCE: Duration = Duration::from_millis(100);

/// How often a batch is sent again because of what was wrong with an earlier one.
const TRIES: u32 = 3;

/// Datagrams of equal size that stand one after the other in the batch; the last may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: usize,
    end: usize,
    segment: usize,
    /// One control message tells it for all of them.
    ecn: Ecn,
}

impl Run {
    fn datagrams(self) -> usize {
        (self.end - self.start).div_ceil(self.segment)
    }

    /// The datagrams of one size, and the shorter one after them, if there is one.
    fn split_last(self) -> Option<(Self, Self)> {
        let last = (self.end - self.start) % self.segment;
        if last == 0 || self.end - self.start < self.segment {
            return None;
        }
        let at = self.end - last;
        let rest = Self { end: at, ..self };
        let last = Self {
            start: at,
            segment: last,
            ..self
        };
        Some((rest, last))
    }

    /// Whether such a datagram may follow.
    fn takes(self, size: usize, ecn: Ecn) -> bool {
        let len = self.end - self.start;
        ecn == self.ecn
            && size <= self.segment
            && len.is_multiple_of(self.segment)
            && len + size <= MOST_BYTES
            && self.datagrams() < MOST_SEGMENTS
    }
}

/// A batch of datagrams on their way out.
pub(in crate::wireguard) struct Sender {
    socket: Rc<UdpSocket>,
    remote: SocketAddrV4,
    pub(in crate::wireguard) path: Path,
    counters: Arc<Counters>,
    buffer: Box<[u8]>,
    end: usize,
    datagrams: usize,
    runs: Vec<Run>,
    /// The runs once more, one for each datagram.
    single: Vec<Run>,
    gso: bool,
}

impl Sender {
    /// Sends to `remote`; with `gso`, equal datagrams leave as one buffer.
    pub(in crate::wireguard) fn new(
        socket: Rc<UdpSocket>,
        remote: SocketAddrV4,
        gso: bool,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            path: Path::new(Rc::clone(&socket), remote),
            socket,
            remote,
            counters,
            buffer: vec![0; CAPACITY].into(),
            end: 0,
            datagrams: 0,
            runs: Vec::with_capacity(MOST_SEGMENTS),
            single: Vec::new(),
            gso,
        }
    }

    /// Whether the batch should leave before another packet is looked at.
    pub(in crate::wireguard) fn is_full(&self) -> bool {
        self.end >= FULL || self.datagrams >= MOST_SEGMENTS
    }

    /// Where the next datagram goes: at least `room` bytes. The batch is sent first
    /// if it has to be.
    pub(in crate::wireguard) fn slot(&mut self, room: usize) -> &mut [u8] {
        if self.end + room > CAPACITY || self.datagrams >= 2 * MOST_SEGMENTS {
            self.flush();
        }
        &mut self.buffer[self.end..]
    }

    /// The slot holds a datagram of `size` bytes, which is more than none.
    pub(in crate::wireguard) fn commit(&mut self, size: usize, ecn: Ecn) {
        let end = self.end + size;
        match self.runs.last_mut() {
            Some(run) if run.takes(size, ecn) => run.end = end,
            Some(_) | None => self.runs.push(Run {
                start: self.end,
                end,
                segment: size,
                ecn,
            }),
        }
        self.end = end;
        self.datagrams += 1;
    }

    /// Adds a datagram of our own to the batch.
    pub(in crate::wireguard) fn queue(&mut self, datagram: &[u8]) {
        let slot = self.slot(datagram.len());
        slot[..datagram.len()].copy_from_slice(datagram);
        self.commit(datagram.len(), Ecn::NotEct);
    }

    /// Sends the batch.
    pub(in crate::wireguard) fn flush(&mut self) {
        let mut first = 0;
        let mut tries = TRIES;
        while self.gso && first < self.runs.len() {
            match self.send(&self.runs[first..], true) {
                Ok(sent) => first += sent,
                Err(refusal) => match self.judge(refusal, self.runs[first].segment, &mut tries) {
                    Remedy::Again => {}
                    Remedy::Uncut => {
                        self.gso = false;
                        self.counters.offload_fallbacks.add(1);
                        self.counters.udp_gso.store(false, Ordering::Relaxed);
                    }
                    Remedy::Skip(reason) => match self.runs[first].split_last() {
                        // What is shorter may fit.
                        Some((rest, last)) => {
                            self.give_up(reason, &[rest]);
                            self.runs[first] = last;
                        }
                        None => {
                            self.give_up(reason, &self.runs[first..=first]);
                            first += 1;
                        }
                    },
                    Remedy::Stop => {
                        self.give_up(DropReason::Send, &self.runs[first..]);
                        first = self.runs.len();
                    }
                },
            }
        }
        if first < self.runs.len() {
            self.send_each(first);
        }
        self.runs.clear();
        self.end = 0;
        self.datagrams = 0;
    }

    /// Sends the runs from `first` on without offload.
    fn send_each(&mut self, first: usize) {
        let mut single = mem::take(&mut self.single);
        single.clear();
        for run in &self.runs[first..] {
            let mut start = run.start;
            while start < run.end {
                let end = run.end.min(start + run.segment);
                single.push(Run {
                    start,
                    end,
                    segment: end - start,
                    ecn: run.ecn,
                });
                start = end;
            }
        }
        let mut first = 0;
        let mut tries = TRIES;
        while first < single.len() {
            match self.send(&single[first..], false) {
                Ok(sent) => first += sent,
                Err(refusal) => match self.judge(refusal, single[first].segment, &mut tries) {
                    Remedy::Again => {}
                    Remedy::Uncut => {
                        self.give_up(DropReason::Send, &single[first..=first]);
                        first += 1;
                    }
                    Remedy::Skip(reason) => {
                        self.give_up(reason, &single[first..=first]);
                        first += 1;
                    }
                    Remedy::Stop => {
                        self.give_up(DropReason::Send, &single[first..]);
                        break;
                    }
                },
            }
        }
        self.single = single;
    }

    /// What to do about a refused run with datagrams of `size` bytes.
    fn judge(&mut self, refusal: Refusal, size: usize, tries: &mut u32) -> Remedy {
        // Before Linux 6.13 a run that is too long for the path is refused like one that cannot be cut.
        if matches!(refusal, Refusal::Offload | Refusal::Length) {
            self.path.look();
            if !self.path.fits(size) {
                return Remedy::Skip(DropReason::TooLong);
            }
        }
        match refusal {
            Refusal::Full => Remedy::Stop,
            Refusal::Other => Remedy::Skip(DropReason::Send),
            Refusal::Offload => Remedy::Uncut,
            // It fits by now, or the refusal was about another datagram.
            Refusal::Length | Refusal::Earlier if *tries > 0 => {
                *tries -= 1;
                Remedy::Again
            }
            Refusal::Length | Refusal::Earlier => Remedy::Skip(DropReason::Send),
        }
    }

    fn give_up(&self, reason: DropReason, runs: &[Run]) {
        let datagrams: usize = runs.iter().map(|run| run.datagrams()).sum();
        self.counters.dropped(reason, datagrams as u64);
    }

    /// Sends runs, each with one entry of one system call. Returns how many were sent, which is at least one.
    fn send(&self, runs: &[Run], gso: bool) -> Result<usize, Refusal> {
        let mut name = sockaddr(self.remote);
        let count = runs.len().min(MOST_SEGMENTS);
        let mut parts: [mem::MaybeUninit<libc::iovec>; MOST_SEGMENTS] =
            [const { mem::MaybeUninit::uninit() }; MOST_SEGMENTS];
        let mut controls: [mem::MaybeUninit<Controls>; MOST_SEGMENTS] =
            [const { mem::MaybeUninit::uninit() }; MOST_SEGMENTS];
        let mut messages: [mem::MaybeUninit<libc::mmsghdr>; MOST_SEGMENTS] =
            [const { mem::MaybeUninit::uninit() }; MOST_SEGMENTS];
        for (i, run) in runs[..count].iter().enumerate() {
            let data = &self.buffer[run.start..run.end];
            let part = parts[i].write(libc::iovec {
                iov_base: data.as_ptr().cast_mut().cast(),
                iov_len: data.len(),
            });
            // SAFETY: zeros are a valid `mmsghdr`: null pointers and no lengths.
            let message = messages[i].write(unsafe { mem::zeroed::<libc::mmsghdr>() });
            let header = &mut message.msg_hdr;
            if !self.path.is_connected() {
                header.msg_name = (&raw mut name).cast();
                header.msg_namelen = size_of_val(&name) as libc::socklen_t;
            }
            header.msg_iov = part;
            header.msg_iovlen = 1;
            let beside = Beside {
                segment: (gso && data.len() > run.segment).then_some(run.segment),
                ecn: run.ecn,
            };
            if beside != Beside::default() {
                let (encoded, count) = beside.encode();
                let encoded = controls[i].write(encoded);
                header.msg_control = encoded.as_mut_ptr().cast();
                header.msg_controllen = (count * size_of::<Control>()) as _;
            }
        }
        let pointer = messages.as_mut_ptr().cast();
        loop {
            // SAFETY: the first `count` messages are initialised; what they point to, `name`, `parts`, `controls`
            // and the batch, outlives the call, and the kernel only reads it.
            let sent = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), pointer, count as u32, 0) };
            if let Ok(sent) = usize::try_from(sent) {
                return Ok(sent);
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) if writable(&self.socket) => {}
                Some(libc::EAGAIN) => return Err(Refusal::Full),
                Some(libc::EIO | libc::EINVAL) if gso => return Err(Refusal::Offload),
                Some(libc::EMSGSIZE) => return Err(Refusal::Length),
                Some(libc::ECONNREFUSED) => return Err(Refusal::Earlier),
                _ => return Err(Refusal::Other),
            }
        }
    }
}

/// Why a send did not happen.
#[derive(Clone, Copy)]
enum Refusal {
    /// The device cannot complete checksums (EIO), or a segment does not fit it (EINVAL).
    Offload,
    /// Too long, or a router said so of an earlier datagram.
    Length,
    /// An earlier datagram found nobody.
    Earlier,
    /// The send buffer stayed full.
    Full,
    /// No route; refused by the firewall.
    Other,
}

/// What is done about it.
enum Remedy {
    Again,
    /// Without offload, from now on.
    Uncut,
    Skip(DropReason),
    Stop,
}

/// Waits until the socket takes more; false when it does not.
fn writable(socket: &UdpSocket) -> bool {
    let timeout = Timespec::try_from(PATIENCE).ok();
    let mut fds = [PollFd::new(socket, PollFlags::OUT)];
    matches!(retry_on_intr(|| poll(&mut fds, timeout.as_ref())), Ok(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(sizes: &[usize]) -> Vec<usize> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let remote = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 9);
        let mut sender = Sender::new(Rc::new(socket), remote, true, Arc::default());
        for size in sizes {
            sender.commit(*size, Ecn::NotEct);
        }
        sender.runs.iter().map(|run| run.datagrams()).collect()
    }

    #[test]
    fn equal_datagrams_are_one_run_which_a_shorter_one_ends() {
        assert_eq!(runs(&[100, 100, 100]), [3]);
        assert_eq!(runs(&[100, 100, 40, 40, 100]), [3, 1, 1]);
        assert_eq!(runs(&[40, 100, 100]), [1, 2]);
    }

    #[test]
    fn a_run_has_as_many_segments_and_bytes_as_the_kernel_takes() {
        assert_eq!(runs(&[100; 65]), [64, 1]);
        // 46 of them are a payload that UDP takes and the device does not.
        assert_eq!(runs(&[1424; 46]), [45, 1]);
        assert_eq!(runs(&[1452; 47]), [45, 2]);
    }
}
