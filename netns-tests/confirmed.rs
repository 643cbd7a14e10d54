//! What is said is so: a command is answered when it is in force, and what nobody has confirmed for three seconds is not
//! taken for true anywhere.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use vpngw::control::api::{State, Status};

use crate::lab::conf::Conf;
use crate::lab::gateway::PATIENCE;
use crate::lab::sealed::Sealed;
use crate::lab::{Lab, wait};
use crate::status::scrape;

/// How long facts are true, and one reading more on a busy machine.
const STALE: Duration = Duration::from_secs(6);

/// Stops a process, and lets it go on when dropped.
struct Stopped(Pid);

impl Stopped {
    fn stop(pid: Pid) -> Self {
        kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The rules at the moment of the answer are those of the command.
#[test]
fn a_command_is_answered_when_it_is_in_force() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    for _ in 0..3 {
        let done = gateway.ctl(&["disconnect"]);
        let rules = lab.app("nft list ruleset");
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        assert!(
            !rules.contains("198.51.100.10") && !rules.contains("tun0"),
            "{rules}"
        );
        let done = gateway.ctl(&["connect"]);
        let rules = lab.app("nft list ruleset");
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        assert!(rules.contains("tun0"), "{rules}");
        gateway.wait_connected();
    }
    lab.sensor.verdict();
}

/// A warden that hangs confirms nothing: not a command, not that the kill switch is armed.
#[test]
fn a_warden_that_hangs_is_called_by_its_name_everywhere() {
    let lab = Lab::new();
    let conf = Conf {
        toml: "[metrics]\nlisten = \"127.0.0.1:9586\"".into(),
        ..lab.conf()
    };
    let gateway = lab.connect(&conf);
    assert_eq!(gateway.ctl(&["healthcheck"]).status.code(), Some(0));
    assert!(scrape(&lab).contains("\nvpngw_kill_switch_active 1\n"));
    let stopped = Stopped::stop(gateway.warden());
    let begun = Instant::now();
    let done = gateway.ctl(&["disconnect"]);
    let said = text(&done.stderr);
    assert!(!done.status.success(), "{said}");
    assert!(said.contains("not confirmed"), "{said}");
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    wait("health is red", STALE, || {
        let health = gateway.ctl(&["healthcheck"]);
        (health.status.code() == Some(1)).then_some(())
    });
    let stale = |s: &Status| s.kill_switch.unconfirmed_seconds.is_some();
    let status = gateway.wait_for("nothing is confirmed", STALE, stale);
    assert!(!status.kill_switch.armed);
    let page = text(&gateway.ctl(&["status"]).stdout);
    assert!(
        page.contains("NOT CONFIRMED: the warden has been silent"),
        "{page}"
    );
    assert!(scrape(&lab).contains("\nvpngw_kill_switch_active 0\n"));
    let page = text(&gateway.ctl(&["doctor"]).stdout);
    assert!(page.contains("has been silent"), "{page}");
    wait("the log says so", STALE, || {
        let log = fs::read_to_string(lab.folder.path().join("app/log")).unwrap();
        log.contains("the warden is silent").then_some(())
    });
    // It goes on, and does what it was told.
    drop(stopped);
    gateway.wait_for("it blocks", PATIENCE, |s| s.state == State::Blocked);
    wait("it is confirmed again", PATIENCE, || {
        let status = gateway.status()?;
        status.kill_switch.armed.then_some(())
    });
    lab.sensor.verdict();
}

/// Sealed, each half has a health check of its own, and each notices that the other one hangs.
#[test]
fn sealed_each_half_notices_that_the_other_one_hangs() {
    let lab = Lab::new();
    let sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    let door = sealed.door.to_str().unwrap().to_owned();
    let beside_the_warden = || {
        let words = [
            "healthcheck",
            "--socket",
            "/nowhere.sock",
            "--socket-of-warden",
            &door,
        ];
        sealed.ctl_as_it_is("box", &words)
    };
    wait("health is green", PATIENCE, || {
        beside_the_warden().status.success().then_some(())
    });
    let stopped = Stopped::stop(sealed.engine());
    wait("the warden notices", STALE, || {
        let health = beside_the_warden();
        let said = text(&health.stdout).contains("the engine has been silent");
        (said && health.status.code() == Some(1)).then_some(())
    });
    drop(stopped);
    sealed.wait_connected();
    wait("health is green again", PATIENCE, || {
        beside_the_warden().status.success().then_some(())
    });
    let stopped = Stopped::stop(sealed.warden());
    wait("the engine notices", STALE, || {
        let status = sealed.status()?;
        status.kill_switch.unconfirmed_seconds.map(|_| ())
    });
    assert_eq!(sealed.ctl("app", &["healthcheck"]).status.code(), Some(1));
    let done = sealed.ctl("app", &["disconnect"]);
    assert!(
        text(&done.stderr).contains("not confirmed"),
        "{}",
        text(&done.stderr)
    );
    drop(stopped);
    sealed.wait_for("it blocks", |s| s.state == State::Blocked);
    lab.sensor.verdict();
}

#[test]
fn a_reload_that_changes_nothing_says_so() {
    let lab = Lab::new();
    let conf = lab.conf();
    let gateway = lab.connect(&conf);
    gateway.reload(&conf);
    wait("it is said", PATIENCE, || {
        let log = fs::read_to_string(lab.folder.path().join("app/log")).unwrap();
        log.contains("not reloaded: nothing changed").then_some(())
    });
    lab.sensor.verdict();
}
