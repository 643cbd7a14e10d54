//! Packet sockets with arrival times and VLAN tags, and the few calls that have no safe wrapper.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime};

use socket2::{Domain, Protocol, Socket, Type};

/// Every protocol (linux/if_ether.h).
pub const ETH_P_ALL: u16 = 0x0003;

/// Moves the calling thread into a mount namespace of its own.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: file descriptors are not unshared, so no other thread loses one it holds.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
        .map_err(io::Error::from)
}

/// What a packet socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Whole frames.
    Frame,
    /// What follows the link-layer header.
    Payload,
}

/// A socket on one device, below every hook of the IP layer.
pub struct PacketSocket {
    socket: Socket,
    index: i32,
}

/// One frame that was received.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Bytes in the buffer.
    pub len: usize,
    /// Whether this side sent it.
    pub outgoing: bool,
    /// The 802.1Q tag, which the kernel has taken out of the frame.
    pub vlan: Option<u16>,
    /// When the kernel queued it.
    pub at: SystemTime,
}

impl PacketSocket {
    /// Opens a socket on `device` in the namespace of the thread; `protocol` 0 receives nothing.
    pub fn open(device: &str, layer: Layer, protocol: u16) -> io::Result<Self> {
        let kind = match layer {
            Layer::Frame => Type::RAW,
            Layer::Payload => Type::DGRAM,
        };
        let socket = Socket::new(Domain::PACKET, kind, Some(Protocol::from(0)))?;
        let name = CString::new(device)?;
        // SAFETY: `name` is a C string that lives through the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = Self {
            socket,
            index: index.cast_signed(),
        };
        let address = socket.address(protocol, [0; 6]);
        // SAFETY: `address` is a valid sockaddr_ll of the length given.
        let done = unsafe {
            libc::bind(
                socket.socket.as_raw_fd(),
                (&raw const address).cast(),
                length::<libc::sockaddr_ll>(),
            )
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(socket)
    }

    /// Asks for arrival times, VLAN tags and a large queue; `recv` gives up after `timeout`.
    pub fn watch(&self, timeout: Duration) -> io::Result<()> {
        self.option(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1_i32)?;
        self.option(libc::SOL_PACKET, libc::PACKET_AUXDATA, 1_i32)?;
        self.socket.set_read_timeout(Some(timeout))?;
        let size = 64_i32 << 20;
        self.option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size)
            .or_else(|_| self.option(libc::SOL_SOCKET, libc::SO_RCVBUF, size))
    }

    /// Sends past the queueing discipline.
    pub fn bypass_qdisc(&self) -> io::Result<()> {
        self.option(libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1_i32)
    }

    /// Each frame is sent behind a virtio header (packet(7), PACKET_VNET_HDR).
    pub fn virtio_headers(&self) -> io::Result<()> {
        // Of linux/if_packet.h.
        const PACKET_VNET_HDR: i32 = 15;
        self.option(libc::SOL_PACKET, PACKET_VNET_HDR, 1_i32)
    }

    /// Sends one whole frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<usize> {
        self.socket.send(frame)
    }

    /// Sends `payload` under the given ethertype to a link-layer address.
    pub fn send_to(&self, payload: &[u8], ethertype: u16, to: [u8; 6]) -> io::Result<usize> {
        let address = self.address(ethertype, to);
        // SAFETY: buffer and address are valid for the lengths given.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                payload.as_ptr().cast(),
                payload.len(),
                0,
                (&raw const address).cast(),
                length::<libc::sockaddr_ll>(),
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Receives one frame.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        // SAFETY: both are plain C structures for which all zeroes are valid.
        let mut from: libc::sockaddr_ll = unsafe { zeroed() };
        // SAFETY: as above.
        let mut head: libc::msghdr = unsafe { zeroed() };
        let mut control = [0_u64; 32];
        let mut part = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        head.msg_name = (&raw mut from).cast();
        head.msg_namelen = length::<libc::sockaddr_ll>();
        head.msg_iov = &raw mut part;
        head.msg_iovlen = 1;
        head.msg_control = control.as_mut_ptr().cast();
        head.msg_controllen = size_of_val(&control);
        // SAFETY: every pointer in `head` is to memory that lives through the call.
        let got = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut head, 0) };
        let len = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        let mut received = Received {
            len,
            outgoing: from.sll_pkttype == libc::PACKET_OUTGOING,
            vlan: None,
            at: SystemTime::now(),
        };
        // SAFETY: the kernel filled `head`, and `control` outlives the walk over it.
        unsafe { received.read_control(&head) };
        Ok(received)
    }

    /// Frames lost because the queue was full, since the last call.
    pub fn dropped(&self) -> io::Result<u32> {
        // SAFETY: a plain C structure for which all zeroes are valid.
        let mut stats: libc::tpacket_stats = unsafe { zeroed() };
        let mut len = length::<libc::tpacket_stats>();
        // SAFETY: `stats` and `len` are valid for writes.
        let done = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut len,
            )
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stats.tp_drops)
    }

    /// The socket, for what this type has no call for.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    fn option(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        set_option(&self.socket, level, name, &value.to_ne_bytes())
    }

    fn address(&self, protocol: u16, to: [u8; 6]) -> libc::sockaddr_ll {
        // SAFETY: a plain C structure for which all zeroes are valid.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = self.index;
        address.sll_halen = 6;
        address.sll_addr[..6].copy_from_slice(&to);
        address
    }
}

impl Received {
    /// Reads arrival time and VLAN tag.
    ///
    /// # Safety
    ///
    /// `head` is as `recvmsg` left it.
    unsafe fn read_control(&mut self, head: &libc::msghdr) {
        // SAFETY: the caller vouches for `head`.
        let mut entry = unsafe { libc::CMSG_FIRSTHDR(head) };
        while !entry.is_null() {
            // SAFETY: the macro gave a header inside the control buffer.
            let (level, kind, data) = unsafe {
                (
                    (*entry).cmsg_level,
                    (*entry).cmsg_type,
                    libc::CMSG_DATA(entry),
                )
            };
            if (level, kind) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
                // SAFETY: this kind carries a timespec.
                let time = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                let since = Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32);
                self.at = SystemTime::UNIX_EPOCH + since;
            }
            if (level, kind) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
                // SAFETY: this kind carries a tpacket_auxdata.
                let aux = unsafe { data.cast::<libc::tpacket_auxdata>().read_unaligned() };
                if aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                    self.vlan = Some(aux.tp_vlan_tci);
                }
            }
            // SAFETY: as above.
            entry = unsafe { libc::CMSG_NXTHDR(head, entry) };
        }
    }
}

/// Sets a socket option that has no wrapper.
pub fn set_option(socket: &Socket, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: `value` is valid for reads of its length.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            value.len() as u32,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn length<T>() -> u32 {
    size_of::<T>() as u32
}
