//! The sealed topology under test: a warden in `box`, which has loopback only, and an engine in `app`, which
//! has the uplink. Joined programs live in `box`; the sensor sees what leaves `app`.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};
use vpngw::control::api::{State, Status};

use super::conf::Conf;
use super::gateway::{PATIENCE, PROGRAM};
use super::ns::Namespaces;
use super::{Lab, wait};

/// The user that the engine is in these tests, where the user namespace has it.
pub const NOBODY: u32 = 65534;

/// Both halves; killed when dropped.
pub struct Sealed {
    /// The warden's socket.
    pub door: PathBuf,
    /// The engine's control socket.
    pub control: PathBuf,
    folder: PathBuf,
    faults: PathBuf,
    clock: PathBuf,
    ns: Namespaces,
    warden: Option<Child>,
    engine: Option<Child>,
    logs: [PathBuf; 2],
}

/// What the warden is told in its environment; it needs no tunnel.
pub type Environment<'a> = &'a [(&'a str, &'a str)];

impl Sealed {
    /// Neither half runs yet. The engine's way out is watched from now on.
    pub fn new(lab: &Lab, conf: &Conf) -> Self {
        watch_uplink(lab, conf);
        // The engine is another user, and reads its own configuration.
        open(lab.folder.path(), 0o755);
        let folder = lab.folder.path().join("sealed");
        let link = folder.join("link");
        fs::create_dir_all(&link).unwrap();
        // As a container's volume is: a mount of its own that belongs to root.
        mount(
            "tmpfs",
            &link,
            "tmpfs",
            MountFlags::empty(),
            Some(c"mode=0755"),
        )
        .unwrap();
        let sealed = Self {
            door: link.join("warden.sock"),
            control: link.join("vpngw.sock"),
            logs: ["warden", "engine"].map(|half| folder.join(half)),
            folder,
            faults: lab.faults(),
            clock: lab.clock(),
            ns: lab.ns.clone(),
            warden: None,
            engine: None,
        };
        sealed.configure(conf);
        sealed.permit("");
        for log in &sealed.logs {
            lab.remember(log.clone());
        }
        sealed
    }

    /// Gives the engine's control socket a folder of its own, so that it answers before there is a warden: the
    /// warden's volume is opened by the warden.
    pub fn own_control(&mut self) {
        let own = self.folder.join("own");
        fs::create_dir_all(&own).unwrap();
        open(&own, 0o1777);
        self.control = own.join("vpngw.sock");
    }

    /// Gives the engine's control socket a folder that is root's alone.
    pub fn roots_control(&mut self) {
        self.own_control();
        open(&self.folder.join("own"), 0o755);
    }

    /// Both halves run and are connected.
    pub fn connect(lab: &Lab, conf: &Conf, environment: Environment<'_>) -> Self {
        let mut sealed = Self::new(lab, conf);
        sealed.start_warden(environment);
        sealed.start_engine();
        sealed.wait_connected();
        sealed
    }

    /// Writes the engine's configuration.
    pub fn configure(&self, conf: &Conf) {
        let path = conf.write(&self.folder);
        for file in [path.with_file_name("wg0.conf"), path] {
            open(&file, 0o644);
        }
    }

    /// Starts the warden, and waits until it listens. Its configuration has no tunnel.
    pub fn start_warden(&mut self, environment: Environment<'_>) {
        self.spawn_warden(environment);
        self.wait_warden();
    }

    /// Starts the warden with no other capability than a container gives it with `cap_drop: [ALL]` and
    /// `cap_add: [NET_ADMIN]`, and waits until it listens.
    pub fn start_warden_with_net_admin(&mut self) {
        let mut command = Command::new("setpriv");
        let caps = ["--inh-caps=-all", "--bounding-set=-all,+net_admin"];
        command.args(caps).arg(PROGRAM);
        self.launch_warden(command, &[]);
        self.wait_warden();
    }

    /// Starts the warden as the engine's user, who is root in a user namespace of its own; waits until it listens.
    pub fn start_warden_without_root(&mut self) {
        let own = ["--user", "--map-root-user", "--net", PROGRAM];
        let mut command = Command::new("unshare");
        if nobody_is_mapped() {
            command = becoming(NOBODY);
            command.arg("unshare");
        }
        command.args(own);
        self.launch_warden(command, &[("VPNGW_SEALED_ENGINE_USER", "0")]);
        self.wait_warden();
    }

    fn wait_warden(&self) {
        wait("the warden listens", PATIENCE, || {
            self.door.exists().then_some(())
        });
    }

    /// Starts the warden.
    pub fn spawn_warden(&mut self, environment: Environment<'_>) {
        self.launch_warden(Command::new(PROGRAM), environment);
    }

    fn launch_warden(&mut self, mut command: Command, environment: Environment<'_>) {
        command
            .arg("warden")
            .arg("--config")
            .arg(self.warden_toml());
        command.arg("--socket-of-warden").arg(&self.door);
        command
            .env("NETNS_FAULT", &self.faults)
            .envs(environment.iter().copied());
        let log = self.logs[0].clone();
        self.warden = Some(self.ns.start("box", logged(&mut command, &log)));
    }

    /// Writes the warden's configuration.
    pub fn permit(&self, toml: &str) {
        let user = if nobody_is_mapped() { NOBODY } else { 0 };
        let text = format!("{toml}[sealed]\nengine_user = {user}\n");
        fs::write(self.warden_toml(), text).unwrap();
    }

    fn warden_toml(&self) -> PathBuf {
        self.folder.join("warden.toml")
    }

    /// Starts the engine: another user, without a capability.
    pub fn start_engine(&mut self) {
        self.start_engine_as(NOBODY);
    }

    /// Starts the engine as a user, where the user namespace has others than root.
    pub fn start_engine_as(&mut self, user: u32) {
        self.start_engine_by(program_as(user));
    }

    /// Starts the engine by this command, which becomes it.
    pub fn start_engine_by(&mut self, mut command: Command) {
        command.arg("engine");
        command.arg("--config").arg(self.folder.join("vpngw.toml"));
        command.arg("--socket").arg(&self.control);
        command.arg("--socket-of-warden").arg(&self.door);
        command.env("NETNS_CLOCK", &self.clock);
        let log = self.logs[1].clone();
        let engine = self.ns.start("app", logged(&mut command, &log));
        if let Some(mut before) = self.engine.replace(engine) {
            let _ = before.wait();
        }
    }

    /// The engine's process.
    pub fn engine(&self) -> Pid {
        Pid::from_child(self.engine.as_ref().expect("an engine was started"))
    }

    /// The warden's process.
    pub fn warden(&self) -> Pid {
        Pid::from_child(self.warden.as_ref().expect("a warden was started"))
    }

    /// SIGKILL, and waits for the end.
    pub fn kill_engine(&mut self) {
        kill(&mut self.engine);
    }

    /// SIGKILL, and waits for the end.
    pub fn kill_warden(&mut self) {
        kill(&mut self.warden);
        let _ = fs::remove_file(&self.door);
    }

    /// Waits for the engine to end by itself.
    pub fn engine_ends(&mut self) -> ExitStatus {
        let engine = self.engine.as_mut().expect("an engine was started");
        wait("the engine ends", PATIENCE, || engine.try_wait().unwrap())
    }

    /// Waits for the warden to end by itself.
    pub fn warden_ends(&mut self) -> ExitStatus {
        let warden = self.warden.as_mut().expect("a warden was started");
        wait("the warden ends", PATIENCE, || warden.try_wait().unwrap())
    }

    /// What a half has logged.
    pub fn log(&self, half: usize) -> String {
        fs::read_to_string(&self.logs[half]).unwrap_or_default()
    }

    /// Waits until a half has logged these words.
    pub fn wait_log(&self, half: usize, words: &str) {
        wait(&format!("the log says {words:?}"), PATIENCE, || {
            self.log(half).contains(words).then_some(())
        });
    }

    /// Runs a subcommand in a namespace, with the engine's control socket.
    pub fn ctl(&self, namespace: &str, words: &[&str]) -> Output {
        let socket = self.control.to_str().expect("the path is text");
        self.ctl_as_it_is(namespace, &[words, &["--socket", socket]].concat())
    }

    /// Runs a subcommand in a namespace.
    pub fn ctl_as_it_is(&self, namespace: &str, words: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "60", PROGRAM]).args(words);
        command.stdin(Stdio::null());
        let done = self.ns.enter(namespace, || command.output());
        done.unwrap_or_else(|why| panic!("{words:?}: {why}"))
    }

    /// What `vpngw status --json` says; `None` when nothing answers.
    pub fn status(&self) -> Option<Status> {
        let said = self.ctl("app", &["status", "--json"]);
        serde_json::from_slice(&said.stdout).ok()
    }

    /// Waits until the engine is connected.
    pub fn wait_connected(&self) -> Status {
        self.wait_for("it is connected", |status| status.state == State::Connected)
    }

    /// Waits until the status is as wanted.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let (start, mut last) = (Instant::now(), None);
        while start.elapsed() < PATIENCE {
            last = self.status();
            if let Some(status) = last.take_if(|status| wanted(status)) {
                return status;
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        panic!("gave up after {PATIENCE:?}: {what}; last status: {last:#?}");
    }

    /// Sends a signal.
    pub fn signal(&self, to: Pid, signal: Signal) {
        kill_process(to, signal).unwrap();
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        kill(&mut self.engine);
        kill(&mut self.warden);
        let _ = unmount(self.folder.join("link"), UnmountFlags::DETACH);
    }
}

/// From now on only what an engine with this configuration may send leaves `app`, where no rules of ours hold.
pub fn watch_uplink(lab: &Lab, conf: &Conf) {
    // The kernel's own IPv6 messages are nobody's traffic, and no rules hold them here.
    lab.ns.enter("app", || {
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    });
    // Nor its answers to the server while no engine runs, "port unreachable".
    let quiet = "table ip quiet {\n chain output {\n type filter hook output priority 0;\n \
                 icmp type destination-unreachable drop\n }\n}\n";
    lab.ns.feed("app", "nft -f -", quiet);
    lab.sensor
        .permit(|rules| rules.endpoints = conf.permitted());
    lab.sensor.arm(SystemTime::now());
}

/// The program as a user, where the user namespace has others than root.
pub fn program_as(user: u32) -> Command {
    if nobody_is_mapped() {
        unprivileged(user)
    } else {
        Command::new(PROGRAM)
    }
}

/// The program as a user without privilege.
pub fn unprivileged(user: u32) -> Command {
    let mut command = becoming(user);
    command.args(["--inh-caps=-all", "--bounding-set=-all", PROGRAM]);
    command
}

/// What makes the command that follows a user's.
fn becoming(user: u32) -> Command {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={user}")]);
    command.arg("--clear-groups");
    command
}

/// Whether the user `nobody` exists in this user namespace: not under `unshare -Ur`.
pub fn nobody_is_mapped() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    map.lines().any(|line| {
        let numbers: Vec<u64> = line
            .split_ascii_whitespace()
            .map(|n| n.parse().unwrap())
            .collect();
        (numbers[0]..numbers[0] + numbers[2]).contains(&u64::from(NOBODY))
    })
}

fn logged<'a>(command: &'a mut Command, log: &Path) -> &'a mut Command {
    let log = File::options().append(true).create(true).open(log).unwrap();
    command.stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log)
}

fn kill(half: &mut Option<Child>) {
    if let Some(mut child) = half.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn open(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}
