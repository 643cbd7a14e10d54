//! Where a configuration is looked for when the command line names none.

use std::path::{Path, PathBuf};

/// Places of vpngw.toml, in order.
const CONFIG: [&str; 2] = ["/config/vpngw.toml", "/etc/vpngw/vpngw.toml"];

/// Places of a lone wg-quick file, in order, each with the images and tools that put it there.
/// linuxserver/wireguard: the first two. gluetun: the next two. wg-quick(8): the last.
const WIREGUARD: [&str; 4] = [
    "/config/wg0.conf",
    "/gluetun/wireguard/wg0.conf",
    "/run/secrets/wg0.conf",
    "/etc/wireguard/wg0.conf",
];

/// linuxserver/wireguard keeps several files in the first; gluetun's users put their provider's into the second. One is
/// taken only when it is the only one, or by its name.
const FOLDERS: [&str; 2] = ["/config/wg_confs", "/gluetun/wireguard"];

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The configuration: the one that was named, or the first vpngw.toml.
    pub file: Option<PathBuf>,
    /// The wg-quick file for a configuration that names none. More than one is an error there.
    pub wireguard: Vec<PathBuf>,
}

/// Looks for the configuration, and for the wg-quick file beside it. `exists` says whether a path is
/// a file, `list` names the files of a folder.
pub fn search(
    named: Option<&Path>,
    exists: &dyn Fn(&Path) -> bool,
    list: &dyn Fn(&Path) -> Vec<PathBuf>,
) -> Found {
    let first = || CONFIG.iter().map(PathBuf::from).find(|path| exists(path));
    let file = named.map(Path::to_owned).or_else(first);
    let beside = file
        .as_deref()
        .and_then(Path::parent)
        .map(|folder| folder.join("wg0.conf"));
    let wireguard = beside
        .filter(|path| exists(path) && Some(path) != file.as_ref())
        .map_or_else(|| usual(exists, list), |path| vec![path]);
    Found { file, wireguard }
}

fn usual(exists: &dyn Fn(&Path) -> bool, list: &dyn Fn(&Path) -> Vec<PathBuf>) -> Vec<PathBuf> {
    let [first, rest @ ..] = WIREGUARD.map(PathBuf::from);
    if exists(&first) {
        return vec![first];
    }
    let [linuxserver, gluetun] = FOLDERS.map(|folder| files(folder, list));
    if !linuxserver.is_empty() {
        return linuxserver;
    }
    let lone = rest.into_iter().find(|path| exists(path));
    // One that every tool takes for the tunnel comes before others that lie beside it.
    lone.map_or(gluetun, |path| vec![path])
}

fn files(folder: &str, list: &dyn Fn(&Path) -> Vec<PathBuf>) -> Vec<PathBuf> {
    let mut files = list(Path::new(folder));
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "conf")
    });
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(named: Option<&str>, files: &[&str]) -> (Option<String>, Vec<String>) {
        let there = |path: &Path| files.iter().any(|file| Path::new(file) == path);
        let list = |folder: &Path| {
            let inside = files.iter().map(PathBuf::from);
            inside
                .filter(|path| path.parent() == Some(folder))
                .collect()
        };
        let found = search(named.map(Path::new), &there, &list);
        let text = |path: PathBuf| path.display().to_string();
        (
            found.file.map(text),
            found.wireguard.into_iter().map(text).collect(),
        )
    }

    #[test]
    fn the_first_place_wins() {
        let both = [
            "/etc/vpngw/vpngw.toml",
            "/config/vpngw.toml",
            "/etc/wireguard/wg0.conf",
        ];
        let (file, wireguard) = found(None, &both);
        assert_eq!(file.unwrap(), "/config/vpngw.toml");
        assert_eq!(wireguard, ["/etc/wireguard/wg0.conf"]);
        assert_eq!(found(None, &[]), (None, vec![]));
    }

    #[test]
    fn a_file_beside_the_named_one_comes_before_the_usual_places() {
        let files = ["/srv/a/vpngw.toml", "/srv/a/wg0.conf", "/config/wg0.conf"];
        assert_eq!(
            found(Some("/srv/a/vpngw.toml"), &files).1,
            ["/srv/a/wg0.conf"]
        );
        assert_eq!(
            found(Some("/srv/b/vpngw.toml"), &files).1,
            ["/config/wg0.conf"]
        );
    }

    #[test]
    fn of_several_files_in_a_folder_none_is_taken_for_the_lone_one() {
        let files = [
            "/config/wg_confs/b.conf",
            "/config/wg_confs/a.conf",
            "/config/wg_confs/c.txt",
        ];
        assert_eq!(found(None, &files).1.len(), 2);
        assert_eq!(found(None, &files[1..]).1, ["/config/wg_confs/a.conf"]);
        let gluetun = ["/gluetun/wireguard/b.conf", "/gluetun/wireguard/a.conf"];
        assert_eq!(found(None, &gluetun).1.len(), 2);
        let lone = ["/gluetun/wireguard/a.conf", "/gluetun/wireguard/wg0.conf"];
        assert_eq!(found(None, &lone).1, ["/gluetun/wireguard/wg0.conf"]);
    }
}
