//! The traffic that `scripts/bench` measures with, besides iperf3: round trips, datagrams at a rate, a torrent
//! client's mix, and handshakes with the wrong key. Without words, as cargo starts it, it does nothing.
#![allow(missing_docs)]

use std::cell::Cell;
use std::collections::HashMap;
use std::env;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use rustix::net::sockopt;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use vpngw::config::{PublicKey, Secret};
use vpngw::wireguard::PeerSetup;
use vpngw::wireguard::session::Session;

const USAGE: &str = "traffic serve ADDRESS | ping SERVER COUNT MICROSECONDS | pps SERVER SIZE SECONDS \
    | bursts SERVER FLOWS PPS SECONDS | mix SERVER FLOWS SECONDS | storm SERVER FROM KEY RATE SECONDS \
    | buffer PROCESS PORT BYTES";

/// First byte of a datagram: what the server does with it. A number of the run and one of the packet follow.
const ECHO: u8 = 0;
const COUNT: u8 = 1;
const TELL: u8 = 2;
const ACKNOWLEDGE: u8 = 3;

/// Bytes of the headers of IPv4 and UDP.
const HEADERS: usize = 28;

/// Payload of a full datagram in a tunnel of MTU 1420.
const FULL: usize = 1420 - HEADERS;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let words: Vec<_> = env::args().skip(1).filter(|w| w != "--bench").collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => Ok(()),
        ["serve", at] => serve(address(at)).await,
        ["ping", at, count, gap] => ping(address(at), number(count), micros(gap)).await,
        ["pps", at, size, seconds] => most(address(at), number(size), seconds_of(seconds)).await,
        ["bursts", at, flows, pps, seconds] => {
            let run = (number(flows), number(pps), seconds_of(seconds));
            bursts(address(at), run.0, run.1, run.2).await
        }
        ["mix", at, flows, seconds] => mix(address(at), number(flows), seconds_of(seconds)).await,
        ["storm", at, from, key, rate, seconds] => {
            let rate = number(rate) as u32;
            storm((address(from), address(at)), key, rate, seconds_of(seconds)).await
        }
        ["buffer", process, port, bytes] => {
            let process = process.parse().expect("a process");
            buffer(process, number(port) as u16, number(bytes))
        }
        _ => Err(io::Error::other(USAGE)),
    }
}

fn address(word: &str) -> SocketAddrV4 {
    word.parse().expect("an address and a port")
}

fn number(word: &str) -> usize {
    word.parse().expect("a number")
}

fn micros(word: &str) -> Duration {
    Duration::from_micros(number(word) as u64)
}

fn seconds_of(word: &str) -> Duration {
    Duration::from_secs_f64(word.parse().expect("seconds"))
}

// --- the server

async fn serve(at: SocketAddrV4) -> io::Result<()> {
    let listener = TcpListener::bind(at).await?;
    let socket = datagram_socket(at)?;
    tokio::spawn(async move { answer(&socket).await });
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(sink_or_source(stream));
    }
}

/// A receive buffer that does not lose what the tunnel has carried.
fn datagram_socket(at: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, 8 << 20))?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    UdpSocket::from_std(socket.into())
}

async fn answer(socket: &UdpSocket) -> io::Result<()> {
    let mut counts = HashMap::<u64, u64>::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let (len, from) = socket.recv_from(&mut buffer).await?;
        let Some(run) = run_of(&buffer[..len]) else {
            continue;
        };
        // An answer that cannot be sent is one that is lost.
        match buffer[0] {
            COUNT => *counts.entry(run).or_default() += 1,
            ECHO => drop(socket.try_send_to(&buffer[..len], from)),
            TELL => {
                let count = counts.get(&run).copied().unwrap_or_default();
                drop(socket.try_send_to(&datagram(TELL, run, count, 32), from));
            }
            // As uTP does: one short packet for each long one.
            _ => drop(socket.try_send_to(&buffer[..20], from)),
        }
    }
}

/// The first byte a client sends decides: `s` is "take what I send", anything else "send to me".
async fn sink_or_source(mut stream: TcpStream) -> io::Result<()> {
    let mut block = vec![0; 1 << 16];
    if stream.read_u8().await? == b's' {
        while stream.read(&mut block).await? > 0 {}
    } else {
        loop {
            stream.write_all(&block).await?;
        }
    }
    Ok(())
}

fn datagram(kind: u8, run: u64, number: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size.max(20)];
    bytes[0] = kind;
    bytes[1..9].copy_from_slice(&run.to_be_bytes());
    bytes[9..17].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn run_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(1..9)?.try_into().ok()?))
}

fn number_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(9..17)?.try_into().ok()?))
}

// --- round trips

async fn connected(to: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = datagram_socket(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to).await?;
    Ok(socket)
}

/// Prints median and 99th percentile in microseconds, and what share of the answers is missing.
async fn ping(to: SocketAddrV4, count: usize, gap: Duration) -> io::Result<()> {
    // Blocking, so that nothing of a runtime is measured.
    let socket = connected(to).await?.into_std()?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let (mut times, mut lost) = (Vec::new(), 0_usize);
    let mut buffer = [0; 100];
    for n in 0..count {
        let begun = Instant::now();
        socket.send(&datagram(ECHO, 0, n as u64, 64))?;
        loop {
            match socket.recv(&mut buffer) {
                Ok(len) if number_of(&buffer[..len]) == Some(n as u64) => {
                    times.push(begun.elapsed());
                    break;
                }
                Ok(_) => {}
                Err(_) => break lost += 1,
            }
        }
        std::thread::sleep(gap);
    }
    times.sort_unstable();
    let at = |share: f64| {
        let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(index).map_or(0, Duration::as_micros)
    };
    println!("{} {} {:.3}", at(0.5), at(0.99), lost as f64 / count as f64);
    Ok(())
}

// --- datagrams at a rate

/// Sends at a rate; returns how many, and how many arrived.
async fn at_rate(
    sockets: &[UdpSocket],
    size: usize,
    burst: usize,
    pps: usize,
    time: Duration,
) -> io::Result<(u64, u64)> {
    let run = now();
    let packet = datagram(COUNT, run, 0, size);
    let begun = Instant::now();
    let (mut sent, mut turn) = (0_u64, 0);
    while begun.elapsed() < time {
        let due = (begun.elapsed().as_secs_f64() * pps as f64) as u64;
        while sent < due {
            let socket = &sockets[turn % sockets.len()];
            turn += 1;
            for _ in 0..burst {
                while socket.try_send(&packet).is_err() {
                    socket.writable().await?;
                }
                sent += 1;
            }
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    sleep(Duration::from_millis(300)).await;
    let mut buffer = [0; 100];
    for _ in 0..20 {
        sockets[0].send(&datagram(TELL, run, 0, 32)).await?;
        let answer = timeout(Duration::from_millis(500), sockets[0].recv(&mut buffer)).await;
        if let Ok(Ok(len)) = answer
            && run_of(&buffer[..len]) == Some(run)
        {
            return Ok((sent, number_of(&buffer[..len]).unwrap_or_default()));
        }
    }
    Err(io::Error::other("the server does not tell"))
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_nanos() as u64
}

/// Prints the highest rate, in packets a second, at which no more than one in a thousand is lost: doubled until
/// it is too high, then halved in between five times. The size is that of the whole packet, IPv4 and UDP included.
async fn most(to: SocketAddrV4, size: usize, time: Duration) -> io::Result<()> {
    let sockets = [connected(to).await?];
    let (mut good, mut bad) = (0_usize, None);
    let mut rate = 8_000;
    for _ in 0..12 {
        let (sent, arrived) = at_rate(&sockets, size - HEADERS, 1, rate, time).await?;
        let real = (sent as f64 / time.as_secs_f64()) as usize;
        if arrived as f64 >= sent as f64 * 0.999 {
            good = good.max(real);
            // The sender itself is at its end.
            if real < rate * 9 / 10 {
                break;
            }
        } else {
            bad = Some(rate);
        }
        rate = match bad {
            None => rate * 2,
            Some(bad) if bad - good < bad / 20 => break,
            Some(bad) => usize::midpoint(good, bad),
        };
    }
    println!("{good}");
    Ok(())
}

/// Bursts of eight full datagrams, each of another flow. Prints how many arrived, and the nanoseconds that this
/// process has run.
async fn bursts(to: SocketAddrV4, flows: usize, pps: usize, time: Duration) -> io::Result<()> {
    let mut sockets = Vec::new();
    for _ in 0..flows {
        sockets.push(connected(to).await?);
    }
    let (_, arrived) = at_rate(&sockets, 1200, 8, pps, time).await?;
    let ran = clock_gettime(ClockId::ProcessCPUTime);
    println!("{arrived} {}", ran.tv_sec * 1_000_000_000 + ran.tv_nsec);
    Ok(())
}

// --- a torrent client

/// As many flows of TCP, half of them up, and of UDP that acknowledges each packet. Prints Mbit/s of payload.
async fn mix(to: SocketAddrV4, flows: usize, time: Duration) -> io::Result<()> {
    let total = Rc::new(Cell::new(0_u64));
    let local = tokio::task::LocalSet::new();
    let mut tasks = JoinSet::new();
    for n in 0..flows {
        let (tcp, udp) = (Rc::clone(&total), Rc::clone(&total));
        tasks.spawn_local_on(async move { stream(to, n % 2 == 0, &tcp).await }, &local);
        tasks.spawn_local_on(async move { window(to, &udp).await }, &local);
    }
    let begun = Instant::now();
    local.run_until(sleep(time)).await;
    let elapsed = begun.elapsed().as_secs_f64();
    println!("{:.0}", total.get() as f64 * 8.0 / 1e6 / elapsed);
    Ok(())
}

async fn stream(to: SocketAddrV4, up: bool, total: &Cell<u64>) -> io::Result<()> {
    let mut stream = TcpStream::connect(SocketAddr::from(to)).await?;
    stream.write_u8(if up { b's' } else { b'r' }).await?;
    let mut block = vec![0; 1 << 14];
    loop {
        let len = if up {
            stream.write(&block).await?
        } else {
            stream.read(&mut block).await?
        };
        total.set(total.get() + len as u64);
    }
}

/// Four packets under way; what is not acknowledged in 300 ms is lost.
async fn window(to: SocketAddrV4, total: &Cell<u64>) -> io::Result<()> {
    let socket = connected(to).await?;
    let packet = datagram(ACKNOWLEDGE, 1, 0, FULL);
    let mut buffer = [0; 100];
    loop {
        for _ in 0..4 {
            socket.send(&packet).await?;
        }
        for _ in 0..4 {
            match timeout(Duration::from_millis(300), socket.recv(&mut buffer)).await {
                Ok(Ok(_)) => total.set(total.get() + FULL as u64),
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
    }
}

// --- a storm of handshakes

/// Sends initiations with a valid first MAC and a key that the server does not know, as if from `from`.
async fn storm(
    (from, to): (SocketAddrV4, SocketAddrV4),
    key: &str,
    rate: u32,
    time: Duration,
) -> io::Result<()> {
    let key = BASE64_STANDARD.decode(key).map_err(io::Error::other)?;
    let peer = PeerSetup {
        private_key: Secret::new([0x5a; 32]),
        public_key: PublicKey(key.try_into().map_err(|_| io::Error::other("a key"))?),
        preshared_key: None,
        keepalive: None,
        allowed_ips: Vec::new(),
    };
    let mut session = Session::new(&peer, *to.ip(), Instant::now())?;
    // Made beforehand and sent over and over: what it takes to make them is not what is measured.
    let mut message = [0; 256];
    let mut packets = Vec::new();
    while packets.len() < 100 {
        let len = session.initiate(Instant::now(), &mut message);
        packets.push(ipv4_udp(from, to, &message[..len.unwrap_or_default()]));
    }
    // A protocol of 255 means that the IPv4 header is ours (raw(7)).
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
    let (begun, mut sent) = (Instant::now(), 0_u32);
    while begun.elapsed() < time {
        while f64::from(sent) < begun.elapsed().as_secs_f64() * f64::from(rate) {
            let packet = &packets[sent as usize % packets.len()];
            socket.send_to(packet, &SocketAddr::from(to).into())?;
            sent += 1;
        }
        sleep(Duration::from_millis(1)).await;
    }
    println!("{sent}");
    Ok(())
}

/// The kernel completes length and checksum of the IPv4 header; the UDP checksum may be left out (RFC 768).
fn ipv4_udp(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    bytes.extend(from.ip().octets());
    bytes.extend(to.ip().octets());
    let len = 8 + payload.len() as u16;
    for word in [from.port(), to.port(), len, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(payload);
    bytes
}

// --- another receive buffer for a socket of another process

fn buffer(process: i32, port: u16, bytes: usize) -> io::Result<()> {
    let pid = Pid::from_raw(process).expect("a process");
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        let name = entry?.file_name();
        let fd = name.to_str().and_then(|name| name.parse().ok());
        let fd = fd.expect("a number");
        let Ok(copy) = pidfd_getfd(&pidfd, fd, PidfdGetfdFlags::empty()) else {
            continue; // Closed meanwhile.
        };
        let socket = SockRef::from(&copy);
        let here = socket.local_addr().ok().and_then(|at| at.as_socket());
        if socket.r#type().ok() == Some(Type::DGRAM) && here.is_some_and(|at| at.port() == port) {
            return Ok(sockopt::set_socket_recv_buffer_size_force(&copy, bytes)?);
        }
    }
    Err(io::Error::other("it has no such socket"))
}
