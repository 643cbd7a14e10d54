//! A socket file that an engine before left behind keeps no operator from asking.

use std::fs;
use std::process::Command;

use crate::lab::Lab;
use crate::lab::gateway::PROGRAM;
use crate::lab::sealed::{NOBODY, Sealed, nobody_is_mapped};

/// On a host the engine is started as root, and gives that up. It meets what an engine before left, in a folder where only
/// root can remove it.
#[test]
fn an_engine_that_was_root_opens_its_socket_where_only_root_can() {
    let lab = Lab::new();
    let mut sealed = Sealed::new(&lab, &lab.conf());
    sealed.roots_control();
    sealed.start_warden(&[]);
    for _ in 0..2 {
        sealed.start_engine_by(Command::new(PROGRAM));
        sealed.wait_connected();
        sealed.kill_engine();
        assert!(sealed.control.exists(), "it is left behind");
    }
    lab.sensor.verdict();
}

/// In the folder that everybody can write, as in the profiles, a file of root's is in the way of nobody's.
#[test]
fn a_socket_of_another_user_is_replaced_by_who_was_root_and_named_to_who_was_not() {
    assert!(nobody_is_mapped(), "it needs other users than root");
    let lab = Lab::new();
    let mut sealed = Sealed::new(&lab, &lab.conf());
    sealed.own_control();
    sealed.start_warden(&[]);
    drop(std::os::unix::net::UnixListener::bind(&sealed.control).unwrap());
    sealed.start_engine();
    sealed.wait_log(1, "that this user may not try");
    sealed.wait_log(1, &format!("user {}", 0));
    sealed.wait_log(1, "attached to the warden");
    sealed.kill_engine();
    sealed.start_engine_by(Command::new(PROGRAM));
    sealed.wait_connected();
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&sealed.control).unwrap());
    assert_eq!(owner, NOBODY);
    lab.sensor.verdict();
}
