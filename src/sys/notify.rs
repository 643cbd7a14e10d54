//! Tells the service manager how we are, if one asked to be told (sd_notify(3)).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// Where to say it; nowhere unless the service manager named a socket.
#[derive(Debug)]
pub struct Notify(Option<UnixDatagram>);

impl Notify {
    /// The socket of `$NOTIFY_SOCKET`: a path, or behind an `@` an abstract name.
    pub fn from_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET");
        // Without it nobody waits for us.
        Self(socket.and_then(|name| connect(&name).ok()))
    }

    /// We do what we are for.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// We still do it: the service manager starts us anew when it does not hear that for as long as `WatchdogSec=` says.
    pub fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    fn say(&self, what: &str) {
        if let Some(socket) = &self.0 {
            // A service manager that does not listen gives up on us by itself.
            let _ = socket.send(what.as_bytes());
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // Whoever says that it is alive must not wait for who hears it.
    socket.set_nonblocking(true)?;
    match name.as_bytes() {
        [b'@', abstract_name @ ..] => {
            socket.connect_addr(&SocketAddr::from_abstract_name(abstract_name)?)?;
        }
        _ => socket.connect(Path::new(name))?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_is_told_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("vpngw-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let managers = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (
                UnixDatagram::bind_addr(&address).unwrap(),
                format!("@{name}").into(),
            ),
        ];
        for (manager, name) in managers {
            Notify(connect(&name).ok()).ready();
            let mut buffer = [0; 64];
            let length = manager.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1");
        }
        Notify(None).ready();
    }
}
