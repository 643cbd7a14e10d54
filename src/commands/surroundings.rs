//! What a choice of servers depends on besides the configuration: the clock, chance, and a list that nobody can have
//! written who should not.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::StatVfsMountFlags;

use crate::config::provider::{LARGEST_LIST, NoList, Surroundings};

pub(super) fn surroundings() -> Surroundings {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Surroundings {
        now: now.map_or(0, |since| since.as_secs()),
        seed: seed(),
        list: read,
    }
}

/// A number that is this process's own, and stays the same as long as it lives: which start of the machine, and when since
/// then this process began (field 22 of proc_pid_stat(5)).
fn seed() -> u64 {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let stat = text("/proc/self/stat");
    // The name of a program may hold anything, a parenthesis too.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let began = fields.split_whitespace().nth(19).unwrap_or_default();
    let boot = text("/proc/sys/kernel/random/boot_id");
    // FNV-1a: the order of servers is no secret.
    let bytes = boot.bytes().chain(began.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Reads a list of servers: a regular file that only root and the user who runs this can write, or one on a read-only
/// mount. It says with which key a server proves itself, so whoever writes it leads the tunnel where he likes.
fn read(path: &Path) -> Result<String, NoList> {
    let unreadable = |error: std::io::Error| {
        let absent = [ErrorKind::NotFound, ErrorKind::NotADirectory];
        if absent.contains(&error.kind()) {
            return NoList::Absent;
        }
        NoList::Unreadable(error.to_string())
    };
    // What is asked of the file is asked of the open one, and a pipe keeps nobody waiting.
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(unreadable)?;
    let data = file.metadata().map_err(unreadable)?;
    if !data.is_file() {
        return Err(NoList::Unreadable("it is not a file".to_owned()));
    }
    let own = rustix::process::geteuid().as_raw();
    if let Some(who) = others(data.uid(), data.mode(), own) {
        let mount = rustix::fs::fstatvfs(&file).map_err(|error| unreadable(error.into()))?;
        if !mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(NoList::Writable(who));
        }
    }
    if data.len() > LARGEST_LIST {
        return Err(NoList::TooLarge);
    }
    let mut text = String::new();
    let read = file.take(LARGEST_LIST + 1).read_to_string(&mut text);
    read.map_err(unreadable)?;
    if text.len() as u64 > LARGEST_LIST {
        return Err(NoList::TooLarge);
    }
    Ok(text)
}

/// Who besides root and this user can write a file of this owner and mode.
fn others(owner: u32, mode: u32, own: u32) -> Option<String> {
    let theirs = owner != 0 && owner != own;
    let mode = mode & 0o7777;
    (theirs || mode & 0o022 != 0)
        .then(|| format!("it belongs to user {owner}, with mode {mode:04o}"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_list_that_others_can_write_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("servers.json");
        assert_eq!(read(&path), Err(NoList::Absent));
        fs::write(&path, "{}").unwrap();
        for (mode, good) in [(0o644, true), (0o400, true), (0o664, false), (0o646, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).is_ok(), good, "{mode:o}");
        }
        let Err(NoList::Writable(who)) = read(&path) else {
            panic!("it was read");
        };
        assert!(who.ends_with("with mode 0646"), "{who}");
        assert_eq!(
            read(folder.path()),
            Err(NoList::Unreadable("it is not a file".to_owned()))
        );
    }

    #[test]
    fn the_owner_is_root_or_who_runs() {
        assert_eq!(others(0, 0o100_644, 1000), None);
        assert_eq!(others(1000, 0o100_600, 1000), None);
        let text = "it belongs to user 1001, with mode 0600".to_owned();
        assert_eq!(others(1001, 0o100_600, 1000), Some(text));
    }

    #[test]
    fn a_list_that_is_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("servers.json");
        let file = fs::File::create(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        file.set_len(LARGEST_LIST + 1).unwrap();
        assert_eq!(read(&path), Err(NoList::TooLarge));
    }

    #[test]
    fn a_pipe_is_no_list() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("servers.json");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        assert!(matches!(read(&path), Err(NoList::Unreadable(_))));
    }

    #[test]
    fn the_seed_stays_the_same_in_one_process() {
        assert_eq!(seed(), seed());
    }
}
