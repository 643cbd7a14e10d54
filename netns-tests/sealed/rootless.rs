//! The sealed topology of a user without root, in a user namespace of that user's own.

use std::os::unix::fs::chown;
use std::process::{Command, Output};

use rustix::mount::mount_bind;

use crate::lab::gateway::PROGRAM;
use crate::lab::sealed::{NOBODY, Sealed, nobody_is_mapped, unprivileged};
use crate::lab::{HOST, Lab};

/// Where the warden's namespace is, for whoever may look at the process.
fn namespace(sealed: &Sealed) -> String {
    format!("/proc/{}/ns/net", sealed.warden().as_raw_pid())
}

/// `vpngw exec`, as that user.
fn exec(sealed: &Sealed, network: &str, words: &[&str]) -> Output {
    let mut command = if nobody_is_mapped() {
        unprivileged(NOBODY)
    } else {
        Command::new(PROGRAM)
    };
    command.arg("exec").arg("--socket").arg(&sealed.control);
    command.args(["--netns", network, "--"]).args(words);
    command.output().unwrap()
}

fn said(sealed: &Sealed, words: &[&str]) -> String {
    let done = exec(sealed, &namespace(sealed), words);
    assert!(done.status.success(), "{words:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// What a machine gives its users: the socket's folder is theirs, and so is the device of TUN, which this machine keeps
/// from them.
fn give(sealed: &Sealed) {
    let folder = sealed.door.parent().unwrap();
    chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
    let node = folder.join("tun");
    let mut mknod = Command::new("mknod");
    mknod.args(["-m", "666"]).arg(&node);
    let done = mknod.args(["c", "10", "200"]).status().unwrap();
    assert!(done.success());
    mount_bind(&node, "/dev/net/tun").unwrap();
}

#[test]
fn a_user_without_root_has_a_tunnel_and_no_way_around_it() {
    let lab = Lab::new();
    let mut sealed = Sealed::new(&lab, &lab.conf());
    if nobody_is_mapped() {
        give(&sealed);
    }
    sealed.start_warden_without_root();
    sealed.start_engine();
    sealed.wait_connected();

    let answer = said(&sealed, &["getent", "ahostsv4", "example.org"]);
    assert!(answer.starts_with(&HOST.to_string()), "{answer}");
    let devices = said(&sealed, &["cat", "/proc/net/dev"]);
    assert!(
        devices.contains("tun0:") && !devices.contains("eth0:"),
        "{devices}"
    );
    let tried = exec(&sealed, &namespace(&sealed), &[PROGRAM, "leaktest"]);
    assert_eq!(tried.status.code(), Some(0), "{tried:?}");
    // It is root in there, though not over the network.
    let down = ["ip", "link", "set", "tun0", "down"];
    let down = exec(&sealed, &namespace(&sealed), &down);
    assert!(!down.status.success(), "{down:?}");

    // Another engine, and the namespace is the same.
    let before = namespace(&sealed);
    sealed.kill_engine();
    sealed.start_engine();
    sealed.wait_connected();
    assert_eq!(namespace(&sealed), before);
    let answer = said(&sealed, &["getent", "ahostsv4", "example.org"]);
    assert!(answer.starts_with(&HOST.to_string()), "{answer}");
    lab.sensor.verdict();
}

#[test]
fn a_namespace_of_somebody_else_is_not_entered() {
    let lab = Lab::new();
    let mut sealed = Sealed::new(&lab, &lab.conf());
    if nobody_is_mapped() {
        give(&sealed);
    }
    sealed.start_warden_without_root();
    sealed.start_engine();
    sealed.wait_connected();
    // Rootless tests own all namespaces that they can name.
    let others = if nobody_is_mapped() {
        "app"
    } else {
        "/proc/1/ns/net"
    };
    let done = exec(&sealed, others, &["true"]);
    let why = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(2), "{why}");
    assert!(why.contains("unshare --user --net"), "{why}");
    said(&sealed, &["true"]);
}
