//! A program with CAP_NET_ADMIN that changes the network so as to get out, and then tries to.
//!
//! Each attack undoes itself, so that the next one begins where it began.

mod attacks;
mod flush;

use std::io;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::addresses::{APP, HOST, LAN};
use crate::canary::Canary;
use crate::forge::{datagram, initiation, to_router};
use crate::raw::{Layer, PacketSocket};
use crate::socket::{Sent, at, send, to_device, udp};

pub use attacks::PROBES;

/// How long an attack goes on trying: longer than the gateway needs to undo what it undoes.
const TRIES: Duration = Duration::from_millis(150);

/// Changes the network, tries to get out again and again, and changes it back.
///
/// Refused if any change was not permitted. A change that fails otherwise (there is no such table where
/// no gateway runs) is no reason to stop.
fn attack(token: &Canary, changes: &str, shots: fn(&Canary), undo: &str) -> Sent {
    for line in lines(changes) {
        if run(line)? == Outcome::NotPermitted {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
    }
    volleys(token, shots);
    for line in lines(undo) {
        run(line)?;
    }
    Ok(None)
}

/// Tries for a while, once a millisecond.
fn volleys(token: &Canary, shots: fn(&Canary)) {
    let start = Instant::now();
    while start.elapsed() < TRIES {
        shots(token);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What most attacks hope for: each layer once.
fn volley(token: &Canary) {
    let host = at(HOST, 9);
    let _ = udp().and_then(|socket| send(&socket, token, host));
    let _ = udp()
        .and_then(to_device)
        .and_then(|socket| send(&socket, token, host));
    let _ = from(APP, token);
    let _ = frame_on("eth0", token);
}

/// A datagram to the Internet and one to a neighbour, from an address.
fn from(source: Ipv4Addr, token: &Canary) -> Sent {
    let socket = udp()?;
    socket.bind(&at(source, 0).into())?;
    let _ = send(&socket, token, at(HOST, 9));
    send(&socket, token, at(LAN, 9))
}

/// A datagram and a raw frame by another device.
fn by(device: &str, token: &Canary) -> Sent {
    let socket = udp()?;
    if socket.bind_device(Some(device.as_bytes())).is_ok() {
        let _ = send(&socket, token, at(HOST, 9));
    }
    frame_on(device, token)
}

fn frame_on(device: &str, token: &Canary) -> Sent {
    let socket = PacketSocket::open(device, Layer::Frame, 0)?;
    socket.send(&to_router(0x0800, &datagram(token)))?;
    Ok(None)
}

/// What the gateway would send: its mark, the shape of a handshake.
fn like_the_gateway(token: &Canary) -> Sent {
    let socket = udp()?;
    socket.set_mark(vpngw::net::Fwmark::DEFAULT.0)?;
    send(&socket, &initiation(token), at(HOST, 9))
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
    NotPermitted,
}

/// Runs a line: `write PATH VALUE`, or a program and its words.
fn run(line: &str) -> io::Result<Outcome> {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    if program == "write" {
        let [path, value] = [words.next(), words.next()].map(Option::unwrap_or_default);
        return Ok(match std::fs::write(path, value) {
            Ok(()) => Outcome::Done,
            Err(why) => refused(why.kind() == io::ErrorKind::PermissionDenied),
        });
    }
    let done = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|why| io::Error::other(format!("{program}: {why}")))?;
    if done.status.success() {
        return Ok(Outcome::Done);
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Ok(refused(
        said.contains("not permitted") || said.contains("Permission denied"),
    ))
}

fn refused(permission: bool) -> Outcome {
    if permission {
        Outcome::NotPermitted
    } else {
        Outcome::Failed
    }
}
