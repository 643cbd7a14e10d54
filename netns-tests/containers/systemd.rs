//! A machine with systemd as its process 1, whose network is `app` of the lab; `boot.sh` makes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::docker::{PATIENCE, child_of, remove_cgroup, text};
use crate::lab::conf::Conf;
use crate::lab::gateway::PROGRAM;
use crate::lab::{Lab, wait};
use crate::probes::program::{self, Persona, Program};

const BOOT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/netns-tests/containers/boot.sh"
);
const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles/host");

/// The machine ends when the input of this shell does: when the test ends, however it ends.
const OUTER: &str = r#"
unshare --mount --pid --uts --ipc --fork --kill-child "$@" </dev/null &
cat
kill -9 $!
"#;

/// A running machine.
pub struct Machine {
    outer: Child,
    init: Pid,
    cgroup: String,
}

impl Machine {
    /// Boots it; on return systemd has started everything.
    pub fn boot(lab: &Lab) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("vpngw-boot-{}-{number}", std::process::id());
        let folder = lab.folder.path().join("machine");
        fs::create_dir_all(&folder).unwrap();
        let log = folder.with_extension("log");
        lab.remember(log.clone());
        let log = fs::File::create(log).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", OUTER, "sh", BOOT]).arg(&folder);
        command.args([&cgroup, PROGRAM, program::PROGRAM]);
        command.stdin(Stdio::piped());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let outer = lab.ns.start("app", &mut command);
        let shell = Pid::from_child(&outer);
        let init = wait("the machine's namespaces are made", PATIENCE, || {
            child_of(child_of(shell)?)
        });
        let machine = Self {
            outer,
            init,
            cgroup,
        };
        wait("systemd has booted", PATIENCE, || {
            let said = machine.try_run(&["systemctl", "is-system-running"]);
            // Degraded: another unit of this Debian found something missing.
            ["running\n", "degraded\n"]
                .contains(&&*String::from_utf8_lossy(&said.stdout))
                .then_some(())
        });
        machine
    }

    /// Installs the units and the configuration as README says, and starts them.
    pub fn install(&self, conf: &Conf) {
        let units = self.path("etc/systemd/system");
        for entry in fs::read_dir(UNITS).unwrap() {
            let file = entry.unwrap().path();
            if file.extension().is_some_and(|kind| kind == "service") {
                fs::copy(&file, units.join(file.file_name().unwrap())).unwrap();
            }
        }
        let written = conf.write(&self.path("root"));
        let folder = self.path("etc/wireguard");
        fs::create_dir_all(&folder).unwrap();
        fs::copy(written.with_file_name("wg0.conf"), folder.join("wg0.conf")).unwrap();
        self.run(&["chmod", "600", "/etc/wireguard/wg0.conf"]);
        self.run(&["systemctl", "daemon-reload"]);
        let enable = ["systemctl", "enable", "--now"];
        self.run(&[&enable[..], &["vpngw-warden", "vpngw-engine"]].concat());
    }

    /// Puts a unit behind the VPN as README says, and starts it.
    pub fn install_behind(&self, unit: &str, text: &str) {
        let file = self.path("etc/systemd/system").join(unit);
        fs::write(&file, text).unwrap();
        let folder = file.with_extension("service.d");
        fs::create_dir(&folder).unwrap();
        let drop_in = "behind-vpngw.conf";
        fs::copy(Path::new(UNITS).join(drop_in), folder.join(drop_in)).unwrap();
        self.run(&["systemctl", "daemon-reload"]);
        self.run(&["systemctl", "enable", "--now", unit]);
    }

    /// A file of the machine, seen from here.
    pub fn path(&self, inside: &str) -> PathBuf {
        let init = self.init.as_raw_nonzero();
        Path::new(&format!("/proc/{init}/root")).join(inside)
    }

    /// Runs a command there; it must succeed. Its output.
    pub fn run(&self, words: &[&str]) -> String {
        text(&format!("{words:?}"), &self.try_run(words))
    }

    /// Runs a command there.
    pub fn try_run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("nsenter starts")
    }

    /// A command there.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        let init = self.init.as_raw_nonzero().to_string();
        command.args(["-k", "1", "120", "nsenter", "--all", "--target", &init]);
        command.args(["--", "env", "-i"]);
        command.arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");
        command.args(words).stdin(Stdio::null());
        command
    }

    /// The words that run a command in all namespaces of a unit's process.
    pub fn within(&self, unit: &str) -> Vec<String> {
        let process = self.property(unit, "MainPID");
        let words = ["nsenter", "--target", &process, "--mount", "--net", "--"];
        words.map(str::to_owned).into()
    }

    /// The program that tries ways out, with every capability, behind these words of a command line there.
    pub fn probe(&self, behind: &[&str]) -> Program {
        let words = [behind, &["vpngw-probe", Persona::Lab.name()]].concat();
        Program::started(&mut self.command(&words), |command| {
            command.spawn().expect("nsenter starts")
        })
    }

    /// One property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        let said = self.run(&["systemctl", "show", "--value", "--property", name, unit]);
        said.trim().to_owned()
    }

    /// Waits until a property of a unit is as wanted.
    pub fn wait_for(&self, unit: &str, name: &str, wanted: impl Fn(&str) -> bool) {
        wait(&format!("{name} of {unit}"), PATIENCE, || {
            wanted(&self.property(unit, name)).then_some(())
        });
    }

    /// Kills the main process of a unit, and nothing else of it.
    pub fn kill(&self, unit: &str) {
        self.run(&["kill", "-9", &self.property(unit, "MainPID")]);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for words in [
                &[
                    "systemctl",
                    "--no-pager",
                    "list-units",
                    "vpngw*",
                    "program*",
                ][..],
                &[
                    "journalctl",
                    "--no-pager",
                    "--lines",
                    "200",
                    "--output",
                    "short-precise",
                ],
            ] {
                let said = self.try_run(words);
                println!(
                    "---- {words:?} ----\n{}",
                    String::from_utf8_lossy(&said.stdout)
                );
            }
        }
        let _ = kill_process(self.init, Signal::KILL);
        drop(self.outer.stdin.take());
        let _ = self.outer.wait();
        remove_cgroup(&self.cgroup);
    }
}
