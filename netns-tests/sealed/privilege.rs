//! What the two halves may do, as the kernel says it of the running processes.

use std::fs;
use std::os::unix::fs::FileExt;

use rustix::process::{Pid, Signal, kill_process};
use vpngw::config::Secret;
use vpngw::sys::{fault, privilege};

use super::{PATIENCE, assert_inside};
use crate::lab::sealed::{NOBODY, Sealed, nobody_is_mapped};
use crate::lab::{Lab, wait};

/// The words after `key:` in /proc/PID/status.
fn status(pid: Pid, key: &str) -> Vec<String> {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let text = fs::read_to_string(path).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let words = line.unwrap_or_else(|| panic!("{key}: {text}"));
    words.split_ascii_whitespace().map(str::to_owned).collect()
}

fn assert_unprivileged(engine: Pid, user: u32) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(engine, set), ["0000000000000000"], "{set}");
    }
    assert_eq!(status(engine, "NoNewPrivs"), ["1"]);
    assert_eq!(status(engine, "Seccomp"), ["2"]);
    if nobody_is_mapped() {
        assert_eq!(status(engine, "Uid"), [user.to_string().as_str(); 4]);
        assert_eq!(status(engine, "Groups"), [""; 0]);
    }
    // Not dumpable: nobody else of the same user may look inside.
    let owner = fs::metadata(format!("/proc/{}/mem", engine.as_raw_nonzero())).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0);
    let limits = fs::read_to_string(format!("/proc/{}/limits", engine.as_raw_nonzero())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<_> = core.unwrap().split_ascii_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"]);
}

/// Orders an engine to try what it may not, and reads what came of it in its log.
fn assert_confined(engine: Pid, log: &dyn Fn() -> String) {
    let tried = |log: &str| {
        let lines = log
            .lines()
            .filter_map(|line| Some(line.split_once("tried ")?.1.to_owned()));
        lines.collect::<Vec<_>>()
    };
    kill_process(engine, Signal::USR1).unwrap();
    let control = fault::attempts();
    let lines = wait("the engine has tried", PATIENCE, || {
        let lines = tried(&log());
        (lines.len() >= control.len()).then_some(lines)
    });
    for ((what, worked), line) in control.iter().zip(&lines) {
        assert_eq!(*worked, 0, "the control: {what}");
        let denied = [libc::EPERM, libc::EACCES].map(|errno| format!("{what}: {errno}"));
        assert!(denied.contains(line), "{line}");
    }
}

#[test]
fn a_sealed_engine_has_no_privilege_and_does_only_its_work() {
    let lab = Lab::new();
    let sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    assert_unprivileged(sealed.engine(), NOBODY);
    assert_confined(sealed.engine(), &|| sealed.log(1));
    // It still does its work: the handshake, the clock, the API.
    assert_inside(&lab);
    sealed.wait_connected();
    lab.sensor.verdict();
}

#[test]
fn a_sealed_warden_keeps_three_capabilities() {
    let lab = Lab::new();
    let sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    let wanted = format!("{:016x}", privilege::SEALED_WARDEN.bits());
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(status(sealed.warden(), set), [wanted.as_str()], "{set}");
    }
    assert_eq!(status(sealed.warden(), "NoNewPrivs"), ["1"]);
}

/// Whether these bytes stand somewhere in the memory of a process.
fn remembers(pid: Pid, bytes: &[u8]) -> bool {
    let folder = format!("/proc/{}", pid.as_raw_nonzero());
    let maps = fs::read_to_string(format!("{folder}/maps")).unwrap();
    let memory = fs::File::open(format!("{folder}/mem")).unwrap();
    maps.lines().any(|line| {
        let (range, rest) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let at = |hex| u64::from_str_radix(hex, 16).unwrap();
        let (from, to) = (at(from), at(to));
        // What is written to; more than that is read-only data, or nobody's.
        if !rest.starts_with("rw") || to - from > 256 << 20 {
            return false;
        }
        let mut content = vec![0; usize::try_from(to - from).unwrap()];
        memory.read_exact_at(&mut content, from).is_ok()
            && content.windows(bytes.len()).any(|window| window == bytes)
    })
}

#[test]
fn a_sealed_warden_never_holds_a_key() {
    let lab = Lab::new();
    let sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    let text = lab.keys.private.as_bytes();
    let key = Secret::from_base64(&lab.keys.private).unwrap();
    let engine = sealed.engine();
    assert!(remembers(engine, key.expose()), "the control");
    for bytes in [text, key.expose()] {
        assert!(!remembers(sealed.warden(), bytes));
    }
}

/// As a container has it with `cap_drop: [ALL]` and `cap_add: [NET_ADMIN]`.
#[test]
fn a_sealed_warden_needs_net_admin_alone() {
    let lab = Lab::new();
    let mut sealed = Sealed::new(&lab, &lab.conf());
    sealed.start_warden_with_net_admin();
    sealed.start_engine();
    sealed.wait_connected();
    let net_admin = format!("{:016x}", 1_u64 << 12);
    assert_eq!(status(sealed.warden(), "CapEff"), [net_admin.as_str()]);
    assert_inside(&lab);
    lab.sensor.verdict();
}

#[test]
fn an_engine_that_the_warden_started_is_confined_too() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    assert_unprivileged(gateway.engine(), privilege::ENGINE);
    let path = lab.folder.path().join("app/log");
    assert_confined(gateway.engine(), &|| fs::read_to_string(&path).unwrap());
    gateway.wait_connected();
    lab.sensor.verdict();
}
