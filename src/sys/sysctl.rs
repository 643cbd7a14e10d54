//! Kernel parameters of this network namespace, below /proc/sys/net.

use std::fs;
use std::io;
use std::path::Path;

use crate::plan::Sysctl;

/// Where the parameters are. `/proc/sys/net` shows those of the reader's namespace.
const ROOT: &str = "/proc/sys";

/// What became of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has the wanted value.
    Set,
    /// The kernel does not have it: no IPv6 at all, or no such device.
    Absent,
    /// It has another value and cannot be written; the reason. Docker mounts /proc/sys read-only.
    Refused(String),
}

/// Writes what is not as wanted, reads it back, and says what became of each.
pub fn apply(wanted: &[Sysctl]) -> Vec<(Sysctl, Outcome)> {
    let one = |sysctl: &Sysctl| (sysctl.clone(), set(Path::new(ROOT), sysctl));
    wanted.iter().map(one).collect()
}

/// Reads each and says whether it is as wanted; writes nothing.
pub fn verify(wanted: &[Sysctl]) -> Vec<(Sysctl, Outcome)> {
    let one = |sysctl: &Sysctl| {
        let path = Path::new(ROOT).join(sysctl.path());
        (sysctl.clone(), outcome(&path, sysctl.value))
    };
    wanted.iter().map(one).collect()
}

/// Whether IPv6 is off on every device there is, as far as the kernel tells. `false` where one device
/// has it or could not be read.
pub fn ipv6_is_off() -> bool {
    let folder = Path::new(ROOT).join("net/ipv6/conf");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) => return error.kind() == io::ErrorKind::NotFound,
    };
    let off = |entry: io::Result<fs::DirEntry>| {
        let path = entry.map(|entry| entry.path().join("disable_ipv6"));
        path.is_ok_and(|path| outcome(&path, "1") == Outcome::Set)
    };
    entries.into_iter().all(off)
}

fn set(root: &Path, sysctl: &Sysctl) -> Outcome {
    let path = root.join(sysctl.path());
    match outcome(&path, sysctl.value) {
        Outcome::Refused(_) => {}
        done @ (Outcome::Set | Outcome::Absent) => return done,
    }
    // Not create: a file that is not there must not appear in a test's folder or anywhere.
    let written = fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| io::Write::write_all(&mut file, sysctl.value.as_bytes()));
    match written {
        Ok(()) => outcome(&path, sysctl.value),
        Err(error) => Outcome::Refused(format!("{}: {error}", path.display())),
    }
}

fn outcome(path: &Path, wanted: &str) -> Outcome {
    match fs::read_to_string(path) {
        Ok(text) if text.trim() == wanted => Outcome::Set,
        Ok(text) => Outcome::Refused(format!("{} is {}", path.display(), text.trim())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Outcome::Absent,
        Err(error) => Outcome::Refused(format!("{}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysctl() -> Sysctl {
        Sysctl {
            family: "ipv6",
            scope: "eth0.7".to_owned(),
            name: "disable_ipv6",
            value: "1",
        }
    }

    #[test]
    fn a_parameter_is_written_and_read_back() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(set(root.path(), &sysctl()), Outcome::Absent);
        let path = root.path().join(sysctl().path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "0\n").unwrap();
        assert_eq!(set(root.path(), &sysctl()), Outcome::Set);
        assert_eq!(fs::read_to_string(&path).unwrap().trim(), "1");
    }

    #[test]
    fn a_dot_in_a_device_name_is_no_separator() {
        let text = sysctl().to_string();
        assert_eq!(text, "net.ipv6.conf.eth0/7.disable_ipv6=1");
    }
}
