//! Confines an engine: to the system calls and the files that it needs.

use std::path::{Path, PathBuf};

use crate::config::{Loaded, Origin};
use crate::sys::fault;
use crate::sys::landlock::{self, Connects, Extent, Restricted};
use crate::sys::seccomp::{self, SeccompError};

/// What metrics say of the process is read here; the rest of /proc is nobody's affair.
const PROC: [&str; 2] = ["/proc/self", "/proc/stat"];

/// Where a configuration is looked for, and what it may name, besides the folder that it is in.
const USUAL: [&str; 5] = [
    "/config",
    "/etc/vpngw",
    "/etc/wireguard",
    "/gluetun",
    "/run/secrets",
];

/// What came of it. Files that stay readable are held with it.
pub(super) struct Confined {
    files: Result<Restricted, Box<dyn std::error::Error>>,
    calls: Result<(), SeccompError>,
}

/// Confines this thread and those that it starts. `readable` are files and folders that are read later. An
/// engine whose kernel cannot do that runs without: it has no capability all the same.
pub(super) fn confine(readable: &[PathBuf], connects: Connects) -> Confined {
    let mut paths: Vec<_> = PROC.map(PathBuf::from).to_vec();
    paths.extend_from_slice(readable);
    paths.extend(fault::files().into_iter().map(|(_, path)| path));
    let files = landlock::restrict(&paths, connects).map_err(Into::into);
    // No more than this is possible afterwards.
    let calls = seccomp::limit();
    Confined { files, calls }
}

impl Confined {
    /// Holds on to the files as long as the process lives.
    pub(super) fn stay(self) {
        std::mem::forget(self);
    }

    /// Says what is in force, once there is a log.
    pub(super) fn report(&self) {
        match &self.calls {
            Ok(()) => tracing::debug!("system calls are limited"),
            Err(error) => tracing::warn!(%error, "the engine's system calls are not limited"),
        }
        match &self.files {
            Ok(restricted) => match restricted.extent {
                Extent::Whole => tracing::debug!("files are restricted"),
                Extent::Part => tracing::info!("this kernel restricts the engine's files in part"),
                Extent::Nothing => {
                    tracing::info!(
                        "this kernel has no Landlock: the engine's files are not restricted"
                    );
                }
            },
            Err(error) => tracing::warn!(%error, "the engine's files are not restricted"),
        }
    }
}

/// Of gluetun's variables those of the tunnel are followed.
fn is_secret_file(name: &str) -> bool {
    name.starts_with("WIREGUARD_") && name.ends_with("_SECRETFILE")
}

/// Where a configuration came from, to read it again.
pub(super) fn sources(config: Option<&Path>, loaded: &Loaded) -> Vec<PathBuf> {
    let mut paths: Vec<_> = USUAL.map(PathBuf::from).to_vec();
    let named = config.map(Path::to_owned);
    let paths_in = |it: &&Origin| it.key == "wireguard" || it.key == "provider.list";
    let wireguard = loaded.origins.iter().filter(paths_in);
    let wireguard = wireguard.map(|it| PathBuf::from(&it.value));
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_string_lossy();
        let is_file =
            crate::config::is_read(&name) && (name.ends_with("_FILE") || is_secret_file(&name));
        is_file.then(|| PathBuf::from(value))
    });
    let files = named.into_iter().chain(wireguard).chain(variables);
    // An editor replaces the file: it is its folder that is read.
    paths.extend(files.filter_map(|file| {
        let file = std::path::absolute(file).ok()?;
        file.parent().map(Path::to_owned)
    }));
    paths
}
