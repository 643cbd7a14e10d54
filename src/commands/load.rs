//! Reads the configuration from where it really is: files, and the process environment.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::surroundings::surroundings;
use crate::config::search::{Found, search};
use crate::config::{self, Errors, Loaded, Servers, Sources};

/// Reads the named configuration, or the first at the usual places, with the variables of the
/// process environment that mean something here.
///
/// # Errors
///
/// Everything that is wrong with it, at once.
pub fn load(config: Option<&Path>) -> Result<Loaded, Errors> {
    let found = search(config, &|path| path.is_file(), &files);
    config::load(&sources(found), &|path| fs::read_to_string(path))
}

/// The same for the engine of the sealed topology, which has no exceptions for UDP.
///
/// # Errors
///
/// Everything that is wrong with it, at once.
pub fn load_sealed(config: Option<&Path>) -> Result<Loaded, Errors> {
    let found = search(config, &|path| path.is_file(), &files);
    config::load_sealed(&sources(found), &|path| fs::read_to_string(path))
}

/// The same for the warden of the sealed topology: everything but the tunnel.
///
/// # Errors
///
/// Everything that is wrong with it, at once.
pub fn load_without_tunnel(config: Option<&Path>) -> Result<Loaded, Errors> {
    let found = search(config, &|path| path.is_file(), &files);
    config::load_without_tunnel(&sources(found), &|path| fs::read_to_string(path))
}

/// The servers that the configuration's choice leaves.
///
/// # Errors
///
/// What is wrong with the choice or with the list.
pub fn servers(config: Option<&Path>) -> Result<Servers, Errors> {
    let found = search(config, &|path| path.is_file(), &files);
    config::servers(&sources(found), &|path| fs::read_to_string(path))
}

fn sources(found: Found) -> Sources {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let variables = std::env::vars_os().map(|(name, value)| (text(name), value));
    let ours = variables.filter(|(name, _)| config::is_read(name));
    let environment: BTreeMap<_, _> = ours.map(|(name, value)| (name, text(value))).collect();
    Sources::new(found, environment, surroundings())
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
