//! Who the program is: the identities and capabilities that joined programs have.

use std::io;

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_thread_gid, set_thread_groups,
    set_thread_uid,
};

/// What Docker gives a container unless told otherwise (moby, `oci/caps/defaults.go`).
const DOCKER: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// An ordinary user: the first that Debian's adduser(8) would make.
const USER: u32 = 1000;

/// Takes on a persona for good, for programs that it starts too. `lab` changes nothing.
///
/// # Errors
///
/// The name is unknown, or what the kernel refused. Without root some personas are out of reach.
pub fn become_persona(name: &str) -> io::Result<()> {
    let kept = match name {
        "lab" => return Ok(()),
        "user" | "bare" => CapabilitySet::empty(),
        "docker" => DOCKER,
        "no-raw" => DOCKER.difference(CapabilitySet::NET_RAW),
        "admin" => DOCKER.union(CapabilitySet::NET_ADMIN),
        _ => return Err(io::Error::other("no such persona")),
    };
    clear_ambient_capability_set()?;
    for bit in 0..63 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        // The kernel knows fewer than 63, and says so by an error.
        if capability_is_in_bounding_set(one).unwrap_or(false) && !kept.contains(one) {
            remove_capability_from_bounding_set(one)?;
        }
    }
    if name == "user" {
        set_thread_groups(&[])?;
        set_thread_gid(Gid::from_raw(USER))?;
        set_thread_uid(Uid::from_raw(USER))?;
    }
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}
