//! Whole configurations, from their sources to what they mean.

use std::io;
use std::path::Path;

use super::*;

mod documents;
mod environments;
mod errors;
mod foreign;
mod gluetun;
mod provider;
mod published;
mod reference;
mod resolver;
mod secrets;
mod sources;
mod wg_quick;

/// A private key, a public key and a preshared key; made for these tests.
const PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const PUBLIC: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const PRESHARED: &str = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";

/// The smallest tunnel, nine lines.
const WG: &str = "[Interface]\n\
    PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n\
    Address = 10.64.0.2/32\n\
    DNS = 10.64.0.1\n\
    \n\
    [Peer]\n\
    PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n\
    AllowedIPs = 0.0.0.0/0\n\
    Endpoint = 203.0.113.7:51820\n";

/// Loads from files that are only here, the first of which is the one that is named.
fn load_from(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Loaded, Errors> {
    load_around(
        files,
        variables,
        crate::config::provider::Surroundings::default(),
    )
}

/// The same, beside a list of servers.
fn load_around(
    files: &[(&str, &str)],
    variables: &[(&str, &str)],
    surroundings: crate::config::provider::Surroundings,
) -> Result<Loaded, Errors> {
    let named = files.first().map(|(path, _)| Path::new(*path));
    let exists = |path: &Path| files.iter().any(|(file, _)| Path::new(file) == path);
    let list = |folder: &Path| {
        let paths = files.iter().map(|(file, _)| PathBuf::from(file));
        paths.filter(|path| path.parent() == Some(folder)).collect()
    };
    let found = search::search(named, &exists, &list);
    let text = |text: &&str| (*text).to_owned();
    let environment = variables
        .iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    let read = |path: &Path| {
        let file = files.iter().find(|(file, _)| Path::new(file) == path);
        file.map(|(_, content)| text(content))
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    };
    load(&Sources::new(found, environment, surroundings), &read)
}

/// A vpngw.toml beside [`WG`].
fn load_toml(text: &str) -> Result<Loaded, Errors> {
    load_from(&[("/c/vpngw.toml", text), ("/c/wg0.conf", WG)], &[])
}

fn errors(loaded: Result<Loaded, Errors>) -> String {
    loaded.unwrap_err().to_string()
}
