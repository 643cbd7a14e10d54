//! Halves of two versions: the one that comes later names the fix and ends, and nothing opens.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread::JoinHandle;

use vpngw::link::{Decline, ToEngine, ToWarden, VERSION};
use vpngw::sys::{fdpass, seqpacket};

use super::door::{answer, attach, knock, say};
use super::order::health;
use super::{PATIENCE, assert_inside};
use crate::lab::sealed::{NOBODY, Sealed};
use crate::lab::tunnel::ask;
use crate::lab::{HOST, Lab, at, wait};

/// Another version of the protocol than ours.
const OTHER: u32 = VERSION + 1;

/// Between a real engine and a real warden: to each of them the other speaks [`OTHER`]. Returns the engine's
/// link, which is to be kept until the engine has read what it was told.
fn between(engine_comes: OwnedFd, warden: PathBuf) -> JoinHandle<OwnedFd> {
    std::thread::spawn(move || {
        let engine = wait("the engine comes", PATIENCE, || {
            seqpacket::accept(&engine_comes).ok()
        });
        let mut buffer = vec![0; fdpass::LONGEST];
        let length = wait("the engine says who it is", PATIENCE, || {
            let said = fdpass::receive(&engine, &mut buffer);
            said.ok().flatten().map(|(length, _)| length)
        });
        let said: ToWarden = serde_json::from_slice(&buffer[..length]).unwrap();
        assert!(matches!(
            said,
            ToWarden::Attach {
                version: VERSION,
                ..
            }
        ));
        let link = knock(&warden, NOBODY);
        say(&link, &attach(OTHER));
        let declined = |version| ToEngine::Declined(Decline::Version(version));
        assert_eq!(answer(&link), Some(declined(VERSION)));
        let words = serde_json::to_vec(&declined(OTHER)).unwrap();
        fdpass::send(&engine, &words, &[]).unwrap();
        engine
    })
}

#[test]
fn an_engine_of_another_version_names_the_fix_in_one_line_and_the_namespace_stays_shut() {
    let lab = Lab::new();
    let mut sealed = Sealed::new(&lab, &lab.conf());
    sealed.start_warden(&[]);
    let door = sealed.door.clone();
    sealed.door = door.with_file_name("between.sock");
    let relay = between(seqpacket::listener(&sealed.door).unwrap(), door.clone());
    sealed.start_engine();
    assert_eq!(sealed.engine_ends().code(), Some(2));
    drop(relay.join().unwrap());
    let log = sealed.log(1);
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("version"))
        .collect();
    let line = format!(
        "vpngw: the warden does not take this engine: the warden speaks version {OTHER} of their protocol, and this engine {VERSION}: \
         run both from the same image"
    );
    assert_eq!(lines, [line], "{log}");

    // The warden says it of the engine, and holds the namespace for the next one.
    sealed.door = door;
    sealed.wait_log(
        0,
        &format!("an engine speaks version {OTHER} of their protocol, and this warden {VERSION}"),
    );
    let (code, said) = health(&sealed);
    assert_eq!(code, Some(1));
    assert!(said.starts_with("waiting for the engine"), "{said}");
    let rules = lab.ns.run("box", "nft list ruleset");
    assert!(rules.contains("table inet vpngw"), "{rules}");
    assert!(ask(&lab.ns, "box", at(HOST, 7), PATIENCE / 10).is_none());
    sealed.start_engine();
    sealed.wait_connected();
    assert_inside(&lab);
    lab.sensor.verdict();
}
