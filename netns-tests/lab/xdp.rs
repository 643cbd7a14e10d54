//! AF_XDP sockets, as far as being bound to a device: from there on frames leave past every rule and tap.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

use super::raw::set_option;

/// linux/if_xdp.h: `XDP_UMEM_REG`, `XDP_UMEM_FILL_RING`, `XDP_UMEM_COMPLETION_RING`, `XDP_TX_RING`.
const OPTIONS: [i32; 4] = [4, 5, 6, 3];

/// linux/if_xdp.h, `struct sockaddr_xdp`.
#[repr(C)]
struct Address {
    family: u16,
    flags: u16,
    index: u32,
    queue: u32,
    shared: u32,
}

/// Binds a socket that could send to the first queue of the device with this number.
///
/// # Errors
///
/// ENODEV where there is no such device; EPERM without CAP_NET_RAW.
pub fn bind(index: u32) -> io::Result<()> {
    let socket = Socket::new(Domain::from(libc::AF_XDP), Type::RAW, None)?;
    let frames = Layout::from_size_align(4 * 4096, 4096).map_err(io::Error::other)?;
    // SAFETY: the layout has a size.
    let memory = unsafe { alloc_zeroed(frames) };
    let bound = attach(&socket, memory as u64, frames.size() as u64, index);
    drop(socket);
    // SAFETY: allocated above with this layout; the socket that used it is closed.
    unsafe { dealloc(memory, frames) };
    bound
}

fn attach(socket: &Socket, memory: u64, length: u64, index: u32) -> io::Result<()> {
    let [umem, rings @ ..] = OPTIONS;
    // `struct xdp_umem_reg`: address, length, bytes of a frame, headroom, flags.
    let mut registration = memory.to_ne_bytes().to_vec();
    registration.extend(length.to_ne_bytes());
    for number in [4096_u32, 0, 0, 0] {
        registration.extend(number.to_ne_bytes());
    }
    set_option(socket, libc::SOL_XDP, umem, &registration)?;
    for ring in rings {
        set_option(socket, libc::SOL_XDP, ring, &64_u32.to_ne_bytes())?;
    }
    let address = Address {
        family: libc::AF_XDP as u16,
        flags: 0,
        index,
        queue: 0,
        shared: 0,
    };
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    let done = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<Address>() as libc::socklen_t,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
