//! Network namespaces of one test: threads and commands inside them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::raw;

/// Named network namespaces that only this test sees.
#[derive(Clone)]
pub struct Namespaces(Arc<BTreeMap<String, File>>);

impl Namespaces {
    /// Gives the thread its own mounts (`/run`, `/etc/resolv.conf`) and makes the namespaces.
    ///
    /// Panics where that is not permitted: a lab that cannot run is a failure, not a skip.
    pub fn new(names: &[&str], resolv_conf: &std::path::Path) -> Self {
        private_mounts(resolv_conf).unwrap_or_else(|why| {
            panic!("no private mount namespace ({why}): run as root, or inside `unshare -Urnm`")
        });
        let mut made = BTreeMap::new();
        for name in names {
            let done = Command::new("ip").args(["netns", "add", name]).output();
            let done = done.expect("`ip` of iproute2 starts");
            let why = String::from_utf8_lossy(&done.stderr);
            assert!(
                done.status.success(),
                "no network namespace ({why}): run as root, or inside `unshare -Urnm`"
            );
            let file = File::open(format!("/run/netns/{name}")).unwrap();
            made.insert((*name).to_owned(), file);
        }
        let all = Self(Arc::new(made));
        for name in names {
            all.run(name, "ip link set lo up");
        }
        all
    }

    /// Runs `work` in a thread inside the namespace.
    pub fn enter<T: Send>(&self, name: &str, work: impl FnOnce() -> T + Send) -> T {
        let namespace = self.file(name);
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap();
                work()
            });
            match worker.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Starts a thread inside the namespace.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let namespace = self.file(name).try_clone().unwrap();
        thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        })
    }

    /// Starts a program inside the namespace.
    pub fn start(&self, name: &str, command: &mut Command) -> Child {
        self.enter(name, || command.spawn())
            .unwrap_or_else(|why| panic!("{command:?}: {why}"))
    }

    /// Runs words of a command line inside the namespace; its output whatever it ends with.
    pub fn output(&self, name: &str, line: &str) -> Output {
        // A program that hangs must fail its test, not stop them all.
        let mut command = Command::new("timeout");
        command
            .args(["-k", "1", "60"])
            .args(line.split_whitespace());
        command.stdin(Stdio::null());
        self.enter(name, || command.output())
            .unwrap_or_else(|why| panic!("{line}: {why}"))
    }

    /// Runs words of a command line inside the namespace; it must succeed.
    pub fn run(&self, name: &str, line: &str) -> String {
        let done = self.output(name, line);
        assert!(
            done.status.success(),
            "{name}: {line}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Feeds lines to a program inside the namespace, as `ip -batch -` and `nft -f -` take them.
    pub fn feed(&self, name: &str, line: &str, input: &str) {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = self.start(name, &mut command);
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(input.as_bytes()).unwrap();
        drop(pipe);
        let done = child.wait_with_output().unwrap();
        let why = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{name}: {line}: {why}\n{input}");
    }

    /// Kills every process that lives in one of these namespaces. All were started by this test.
    pub fn kill_all(&self) {
        for pid in self.processes() {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    fn processes(&self) -> Vec<i32> {
        let inodes: Vec<_> = self
            .0
            .values()
            .map(|f| f.metadata().unwrap().ino())
            .collect();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
                continue;
            };
            let namespace = fs::metadata(entry.path().join("ns/net"));
            if namespace.is_ok_and(|n| inodes.contains(&n.ino())) {
                found.push(pid);
            }
        }
        found
    }

    fn file(&self, name: &str) -> &File {
        let file = self.0.get(name);
        file.unwrap_or_else(|| panic!("no namespace {name}"))
    }
}

/// Nothing mounted from here on is seen outside the thread and its children.
fn private_mounts(resolv_conf: &std::path::Path) -> std::io::Result<()> {
    raw::unshare_mounts()?;
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )?;
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None)?;
    mount_bind(resolv_conf, "/etc/resolv.conf")?;
    Ok(())
}
