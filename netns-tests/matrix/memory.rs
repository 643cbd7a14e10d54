//! Memory that runs out, in a control group of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Pid;

use crate::lab::Lab;

/// What the gateway and the glutton may use together.
const LIMIT: u64 = 96 << 20;

/// Puts the processes into a control group together with a program that fills a file in memory. The kernel
/// kills them before it, because they are marked so (proc(5), oom_score_adj) and it holds nothing itself.
pub fn exhaust(lab: &Lab, processes: &[Pid]) {
    let group = Group::make();
    for pid in processes {
        let pid = pid.as_raw_nonzero();
        fs::write(format!("/proc/{pid}/oom_score_adj"), "1000").expect("root may");
        group.add(&pid.to_string());
    }
    let script = format!(
        "echo $$ > {} && exec dd if=/dev/zero of={FILE} bs=1M count=400",
        group.members.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).stdout(Stdio::null());
    let mut glutton = lab.ns.start("lan", command.stderr(Stdio::null()));
    let ended = glutton.wait().unwrap();
    assert!(!ended.success(), "400 MiB fitted into {LIMIT} bytes");
    fs::remove_file(FILE).unwrap();
}

/// In a tmpfs that only the lab sees.
const FILE: &str = "/run/glutton";

struct Group {
    folder: PathBuf,
    members: PathBuf,
}

impl Group {
    /// In the hierarchy for memory of version 1, or in version 2.
    fn make() -> Self {
        let name = format!("vpngw-test-{}", std::process::id());
        let ways = [
            (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "cgroup.procs",
            ),
            ("/sys/fs/cgroup", "memory.max", "cgroup.procs"),
        ];
        for (root, limit, members) in ways {
            let folder = Path::new(root).join(&name);
            if !Path::new(root).join(members).exists() || fs::create_dir(&folder).is_err() {
                continue;
            }
            let group = Self {
                members: folder.join(members),
                folder,
            };
            if fs::write(group.folder.join(limit), LIMIT.to_string()).is_ok() {
                return group;
            }
        }
        panic!(
            "no control group for memory can be made below /sys/fs/cgroup: run as root where it is writable"
        );
    }

    fn add(&self, pid: &str) {
        fs::write(&self.members, pid).expect("the group takes members");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its members are dead by now, or move out when they are.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}
