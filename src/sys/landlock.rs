//! Which files the engine may read, by landlock(7): those that are named, and none may be written.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

/// The newest version whose restrictions are asked for; an older kernel has fewer of them (Linux 6.15).
const NEWEST: ABI = ABI::V7;

/// Whether an engine makes TCP connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connects {
    /// Never.
    Nowhere,
    /// To LAN hosts, which its configuration names.
    Lan,
}

/// What is in force.
#[derive(Debug)]
pub struct Restricted {
    /// Whether all, some or none of it.
    pub extent: Extent,
    /// A folder of /proc is found again only while it is held.
    _held: Vec<PathFd>,
}

/// How much of it the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything.
    Whole,
    /// What this kernel has.
    Part,
    /// Nothing: it has no Landlock, or it is off.
    Nothing,
}

/// Restricts the calling thread and those that it starts: files can be read at and below `readable` only, none
/// can be written or made, no abstract UNIX socket and no process outside is reached, and TCP as `connects`
/// says. Paths that are not there are left out.
///
/// # Errors
/// Where the kernel has Landlock and refuses.
pub fn restrict(readable: &[PathBuf], connects: Connects) -> Result<Restricted, RulesetError> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?;
    if connects == Connects::Nowhere {
        ruleset = ruleset.handle_access(AccessNet::ConnectTcp)?;
    }
    let mut created = ruleset.create()?;
    let mut held = Vec::new();
    for path in readable {
        let Ok(fd) = PathFd::new(path) else { continue };
        // A file has no entries to be listed.
        let access = if path.is_dir() {
            read
        } else {
            AccessFs::ReadFile.into()
        };
        created = created.add_rule(PathBeneath::new(&fd, access))?;
        if path.starts_with(Path::new("/proc")) {
            held.push(fd);
        }
    }
    let status = created.restrict_self()?;
    Ok(Restricted {
        extent: match status.ruleset {
            RulesetStatus::FullyEnforced => Extent::Whole,
            RulesetStatus::PartiallyEnforced => Extent::Part,
            RulesetStatus::NotEnforced => Extent::Nothing,
        },
        _held: held,
    })
}
