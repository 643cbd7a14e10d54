//! A Docker daemon that lives in one namespace of the lab and leaves nothing behind.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::lab::ns::Namespaces;
use crate::lab::wait;

/// Where images for the tests are cached.
const CACHE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/containers");

/// The image of the joined program, by the name that the profiles give it.
pub const APP: &str = "lscr.io/linuxserver/qbittorrent";

/// The daemon is process 2 of a PID namespace whose process 1 ends when its input does: when the test ends,
/// however it ends, and with it every container. Its files are in memory.
const INIT: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$0/data"
mount -t tmpfs tmpfs /run
dockerd --storage-driver=vfs --data-root="$0/data" --exec-root=/run/docker --pidfile=/run/docker.pid \
    --host="unix://$0/socket" --cgroup-parent="/$1" --bip=172.29.0.1/24 \
    --default-address-pool=base=172.30.0.0/24,size=24 >"$0/log" 2>&1 &
exec cat
"#;

/// A running daemon.
pub struct Docker {
    folder: PathBuf,
    cgroup: String,
    outer: Child,
    /// The first process of its PID namespace.
    init: Pid,
}

impl Docker {
    /// Starts it in the namespace; on return it answers and has the image of the joined program.
    pub fn start(ns: &Namespaces, namespace: &str, folder: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("vpngw-test-{}-{number}", std::process::id());
        fs::create_dir_all(folder.join("data")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", INIT]).arg(folder).arg(&cgroup);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let outer = ns.start(namespace, &mut command);
        let parent = Pid::from_child(&outer);
        let init = wait("the daemon's namespace is made", PATIENCE, || {
            child_of(parent)
        });
        let docker = Self {
            folder: folder.to_owned(),
            cgroup,
            outer,
            init,
        };
        wait("the Docker daemon answers", PATIENCE, || {
            docker.try_run(&["version"]).status.success().then_some(())
        });
        docker.script("test-images", &[CACHE]);
        let archive = format!("{CACHE}/apps.tar");
        docker.run(&[
            "import",
            "--change",
            "ENTRYPOINT [\"/start\"]",
            &archive,
            APP,
        ]);
        docker
    }

    /// Builds the image of the gateway as `scripts/image` does for everybody.
    pub fn build_image(&self) {
        self.script("image", &["vpngw"]);
    }

    /// Runs `docker`; it must succeed. Its output.
    pub fn run(&self, words: &[&str]) -> String {
        text(&format!("docker {words:?}"), &self.try_run(words))
    }

    /// Runs `docker`.
    pub fn try_run(&self, words: &[&str]) -> Output {
        let mut command = self.command("docker");
        command.args(words).output().expect("docker starts")
    }

    /// Runs `docker-compose` in a folder.
    pub fn compose(&self, folder: &Path, words: &[&str]) -> Output {
        let mut command = self.command("docker-compose");
        command.arg("--no-ansi").args(words).current_dir(folder);
        command.output().expect("docker-compose starts")
    }

    /// One field of `docker inspect`.
    pub fn inspect(&self, container: &str, field: &str) -> String {
        let line = self.run(&["inspect", "--format", field, container]);
        line.trim().to_owned()
    }

    /// Everything that a container wrote.
    pub fn logs(&self, container: &str) -> String {
        let said = self.try_run(&["logs", container]);
        format!(
            "{}{}",
            String::from_utf8_lossy(&said.stdout),
            String::from_utf8_lossy(&said.stderr)
        )
    }

    /// The network namespace of a running container.
    pub fn namespace(&self, container: &str) -> File {
        let pid = self.inspect(container, "{{.State.Pid}}");
        let init = self.init.as_raw_nonzero();
        File::open(format!("/proc/{init}/root/proc/{pid}/ns/net")).unwrap()
    }

    /// Runs `work` in a thread inside the network namespace of a running container.
    pub fn enter<T: Send>(&self, container: &str, work: impl FnOnce() -> T + Send) -> T {
        let namespace = self.namespace(container);
        let inside = || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), network).unwrap();
            work()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Runs words of a command line of this machine inside the network namespace of a running container.
    pub fn run_in(&self, container: &str, line: &str) -> String {
        let mut command = Command::new("timeout");
        command
            .args(["-k", "1", "60"])
            .args(line.split_whitespace());
        text(line, &self.enter(container, || command.output().unwrap()))
    }

    /// Kills the engine of the gateway in this container, once there is one. Its process.
    pub fn kill_engine(&self, container: &str, other_than: Option<Pid>) -> Pid {
        let inode = self.namespace(container).metadata().unwrap().ino();
        let engine = wait("there is an engine", PATIENCE, || {
            engine(inode).filter(|found| Some(*found) != other_than)
        });
        kill_process(engine, Signal::KILL).unwrap();
        engine
    }

    /// `/proc/PID/status` of the engine of the gateway in this container.
    pub fn engine_status(&self, container: &str) -> String {
        let inode = self.namespace(container).metadata().unwrap().ino();
        let engine = wait("there is an engine", PATIENCE, || engine(inode));
        let path = format!("/proc/{}/status", engine.as_raw_nonzero());
        fs::read_to_string(path).unwrap()
    }

    fn script(&self, name: &str, words: &[&str]) {
        let mut command = self.command(&format!("{}/scripts/{name}", env!("CARGO_MANIFEST_DIR")));
        text(name, &command.args(words).output().unwrap());
    }

    /// A program that talks to the daemon.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "900", program]);
        let socket = self.folder.join("socket");
        command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        command.env("DOCKER_CONFIG", self.folder.join("client"));
        command.env("COMPOSE_PROJECT_NAME", "lab");
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().rev().take(20).collect();
            println!(
                "---- the end of the daemon's log, last line first ----\n{}",
                lines.join("\n")
            );
        }
        let _ = kill_process(self.init, Signal::KILL);
        let _ = self.outer.wait();
        remove_cgroup(&self.cgroup);
    }
}

/// How long a busy machine may take for a step of Docker.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a command wrote; it must have succeeded.
pub fn text(what: &str, done: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{what}: {}\n{out}{err}", done.status);
    out.into_owned()
}

/// Removes what stays of a cgroup: an empty folder in each hierarchy, a moment after its last process.
pub fn remove_cgroup(name: &str) {
    for _ in 0..50 {
        let find = ["/sys/fs/cgroup", "-depth", "-type", "d", "-path"];
        let mut command = Command::new("find");
        command.args(find).arg(format!("*/{name}*"));
        command.args(["-print", "-exec", "rmdir", "{}", ";"]);
        let found = command.stderr(Stdio::null()).output();
        if found.is_ok_and(|found| found.stdout.is_empty()) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The first child of a process.
pub fn child_of(parent: Pid) -> Option<Pid> {
    let parent = parent.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

/// The engine in a network namespace, unless it is dying.
fn engine(inode: u64) -> Option<Pid> {
    let is_engine = |folder: &Path| {
        let words = fs::read(folder.join("cmdline")).unwrap_or_default();
        let namespace = fs::metadata(folder.join("ns/net"));
        let here = namespace.is_ok_and(|file| file.ino() == inode);
        here && words.split(|b| *b == 0).nth(1) == Some(b"engine")
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let found = processes
        .map(|entry| entry.path())
        .find(|path| is_engine(path));
    Pid::from_raw(found?.file_name()?.to_str()?.parse().ok()?)
}
