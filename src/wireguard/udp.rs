//! The UDP socket: many datagrams a system call.
//!
//! Datagrams of equal size leave as one buffer that the kernel cuts (UDP_SEGMENT), whatever inner
//! flows they belong to, and arrive as one that it has joined (UDP_GRO). Buffers are allocated once.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::counters::{Counters, DropReason};

/// Segments of one send (`UDP_MAX_SEGMENTS`, include/linux/udp.h, before Linux 6.9).
const MOST_SEGMENTS: usize = 64;

/// Bytes of the longest UDP payload over IPv4, and so of one send.
const LONGEST: usize = 65507;

/// Bytes after which a batch is sent: one more superpacket would need another send anyway.
const FULL: usize = 60 * 1024;

/// Bytes the batch can hold: a full one, and the longest message after it.
const CAPACITY: usize = 2 * 64 * 1024;

/// Datagrams, or joined datagrams, of one receive.
const MOST_MESSAGES: usize = 32;

/// Bytes of one buffer for them.
const BUFFER: usize = 65536;

/// Socket buffers, in bytes. The kernel grants less to those without CAP_NET_ADMIN.
const SOCKET_BUFFER: usize = 4 << 20;

/// How long a full send buffer is waited for before the batch is dropped.
const PATIENCE: Duration = Duration::from_millis(100);

/// Sets the socket up for the data thread. Returns whether it can cut and whether it can join.
///
/// # Errors
/// The socket cannot be made non-blocking.
pub(super) fn prepare(socket: &UdpSocket, offload: bool) -> io::Result<(bool, bool)> {
    use rustix::net::sockopt;
    socket.set_nonblocking(true)?;
    // Smaller buffers cost throughput, nothing else.
    if sockopt::set_socket_recv_buffer_size_force(socket, SOCKET_BUFFER).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER);
    }
    if sockopt::set_socket_send_buffer_size_force(socket, SOCKET_BUFFER).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER);
    }
    // A size of 0 sets nothing; the kernel that knows the option takes it.
    let gso = offload && set(socket, libc::UDP_SEGMENT, 0).is_ok();
    let gro = set(socket, libc::UDP_GRO, offload.into()).is_ok() && offload;
    Ok((gso, gro))
}

fn set(socket: &UdpSocket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    let pointer = (&raw const value).cast();
    // SAFETY: the kernel reads `size` bytes at `pointer`, which is `value`.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, option, pointer, size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Datagrams of equal size that stand one after the other in the batch; the last may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: usize,
    end: usize,
    segment: usize,
}

impl Run {
    fn datagrams(self) -> usize {
        (self.end - self.start).div_ceil(self.segment)
    }

    /// Whether a datagram of `size` bytes may follow.
    fn takes(self, size: usize) -> bool {
        let len = self.end - self.start;
        size <= self.segment
            && len.is_multiple_of(self.segment)
            && len + size <= LONGEST
            && self.datagrams() < MOST_SEGMENTS
    }
}

/// A batch of datagrams on their way out.
pub(super) struct Sender {
    buffer: Box<[u8]>,
    end: usize,
    datagrams: usize,
    runs: Vec<Run>,
    gso: bool,
}

impl Sender {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; CAPACITY].into(),
            end: 0,
            datagrams: 0,
            runs: Vec::with_capacity(MOST_SEGMENTS),
            gso: false,
        }
    }

    /// Whether equal datagrams may leave as one buffer from now on.
    pub(super) fn set_gso(&mut self, gso: bool) {
        self.gso = gso;
    }

    /// Whether the batch should leave before another packet is looked at.
    pub(super) fn is_full(&self) -> bool {
        self.end >= FULL || self.datagrams >= MOST_SEGMENTS
    }

    /// Where the next datagram goes: at least `room` bytes, at most [`LONGEST`]. The batch is sent first
    /// if it has to be.
    pub(super) fn slot(
        &mut self,
        room: usize,
        socket: &UdpSocket,
        remote: SocketAddrV4,
        counters: &Counters,
    ) -> &mut [u8] {
        if self.end + room > CAPACITY || self.datagrams >= 2 * MOST_SEGMENTS {
            self.flush(socket, remote, counters);
        }
        &mut self.buffer[self.end..]
    }

    /// The slot holds a datagram of `size` bytes, which is more than none.
    pub(super) fn commit(&mut self, size: usize) {
        let end = self.end + size;
        match self.runs.last_mut() {
            Some(run) if run.takes(size) => run.end = end,
            Some(_) | None => self.runs.push(Run {
                start: self.end,
                end,
                segment: size,
            }),
        }
        self.end = end;
        self.datagrams += 1;
    }

    /// Adds a datagram to the batch.
    pub(super) fn queue(
        &mut self,
        datagram: &[u8],
        socket: &UdpSocket,
        remote: SocketAddrV4,
        counters: &Counters,
    ) {
        let slot = self.slot(datagram.len(), socket, remote, counters);
        slot[..datagram.len()].copy_from_slice(datagram);
        self.commit(datagram.len());
    }

    /// Sends the batch.
    pub(super) fn flush(&mut self, socket: &UdpSocket, remote: SocketAddrV4, counters: &Counters) {
        let mut first = 0;
        while self.gso && first < self.runs.len() {
            let sent = send(socket, remote, &self.buffer, &self.runs[first..], true);
            match sent {
                Ok(sent) => first += sent,
                Err(Refusal::Offload) => {
                    // The device cannot complete checksums (EIO), or a segment does not fit it (EINVAL).
                    self.gso = false;
                    counters.offload_fallbacks.add(1);
                    counters.udp_gso.store(false, Ordering::Relaxed);
                }
                Err(Refusal::Datagram) => {
                    counters.dropped(DropReason::Send, self.runs[first].datagrams() as u64);
                    first += 1;
                }
            }
        }
        if first < self.runs.len() {
            self.send_each(first, socket, remote, counters);
        }
        self.runs.clear();
        self.end = 0;
        self.datagrams = 0;
    }

    /// Sends the runs from `first` on without offload.
    fn send_each(
        &mut self,
        first: usize,
        socket: &UdpSocket,
        remote: SocketAddrV4,
        counters: &Counters,
    ) {
        let mut single = Vec::with_capacity(2 * MOST_SEGMENTS);
        for run in &self.runs[first..] {
            let mut start = run.start;
            while start < run.end {
                let end = run.end.min(start + run.segment);
                let segment = end - start;
                single.push(Run {
                    start,
                    end,
                    segment,
                });
                start = end;
            }
        }
        let mut first = 0;
        while first < single.len() {
            match send(socket, remote, &self.buffer, &single[first..], false) {
                Ok(sent) => first += sent,
                Err(Refusal::Offload | Refusal::Datagram) => {
                    counters.dropped(DropReason::Send, 1);
                    first += 1;
                }
            }
        }
    }
}

/// Why a send did not happen.
enum Refusal {
    /// The kernel does not cut after all.
    Offload,
    /// This one cannot be sent: no route, refused by the firewall, too long, no room for it.
    Datagram,
}

/// Sends runs, each with one entry of one system call. Returns how many were sent, which is at least one.
fn send(
    socket: &UdpSocket,
    remote: SocketAddrV4,
    buffer: &[u8],
    runs: &[Run],
    gso: bool,
) -> Result<usize, Refusal> {
    let mut name = sockaddr(remote);
    let count = runs.len().min(MOST_SEGMENTS);
    let mut parts: [mem::MaybeUninit<libc::iovec>; MOST_SEGMENTS] =
        [const { mem::MaybeUninit::uninit() }; MOST_SEGMENTS];
    let mut controls: [mem::MaybeUninit<Control>; MOST_SEGMENTS] =
        [const { mem::MaybeUninit::uninit() }; MOST_SEGMENTS];
    let mut messages: [mem::MaybeUninit<libc::mmsghdr>; MOST_SEGMENTS] =
        [const { mem::MaybeUninit::uninit() }; MOST_SEGMENTS];
    for (i, run) in runs[..count].iter().enumerate() {
        let data = &buffer[run.start..run.end];
        let part = parts[i].write(libc::iovec {
            iov_base: data.as_ptr().cast_mut().cast(),
            iov_len: data.len(),
        });
        // SAFETY: zeros are a valid `mmsghdr`: null pointers and no lengths.
        let message = messages[i].write(unsafe { mem::zeroed::<libc::mmsghdr>() });
        let header = &mut message.msg_hdr;
        header.msg_name = (&raw mut name).cast();
        header.msg_namelen = size_of_val(&name) as libc::socklen_t;
        header.msg_iov = part;
        header.msg_iovlen = 1;
        if gso && data.len() > run.segment {
            // No longer than LONGEST.
            let control = controls[i].write(Control::segment(run.segment as u16));
            header.msg_control = (&raw mut *control).cast();
            header.msg_controllen = size_of::<Control>() as _;
        }
    }
    let pointer = messages.as_mut_ptr().cast();
    loop {
        // SAFETY: the first `count` messages are initialised; what they point to, `name`, `parts`, `controls`
        // and `buffer`, outlives the call, and the kernel only reads it.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), pointer, count as u32, 0) };
        if let Ok(sent) = usize::try_from(sent) {
            return Ok(sent);
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EAGAIN) if writable(socket) => {}
            Some(libc::EIO | libc::EINVAL) => return Err(Refusal::Offload),
            _ => return Err(Refusal::Datagram),
        }
    }
}

/// Waits until the socket takes more; false when it does not.
fn writable(socket: &UdpSocket) -> bool {
    let timeout = Timespec::try_from(PATIENCE).ok();
    let mut fds = [PollFd::new(socket, PollFlags::OUT)];
    matches!(poll(&mut fds, timeout.as_ref()), Ok(1))
}

/// One control message that carries a segment size, aligned as the kernel wants it.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    /// A `u16` when sent, an `int` when received.
    value: [u8; 8],
}

impl Control {
    fn segment(size: u16) -> Self {
        let mut value = [0; 8];
        value[..2].copy_from_slice(&size.to_ne_bytes());
        Self {
            header: libc::cmsghdr {
                cmsg_len: (size_of::<libc::cmsghdr>() + 2) as _,
                cmsg_level: libc::SOL_UDP,
                cmsg_type: libc::UDP_SEGMENT,
            },
            value,
        }
    }

    const EMPTY: Self = Self {
        header: libc::cmsghdr {
            cmsg_len: 0,
            cmsg_level: 0,
            cmsg_type: 0,
        },
        value: [0; 8],
    };

    /// The size in a received message; `None` if it is another one, or none.
    fn joined(&self, len: usize) -> Option<usize> {
        let is_gro = len >= size_of::<libc::cmsghdr>() + 4
            && self.header.cmsg_level == libc::SOL_UDP
            && self.header.cmsg_type == libc::UDP_GRO;
        let [a, b, c, d, ..] = self.value;
        let size = i32::from_ne_bytes([a, b, c, d]);
        usize::try_from(size)
            .ok()
            .filter(|size| is_gro && *size > 0)
    }
}

fn sockaddr(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*address.ip()).to_be(),
        },
        sin_zero: [0; 8],
    }
}

/// One datagram, or several of one size that the kernel has joined.
pub(super) struct Message<'a> {
    pub(super) from: SocketAddrV4,
    pub(super) data: &'a [u8],
    /// Bytes of each datagram but the last; never 0.
    pub(super) segment: usize,
}

/// Buffers for datagrams on their way in.
pub(super) struct Receiver {
    buffer: Box<[u8]>,
    names: Vec<libc::sockaddr_in>,
    controls: Vec<Control>,
    received: Vec<(usize, usize)>,
    /// Messages the next call asks for: one when they are long, so that they stay in the cache.
    want: usize,
}

impl Receiver {
    pub(super) fn new() -> Self {
        let nobody = sockaddr(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        Self {
            // The kernel provides the pages when they are first written to.
            buffer: vec![0; MOST_MESSAGES * BUFFER].into(),
            names: vec![nobody; MOST_MESSAGES],
            controls: (0..MOST_MESSAGES).map(|_| Control::EMPTY).collect(),
            received: Vec::with_capacity(MOST_MESSAGES),
            want: MOST_MESSAGES,
        }
    }

    /// Receives what there is, up to one call's worth. `None`: nothing now.
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
    ) -> Option<impl Iterator<Item = Message<'_>>> {
        self.received.clear();
        let mut parts: [mem::MaybeUninit<libc::iovec>; MOST_MESSAGES] =
            [const { mem::MaybeUninit::uninit() }; MOST_MESSAGES];
        let mut messages: [mem::MaybeUninit<libc::mmsghdr>; MOST_MESSAGES] =
            [const { mem::MaybeUninit::uninit() }; MOST_MESSAGES];
        let targets = self
            .buffer
            .chunks_exact_mut(BUFFER)
            .zip(&mut self.names)
            .zip(&mut self.controls);
        for (i, ((data, name), control)) in targets.enumerate().take(self.want) {
            let part = parts[i].write(libc::iovec {
                iov_base: data.as_mut_ptr().cast(),
                iov_len: data.len(),
            });
            // SAFETY: zeros are a valid `mmsghdr`: null pointers and no lengths.
            let message = messages[i].write(unsafe { mem::zeroed::<libc::mmsghdr>() });
            let header = &mut message.msg_hdr;
            header.msg_name = (&raw mut *name).cast();
            header.msg_namelen = size_of_val(name) as libc::socklen_t;
            header.msg_iov = part;
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut *control).cast();
            header.msg_controllen = size_of::<Control>() as _;
        }
        let pointer = messages.as_mut_ptr().cast();
        let null = std::ptr::null_mut();
        // SAFETY: the first `want` messages are initialised; what they point to, `parts` and the three buffers
        // of `self`, outlives the call and is ours alone to write to.
        let count =
            unsafe { libc::recvmmsg(socket.as_raw_fd(), pointer, self.want as u32, 0, null) };
        // An error of an earlier send (the endpoint is unreachable) is reported once, then it is over.
        let count = usize::try_from(count).ok().filter(|count| *count > 0)?;
        let mut total = 0;
        for message in &messages[..count] {
            // SAFETY: these messages were initialised above, and the kernel has filled them in.
            let message = unsafe { message.assume_init_ref() };
            let len = message.msg_len as usize;
            total += len;
            self.received
                .push((len, message.msg_hdr.msg_controllen as _));
        }
        self.want = if total >= count * BUFFER / 4 {
            1
        } else {
            MOST_MESSAGES
        };
        Some(self.messages())
    }

    fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        let buffers = self.buffer.chunks_exact(BUFFER);
        let meta = self.names.iter().zip(&self.controls);
        let all = self.received.iter().zip(buffers).zip(meta);
        all.map(|(((len, control_len), data), (name, control))| Message {
            from: SocketAddrV4::new(
                Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)),
                u16::from_be(name.sin_port),
            ),
            data: &data[..*len],
            segment: control.joined(*control_len).unwrap_or(BUFFER),
        })
    }
}
