//! AF_PACKET sockets on one device: see every frame that arrives there, or send one as it is.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// linux/if_packet.h: `PACKET_STATISTICS` and `PACKET_IGNORE_OUTGOING` (Linux 4.20).
const PACKET_STATISTICS: libc::c_int = 6;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// linux/if_packet.h, `struct tpacket_stats`.
#[repr(C)]
#[derive(Default)]
struct Statistics {
    packets: u32,
    drops: u32,
}

/// A frame and what the kernel says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told<'a> {
    /// Its first bytes.
    pub bytes: &'a [u8],
    /// How many bytes it has.
    pub length: usize,
    /// Whether it leaves.
    pub outgoing: bool,
    /// Whether it begins with an Ethernet header.
    pub ethernet: bool,
    /// What it carries.
    pub ethertype: u16,
}

/// A packet socket bound to one device of the calling thread's network namespace.
pub struct Capture(Socket);

impl Capture {
    /// Opens a socket that receives what arrives on the device with this index, not what this
    /// namespace sends there, as far as `filter` (classic BPF; empty passes all) lets it through.
    /// `buffer` is the receive buffer in bytes; unprivileged callers get at most
    /// `net.core.rmem_max`. Never blocks.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW, ENODEV if there is no such device.
    pub fn open(index: u32, filter: &[SockFilter], buffer: usize) -> io::Result<Self> {
        Self::with_outgoing(index, filter, buffer, 0)
    }

    /// Like [`Capture::open`], and sees what this namespace sends too; `filter` can part the two by
    /// packet type. Frames that the egress hook dropped are not seen: they did not leave.
    ///
    /// # Errors
    /// As [`Capture::open`].
    pub fn open_both(index: u32, filter: &[SockFilter], buffer: usize) -> io::Result<Self> {
        Self::with_outgoing(index, filter, buffer, 1)
    }

    fn with_outgoing(
        index: u32,
        filter: &[SockFilter],
        buffer: usize,
        outgoing: libc::c_int,
    ) -> io::Result<Self> {
        // Protocol 0 receives nothing until `bind`, so no frame of another device slips in.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        set_option(&socket, PACKET_IGNORE_OUTGOING, 1 - outgoing)?;
        if set_socket_recv_buffer_size_force(&socket, buffer).is_err() {
            socket.set_recv_buffer_size(buffer)?;
        }
        if !filter.is_empty() {
            socket.attach_filter(filter)?;
        }
        bind(&socket, index, libc::ETH_P_ALL)?;
        Ok(Self(socket))
    }

    /// Replaces the filter, from one frame to the next.
    ///
    /// # Errors
    /// Those of setsockopt(2): the filter is not a valid program, or there is no memory.
    pub fn refilter(&self, filter: &[SockFilter]) -> io::Result<()> {
        self.0.attach_filter(filter)
    }

    /// Opens a socket that only sends, by the device with this index.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW, ENODEV if there is no such device.
    pub fn sender(index: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        bind(&socket, index, 0)?;
        Ok(Self(socket))
    }

    /// Sends one Ethernet frame.
    ///
    /// # Errors
    /// ENOBUFS when a firewall on the egress hook drops it, ENETDOWN when the device is down.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame).map(|_| ())
    }

    /// Receives one frame; its end is cut off if `buffer` is too short. `None` when none waits.
    ///
    /// # Errors
    /// ENETDOWN once after the device went down.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match rustix::net::recv(&self.0, &mut *buffer, rustix::net::RecvFlags::empty()) {
            Ok((_, length)) => Ok(buffer.get(..length)),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Receives one frame with what the kernel says of it. `None` when none waits.
    ///
    /// # Errors
    /// ENETDOWN once after the device went down.
    pub fn receive_told<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<Told<'a>>> {
        let mut address = address(0, 0);
        let mut size = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the first pointer and length describe `buffer`, the second ones `address`; both outlive
        // the call, which writes no more than these lengths.
        let received = unsafe {
            libc::recvfrom(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_TRUNC,
                (&raw mut address).cast(),
                &raw mut size,
            )
        };
        let Ok(length) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::WouldBlock {
                return Ok(None);
            }
            return Err(error);
        };
        Ok(Some(Told {
            bytes: &buffer[..length.min(buffer.len())],
            length,
            outgoing: address.sll_pkttype == libc::PACKET_OUTGOING,
            ethernet: matches!(
                address.sll_hatype,
                libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK
            ),
            ethertype: u16::from_be(address.sll_protocol),
        }))
    }

    /// Frames that did not fit the buffer since the last call; the kernel resets the count.
    ///
    /// # Errors
    /// Those of getsockopt(2); none is expected.
    pub fn dropped(&self) -> io::Result<u32> {
        let mut statistics = Statistics::default();
        let mut length = size_of::<Statistics>() as libc::socklen_t;
        // SAFETY: the pointer and the length describe `statistics`, which outlives the call and
        // whose layout is the kernel's `struct tpacket_stats`.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        checked(result).map(|()| statistics.drops)
    }
}

impl AsRawFd for Capture {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn address(index: i32, protocol: libc::c_int) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (protocol as u16).to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

fn bind(socket: &Socket, index: u32, protocol: libc::c_int) -> io::Result<()> {
    let index = i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    let address = address(index, protocol);
    // SAFETY: the pointer and the length describe `address`, a complete `sockaddr_ll` that outlives
    // the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    checked(result)
}

fn set_option(socket: &Socket, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    checked(result)
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
