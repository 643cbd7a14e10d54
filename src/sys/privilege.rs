//! What a process may do: capabilities, identity, core dumps.
//!
//! Everything here is an attribute of the calling thread and inherited by those it starts later: call
//! it while there is one thread.

use std::io;

use rustix::process::{
    DumpableBehavior, Gid, Pid, Resource, Rlimit, Signal, Uid, getppid, getuid,
    set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, no_new_privs, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs, set_thread_gid, set_thread_groups, set_thread_uid,
};

/// The user `nobody` of Debian, Alpine and Fedora; owns nothing, but is who programs run as that are to own nothing.
pub const NOBODY: u32 = 65534;

/// The user, and the group, of an engine that `vpngw run` starts: a number that no other program has by itself. systemd
/// leaves 65520 to 65533 unused (UIDS-GIDS.md), Debian's policy reserves 65000 to 65533 (9.2.2), and it exists wherever
/// a user namespace has 65536 users.
pub const ENGINE: u32 = 65530;

/// What the warden keeps.
///
/// NET_ADMIN and NET_RAW for devices, rules and sensors; NET_BIND_SERVICE for source ports and listeners
/// below 1024; SETUID, SETGID, SETPCAP, because the engine is started with these and gives them up as
/// its first act; KILL, because the engine then is another user; DAC_OVERRIDE, because the configuration
/// that a reload reads again may belong to another user and be private.
pub const WARDEN: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::DAC_OVERRIDE);

/// What the warden of the sealed topology keeps, as far as it has it: it starts nobody, and its
/// configuration holds no key that would have to be private.
pub const SEALED_WARDEN: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// A privilege could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// A step the kernel refused.
    #[error("giving up privileges: {step}")]
    Step {
        /// Which.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel says it is done, and it is not.
    #[error("capabilities are left after giving them up: {0:?}")]
    Left(CapabilitySet),
    /// Who started us is gone, so nobody would end us.
    #[error("the parent process is gone")]
    Orphan,
}

/// What [`drop_all`] reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The user we are now. The one that was wanted, unless it does not exist in our user namespace or the
    /// capability SETUID is missing: then [`NOBODY`], or the one we were, without a single capability.
    pub uid: u32,
    /// Whether the bounding set is empty too. Without SETPCAP it cannot be; no_new_privs keeps exec from
    /// giving anything back all the same.
    pub bounding_empty: bool,
}

/// Whom an engine becomes: [`ENGINE`], or [`NOBODY`] where the text of /etc/passwd gives that number to somebody.
/// `vpngw doctor` tells of the latter.
pub fn engine_user(passwd: &str) -> u32 {
    // passwd(5): name, password, number.
    let number = |line: &str| line.split(':').nth(2).and_then(|it| it.parse().ok());
    if passwd.lines().any(|line| number(line) == Some(ENGINE)) {
        NOBODY
    } else {
        ENGINE
    }
}

/// Gives up everything, for good: no capability, no new privileges by exec, another user and its group, no core
/// dump, no ptrace by others of that user, and death together with `parent`.
///
/// The death signal is sent when the *thread* of the parent that started us ends (prctl(2)): it must
/// be one that lives as long as the parent.
///
/// # Errors
/// Where a step is refused that is never refused for good reason. The process must end then.
pub fn drop_all(parent: Pid, user: u32) -> Result<Dropped, PrivilegeError> {
    let dropped = drop_alone(user)?;
    // After the change of user, which clears it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(at("parent death signal"))?;
    if getppid() != Some(parent) {
        return Err(PrivilegeError::Orphan);
    }
    Ok(dropped)
}

/// [`drop_all`] for a process that nobody of ours started, and that dies alone.
///
/// # Errors
/// As [`drop_all`].
pub fn drop_alone(user: u32) -> Result<Dropped, PrivilegeError> {
    set_no_new_privs(true).map_err(at("no new privileges"))?;
    clear_ambient_capability_set().map_err(at("ambient capabilities"))?;
    let bounding_empty = limit_bounding(CapabilitySet::empty())?;
    become_user(user)?;
    hold(CapabilitySet::empty())?;
    no_dumps()?;
    let sets = capabilities(None).map_err(at("read capabilities"))?;
    let left = sets.effective | sets.permitted | sets.inheritable;
    if !left.is_empty() {
        return Err(PrivilegeError::Left(left));
    }
    if !no_new_privs().map_err(at("read no new privileges"))? {
        return Err(PrivilegeError::Step {
            step: "no new privileges",
            source: io::ErrorKind::Other.into(),
        });
    }
    Ok(Dropped {
        uid: getuid().as_raw(),
        bounding_empty,
    })
}

/// Keeps `wanted`, as far as we have it, and nothing else; exec gives nothing back. Returns what is
/// held now: the caller says what it misses.
///
/// # Errors
/// Where a step is refused.
pub fn keep_only(wanted: CapabilitySet) -> Result<CapabilitySet, PrivilegeError> {
    set_no_new_privs(true).map_err(at("no new privileges"))?;
    clear_ambient_capability_set().map_err(at("ambient capabilities"))?;
    limit_bounding(wanted)?;
    let now = capabilities(None).map_err(at("read capabilities"))?;
    let kept = now.permitted & wanted;
    hold(kept)?;
    Ok(kept)
}

/// No core dump, and no ptrace or /proc access by others of the same user: keys stay in memory.
///
/// # Errors
/// Where the kernel refuses.
pub fn no_dumps() -> Result<(), PrivilegeError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(at("dumpable"))?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(at("core file size"))
}

/// Takes all but `kept` out of the bounding set; `false` where SETPCAP is missing.
fn limit_bounding(kept: CapabilitySet) -> Result<bool, PrivilegeError> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // EINVAL: past the last capability of this kernel (cap_prctl, security/commoncap.c).
        let Ok(present) = capability_is_in_bounding_set(one) else {
            break;
        };
        if !present || kept.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            Err(rustix::io::Errno::PERM) => return Ok(false),
            Err(errno) => return Err(at("bounding set")(errno)),
        }
    }
    Ok(true)
}

/// This user and group, no supplementary groups. Where that identity does not exist (EINVAL: not mapped in this user
/// namespace) [`NOBODY`]; where that does not either, or none may be taken (EPERM), we stay who we are.
fn become_user(user: u32) -> Result<(), PrivilegeError> {
    let stays = |errno| matches!(errno, rustix::io::Errno::PERM | rustix::io::Errno::INVAL);
    let first = |act: &dyn Fn(u32) -> rustix::io::Result<()>| act(user).or_else(|_| act(NOBODY));
    let group = |number| set_thread_gid(Gid::from_raw(number));
    let own = |number| set_thread_uid(Uid::from_raw(number));
    let steps: [(&'static str, &dyn Fn() -> rustix::io::Result<()>); 3] = [
        ("groups", &|| set_thread_groups(&[])),
        ("group", &|| first(&group)),
        ("user", &|| first(&own)),
    ];
    for (step, act) in steps {
        match act() {
            Err(errno) if !stays(errno) => return Err(at(step)(errno)),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn hold(capabilities: CapabilitySet) -> Result<(), PrivilegeError> {
    let sets = CapabilitySets {
        effective: capabilities,
        permitted: capabilities,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(at("capabilities"))
}

fn at(step: &'static str) -> impl Fn(rustix::io::Errno) -> PrivilegeError {
    move |errno| PrivilegeError::Step {
        step,
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_has_a_user_of_its_own_unless_somebody_has_that_number() {
        let usual = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
        assert_eq!(engine_user(usual), ENGINE);
        assert_eq!(engine_user(""), ENGINE);
        // A group of that number, or a name, is nobody's process.
        assert_eq!(engine_user("65530:x:7:65530::/:/bin/sh\n"), ENGINE);
        let taken = format!("{usual}alice:x:65530:100::/home/alice:/bin/sh\n");
        assert_eq!(engine_user(&taken), NOBODY);
    }
}
