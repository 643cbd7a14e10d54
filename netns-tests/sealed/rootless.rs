//! The sealed topology of a user without root, in a user namespace of that user's own.

use std::os::unix::fs::chown;
use std::process::{Command, Output};

use rustix::mount::mount_bind;

use crate::lab::gateway::PROGRAM;
use crate::lab::sealed::{NOBODY, Sealed, nobody_is_mapped, program_as};
use crate::lab::{HOST, Lab};

/// Where the warden's namespace is, for whoever may look at the process.
fn namespace(sealed: &Sealed) -> String {
    format!("/proc/{}/ns/net", sealed.warden().as_raw_pid())
}

/// `vpngw exec`, as that user.
fn exec(sealed: &Sealed, network: &str, words: &[&str]) -> Output {
    exec_by(
        program_as(NOBODY),
        sealed,
        network,
        &[&["--"], words].concat(),
    )
}

fn exec_by(mut program: Command, sealed: &Sealed, network: &str, words: &[&str]) -> Output {
    program.arg("exec").arg("--socket").arg(&sealed.control);
    program.args(["--netns", network]).args(words);
    program.output().unwrap()
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

/// Both halves run without root and are connected.
fn connect(lab: &Lab) -> Sealed {
    let mut sealed = Sealed::new(lab, &lab.conf());
    if nobody_is_mapped() {
        give(&sealed);
    }
    sealed.start_warden_without_root();
    sealed.start_engine();
    sealed.wait_connected();
    sealed
}

#[test]
fn a_user_without_root_has_a_tunnel_and_no_way_around_it() {
    let lab = Lab::new();
    let mut sealed = connect(&lab);
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
    assert_confined(|words| exec(&sealed, &namespace(&sealed), words));

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

/// A program that its starter's capabilities do not follow: over the network it has none, here or in a user namespace of
/// its own.
fn assert_confined(exec: impl Fn(&[&str]) -> Output) {
    let down = ["ip", "link", "set", "tun0", "down"];
    let nested = ["unshare", "--user", "--map-root-user"];
    for words in [down.to_vec(), [&nested[..], &down].concat()] {
        let done = exec(&words);
        let why = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(
            why.contains("Operation not permitted"),
            "{words:?}: {done:?}"
        );
    }
    let done = exec(&["ip", "link", "show", "dev", "tun0"]);
    assert!(done.status.success(), "the control: {done:?}");
}

/// Root, who may enter what another user made, is not made more by it; nor is that user by root.
#[test]
fn who_made_the_namespace_gets_no_capability_in_it_from_outside() {
    let lab = Lab::new();
    let sealed = connect(&lab);
    let network = namespace(&sealed);
    let by_this_user = |words: &[&str]| exec_by(Command::new(PROGRAM), &sealed, &network, words);
    assert_confined(|words| by_this_user(&[&["--"], words].concat()));
    // Whom root would make of it is the one who made it: nobody, or without root root itself.
    let maker = if nobody_is_mapped() { "nobody" } else { "root" };
    let done = by_this_user(&["--user", maker, "--", "true"]);
    let why = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(2), "{why}");
    assert!(why.contains("without `--user`"), "{why}");

    if nobody_is_mapped() {
        // Somebody else's is not entered.
        let done = exec(&sealed, "app", &["true"]);
        let why = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{why}");
        let said = ["unshare --user --net", "Operation not permitted"];
        assert!(said.iter().all(|words| why.contains(words)), "{why}");
    }
}
