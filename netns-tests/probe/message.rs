//! Datagrams with a message beside them that says how to send them (cmsg(3)).

#![allow(
    unsafe_code,
    reason = "sendmsg(2) with these messages has no safe wrapper"
)]

use std::io;
use std::mem::zeroed;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

use socket2::Socket;

/// What one datagram is told to be, by a message beside it (cmsg(3)).
#[derive(Clone, Copy, Debug)]
pub enum Control {
    /// From this device, 0 for any, and this address (`IP_PKTINFO`, ip(7)).
    Source {
        /// Its number.
        device: u32,
        /// `None` leaves the choice to the kernel.
        source: Option<Ipv4Addr>,
    },
    /// With this mark (`SO_MARK`, socket(7)).
    Mark(u32),
}

/// Sends one datagram with a control message.
pub fn send_with(
    socket: &Socket,
    payload: &[u8],
    control: Control,
    to: SocketAddrV4,
) -> io::Result<usize> {
    let octets = |address: Ipv4Addr| libc::in_addr {
        s_addr: u32::from(address).to_be(),
    };
    // SAFETY: plain C structures for which all zeroes are valid.
    let (mut head, mut address): (libc::msghdr, libc::sockaddr_in) = unsafe { zeroed() };
    address.sin_family = libc::AF_INET as u16;
    address.sin_port = to.port().to_be();
    address.sin_addr = octets(*to.ip());
    let mut buffer = [0_u64; 8];
    let mut part = libc::iovec {
        iov_base: payload.as_ptr().cast_mut().cast(),
        iov_len: payload.len(),
    };
    head.msg_name = (&raw mut address).cast();
    head.msg_namelen = length::<libc::sockaddr_in>();
    head.msg_iov = &raw mut part;
    head.msg_iovlen = 1;
    head.msg_control = buffer.as_mut_ptr().cast();
    head.msg_controllen = size_of_val(&buffer);
    // SAFETY: `buffer` is large enough for one header and the larger of the two values.
    let sent = unsafe {
        let entry = libc::CMSG_FIRSTHDR(&raw const head);
        let (level, kind, size) = match control {
            Control::Source { device, source } => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: device.cast_signed(),
                    ipi_spec_dst: octets(source.unwrap_or(Ipv4Addr::UNSPECIFIED)),
                    ipi_addr: octets(Ipv4Addr::UNSPECIFIED),
                };
                libc::CMSG_DATA(entry)
                    .cast::<libc::in_pktinfo>()
                    .write_unaligned(info);
                let size = length::<libc::in_pktinfo>();
                (libc::IPPROTO_IP, libc::IP_PKTINFO, size)
            }
            Control::Mark(mark) => {
                libc::CMSG_DATA(entry).cast::<u32>().write_unaligned(mark);
                (libc::SOL_SOCKET, libc::SO_MARK, length::<u32>())
            }
        };
        (*entry).cmsg_level = level;
        (*entry).cmsg_type = kind;
        (*entry).cmsg_len = libc::CMSG_LEN(size) as usize;
        head.msg_controllen = libc::CMSG_SPACE(size) as usize;
        libc::sendmsg(socket.as_raw_fd(), &raw const head, 0)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn length<T>() -> u32 {
    size_of::<T>() as u32
}
