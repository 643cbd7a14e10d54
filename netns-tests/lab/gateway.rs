//! The gateway under test: the program itself, seen through its command line and its signals.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};
use vpngw::control::api::{State, Status};

use super::conf::Conf;
use super::ns::Namespaces;
use super::{Lab, at, canary, wait};

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_vpngw");

/// How long a gateway may take to connect on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running gateway; killed, both halves, when dropped.
pub struct Gateway {
    /// Its configuration file.
    pub config: PathBuf,
    /// Its control socket.
    pub socket: PathBuf,
    /// From the start of the process to the first packet that the kill switch refused.
    pub armed_after: Duration,
    namespace: String,
    ns: Namespaces,
    child: Child,
}

impl Gateway {
    /// Starts `vpngw run` and returns when the kill switch refuses packets. In `app` it arms the
    /// sensor at that moment.
    pub fn start(lab: &Lab, namespace: &str, conf: &Conf) -> Self {
        let config = conf.write(&lab.folder.path().join(namespace));
        Self::start_with(lab, namespace, &config, &[])
    }

    /// As [`Self::start`] with a configuration file that is there, or is not, and more variables.
    pub fn start_with(lab: &Lab, namespace: &str, config: &Path, env: &[(&str, &str)]) -> Self {
        Self::start_by(lab, namespace, config, env, &[])
    }

    /// As [`Self::start_with`], by a program that becomes it: `["setpriv", …]`.
    pub fn start_by(
        lab: &Lab,
        namespace: &str,
        config: &Path,
        env: &[(&str, &str)],
        by: &[&str],
    ) -> Self {
        let folder = lab.folder.path().join(namespace);
        fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("vpngw.sock");
        let log = folder.join("log");
        lab.remember(log.clone());
        let log = File::options().append(true).create(true).open(log).unwrap();
        let words: Vec<_> = by.iter().copied().chain([PROGRAM, "run"]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("--config").arg(config);
        command
            .arg("--socket")
            .arg(&socket)
            .env("NETNS_FAULT", lab.faults())
            .env("NETNS_CLOCK", lab.clock())
            .envs(env.iter().copied());
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let started = Instant::now();
        let child = lab.ns.start(namespace, &mut command);
        let mut gateway = Self {
            config: config.to_owned(),
            socket,
            armed_after: Duration::ZERO,
            namespace: namespace.to_owned(),
            ns: lab.ns.clone(),
            child,
        };
        let armed = lab.ns.enter(namespace, refused);
        gateway.armed_after = started.elapsed();
        if namespace == "app" {
            lab.sensor.arm(armed);
        }
        gateway
    }

    /// What `vpngw status --json` says; `None` when nothing answers.
    pub fn status(&self) -> Option<Status> {
        let said = self.ctl(&["status", "--json"]);
        serde_json::from_slice(&said.stdout).ok()
    }

    /// Runs a subcommand against this gateway.
    pub fn ctl(&self, words: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command
            .args(["-k", "1", "60", PROGRAM])
            .args(words)
            .arg("--config")
            .arg(&self.config);
        command
            .arg("--socket")
            .arg(&self.socket)
            .stdin(Stdio::null());
        let done = self.ns.enter(&self.namespace, || command.output());
        done.unwrap_or_else(|why| panic!("{words:?}: {why}"))
    }

    /// Waits until it is connected.
    pub fn wait_connected(&self) -> Status {
        self.wait_for("it is connected", PATIENCE, |s| s.state == State::Connected)
    }

    /// Waits until the status is as wanted.
    pub fn wait_for(
        &self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Status {
        let mut last = None;
        let start = Instant::now();
        while start.elapsed() < patience {
            last = self.status();
            if let Some(status) = last.take_if(|status| wanted(status)) {
                return status;
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        panic!("gave up after {patience:?}: {what}; last status: {last:#?}");
    }

    /// The warden's process.
    pub fn warden(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The engine's process, once there is one that is not dying.
    pub fn engine(&self) -> Pid {
        wait("there is an engine", Duration::from_secs(20), || {
            engine_of(self.warden())
        })
    }

    /// Sends a signal to the warden.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.warden(), signal).unwrap();
    }

    /// Waits for the warden to end.
    pub fn wait_exit(&mut self, patience: Duration) -> ExitStatus {
        let child = &mut self.child;
        wait("the gateway ends", patience, || child.try_wait().unwrap())
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_exit(Duration::from_secs(20))
    }

    /// SIGKILL to both halves at once.
    pub fn kill(&mut self) {
        let engine = engine_of(self.warden());
        let _ = self.child.kill();
        if let Some(engine) = engine {
            let _ = kill_process(engine, Signal::KILL);
        }
        let _ = self.child.wait();
    }

    /// SIGHUP with a new configuration.
    pub fn reload(&self, conf: &Conf) {
        conf.write(self.config.parent().unwrap());
        self.signal(Signal::HUP);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends out of the uplink until the kernel refuses it; that moment.
fn refused() -> SystemTime {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.bind_device(Some(b"eth0")).unwrap();
    let to = at(std::net::Ipv4Addr::new(203, 0, 113, 99), 9).into();
    let start = Instant::now();
    loop {
        let sent = socket.send_to(&canary::fresh(), &to);
        if sent.is_err_and(|why| why.raw_os_error() == Some(libc::EPERM)) {
            return SystemTime::now();
        }
        let patience = Duration::from_secs(20);
        assert!(
            start.elapsed() < patience,
            "the kill switch never refused a packet"
        );
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn engine_of(warden: Pid) -> Option<Pid> {
    let parent = format!("PPid:\t{}", warden.as_raw_nonzero());
    let running =
        |status: &str| status.lines().any(|line| line == parent) && !status.contains("State:\tZ");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let first = words.split(|b| *b == 0).nth(1);
        if running(&status) && first == Some(b"engine") {
            return Pid::from_raw(pid);
        }
    }
    None
}

/// Whether a process is gone, or dead and not yet buried.
pub fn has_ended(pid: Pid) -> bool {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    fs::read_to_string(path).map_or(true, |status| status.contains("State:\tZ"))
}
