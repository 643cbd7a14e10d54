//! Reads the configuration from where it really is: files, and the process environment.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::surroundings::surroundings;
use crate::config::search::{Found, search};
use crate::config::{self, Denied, Errors, Loaded, Servers, Sources};

/// Reads the named configuration, or the first at the usual places, with the variables of the
/// process environment that mean something here.
///
/// # Errors
///
/// Everything that is wrong with it, at once.
pub fn load(config: Option<&Path>) -> Result<Loaded, Errors> {
    let found = search(config, &exists, &files);
    config::load(&sources(found), &read_text)
}

/// The same for the engine of the sealed topology, which has no exceptions for UDP.
///
/// # Errors
///
/// Everything that is wrong with it, at once.
pub fn load_sealed(config: Option<&Path>) -> Result<Loaded, Errors> {
    let found = search(config, &exists, &files);
    config::load_sealed(&sources(found), &read_text)
}

/// The same for the warden of the sealed topology: everything but the tunnel.
///
/// # Errors
///
/// Everything that is wrong with it, at once.
pub fn load_without_tunnel(config: Option<&Path>) -> Result<Loaded, Errors> {
    let found = search(config, &exists, &files);
    config::load_without_tunnel(&sources(found), &read_text)
}

/// The servers that the configuration's choice leaves.
///
/// # Errors
///
/// What is wrong with the choice or with the list.
pub fn servers(config: Option<&Path>) -> Result<Servers, Errors> {
    let found = search(config, &exists, &files);
    config::servers(&sources(found), &read_text)
}

fn sources(found: Found) -> Sources {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let variables = std::env::vars_os().map(|(name, value)| (text(name), value));
    let ours = variables.filter(|(name, _)| config::is_read(name));
    let environment: BTreeMap<_, _> = ours.map(|(name, value)| (name, text(value))).collect();
    Sources::new(found, environment, surroundings())
}

/// Whether there is something at a place of a configuration. A folder is something too: it is no file, and why not is told.
fn exists(path: &Path) -> bool {
    path.exists()
}

/// Reads a file as wg(8) does, which looks into no comment: bytes that are not UTF-8 stand for themselves.
fn read_text(path: &Path) -> io::Result<String> {
    let bytes = fs::read(path).map_err(|error| explained(path, error))?;
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        let wrong = "it is text in UTF-16: save it as UTF-8";
        return Err(io::Error::new(io::ErrorKind::InvalidData, wrong));
    }
    String::from_utf8(bytes).or_else(|error| {
        let bytes = Zeroizing::new(error.into_bytes());
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    })
}

/// Whose the file is, where it may not be read.
fn explained(path: &Path, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    let Ok(file) = fs::metadata(path) else {
        return error;
    };
    let denied = Denied {
        user: rustix::process::geteuid().as_raw(),
        owner: file.uid(),
        mode: file.mode() & 0o7777,
    };
    io::Error::new(error.kind(), denied)
}

/// The files of a folder; none where there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_has_no_files() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(files(&folder.path().join("none")), Vec::<PathBuf>::new());
        fs::write(folder.path().join("a.conf"), "").unwrap();
        fs::create_dir(folder.path().join("b.conf")).unwrap();
        assert_eq!(files(folder.path()), [folder.path().join("a.conf")]);
    }

    #[test]
    fn a_folder_in_the_place_of_a_file_is_told_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wg0.conf");
        fs::create_dir(&path).unwrap();
        let errors = load(Some(&path)).unwrap_err().to_string();
        assert!(
            errors.contains(
                "is a folder: Docker makes one where the file of a bind mount is missing"
            ),
            "{errors}"
        );
        // Beside a vpngw.toml too.
        let toml = folder.path().join("vpngw.toml");
        fs::write(&toml, "").unwrap();
        let errors = load(Some(&toml)).unwrap_err().to_string();
        assert!(errors.contains("is a folder"), "{errors}");
    }

    #[test]
    fn what_is_not_utf_8_is_read_as_far_as_it_matters() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wg0.conf");
        fs::write(&path, b"# fran\xe7ais\n[Interface]\n").unwrap();
        assert!(read_text(&path).unwrap().ends_with("[Interface]\n"));
        fs::write(&path, b"\xff\xfe[\0I\0").unwrap();
        let errors = load(Some(&path)).unwrap_err().to_string();
        assert!(
            errors.contains("it is text in UTF-16: save it as UTF-8"),
            "{errors}"
        );
    }

    #[test]
    fn a_named_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vpngw.toml");
        fs::write(&path, "[log]\nlevel = \"loud\"\n").unwrap();
        let errors = load(Some(&path)).unwrap_err().to_string();
        assert!(
            errors.contains("vpngw.toml:2:9: log.level: `loud`"),
            "{errors}"
        );
    }
}
