//! The listening sockets of the gateway: of the control API, of wg(8), of the metrics. The warden holds them over
//! engines and reloads, so no program can take the place of one while an engine is replaced.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::link::{Listener, Unheard};
use crate::sys::socket;

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At a path.
    Path(PathBuf),
    /// At an address of this namespace.
    Address(SocketAddr),
}

/// The sockets that are held, and those that are wanted.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    kind: Listener,
    place: Place,
    held: Result<Held, String>,
}

#[derive(Debug)]
enum Held {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Listeners {
    /// Holds a socket at each of these places and at no other: what is held at its place stays, and an address that could
    /// not be had is tried again. A path is tried once, at the start: from then on the warden opens no file. Returns what
    /// was opened by this call.
    pub(super) fn follow(&mut self, wanted: &[(Listener, Place)]) -> Vec<Listener> {
        let mut before = std::mem::take(&mut self.entries);
        let mut opened = Vec::new();
        for (kind, place) in wanted {
            let known = before
                .iter()
                .position(|it| it.kind == *kind && it.place == *place);
            let known = known.map(|at| before.swap_remove(at).held);
            let held = match known {
                Some(Ok(held)) => Ok(held),
                Some(Err(why)) if matches!(place, Place::Path(_)) => Err(why),
                known => {
                    let tried = open(place);
                    say(*kind, place, &tried, known.and_then(Result::err));
                    opened.extend(tried.is_ok().then_some(*kind));
                    tried
                }
            };
            self.entries.push(Entry {
                kind: *kind,
                place: place.clone(),
                held,
            });
        }
        opened
    }

    /// What is held, for a welcome: each kind, and its socket.
    pub(super) fn held(&self) -> impl Iterator<Item = (Listener, BorrowedFd<'_>)> {
        self.entries
            .iter()
            .filter_map(|it| Some((it.kind, it.held.as_ref().ok()?.as_fd())))
    }

    /// The socket of one kind, if it is held.
    pub(super) fn socket(&self, kind: Listener) -> Option<BorrowedFd<'_>> {
        let mut held = self.held();
        held.find_map(|(it, socket)| (it == kind).then_some(socket))
    }

    /// What could not be had, for [`Facts`](crate::link::Facts).
    pub(super) fn unheard(&self) -> Vec<Unheard> {
        let unheard = |it: &Entry| {
            Some(Unheard {
                listener: it.kind,
                why: it.held.as_ref().err()?.clone(),
            })
        };
        self.entries.iter().filter_map(unheard).collect()
    }

    /// Why one kind could not be had.
    pub(super) fn trouble(&self, kind: Listener) -> Option<&str> {
        let entry = self.entries.iter().find(|it| it.kind == kind)?;
        entry.held.as_ref().err().map(String::as_str)
    }

    /// The files that nobody will answer on when all this is closed.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let path = |it: &Entry| match (&it.place, &it.held) {
            (Place::Path(path), Ok(_)) => Some(path.clone()),
            (Place::Path(_) | Place::Address(_), _) => None,
        };
        self.entries.iter().filter_map(path).collect()
    }
}

fn open(place: &Place) -> Result<Held, String> {
    match place {
        Place::Path(path) => open_path(path),
        Place::Address(address) => open_address(*address).map_err(|error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                format!("another program listens at {address}; stop it, or name a free port")
            } else if error.kind() == io::ErrorKind::AddrNotAvailable {
                format!("{address} is no address of this namespace; name one that is")
            } else {
                format!("nothing can listen at {address}: {error}")
            }
        }),
    }
}

fn open_path(path: &Path) -> Result<Held, String> {
    let opened = socket::listener(path).map(Held::Unix);
    opened.map_err(|error| {
        // The error names the path, its source what the kernel said.
        let source = std::error::Error::source(&error);
        source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
    })
}

fn open_address(address: SocketAddr) -> io::Result<Held> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(Held::Tcp(listener))
}

/// Says what changed: a failure once, and what is had after one.
fn say(kind: Listener, place: &Place, tried: &Result<Held, String>, before: Option<String>) {
    match tried {
        Err(why) if before.as_ref() != Some(why) => {
            warn!(?kind, why, "not listening");
        }
        Ok(_) if before.is_some() => info!(?kind, ?place, "listening"),
        Ok(_) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn address() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn what_is_held_stays_and_what_changed_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("vpngw.sock");
        let (free, metrics) = address();
        drop(free);
        let mut wanted = vec![
            (Listener::Control, Place::Path(control.clone())),
            (Listener::Metrics, Place::Address(metrics)),
        ];
        let mut listeners = Listeners::default();
        let both = vec![Listener::Control, Listener::Metrics];
        assert_eq!(listeners.follow(&wanted), both);
        // A connection that waits shows that the socket is the same.
        let waiting = TcpStream::connect(metrics).unwrap();
        assert_eq!(listeners.follow(&wanted), []);
        let kinds: Vec<_> = listeners.held().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, both);
        let held = listeners.socket(Listener::Metrics).unwrap();
        let held = TcpListener::from(held.try_clone_to_owned().unwrap());
        let from = held.accept().unwrap().1;
        assert_eq!(from, waiting.local_addr().unwrap());
        drop(held);

        let (free, moved) = address();
        drop(free);
        wanted[1].1 = Place::Address(moved);
        assert_eq!(listeners.follow(&wanted), [Listener::Metrics]);
        assert!(TcpStream::connect(metrics).is_err());
        TcpStream::connect(moved).unwrap();
        UnixStream::connect(&control).unwrap();

        wanted.pop();
        assert_eq!(listeners.follow(&wanted), []);
        assert!(TcpStream::connect(moved).is_err());
        assert_eq!(listeners.paths(), [control]);
    }

    #[test]
    fn what_cannot_be_had_is_named_and_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wg0.sock");
        fs::write(&path, "no socket").unwrap();
        let (taken, metrics) = address();
        let wanted = [
            (Listener::Uapi, Place::Path(path.clone())),
            (Listener::Metrics, Place::Address(metrics)),
        ];
        let mut listeners = Listeners::default();
        assert_eq!(listeners.follow(&wanted), []);
        let unheard = listeners.unheard();
        assert!(unheard[0].why.contains("is not a socket"), "{unheard:?}");
        assert!(unheard[1].why.contains("another program"), "{unheard:?}");
        assert_eq!(unheard.len(), 2);
        drop(taken);
        assert_eq!(listeners.follow(&wanted), [Listener::Metrics]);
        assert_eq!(listeners.unheard()[0].listener, Listener::Uapi);
        assert_eq!(listeners.trouble(Listener::Metrics), None);
        // A path is tried at the start alone.
        fs::remove_file(&path).unwrap();
        assert_eq!(listeners.follow(&wanted), []);
        assert_eq!(Listeners::default().follow(&wanted[..1]), [Listener::Uapi]);
    }
}
