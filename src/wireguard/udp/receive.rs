//! Datagrams on their way in.

use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::rc::Rc;

use super::super::ecn::Ecn;
use super::{Beside, Control, Controls, sockaddr};

/// Datagrams, or joined datagrams, of one receive.
const MOST_MESSAGES: usize = 32;

/// Messages that are asked for at least, where they are short.
const FEWEST_MESSAGES: usize = 4;

/// Bytes of one buffer for them.
const BUFFER: usize = 65536;

/// One datagram, or several of one size that the kernel has joined.
pub(in crate::wireguard) struct Message<'a> {
    pub(in crate::wireguard) from: SocketAddrV4,
    pub(in crate::wireguard) data: &'a [u8],
    /// Bytes of each datagram but the last; never 0.
    pub(in crate::wireguard) segment: usize,
    /// What routers said of congestion, of all of them.
    pub(in crate::wireguard) ecn: Ecn,
}

/// Buffers for datagrams on their way in.
pub(in crate::wireguard) struct Receiver {
    socket: Rc<UdpSocket>,
    buffer: Box<[u8]>,
    names: Vec<libc::sockaddr_in>,
    controls: Vec<Controls>,
    received: Vec<(usize, usize)>,
    /// Messages the next call asks for: one when they are long, so that they stay in the cache, and few where few
    /// have come, for each is prepared.
    want: usize,
    /// The last call got fewer than it asked for.
    drained: bool,
}

impl Receiver {
    pub(in crate::wireguard) fn new(socket: Rc<UdpSocket>) -> Self {
        let nobody = sockaddr(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        Self {
            socket,
            // The kernel provides the pages when they are first written to.
            buffer: vec![0; MOST_MESSAGES * BUFFER].into(),
            names: vec![nobody; MOST_MESSAGES],
            controls: vec![[Control::EMPTY; 2]; MOST_MESSAGES],
            received: Vec::with_capacity(MOST_MESSAGES),
            want: FEWEST_MESSAGES,
            drained: false,
        }
    }

    /// Whether the last call left nothing behind: to ask again would be a system call for nothing.
    pub(in crate::wireguard) fn is_drained(&self) -> bool {
        self.drained
    }

    /// Receives what there is, up to one call's worth. `None`: nothing now.
    pub(in crate::wireguard) fn receive(&mut self) -> Option<impl Iterator<Item = Message<'_>>> {
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
            header.msg_controllen = size_of::<Controls>() as _;
        }
        let pointer = messages.as_mut_ptr().cast();
        let null = std::ptr::null_mut();
        // SAFETY: the first `want` messages are initialised; what they point to, `parts` and the three buffers
        // of `self`, outlives the call and is ours alone to write to.
        let count =
            unsafe { libc::recvmmsg(self.socket.as_raw_fd(), pointer, self.want as u32, 0, null) };
        // An error of an earlier send (the endpoint is unreachable) is reported once, then it is over.
        let count = usize::try_from(count).ok().filter(|count| *count > 0)?;
        self.drained = count < self.want;
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
            (2 * count).clamp(FEWEST_MESSAGES, MOST_MESSAGES)
        };
        Some(self.messages())
    }

    fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        let buffers = self.buffer.chunks_exact(BUFFER);
        let meta = self.names.iter().zip(&self.controls);
        let all = self.received.iter().zip(buffers).zip(meta);
        all.map(|(((len, control_len), data), (name, controls))| {
            let Beside { segment, ecn } = Beside::decode(controls, *control_len);
            Message {
                from: SocketAddrV4::new(
                    Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)),
                    u16::from_be(name.sin_port),
                ),
                data: &data[..*len],
                segment: segment.unwrap_or(BUFFER),
                ecn,
            }
        })
    }
}
