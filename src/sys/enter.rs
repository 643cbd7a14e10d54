//! Moves this process into a network namespace, without the socket files that lead out of it: pathname sockets
//! know nothing of network namespaces, and programs that look names up for others listen on them.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, move_into_link_name_space, set_thread_gid, set_thread_groups,
    set_thread_uid,
};

use super::namespace::{maker, new_mounts, parent, user_namespace_of};
use super::privilege::{self, PrivilegeError};

/// Where daemons have their sockets: nscd, systemd-resolved, D-Bus, avahi. They may also start later, so it is
/// the whole folder that is left behind.
const SOCKETS: [&str; 2] = ["/run", "/var/run"];

/// Where the terminals are that programs make (pts(4)).
pub(super) const TERMINALS: &str = "/dev/pts";

/// Where files are made that nobody else sees.
const WORKSHOP: &str = "/tmp";

/// What a program that stays root keeps: what acts on files and its own children. Nothing that leads back
/// (SYS_ADMIN, SYS_PTRACE) or changes the network.
const FILES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// Somebody to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// The namespace could not be entered. The process must end.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// Not the file of a network namespace, or not permitted.
    #[error("enter the network namespace {}: it takes root, or the user who made it by `unshare --user --net`", .0.display())]
    Namespace(PathBuf, #[source] io::Error),
    /// The user to become made the user namespace, and could undo everything in it.
    #[error(
        "user {0} made this namespace and would be root in it; run this command as that user, without `--user`"
    )]
    Maker(u32),
    /// This user made the user namespace and is not in it.
    #[error("user {0} made this namespace and is nobody in it; name another by `--user`")]
    Nobody(u32),
    /// It is the one that this process is in.
    #[error("{} is the namespace that this command was started in: nothing would be confined", .0.display())]
    Own(PathBuf),
    /// A step of making a view of the files.
    #[error("{what}")]
    Files {
        /// Which step.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another user.
    #[error("become user {0}")]
    Identity(u32, #[source] io::Error),
    /// Capabilities.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
}

/// Enters the network namespace at `network`, in a view of the files of its own: `/run` is empty, there are no
/// terminals but those that are made here, and `files` have other contents. For a process with one thread;
/// `identity` is whom it will be after [`confine`], which has to follow.
///
/// # Errors
/// Names the step. The process must end then: it may be anywhere between here and there.
pub fn enter(
    network: &Path,
    files: &[(&Path, &str)],
    identity: Option<&Identity>,
) -> Result<(), EnterError> {
    let namespace = |error| EnterError::Namespace(network.to_owned(), error);
    let target = fs::File::open(network).map_err(namespace)?;
    if is_own(&target, "net").map_err(namespace)? {
        return Err(EnterError::Own(network.to_owned()));
    }
    join(&target, network, identity)?;
    step("make a mount namespace", new_mounts())?;
    // What is mounted outside later is seen here, and nothing of ours there.
    let flags = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
    step("separate the mounts", mount_change("/", flags))?;
    view(files)
}

/// Gives up what leads back, and becomes `identity` if there is one.
///
/// # Errors
/// As [`enter`].
pub fn confine(identity: Option<&Identity>) -> Result<(), EnterError> {
    privilege::keep_only(FILES)?;
    identity.map_or(Ok(()), become_identity)
}

/// Enters a network namespace. Whoever made the user namespace that it belongs to, or one around that, has every
/// capability in it from outside, whatever else is given up, so that user enters it by way of that.
fn join(network: &fs::File, path: &Path, identity: Option<&Identity>) -> Result<(), EnterError> {
    let failed = |error| EnterError::Namespace(path.to_owned(), error);
    if let Some(user) = user_namespace_of(network.as_fd()).map_err(failed)? {
        let user = fs::File::from(user);
        let other = !is_own(&user, "user").map_err(failed)?;
        let program = identity.map_or_else(|| geteuid().as_raw(), |identity| identity.uid);
        if other && maker(outermost(&user).map_err(failed)?.as_fd()).map_err(failed)? == program {
            if identity.is_some() {
                return Err(EnterError::Maker(program));
            }
            setns(&user, LinkNameSpaceType::User).map_err(failed)?;
            // Files are a matter of who one was before, until one is somebody here.
            set_thread_gid(getegid())
                .and_then(|()| set_thread_uid(geteuid()))
                .map_err(|_| EnterError::Nobody(program))?;
        }
    }
    setns(network, LinkNameSpaceType::Network).map_err(failed)
}

fn setns(namespace: &fs::File, kind: LinkNameSpaceType) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(kind))?)
}

/// The user namespace around this one that was made in our own.
fn outermost(user: &fs::File) -> io::Result<fs::File> {
    let mut outermost = user.try_clone()?;
    while let Some(around) = parent(outermost.as_fd())?.map(fs::File::from) {
        if is_own(&around, "user")? {
            break;
        }
        outermost = around;
    }
    Ok(outermost)
}

/// Whether this is the namespace of its kind that this process is in.
fn is_own(namespace: &fs::File, kind: &str) -> io::Result<bool> {
    let own = fs::metadata(format!("/proc/self/ns/{kind}"))?;
    let there = namespace.metadata()?;
    Ok((own.dev(), own.ino()) == (there.dev(), there.ino()))
}

fn view(files: &[(&Path, &str)]) -> Result<(), EnterError> {
    // Before `/run` goes: resolv.conf may be a link into it.
    let targets: Vec<_> = files
        .iter()
        .filter_map(|(path, text)| Some((fs::canonicalize(path).ok()?, *text)))
        .collect();
    let hidden: Vec<_> = SOCKETS
        .iter()
        .filter(|path| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()))
        .collect();
    for path in hidden {
        step(&format!("hide {path}"), tmpfs(path, c"mode=0755"))?;
    }
    hide_terminals()?;
    step("make room for files", tmpfs(WORKSHOP, c"mode=0700"))?;
    for (number, (target, text)) in targets.iter().enumerate() {
        let what = format!("replace {}", target.display());
        let source = Path::new(WORKSHOP).join(number.to_string());
        step(&what, fs::write(&source, text))?;
        if !target.exists() {
            let folder = target.parent().unwrap_or_else(|| Path::new("/"));
            step(&what, fs::create_dir_all(folder))?;
            step(&what, fs::write(target, ""))?;
        }
        step(&what, mount_bind(&source, target))?;
    }
    // The files stay where they are bound.
    step("tidy up", unmount(WORKSHOP, UnmountFlags::DETACH))
}

/// The terminals of others leave the view: whoever is root, or their owner, could read what is typed there.
fn hide_terminals() -> Result<(), EnterError> {
    if !Path::new(TERMINALS).is_dir() {
        return Ok(());
    }
    // Each mount is an instance of its own; before Linux 4.7 it has to be said (filesystems/devpts.rst).
    let options = c"newinstance,ptmxmode=0666,mode=0600";
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    let mounted = mount("devpts", TERMINALS, "devpts", flags, Some(options));
    step(&format!("hide {TERMINALS}"), mounted)
}

fn tmpfs(path: &str, options: &std::ffi::CStr) -> rustix::io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", path, "tmpfs", flags, Some(options))
}

fn become_identity(identity: &Identity) -> Result<(), EnterError> {
    let groups: Vec<_> = identity
        .groups
        .iter()
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    let steps = || {
        set_thread_groups(&groups)?;
        set_thread_gid(Gid::from_raw(identity.gid))?;
        set_thread_uid(Uid::from_raw(identity.uid))
    };
    steps().map_err(|errno| EnterError::Identity(identity.uid, errno.into()))
}

fn step<T, E: Into<io::Error>>(what: &str, outcome: Result<T, E>) -> Result<T, EnterError> {
    outcome.map_err(|error| EnterError::Files {
        what: what.to_owned(),
        source: error.into(),
    })
}
