//! A program that `vpngw exec` runs in a namespace has no way to look names up but the tunnel, and none out of it.

mod terminal;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use vpngw::sys::privilege;

use crate::lab::gateway::{Gateway, PROGRAM};
use crate::lab::sealed::{NOBODY, nobody_is_mapped};
use crate::lab::{HOST, Lab, wait};
use crate::probes::program;

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

/// A copy of the probe that every user may run.
fn probe(lab: &Lab) -> PathBuf {
    let folder = lab.folder.path();
    let copy = folder.join("calls");
    fs::copy(program::PROGRAM, &copy).unwrap();
    for path in [folder, &copy] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    copy
}

#[test]
fn a_program_asks_for_no_key_and_makes_no_socket_that_knows_no_namespace() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let probe = probe(&lab);
    let probe = probe.to_str().unwrap();
    let outside = Command::new(probe).arg("calls").output().unwrap();
    let outside = String::from_utf8(outside.stdout).unwrap();
    // The control: without the filter the kernel looks for the key (ENOKEY), and at the ring's settings.
    let key = format!("key: {}\nring: {}\n", libc::ENOKEY, libc::EFAULT);
    assert!(outside.contains(&key), "{outside}");
    let mut users = vec![vec!["--netns", "app"]];
    if nobody_is_mapped() {
        users.push(vec!["--netns", "app", "--user", "nobody"]);
    }
    for user in users {
        let said = exec(
            &gateway,
            &[&user[..], &["--", probe, "calls", "x"]].concat(),
        );
        let said = String::from_utf8(said.stdout).unwrap();
        let refused = libc::EPERM;
        let absent = libc::EAFNOSUPPORT;
        assert_eq!(
            said,
            format!(
                "typing: {refused}\nkey: {refused}\nring: {refused}\nvsock: {absent}\ninet: 0\n"
            )
        );
    }
    lab.sensor.verdict();
}

/// A process of `app` as a user that no file names; killed when the test ends.
fn sleeper(lab: &Lab, user: u32) -> Child {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={user}")]);
    command.args(["--clear-groups", "sleep", "1000"]);
    lab.ns.start("app", &mut command)
}

#[test]
fn a_joined_nobody_does_not_end_the_engine_and_who_could_is_named() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let engine = gateway.engine().as_raw_nonzero().to_string();
    let doctor = || String::from_utf8(gateway.ctl(&["doctor"]).stdout).unwrap();
    if !nobody_is_mapped() {
        // With one user only, the engine is that one, and whoever joins is it too.
        let mut own = lab.ns.start("app", Command::new("sleep").arg("1000"));
        assert!(doctor().contains("can end the engine, being the same user"));
        own.kill().unwrap();
        own.wait().unwrap();
        return;
    }
    let kill = ["--", "kill", "-9", &engine];
    let said = exec(
        &gateway,
        &[&["--netns", "app", "--user", "nobody"], &kill[..]].concat(),
    );
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert_eq!(gateway.engine().as_raw_nonzero().to_string(), engine);
    let mut nobody = sleeper(&lab, NOBODY);
    let own = format!("nobody here is user {}", privilege::ENGINE);
    assert!(doctor().contains(&own), "{}", doctor());
    // The control: the same user can, and is named.
    let mut same = sleeper(&lab, privilege::ENGINE);
    wait("it is somebody else", Duration::from_secs(20), || {
        doctor()
            .contains(&format!("sleep (pid {}, user", same.id()))
            .then_some(())
    });
    let user = privilege::ENGINE.to_string();
    let words = [
        "--reuid",
        &user,
        "--regid",
        &user,
        "--clear-groups",
        "kill",
        "-9",
        &engine,
    ];
    assert!(
        Command::new("setpriv")
            .args(words)
            .status()
            .unwrap()
            .success()
    );
    wait("there is another engine", Duration::from_secs(20), || {
        (gateway.engine().as_raw_nonzero().to_string() != engine).then_some(())
    });
    for child in [&mut nobody, &mut same] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    lab.sensor.verdict();
}
