//! What a read or a write of the TUN device costs when the packet lies in one piece and when it lies in many, as
//! the segments of a superpacket would. Takes the word `here`, in a network namespace of its own
//! (`unshare --net`). Without words, as cargo starts it, it does nothing.
#![allow(missing_docs)]

use std::hint::black_box;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::time::Instant;

use tun_rs::{DeviceBuilder, SyncDevice};

/// Bytes of a superpacket: 46 segments of a tunnel of 1420.
const PACKET: usize = 62_928;
/// A piece of its own for each segment, for the headers, or none.
const PIECES: [usize; 3] = [1, 2, 46];
const ROUNDS: usize = 9;
const TIMES: usize = 4000;

fn main() -> io::Result<()> {
    if std::env::args().nth(1).as_deref() != Some("here") {
        return Ok(());
    }
    let device = DeviceBuilder::new()
        .name("scatter0")
        .ipv4("10.99.0.1", 24, None)
        .mtu(65_535)
        .build_sync()?;
    device.set_nonblocking(true)?;
    println!("| ns for {PACKET} bytes, medians of {ROUNDS} | one piece | 2 pieces | 46 pieces |");
    println!("|---|---|---|---|");
    row("write to the TUN device", |pieces| write(&device, pieces))?;
    row("read from the TUN device", |pieces| read(&device, pieces))
}

/// Measures each number of pieces in turn, round after round.
fn row(what: &str, measure: impl Fn(usize) -> io::Result<u64>) -> io::Result<()> {
    let mut times = PIECES.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (times, pieces) in times.iter_mut().zip(PIECES) {
            times.push(measure(pieces)?);
        }
    }
    let medians = times.map(|mut times| {
        times.sort_unstable();
        times[ROUNDS / 2]
    });
    let cell = |n: &u64| format!("{n} ({:.2} x)", *n as f64 / medians[0] as f64);
    let cells: Vec<_> = medians.iter().map(cell).collect();
    println!("| {what} | {} |", cells.join(" | "));
    Ok(())
}

/// Nanoseconds of one write. The kernel copies the packet and drops it, for its header is no good.
fn write(device: &SyncDevice, pieces: usize) -> io::Result<u64> {
    let mut packet = vec![0; PACKET];
    packet[0] = 0x45;
    let parts: Vec<_> = packet
        .chunks(PACKET.div_ceil(pieces))
        .map(IoSlice::new)
        .collect();
    let start = Instant::now();
    for _ in 0..TIMES {
        black_box(device.send_vectored(&parts)?);
    }
    Ok(start.elapsed().as_nanos() as u64 / TIMES as u64)
}

/// Nanoseconds of one read of a packet that is there.
fn read(device: &SyncDevice, pieces: usize) -> io::Result<u64> {
    let mut buffer = vec![0; PACKET + 100];
    let socket = UdpSocket::bind("10.99.0.1:0")?;
    let payload = vec![0; PACKET - 28];
    let mut nanos = 0;
    for _ in 0..TIMES {
        socket.send_to(&payload, "10.99.0.2:9")?;
        let size = buffer.len().div_ceil(pieces);
        let mut parts: Vec<_> = buffer.chunks_mut(size).map(IoSliceMut::new).collect();
        let start = Instant::now();
        // What the kernel says by itself (IPv6) is shorter, and not what is waited for.
        while device.recv_vectored(&mut parts)? < PACKET {}
        nanos += start.elapsed().as_nanos() as u64;
    }
    Ok(nanos / TIMES as u64)
}
