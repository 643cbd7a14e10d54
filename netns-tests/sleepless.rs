//! Whatever the warden opens, writes to or waits for is made to hang, kind by kind. What guards goes on within its bounds.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use vpngw::control::api::State;

use crate::lab::gateway::{Gateway, PATIENCE, has_ended};
use crate::lab::lease::Lease;
use crate::lab::tunnel::assert_inside;
use crate::lab::{Lab, wait};
use crate::probes::program::{Persona, Program};

/// How long a pushed route may stand, and how long a gateway may take to obey: on two busy cores.
const BOUND: Duration = Duration::from_secs(1);

/// How long AF_XDP may send: accounting reads once a second.
const UNSEEN: Duration = Duration::from_secs(2);

/// How long an engine that hangs may hold its place.
const HUNG: Duration = Duration::from_secs(15);

/// Routes are undone, the configuration is read, a dead engine is replaced, and TERM is obeyed.
fn goes_on(lab: &Lab, mut gateway: Gateway) {
    undoes_a_route(lab);
    let before = gateway.engine();
    kill_process(before, Signal::KILL).unwrap();
    wait("another engine", PATIENCE, || {
        (gateway.engine() != before).then_some(())
    });
    gateway.wait_connected();
    assert_inside(&lab.ns, 1);
    obeys_term(lab, &mut gateway);
}

fn undoes_a_route(lab: &Lab) {
    lab.app("ip route add 203.0.113.7/32 via 172.30.0.1 dev eth0 onlink");
    let begun = Instant::now();
    wait("the route is undone", PATIENCE, || {
        let there = lab
            .app("ip route show table all")
            .contains("203.0.113.7 via 172.30.0.1 dev eth0 table main");
        let there = there || lab.app("ip route").contains("203.0.113.7");
        (!there).then_some(())
    });
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
}

fn obeys_term(lab: &Lab, gateway: &mut Gateway) {
    let begun = Instant::now();
    assert!(gateway.stop().success());
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    lab.sensor.verdict();
}

fn log(lab: &Lab) -> String {
    fs::read_to_string(lab.folder.path().join("app/log")).unwrap_or_default()
}

/// The control: whoever opens the file as usual waits.
fn waits_in_open(path: &Path) {
    let (opened, told) = mpsc::channel();
    let path = path.to_owned();
    std::thread::spawn(move || {
        let _ = fs::read(path);
        let _ = opened.send(());
    });
    let told = told.recv_timeout(Duration::from_millis(300));
    assert!(told.is_err(), "a plain open does not wait");
}

/// Root in a joined container takes a lease on the resolv.conf that it shares; it needs no capability for that.
#[test]
fn a_lease_on_resolv_conf_puts_nobody_to_sleep() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let path = lab.folder.path().join("resolv.conf");
    let lease = Lease::take(&path);
    waits_in_open(&path);
    let status = gateway.wait_for("it is said", PATIENCE, |s| s.dns.problem.is_some());
    assert!(
        status
            .dns
            .problem
            .is_some_and(|why| why.contains("another program"))
    );
    assert!(lease.is_wanted(), "the warden has tried to open it");
    goes_on(&lab, gateway);
    drop(lease);
}

/// A start finds the file held.
#[test]
fn a_lease_that_is_held_at_the_start_delays_nothing() {
    let lab = Lab::new();
    let lease = Lease::take(&lab.folder.path().join("resolv.conf"));
    let begun = Instant::now();
    let gateway = lab.connect(&lab.conf());
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    drop(lease);
    gateway.wait_for("the file is written", PATIENCE, |s| s.dns.resolv_conf);
    lab.sensor.verdict();
}

/// AF_XDP passes every rule; what is left is to see it and to block. With the warden asleep 2,000 frames left.
#[test]
fn af_xdp_is_blocked_within_two_seconds_whoever_holds_resolv_conf() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    gateway.wait_for("it accounts", PATIENCE, |s| s.leaks.accounted);
    let path = lab.folder.path().join("resolv.conf");
    let lease = Lease::take(&path);
    wait("the warden has tried to open it", PATIENCE, || {
        lease.is_wanted().then_some(())
    });
    lab.sensor.disarm();
    let mut program = Program::start(&lab.ns, Persona::Docker);
    let begun = Instant::now();
    program.flood(&["xdp/frame"]);
    gateway.wait_for("it blocks", PATIENCE, |s| s.state == State::Blocked);
    assert!(begun.elapsed() < UNSEEN, "{:?}", begun.elapsed());
    assert!(program.flooded() > 0, "the control: frames were sent");
    drop(program);
    drop(lease);
    lab.sensor.drain();
    lab.sensor.excuse();
}

/// A FIFO that nobody writes to stands in the place of a file of the configuration.
#[test]
fn a_configuration_that_cannot_be_opened_keeps_nobody_waiting() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let path = gateway.config.with_file_name("wg0.conf");
    let text = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    lab.app(&format!(
        "mkfifo {} {}.control",
        path.display(),
        path.display()
    ));
    waits_in_open(&path.with_file_name("wg0.conf.control"));
    gateway.signal(Signal::HUP);
    wait("it is said", PATIENCE, || {
        let said = "another program keeps one of its files from being read";
        log(&lab).contains(said).then_some(())
    });
    undoes_a_route(&lab);
    // Whoever opened it is let go, and what is there then is read.
    let mut fifo = fs::OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .unwrap();
    fifo.write_all(&text).unwrap();
    drop(fifo);
    wait("it is read", PATIENCE, || {
        log(&lab)
            .contains("not reloaded: nothing changed")
            .then_some(())
    });
    goes_on(&lab, gateway);
}

/// A file system in user space (FUSE) whose process has stopped: whoever opens the file waits until that is killed.
#[test]
fn a_file_whose_file_system_has_stopped_keeps_nobody_waiting() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let files: [PathBuf; 2] = [
        "/etc/resolv.conf".into(),
        gateway.config.with_file_name("wg0.conf"),
    ];
    let _stopped = files.clone().map(|file| StoppedFuse::over(&lab, &file));
    for file in files {
        waits_in_open(&file);
    }
    gateway.wait_for("it is said of resolv.conf", PATIENCE, |s| {
        s.dns
            .problem
            .as_ref()
            .is_some_and(|why| why.contains("another program"))
    });
    gateway.signal(Signal::HUP);
    wait("it is said of the configuration", PATIENCE, || {
        let said = "another program keeps one of its files from being read";
        log(&lab).contains(said).then_some(())
    });
    goes_on(&lab, gateway);
}

/// The process of a file system in user space, which answers nothing; killed when dropped, and its file system with it.
struct StoppedFuse(std::process::Child);

impl StoppedFuse {
    /// Mounts it over a file: what was there cannot be reached any more.
    fn over(lab: &Lab, file: &Path) -> Self {
        let file = file.display();
        let script = format!(
            "exec 3<>/dev/fuse; \
             mount -i -t fuse -o fd=3,rootmode=100644,user_id=0,group_id=0 stopped {file} && kill -STOP $$"
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::null());
        let child = lab.ns.start("app", &mut command);
        let stat = format!("/proc/{}/stat", child.id());
        wait("it is mounted, and stopped", PATIENCE, || {
            let stat = fs::read_to_string(&stat).unwrap();
            stat.contains(") T ").then_some(())
        });
        Self(child)
    }
}

impl Drop for StoppedFuse {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The engine is stopped: it reads nothing, and another one takes its place.
#[test]
fn an_engine_that_is_stopped_keeps_nobody_waiting() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let engine = gateway.engine();
    kill_process(engine, Signal::STOP).unwrap();
    undoes_a_route(&lab);
    for _ in 0..20 {
        lab.app("ip route add 203.0.113.8/32 via 172.30.0.1 dev eth0 onlink");
        wait("the route is undone", BOUND, || {
            (!lab.app("ip route").contains("203.0.113.8")).then_some(())
        });
    }
    wait("it is replaced", HUNG, || has_ended(engine).then_some(()));
    gateway.wait_connected();
    goes_on(&lab, gateway);
}

/// TERM is obeyed while the engine is stopped.
#[test]
fn a_stopped_engine_delays_no_end() {
    let lab = Lab::new();
    let mut gateway = lab.connect(&lab.conf());
    kill_process(gateway.engine(), Signal::STOP).unwrap();
    obeys_term(&lab, &mut gateway);
}

/// Whoever reads the log has stopped: the pipe is full before the first line.
#[test]
fn a_log_that_nobody_reads_keeps_nobody_waiting() {
    let lab = Lab::new();
    let pipe = lab.folder.path().join("log-pipe");
    lab.app(&format!("mkfifo {}", pipe.display()));
    let held = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    fill(&held);
    let conf = lab.conf();
    lab.sensor
        .permit(|rules| rules.endpoints = conf.permitted());
    let config = conf.write(&lab.folder.path().join("app"));
    let script = format!("exec \"$@\" 2>{}", pipe.display());
    let by = ["sh", "-c", &script, "sh"];
    let gateway = Gateway::start_by(&lab, "app", &config, &[], &by);
    gateway.wait_connected();
    goes_on(&lab, gateway);
    drop(held);
}

fn fill(pipe: &fs::File) {
    rustix::io::ioctl_fionbio(pipe.as_fd(), true).unwrap();
    while (&*pipe).write(&[b'x'; 4096]).is_ok() {}
    while (&*pipe).write(b"x").is_ok() {}
    // The flag is of the open file, which the gateway opens anew.
    rustix::io::ioctl_fionbio(pipe.as_fd(), false).unwrap();
}
