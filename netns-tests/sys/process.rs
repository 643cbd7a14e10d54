//! Privileges, children, and who dies with whom.

use std::fs;
use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::SocketType;
use rustix::process::{Pid, Signal, WaitOptions, getppid, waitpid};
use vpngw::sys::{fdpass, privilege, process};

/// Runs one of the ignored tests below as a child, with one end of a pair.
fn start(stand_in: &str) -> (Pid, OwnedFd) {
    let (near, far) = fdpass::pair().unwrap();
    let name = format!("sys::process::{stand_in}");
    let arguments = ["--exact", &name, "--ignored", "--nocapture", "-q"];
    (process::spawn(&arguments, far.as_fd()).unwrap(), near)
}

/// The one socket that came across exec. A test cannot have arguments of its own, so it is looked for.
fn inherited() -> OwnedFd {
    let numbers = fs::read_dir("/proc/self/fd").unwrap();
    let numbers = numbers.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let numbers: Vec<String> = numbers.collect();
    let mut sockets = numbers
        .iter()
        .filter_map(|number| process::inherited(number.parse().unwrap()).ok());
    let socket = sockets.next().unwrap();
    assert!(sockets.next().is_none(), "one socket is passed on");
    socket
}

fn receive(fd: &OwnedFd) -> (String, Vec<OwnedFd>) {
    let mut poll = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
    let patience = rustix::time::Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    rustix::event::poll(&mut poll, Some(&patience)).unwrap();
    let mut buffer = vec![0; fdpass::LONGEST];
    let (length, fds) = fdpass::receive(fd, &mut buffer).unwrap().unwrap();
    buffer.truncate(length);
    (String::from_utf8(buffer).unwrap(), fds)
}

fn send(fd: &OwnedFd, text: &str) {
    fdpass::send(fd, text.as_bytes(), &[]).unwrap();
}

fn status() -> String {
    fs::read_to_string("/proc/thread-self/status").unwrap()
}

/// The words after `key:` in /proc/PID/status.
fn field<'a>(status: &'a str, key: &str) -> Vec<&'a str> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{key}: {status}"))
        .split_ascii_whitespace()
        .collect()
}

/// Whether `nobody` exists in this user namespace: not under `unshare -Ur`.
fn nobody_is_mapped() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    let reaches = |line: &str| {
        let numbers: Vec<u64> = line
            .split_ascii_whitespace()
            .map(|n| n.parse().unwrap())
            .collect();
        (numbers[0]..numbers[0] + numbers[2]).contains(&u64::from(privilege::NOBODY))
    };
    map.lines().any(reaches)
}

#[test]
#[ignore = "runs as a child of the tests below"]
fn engine_stand_in() {
    let link = inherited();
    // Its lock keeps one descriptor until the engine ends.
    let (_, _held) = receive(&link);
    let dropped = privilege::drop_all(getppid().unwrap(), privilege::ENGINE).unwrap();
    let gained = std::process::Command::new("id").output().is_ok();
    let raw = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        SocketType::RAW,
        Some(rustix::net::ipproto::ICMP),
    );
    send(
        &link,
        &format!(
            "{}raw: {}\nran: {gained}\nuid: {}\n",
            status(),
            raw.is_ok(),
            dropped.uid
        ),
    );
    thread_forever();
}

#[test]
#[ignore = "runs as a child of the tests below"]
fn warden_stand_in() {
    let link = inherited();
    let (_, held) = receive(&link);
    let kept = privilege::keep_only(privilege::WARDEN).unwrap();
    assert!(privilege::WARDEN.contains(kept));
    send(&link, &status());
    let (engine, engine_link) = start("engine_stand_in");
    fdpass::send(&engine_link, b"hold", &[held[0].as_fd()]).unwrap();
    drop(held);
    send(&link, &receive(&engine_link).0);
    // Either the test ends us here, or it asks us to end the engine.
    receive(&link);
    process::signal(engine, Signal::TERM).unwrap();
    let ended = loop {
        if let Some(ended) = process::reap().pop() {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(ended.0, engine);
    send(&link, &ended.1.to_string());
}

fn thread_forever() -> ! {
    loop {
        std::thread::park();
    }
}

/// A warden with its engine; the pipe ends when both are gone.
fn halves() -> (Pid, OwnedFd, PipeReader, [String; 2]) {
    let (alive, held) = std::io::pipe().unwrap();
    let (warden, link) = start("warden_stand_in");
    fdpass::send(&link, b"hold", &[held.as_fd()]).unwrap();
    drop(held);
    let statuses = [receive(&link).0, receive(&link).0];
    (warden, link, alive, statuses)
}

fn end(warden: Pid) {
    process::signal(warden, Signal::KILL).unwrap();
    waitpid(Some(warden), WaitOptions::empty()).unwrap();
}

#[test]
fn the_engine_has_no_privilege_left() {
    let (warden, _link, _alive, [_, engine]) = halves();
    end(warden);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(&engine, set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field(&engine, "NoNewPrivs"), ["1"]);
    assert_eq!(field(&engine, "raw"), ["false"]);
    if nobody_is_mapped() {
        let own = privilege::ENGINE.to_string();
        assert_eq!(field(&engine, "Uid"), [own.as_str(); 4]);
        assert_eq!(field(&engine, "Gid"), [own.as_str(); 4]);
        assert_eq!(field(&engine, "Groups"), [""; 0]);
    } else {
        assert_eq!(field(&engine, "Uid"), ["0"; 4]);
    }
}

#[test]
fn the_warden_keeps_what_it_needs_and_no_more() {
    let (warden, _link, _alive, [status, _]) = halves();
    end(warden);
    let wanted = privilege::WARDEN.bits();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        let held = u64::from_str_radix(field(&status, set)[0], 16).unwrap();
        assert_eq!(held, wanted, "{set}");
    }
    assert_eq!(field(&status, "NoNewPrivs"), ["1"]);
}

#[test]
fn the_engine_dies_with_the_warden() {
    let (warden, _link, mut alive, _) = halves();
    end(warden);
    // The end of the pipe: the engine held the last descriptor.
    assert_eq!(alive.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn the_warden_ends_the_engine_and_collects_it() {
    let (warden, link, mut alive, _) = halves();
    send(&link, "end it");
    let (ended, _) = receive(&link);
    assert!(ended.contains("signal: 15"), "{ended}");
    assert_eq!(alive.read(&mut [0; 1]).unwrap(), 0);
    waitpid(Some(warden), WaitOptions::empty()).unwrap();
}
