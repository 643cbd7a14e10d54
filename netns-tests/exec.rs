//! A program that `vpngw exec` runs in a namespace has no way to look names up but the tunnel.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::lab::gateway::{Gateway, PROGRAM};
use crate::lab::sealed::nobody_is_mapped;
use crate::lab::{HOST, Lab};

/// Stands for nscd of the machine: counts who connects, and answers nobody.
fn nscd() -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    fs::create_dir_all("/run/nscd").unwrap();
    let listener = UnixListener::bind("/run/nscd/socket").unwrap();
    let count = asked.clone();
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    asked
}

fn exec(gateway: &Gateway, words: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-k", "1", "60", PROGRAM, "exec"]).args(words);
    command.env("VPNGW_SOCKET", &gateway.socket);
    // Outside: it is the command that goes in.
    command.output().unwrap()
}

#[test]
fn a_program_asks_no_daemon_outside_for_names() {
    let lab = Lab::new();
    let asked = nscd();
    let gateway = lab.connect(&lab.conf());
    lab.ns.output("app", "getent ahostsv4 example.org");
    assert!(
        asked.load(Ordering::Relaxed) > 0,
        "the control: nscd is asked"
    );
    let before = asked.load(Ordering::Relaxed);
    let said = exec(
        &gateway,
        &["--netns", "app", "--", "getent", "ahostsv4", "example.org"],
    );
    let answer = String::from_utf8_lossy(&said.stdout);
    assert!(answer.starts_with(&HOST.to_string()), "{said:?}");
    assert_eq!(asked.load(Ordering::Relaxed), before);
    let said = exec(&gateway, &["--netns", "app", "--", "ls", "-A", "/run"]);
    assert_eq!(
        (said.status.code(), said.stdout.as_slice()),
        (Some(0), &b""[..])
    );
    // Outside everything is as it was.
    assert!(fs::metadata("/run/nscd/socket").is_ok());
    lab.sensor.verdict();
}

#[test]
fn a_program_has_nothing_that_leads_back() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let status = |words: &[&str]| {
        let said = exec(
            &gateway,
            &[words, &["--", "cat", "/proc/self/status"]].concat(),
        );
        assert_eq!(said.status.code(), Some(0), "{said:?}");
        String::from_utf8(said.stdout).unwrap()
    };
    let root = status(&["--netns", "app"]);
    let held = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
        u64::from_str_radix(line.unwrap(), 16).unwrap()
    };
    // SYS_ADMIN, NET_ADMIN, NET_RAW, SYS_PTRACE (linux/capability.h).
    for number in [21, 12, 13, 19] {
        assert_eq!(held(&root) >> number & 1, 0, "{number}");
    }
    assert!(root.contains("NoNewPrivs:\t1"));
    if nobody_is_mapped() {
        let user = status(&["--netns", "/run/netns/app", "--user", "nobody"]);
        assert_eq!(held(&user), 0);
        assert!(user.contains("Uid:\t65534\t65534\t65534\t65534"), "{user}");
    }
    let own = exec(&gateway, &["--netns", "/proc/self/ns/net", "--", "true"]);
    assert_eq!(own.status.code(), Some(2));
    let nowhere = exec(&gateway, &["--netns", "nowhere", "--", "true"]);
    assert_eq!(nowhere.status.code(), Some(2));
}
