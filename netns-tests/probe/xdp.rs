//! AF_XDP in copy mode, transmission only: a frame goes from memory straight to the driver, past every hook
//! and every tap (Linux, net/xdp/xsk.c, `xsk_generic_xmit`). Takes CAP_NET_RAW.

#![allow(
    unsafe_code,
    reason = "bind(2) with a sockaddr_xdp has no safe wrapper"
)]

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::device::index;
use crate::forge::{datagram, to_router};
use crate::memory::Shared;
use crate::raw::set_option;
use crate::socket::{Probe, Sent};

/// Everything here.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "frame",
        send: |token| transmit(&to_router(0x0800, &datagram(token))),
    },
    Probe {
        name: "ethertype-88b5",
        send: |token| transmit(&to_router(0x88b5, token)),
    },
];

/// Bytes of a frame's place, and how many the rings have room for.
const CHUNK: u32 = 2048;
const ENTRIES: u32 = 4;

fn transmit(bytes: &[u8]) -> Sent {
    let socket = Socket::new(Domain::from(libc::AF_XDP), Type::RAW, None)?;
    let memory = Shared::anonymous((CHUNK * ENTRIES) as usize)?;
    memory.write(0, bytes);
    // struct xdp_umem_reg, version 1: address, length, chunk size, headroom.
    let mut umem = memory.address().to_ne_bytes().to_vec();
    umem.extend(u64::from(CHUNK * ENTRIES).to_ne_bytes());
    umem.extend([CHUNK, 0].map(u32::to_ne_bytes).concat());
    let option = |name, value: &[u8]| set_option(&socket, libc::SOL_XDP, name, value);
    option(libc::XDP_UMEM_REG, &umem)?;
    for ring in [
        libc::XDP_UMEM_FILL_RING,
        libc::XDP_UMEM_COMPLETION_RING,
        libc::XDP_TX_RING,
    ] {
        option(ring, &ENTRIES.to_ne_bytes())?;
    }
    let offsets = offsets(&socket)?;
    let size = offsets.tx.desc as usize + ENTRIES as usize * size_of::<libc::xdp_desc>();
    let tx = Shared::map(socket.as_raw_fd(), size, libc::XDP_PGOFF_TX_RING)?;
    bind(&socket)?;
    let producer = tx.word(offsets.tx.producer as usize);
    // struct xdp_desc: where, how long, options.
    let mut descriptor = 0_u64.to_ne_bytes().to_vec();
    descriptor.extend([bytes.len() as u32, 0].map(u32::to_ne_bytes).concat());
    tx.write(offsets.tx.desc as usize, &descriptor);
    producer.store(1, Ordering::Release);
    let start = Instant::now();
    while tx
        .word(offsets.tx.consumer as usize)
        .load(Ordering::Acquire)
        != 1
    {
        // The kernel sends when it is woken by an empty message.
        match socket.send_with_flags(&[], libc::MSG_DONTWAIT) {
            Err(why) if start.elapsed() > Duration::from_millis(100) => return Err(why),
            _ => std::thread::yield_now(),
        }
    }
    Ok(None)
}

fn offsets(socket: &Socket) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: a plain C structure for which all zeroes are valid.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&offsets) as u32;
    // SAFETY: `offsets` and `len` are valid for writes.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_MMAP_OFFSETS,
            (&raw mut offsets).cast(),
            &raw mut len,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(offsets)
}

fn bind(socket: &Socket) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: libc::XDP_COPY,
        sxdp_ifindex: index()?,
        sxdp_queue_id: 0,
        sxdp_shared_umem_fd: 0,
    };
    // SAFETY: `address` is a valid sockaddr_xdp of the length given.
    let done = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as u32,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
