//! Packet sockets whose frames lie in memory shared with the kernel (packet(7), PACKET_TX_RING).

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::addresses::ROUTER_MAC;
use crate::forge::{datagram, to_router};
use crate::memory::Shared;
use crate::packet::Path;
use crate::raw::{Layer, PacketSocket, set_option};
use crate::socket::{Probe, Sent};

/// Everything here.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "frame",
        send: |token| {
            ring(
                &to_router(0x0800, &datagram(token)),
                Layer::Frame,
                Path::Queued,
            )
        },
    },
    Probe {
        name: "frame-bypass",
        send: |token| {
            ring(
                &to_router(0x0800, &datagram(token)),
                Layer::Frame,
                Path::Direct,
            )
        },
    },
    Probe {
        name: "dgram",
        send: |token| ring(&datagram(token), Layer::Payload, Path::Queued),
    },
    Probe {
        name: "ethertype-88b5-bypass",
        send: |token| ring(&to_router(0x88b5, token), Layer::Frame, Path::Direct),
    },
];

/// One page, one frame.
const SIZE: u32 = 4096;

/// Where a frame begins in its slot: `TPACKET2_HDRLEN - sizeof(struct sockaddr_ll)` (packet_mmap.txt).
const DATA: usize = libc::TPACKET2_HDRLEN - size_of::<libc::sockaddr_ll>();

fn ring(bytes: &[u8], layer: Layer, path: Path) -> Sent {
    let device = PacketSocket::open("eth0", layer, 0)?;
    if path == Path::Direct {
        device.bypass_qdisc()?;
    }
    let socket = device.socket();
    let version = (libc::tpacket_versions::TPACKET_V2 as i32).to_ne_bytes();
    set_option(socket, libc::SOL_PACKET, libc::PACKET_VERSION, &version)?;
    // struct tpacket_req: block size, blocks, frame size, frames.
    let request = [SIZE, 1, SIZE, 1].map(u32::to_ne_bytes).concat();
    set_option(socket, libc::SOL_PACKET, libc::PACKET_TX_RING, &request)?;
    let slot = Shared::map(socket.as_raw_fd(), SIZE as usize, 0)?;
    slot.write(DATA, bytes);
    // struct tpacket2_hdr begins with status and length.
    slot.word(4).store(bytes.len() as u32, Ordering::Relaxed);
    let status = slot.word(0);
    status.store(libc::TP_STATUS_SEND_REQUEST, Ordering::Release);
    device.send_to(&[], 0x0800, ROUTER_MAC)?;
    // The kernel gives the slot back when the frame is gone; it must not be unmapped before.
    let start = Instant::now();
    while status.load(Ordering::Acquire) != libc::TP_STATUS_AVAILABLE {
        if start.elapsed() > Duration::from_millis(100) {
            return Err(io::Error::other("the ring is not taken from"));
        }
        std::thread::yield_now();
    }
    Ok(None)
}
