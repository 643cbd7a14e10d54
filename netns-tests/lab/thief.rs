//! A process in a network namespace of its own, as a joined program makes one to take a device there.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Pid;

use super::ns::Namespaces;
use super::wait;

/// The process; it ends with the test.
pub struct Thief(Child);

impl Thief {
    /// Starts it from the namespace. It has a user namespace of its own as well, so it needs no privilege on the
    /// machine.
    pub fn start(ns: &Namespaces, namespace: &str) -> Self {
        let mut command = Command::new("unshare");
        command.args(["-Urn", "sleep", "600"]).stdin(Stdio::null());
        Self::ready(ns.start(namespace, &mut command))
    }

    /// Waits until it is where it belongs.
    pub fn ready(child: Child) -> Self {
        let name = format!("/proc/{}/comm", child.id());
        let thief = Self(child);
        wait("the thief is ready", Duration::from_secs(20), || {
            let name = fs::read_to_string(&name).unwrap_or_default();
            (name.trim() == "sleep").then_some(())
        });
        thief
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Puts a device back into the namespace of a process. It takes NET_ADMIN there, which the thief lacks from
    /// inside, so it is done from outside.
    pub fn give_back(&self, device: &str, to: Pid) {
        let (pid, to) = (self.pid().to_string(), to.as_raw_nonzero().to_string());
        let words = ["-t", &pid, "-n", "ip", "link", "set", device, "netns", &to];
        let done = Command::new("nsenter").args(words).output().unwrap();
        let why = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "nsenter {words:?}: {why}");
    }
}

impl Drop for Thief {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
