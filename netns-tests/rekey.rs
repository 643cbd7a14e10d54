//! Sessions longer than the life of a key (whitepaper, section 6.1: 120 s, 180 s).

use std::io::Read;
use std::net::UdpSocket;
use std::time::{Duration, Instant, SystemTime};

use vpngw::sys::socket::uninterrupted;

use crate::lab::canary;
use crate::lab::machine::Machine;
use crate::lab::server::Swallow;
use crate::lab::tunnel::{ask_on, assert_inside};
use crate::lab::{HOST, Lab, at, wait};

/// Longer than any answer may take, so that a late one is told from a lost one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Four keys of 120 s, and the start of the fifth.
const LONG: Duration = Duration::from_secs(487);

#[test]
fn a_packet_every_three_seconds_never_waits_through_four_rekeys() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    let socket = lab
        .ns
        .enter("app", || UdpSocket::bind("0.0.0.0:0").unwrap());
    let machine = Machine::watch();
    let (start, mut sent, mut slowest) = (Instant::now(), 0_u32, Duration::ZERO);
    while start.elapsed() < LONG {
        let began = Instant::now();
        let took = once(&socket, PATIENCE);
        let took = took.unwrap_or_else(|| panic!("lost {:?} after start", began - start));
        assert_prompt(&lab, &machine, start, began);
        (sent, slowest) = (sent + 1, slowest.max(took));
        std::thread::sleep(Duration::from_secs(3).saturating_sub(took));
    }
    println!("{sent} packets, the slowest answer took {slowest:?}");
    assert_rekeyed(&lab);
    gateway.wait_connected();
    lab.sensor.verdict();
}

#[test]
fn a_download_never_pauses_for_a_second_through_four_rekeys() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let mut stream = lab.ns.enter("app", || {
        let patience = Duration::from_secs(20);
        std::net::TcpStream::connect_timeout(&at(HOST, 19), patience).unwrap()
    });
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let machine = Machine::watch();
    let (start, mut total, mut longest) = (Instant::now(), 0, Duration::ZERO);
    let mut buffer = vec![0; 1 << 16];
    while start.elapsed() < LONG {
        let began = Instant::now();
        let got = uninterrupted(|| stream.read(&mut buffer));
        let got = got.unwrap_or_else(|why| panic!("{why} {:?} after start", start.elapsed()));
        assert!(got > 0, "ended {:?} after start", start.elapsed());
        assert_prompt(&lab, &machine, start, began);
        (total, longest) = (total + got, longest.max(began.elapsed()));
    }
    println!(
        "{} MB, the longest pause was {longest:?}",
        total / 1_000_000
    );
    assert_rekeyed(&lab);
    gateway.wait_connected();
    lab.sensor.verdict();
}

#[test]
fn one_packet_after_a_silence_is_answered() {
    let lab = Lab::new();
    let _gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    let socket = lab
        .ns
        .enter("app", || UdpSocket::bind("0.0.0.0:0").unwrap());
    for silence in [16, 26, 40] {
        std::thread::sleep(Duration::from_secs(silence));
        let took = once(&socket, Duration::from_secs(3));
        println!("after {silence} s: {took:?}");
        assert!(
            took.is_some(),
            "the packet after {silence} s of silence was lost"
        );
    }
    lab.sensor.verdict();
}

/// The first key is too old by then, so the one packet must wait for a handshake.
#[test]
fn one_packet_after_the_key_expired_is_answered() {
    let lab = Lab::new();
    let _gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    let socket = lab
        .ns
        .enter("app", || UdpSocket::bind("0.0.0.0:0").unwrap());
    std::thread::sleep(Duration::from_secs(190));
    assert!(once(&socket, Duration::from_secs(6)).is_some());
    lab.sensor.verdict();
}

#[test]
fn a_peer_that_is_silent_for_more_than_ninety_seconds_is_found_again() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    let socket = lab
        .ns
        .enter("app", || UdpSocket::bind("0.0.0.0:0").unwrap());
    lab.servers[0].swallow(Swallow::Everything);
    let none = ask_on(&socket, at(HOST, 7), Duration::from_secs(100));
    assert_eq!(none, None, "the outage has no effect");
    lab.servers[0].swallow(Swallow::Nothing);
    let back = Instant::now();
    let answer = ask_on(&socket, at(HOST, 7), Duration::from_secs(90));
    assert!(answer.is_some_and(|a| a.starts_with("inside1")));
    println!("found again after {:?}", back.elapsed());
    gateway.wait_connected();
    lab.sensor.verdict();
}

/// Less than a second has passed, the time that the machine itself stood still aside.
fn assert_prompt(lab: &Lab, machine: &Machine, start: Instant, began: Instant) {
    let took = began.elapsed();
    if took < Duration::from_secs(1) {
        return;
    }
    let stood_still = machine.stood_still_since(began);
    println!(
        "{:?} after start: {took:?}, of which the machine stood still {stood_still:?}",
        began - start
    );
    let now = SystemTime::now();
    for handshake in lab.sensor.handshakes() {
        let ago = now.duration_since(handshake.at).unwrap_or_default();
        println!(
            "  handshake message {} was sent {ago:?} ago",
            handshake.message.kind
        );
    }
    let lost = took.saturating_sub(stood_still);
    assert!(lost < Duration::from_secs(1), "a second was lost");
}

/// One datagram, one answer; no second try.
fn once(socket: &UdpSocket, patience: Duration) -> Option<Duration> {
    let start = Instant::now();
    let token = canary::fresh();
    socket.send_to(&token, at(HOST, 7)).ok()?;
    let mut buffer = [0; 256];
    loop {
        let left = patience.checked_sub(start.elapsed())?;
        let left = left.max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left)).unwrap();
        let len = uninterrupted(|| socket.recv(&mut buffer)).ok()?;
        if buffer[..len].ends_with(&token) {
            return Some(start.elapsed());
        }
    }
}

fn assert_rekeyed(lab: &Lab) {
    wait("the sensor counts", Duration::from_secs(5), || {
        let all = lab.sensor.handshakes();
        // We begin a handshake, or answer one that the server began.
        let done = all
            .iter()
            .filter(|h| h.message.kind == 1 || h.message.kind == 2)
            .count();
        println!("{done} handshakes");
        (done >= 5).then_some(())
    });
}
