//! The processes that share this network namespace, as far as /proc shows them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::getpid;

use super::facts::{Joiner, Joiners, Kin};
use crate::sys::host;

/// Inode of the machine's first PID namespace (`PROC_PID_INIT_INO`, linux/proc_ns.h), which sees all others.
const FIRST: u64 = 0xefff_fffc;

/// Numbers of capabilities (linux/capability.h).
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
const SYS_ADMIN: u32 = 21;

/// Switches that keep programs without SYS_ADMIN from making user namespaces, and the value that does so: of the kernel
/// (namespaces(7)), of Debian, and of Ubuntu.
const NO_USER_NAMESPACES: [(&str, &str); 3] = [
    ("/proc/sys/user/max_user_namespaces", "0"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ),
];

/// `PF_KTHREAD` (linux/sched.h).
const KERNEL_THREAD: u32 = 0x0020_0000;

/// Looks at every process there is, but this one, those that started it, and the gateway's own: they run our
/// program, or have its name and `owner`, the number of the process that the rules belong to.
pub(super) fn look(owner: Option<u32>) -> Joiners {
    let ours = inode("/proc/self/ns/net");
    let own_program = program("self");
    let starters = starters();
    let mut here = Vec::new();
    let user_namespaces = may_make_user_namespaces();
    let mut found = Joiners {
        all_visible: inode("/proc/self/ns/pid") == Some(FIRST),
        ..Joiners::default()
    };
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Some(process) = process(pid).filter(|_| !starters.contains(&pid)) else {
            continue;
        };
        let same_program = own_program.is_some() && program(&pid.to_string()) == own_program;
        let by_name = process.name == "vpngw" && owner.is_none_or(|it| process.innermost == it);
        if same_program || by_name {
            if is_engine(pid) {
                found.engines.insert(process.user);
            }
            continue;
        }
        let kin = Kin {
            pid,
            name: process.name.clone(),
            user: process.user,
        };
        let joiner = Joiner {
            pid,
            net_admin: process.may(NET_ADMIN),
            net_raw: process.may(NET_RAW),
            may_take_uplink: process.may(NET_ADMIN)
                && !process.filtered
                && (process.may(SYS_ADMIN) || user_namespaces),
            name: process.name,
        };
        let capable = joiner.net_admin || joiner.net_raw;
        match inode(&format!("/proc/{pid}/ns/net")) {
            Some(other) if Some(other) != ours => {}
            Some(_) => {
                here.push(kin);
                if capable {
                    found.capable.push(joiner);
                } else {
                    found.harmless += 1;
                }
            }
            // One that ended meanwhile is none.
            None if capable && Path::new(&format!("/proc/{pid}")).exists() => found.unread += 1,
            None => {}
        }
    }
    found.capable.sort_by_key(|it| it.pid);
    here.retain(|it| found.engines.contains(&it.user));
    here.sort_by_key(|it| it.pid);
    found.kin = here;
    found
}

/// Whether one of our programs was started as the engine.
fn is_engine(pid: u32) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).nth(1) == Some(b"engine")
}

/// What /proc/PID/status tells anybody.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    name: String,
    /// Its number in the innermost PID namespace.
    innermost: u32,
    /// The real user, which is whom a signal is permitted by (kill(2)).
    user: u32,
    /// Capabilities that it has, or may take at any time.
    capabilities: u64,
    /// Whether seccomp holds it. What the filter forbids is not told; that of Docker forbids new namespaces.
    filtered: bool,
}

impl Process {
    fn may(&self, capability: u32) -> bool {
        self.capabilities >> capability & 1 == 1
    }
}

/// What cannot be told counts as allowed.
fn may_make_user_namespaces() -> bool {
    let forbids = |(path, value): (&str, &str)| {
        fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
    };
    !NO_USER_NAMESPACES.into_iter().any(forbids)
}

/// One that is no thread of the kernel, and is not dead.
fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let is_of_kernel = flags(&stat)? & KERNEL_THREAD != 0;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    parse(&status).filter(|_| !is_of_kernel)
}

/// `None` for one that is dead and not buried.
fn parse(status: &str) -> Option<Process> {
    let field = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| Some(line.strip_prefix(name)?.trim()))
    };
    let state = field("State:")?;
    let innermost = field("NSpid:")?.split_ascii_whitespace().last()?;
    let set = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
    (!state.starts_with(['Z', 'X'])).then_some(Process {
        name: field("Name:")?.to_owned(),
        innermost: innermost.parse().ok()?,
        user: field("Uid:")?
            .split_ascii_whitespace()
            .next()?
            .parse()
            .ok()?,
        capabilities: set("CapEff:")? | set("CapPrm:")?,
        // A kernel without seccomp does not say.
        filtered: field("Seccomp:").is_some_and(|mode| mode != "0"),
    })
}

/// The ninth field of /proc/PID/stat, counted after the name, which may hold anything (proc(5)).
fn flags(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(6)?.parse().ok()
}

/// This process and its ancestors: whoever asks.
fn starters() -> Vec<u32> {
    let all = std::iter::once(getpid()).chain(host::ancestors());
    all.map(|pid| pid.as_raw_nonzero().get().unsigned_abs())
        .collect()
}

fn program(process: &str) -> Option<(u64, u64)> {
    let file = fs::metadata(format!("/proc/{process}/exe")).ok()?;
    Some((file.dev(), file.ino()))
}

fn inode(path: &str) -> Option<u64> {
    Some(fs::metadata(path).ok()?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tqbittorrent-nox\nUmask:\t0022\nState:\tS (sleeping)\nPid:\t812\nPPid:\t790\n\
                          Uid:\t1000\t1000\t1000\t1000\n\
                          NSpid:\t812\t1\nCapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
                          Seccomp:\t2\n";

    #[test]
    fn dockers_default_capabilities_hold_net_raw() {
        let process = parse(STATUS).unwrap();
        assert_eq!(process.name, "qbittorrent-nox");
        assert_eq!((process.innermost, process.user), (1, 1000));
        assert!(process.may(NET_RAW) && !process.may(NET_ADMIN));
        assert!(process.filtered);
    }

    #[test]
    fn a_capability_that_may_be_taken_at_any_time_counts() {
        let asleep = STATUS.replace("CapPrm:\t00000000a80425fb", "CapPrm:\t00000000a80435fb");
        assert!(parse(&asleep).unwrap().may(NET_ADMIN));
    }

    #[test]
    fn without_a_seccomp_filter_nothing_is_taken_for_one() {
        for free in ["Seccomp:\t0\n", ""] {
            let status = STATUS.replace("Seccomp:\t2\n", free);
            assert!(!parse(&status).unwrap().filtered, "{free:?}");
        }
    }

    #[test]
    fn the_dead_hold_nothing() {
        assert_eq!(parse(&STATUS.replace("S (sleeping)", "Z (zombie)")), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_thread_of_the_kernel_is_told_by_its_flags() {
        assert_eq!(flags("2 (k) (x)) S 0 0 0 0 -1 2129984 0"), Some(2_129_984));
        assert_eq!(flags("2 (k"), None);
    }

    #[test]
    fn who_asks_is_no_joiner() {
        let starters = starters();
        assert!(starters.contains(&std::process::id()));
        assert!(
            look(None)
                .capable
                .iter()
                .all(|it| !starters.contains(&it.pid))
        );
    }
}
