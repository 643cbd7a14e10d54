//! `/etc/resolv.conf`: which resolvers the programs of the namespace ask.
//!
//! In a container it is a bind mount, shared with every container that joined the namespace: it is
//! written in place, never renamed over, and its inode stays.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// First line of a file we wrote.
const TITLE: &str =
    "# Written by vpngw: names resolve through the tunnel. It replaced these lines:";

/// Stands before each line that was replaced.
const FORMER: &str = "#| ";

/// Characters of another program's file that are kept, and bytes of a file that are read: joined programs
/// can write it, and each of our lines is at most four bytes longer than what it keeps.
const MOST_FORMER: usize = 4 * 1024;
const MOST: u64 = 64 * 1024;

/// The file is not as it should be.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}{}", .path.display(), hint(.why))]
pub struct ResolvError {
    path: PathBuf,
    why: io::Error,
}

/// What would help.
fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
        "; Docker mounts it so with `read_only: true`: leave that out, or let Docker write the tunnel's resolver \
         there (`network_mode: bridge` with `dns: [ADDRESS]`)"
    } else if error.kind() == io::ErrorKind::WouldBlock {
        "; another program holds it by a lease (fcntl(2)), and it is tried again"
    } else {
        ""
    }
}

/// Makes `nameservers` the only resolvers, in place, and keeps the former lines as comments. Nothing
/// is written when the file is that already. Returns whether it was written.
///
/// # Errors
/// Where the file cannot be read or written. A missing file is created.
pub fn rewrite(path: &Path, nameservers: &[Ipv4Addr]) -> Result<bool, ResolvError> {
    let before = read(path)?;
    let after = content(&before, nameservers);
    if before == after {
        return Ok(false);
    }
    match write(path, &after) {
        Ok(()) => Ok(true),
        // Somebody wrote it for us.
        Err(_) if nameservers_of(&before).eq(nameservers.iter().copied().map(Some)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Puts back what [`rewrite`] replaced; nothing where we did not write the file.
///
/// # Errors
/// Where the file cannot be read or written.
pub fn restore(path: &Path) -> Result<(), ResolvError> {
    let text = read(path)?;
    match former(&text) {
        Some(former) => write(path, &former),
        None => Ok(()),
    }
}

/// The IPv4 resolvers the namespace had before we rewrote the file: those of the uplink.
pub fn former_nameservers(text: &str) -> Vec<Ipv4Addr> {
    let lines = former(text).unwrap_or_else(|| text.to_owned());
    nameservers_of(&lines).flatten().collect()
}

/// The resolvers that a text names, as they are written there.
pub fn named(text: &str) -> Vec<String> {
    let words = text.lines().map(str::split_ascii_whitespace);
    let named = words.filter_map(|mut words| {
        let named = words.next() == Some("nameserver");
        named.then(|| words.next().unwrap_or_default().to_owned())
    });
    named.collect()
}

/// The resolvers that a text names; `None` is one that is no IPv4 address.
fn nameservers_of(text: &str) -> impl Iterator<Item = Option<Ipv4Addr>> {
    named(text).into_iter().map(|word| word.parse().ok())
}

/// The new text. The former lines are those of the first file that was not ours.
fn content(before: &str, nameservers: &[Ipv4Addr]) -> String {
    let former = former(before).unwrap_or_else(|| before.chars().take(MOST_FORMER).collect());
    let former = former.lines().map(|line| format!("{FORMER}{line}\n"));
    let nameservers = nameservers.iter().map(|ip| format!("nameserver {ip}\n"));
    let title = std::iter::once(format!("{TITLE}\n"));
    title.chain(former).chain(nameservers).collect()
}

/// The lines that were replaced, if it is our file.
fn former(text: &str) -> Option<String> {
    let rest = text.strip_prefix(TITLE)?;
    let lines = rest.lines().filter_map(|line| line.strip_prefix(FORMER));
    Some(lines.map(|line| format!("{line}\n")).collect())
}

/// The text of the file, as far as it is sensible: joined programs can write it. A missing file has none.
///
/// # Errors
/// Where the file cannot be read.
pub fn read(path: &Path) -> Result<String, ResolvError> {
    let mut bytes = Vec::new();
    let opened = open(OpenOptions::new().read(true), path);
    match opened.and_then(|file| file.take(MOST).read_to_end(&mut bytes)) {
        Ok(_) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(why) => Err(ResolvError {
            path: path.to_owned(),
            why,
        }),
    }
}

/// Opens a regular file and nothing else, without a wait: a lease is broken meanwhile (EWOULDBLOCK, fcntl(2)), and a FIFO
/// in its place has no reader to wait for.
fn open(how: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = how
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is no regular file"))
    }
}

/// One write of the whole text, then the cut: a reader in between sees the new resolvers first, and
/// never an empty file.
fn write(path: &Path, text: &str) -> Result<(), ResolvError> {
    let written = || {
        let mut how = OpenOptions::new();
        let mut file = open(how.write(true).create(true).truncate(false), path)?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)
    };
    written().map_err(|why| ResolvError {
        path: path.to_owned(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const DOCKER: &str = "# Generated by Docker\nnameserver 127.0.0.11\nnameserver fe80::1%eth0\nnameserver 192.168.1.1\nsearch lan\noptions ndots:0\n";

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    /// Whether the file names the tunnel's resolver and nothing else, no search list either.
    fn is_written(path: &Path) -> bool {
        let text = read(path).unwrap();
        former(&text).is_some() && content(&text, &tunnel()) == text
    }

    fn tunnel() -> [Ipv4Addr; 1] {
        ["10.64.0.1".parse().unwrap()]
    }

    #[test]
    fn only_the_resolvers_of_the_tunnel_are_left() {
        let (_folder, path) = file(DOCKER);
        rewrite(&path, &tunnel()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let active: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(active, ["nameserver 10.64.0.1"]);
        assert!(is_written(&path));
    }

    #[test]
    fn resolvers_are_named_as_they_are_written() {
        assert_eq!(named(DOCKER), ["127.0.0.11", "fe80::1%eth0", "192.168.1.1"]);
        assert_eq!(named("#nameserver 9.9.9.9\nnameserver\n"), [""]);
    }

    #[test]
    fn the_inode_stays() {
        let (_folder, path) = file(DOCKER);
        let before = fs::metadata(&path).unwrap().ino();
        rewrite(&path, &tunnel()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), before);
    }

    #[test]
    fn a_later_run_still_knows_the_former_resolvers() {
        let (_folder, path) = file(DOCKER);
        let former = ["127.0.0.11", "192.168.1.1"].map(|ip| ip.parse::<Ipv4Addr>().unwrap());
        assert_eq!(former_nameservers(DOCKER), former);
        rewrite(&path, &tunnel()).unwrap();
        rewrite(&path, &["10.64.0.9".parse().unwrap()]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(former_nameservers(&text), former);
        restore(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), DOCKER);
    }

    #[test]
    fn a_file_of_someone_else_is_not_restored() {
        let (_folder, path) = file("nameserver 9.9.9.9\n");
        restore(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "nameserver 9.9.9.9\n");
        assert!(!is_written(&path));
    }

    #[test]
    fn only_the_same_resolvers_and_no_other_are_as_good_as_ours() {
        let named = |text: &str| nameservers_of(text).eq(tunnel().map(Some));
        assert!(named(
            "# by Docker\nnameserver 10.64.0.1\noptions ndots:0\n"
        ));
        for other in [
            "",
            DOCKER,
            "nameserver 10.64.0.1\nnameserver 9.9.9.9\n",
            "nameserver 10.64.0.1\nnameserver fe80::1\n",
        ] {
            assert!(!named(other), "{other}");
        }
    }

    #[test]
    fn a_missing_file_is_created() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        rewrite(&path, &tunnel()).unwrap();
        assert!(is_written(&path));
    }

    #[test]
    fn a_file_of_any_size_is_replaced_by_a_small_one() {
        let (_folder, path) = file(&"x\n".repeat(1 << 20));
        assert!(!is_written(&path));
        rewrite(&path, &tunnel()).unwrap();
        assert!(is_written(&path));
        assert!(fs::metadata(&path).unwrap().len() < MOST);
    }
}
