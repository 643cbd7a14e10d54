//! Tells the machine's own network namespace from one made for a gateway, by evidence: what cannot be
//! told is taken for the machine's own, because closing that one cuts the machine off.

use std::fs;
use std::path::Path;

use rustix::fs::stat;
use rustix::process::{Pid, getpid, getppid};

use super::link;

/// Inode of the first network namespace (`NET_NS_INIT_INO`, linux/nsfs.h, Linux 6.18). Older kernels
/// number it like any other.
const FIRST: u64 = 0xefff_fff9;

/// Inode of the first user namespace (`PROC_USER_INIT_INO`, linux/proc_ns.h).
const FIRST_USER: u64 = 0xefff_fffd;

/// Where named network namespaces are (ip-netns(8)).
pub const NAMES: &str = "/run/netns";

/// Files that container engines put into a container.
const CONTAINER: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// Ancestors that are looked at; a chain longer than that ends somewhere else than in a shell.
const ANCESTORS: usize = 64;

/// What there is to go by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Evidence {
    /// Inode of our network namespace, if it can be read.
    ours: Option<u64>,
    /// Those of our ancestors that can be read, the nearest first.
    ancestors: Vec<u64>,
    /// Whether it has a name, as `ip netns add` gives it: somebody made it.
    named: bool,
    /// Whether we live in a user namespace of our own: then we have no power over the machine's.
    rootless: bool,
    /// Whether we are the first process of a PID namespace, and no device is a machine's: what a container was
    /// started for.
    first_process: bool,
    /// Whether we are in a container and its first process, an init, started us, and no device is a machine's.
    under_init: bool,
}

/// Whether this may be the namespace that the machine itself lives in.
pub fn may_be_own_namespace() -> bool {
    let (first, under_init) = started_for();
    may_be_own(&Evidence {
        ours: namespace("self", "net"),
        named: is_named(namespace("self", "net")),
        rootless: namespace("self", "user").is_some_and(|user| user != FIRST_USER),
        ancestors: ancestors().filter_map(lives_in).collect(),
        first_process: first,
        under_init,
    })
}

/// Whether this process is what a container was started for, the container's own network with it.
pub fn is_first_of_a_container() -> bool {
    let (first, under_init) = started_for();
    first || under_init
}

/// Whether this is the first process of a PID namespace, and whether an init that is one started it in a container. Neither
/// counts in the machine's own network, which a container may have been given (`network_mode: host`).
fn started_for() -> (bool, bool) {
    let in_container = || CONTAINER.iter().any(|path| Path::new(path).exists());
    let first = getpid() == Pid::INIT;
    let under_init = getppid() == Some(Pid::INIT) && in_container();
    let own = (first || under_init) && !has_devices_of_a_machine();
    (first && own, under_init && own)
}

/// A namespace was made for us where somebody named it, where one who started us lives in another one, or
/// where a container was started for us.
fn may_be_own(evidence: &Evidence) -> bool {
    let Evidence {
        ours,
        ancestors,
        named,
        rootless,
        first_process,
        under_init,
    } = evidence;
    if *rootless {
        return false;
    }
    match ours {
        Some(FIRST) => true,
        Some(ours) => {
            let entered = ancestors.iter().any(|other| other != ours);
            !(entered || *named || *first_process || *under_init)
        }
        None => !(*first_process || *under_init),
    }
}

/// Whether there is a bridge or hardware, which no container engine puts into the namespace of a container.
/// So it is where that cannot be told.
fn has_devices_of_a_machine() -> bool {
    let of_a_machine = |device: &link::Device| match device.kind.as_deref() {
        None => !device.loopback,
        Some(kind) => kind == "bridge",
    };
    link::devices().map_or(true, |devices| devices.iter().any(of_a_machine))
}

/// The processes that started this one, the nearest first, as far as they can be seen.
pub fn ancestors() -> impl Iterator<Item = Pid> {
    std::iter::successors(getppid(), |pid| parent(*pid)).take(ANCESTORS)
}

/// The network namespace of a process.
fn lives_in(process: Pid) -> Option<u64> {
    namespace(&process.as_raw_nonzero().to_string(), "net")
}

/// Whether this network namespace has a name (ip-netns(8)).
pub fn has_name() -> bool {
    is_named(namespace("self", "net"))
}

fn is_named(ours: Option<u64>) -> bool {
    let names = fs::read_dir(NAMES).into_iter().flatten().flatten();
    let inode = |entry: fs::DirEntry| stat(entry.path()).ok().map(|stat| stat.st_ino);
    ours.is_some() && names.map(inode).any(|named| named == ours)
}

fn namespace(process: &str, kind: &str) -> Option<u64> {
    stat(format!("/proc/{process}/ns/{kind}"))
        .ok()
        .map(|stat| stat.st_ino)
}

/// The fourth field of /proc/PID/stat, counted after the name, which may hold anything (proc(5)).
fn parent(process: Pid) -> Option<Pid> {
    let text = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Pid::from_raw(rest.split_whitespace().nth(1)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence() -> Evidence {
        Evidence {
            ours: Some(7),
            ancestors: vec![7, 7],
            named: false,
            rootless: false,
            first_process: false,
            under_init: false,
        }
    }

    #[test]
    fn a_shell_of_the_machine_is_refused() {
        assert!(may_be_own(&evidence()));
    }

    #[test]
    fn a_namespace_that_was_entered_is_ours() {
        let ancestors = vec![7, 3];
        assert!(!may_be_own(&Evidence {
            ancestors,
            ..evidence()
        }));
    }

    #[test]
    fn a_namespace_that_has_a_name_was_made_by_somebody() {
        assert!(!may_be_own(&Evidence {
            named: true,
            ..evidence()
        }));
    }

    #[test]
    fn a_container_was_made_for_its_first_process_and_what_its_init_starts() {
        assert!(!may_be_own(&Evidence {
            first_process: true,
            ..evidence()
        }));
        assert!(!may_be_own(&Evidence {
            under_init: true,
            ..evidence()
        }));
    }

    #[test]
    fn without_power_over_the_machine_nothing_can_be_cut_off() {
        assert!(!may_be_own(&Evidence {
            rootless: true,
            ..evidence()
        }));
    }

    #[test]
    fn the_first_namespace_is_the_machines_whoever_asks() {
        let all = Evidence {
            ours: Some(FIRST),
            ancestors: vec![3],
            named: true,
            rootless: false,
            first_process: true,
            under_init: true,
        };
        assert!(may_be_own(&all));
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        assert!(may_be_own(&Evidence {
            ours: None,
            ancestors: vec![],
            ..evidence()
        }));
        assert!(may_be_own(&Evidence {
            ancestors: vec![],
            ..evidence()
        }));
    }

    #[test]
    fn this_test_finds_its_own_ancestors() {
        let ours = namespace("self", "net").unwrap();
        assert!(ancestors().filter_map(lives_in).any(|it| it == ours));
    }
}
