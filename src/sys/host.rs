//! Tells the machine's own network namespace from one made for a gateway.

use std::path::Path;

use rustix::fs::stat;

/// Files that container engines put into a container.
const CONTAINER: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// Whether this looks like the namespace that the machine itself lives in: the one of process 1, while
/// we are not process 1 and in no container. What cannot be told is answered by `false`: a process
/// that may not look at process 1 has no privilege over the machine's namespace.
pub fn is_own_namespace() -> bool {
    let namespace = |path| stat(path).ok().map(|stat| (stat.st_dev, stat.st_ino));
    let ours = namespace("/proc/self/ns/net");
    ours.is_some()
        && ours == namespace("/proc/1/ns/net")
        && std::process::id() != 1
        && !CONTAINER.iter().any(|path| Path::new(path).exists())
}
