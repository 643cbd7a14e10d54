//! The gateway under demonstration: this same program, started as anyone would start it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use x25519_dalek::{PublicKey, StaticSecret};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::stage::FOLDER;
use crate::config::SOCKET;
use crate::control::api::{State, Status};
use crate::sys::namespace;

/// The client's address inside the tunnel.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 2);
/// How long it may take to connect.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to end.
const FAREWELL: Duration = Duration::from_secs(3);

/// The running gateway. It is ended when dropped.
pub(super) struct Gateway {
    program: PathBuf,
    child: Child,
    log: PathBuf,
}

impl Gateway {
    /// Starts `vpngw run` in the calling thread's namespaces.
    ///
    /// # Errors
    /// Those of writing its files and of starting a process.
    pub(super) fn start(
        private: &StaticSecret,
        server: &PublicKey,
        resolver: Ipv4Addr,
        endpoint: SocketAddrV4,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding this program's file")?;
        let folder = Path::new(FOLDER);
        let config = folder.join("client.conf");
        let text = format!(
            "[Interface]\nPrivateKey = {}\nAddress = {ADDRESS}/32\nDNS = {resolver}\n\n\
             [Peer]\n# demo server\nPublicKey = {}\nAllowedIPs = 0.0.0.0/0\nEndpoint = {endpoint}\n\
             PersistentKeepalive = 5\n",
            STANDARD.encode(private.to_bytes()),
            STANDARD.encode(server.as_bytes()),
        );
        // It holds a key, so nobody else may read it.
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&config)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .context("writing the gateway's configuration")?;
        let log = folder.join("gateway.log");
        let output = File::create(&log).context("making the gateway's log")?;
        if let Some(parent) = Path::new(SOCKET).parent() {
            fs::create_dir_all(parent)?;
        }
        let mut command = vpngw(&program, "run");
        command
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = namespace::end_with_parent(&mut command)
            .spawn()
            .context("starting the gateway")?;
        Ok(Self {
            program,
            child,
            log,
        })
    }

    /// Waits until it says that it is connected.
    ///
    /// # Errors
    /// It ended, or did not connect in ten seconds; with the end of its log.
    pub(super) fn wait_connected(&mut self) -> anyhow::Result<Status> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.status()
                && status.state == State::Connected
            {
                return Ok(status);
            }
            if let Some(end) = self.child.try_wait()? {
                bail!(
                    "the gateway ended ({end}) instead of connecting:\n{}",
                    self.tail()
                );
            }
            if begin.elapsed() > PATIENCE {
                bail!(
                    "the gateway did not connect within {} s:\n{}",
                    PATIENCE.as_secs(),
                    self.tail()
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What `vpngw status --json` says; `None` while it does not answer.
    pub(super) fn status(&self) -> Option<Status> {
        let output = vpngw(&self.program, "status")
            .arg("--json")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// The folder this program is in, for a PATH.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.program.parent()
    }

    /// The end of its log, indented.
    pub(super) fn tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let first = lines.len().saturating_sub(12);
        let indented = lines[first..].iter().map(|line| format!("    {line}"));
        indented.collect::<Vec<_>>().join("\n")
    }

    fn end(&mut self) -> io::Result<()> {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begin.elapsed() > FAREWELL {
                self.child.kill()?;
                self.child.wait()?;
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It has ended already, or it ends with this process.
        let _ = self.end();
    }
}

/// `vpngw SUBCOMMAND --socket …` without the variables of the user's shell that mean another
/// gateway.
fn vpngw(program: &Path, subcommand: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(subcommand).arg("--socket").arg(SOCKET);
    for (name, _) in std::env::vars_os() {
        if crate::config::is_read(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command
}
