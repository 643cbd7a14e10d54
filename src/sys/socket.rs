//! The sockets that the warden makes for the engine.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::net::{Fwmark, IfName};

/// Bytes of each buffer of the UDP socket: 4 MiB holds 20 ms at 1.6 Gbit/s.
const BUFFER: usize = 4 << 20;

/// Connections to a TCP listener that may wait to be accepted.
const TCP_BACKLOG: i32 = 128;

/// Who may connect to a listener: its owner and group.
const LISTENER_MODE: u32 = 0o660;

/// A socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A step of making the UDP socket.
    #[error("udp socket: {step}")]
    Udp {
        /// Which step, with what would help.
        step: String,
        /// Why.
        source: io::Error,
    },
    /// Someone answers on the path.
    #[error(
        "{} is in use: another gateway runs here; stop it, or choose another path with `--socket`",
        .0.display()
    )]
    InUse(PathBuf),
    /// A socket of another user is in the way, and nobody tells whether someone answers on it.
    #[error(
        "{} is a socket of user {owner} that this user may not try: if no gateway runs with it, remove the file \
         as root, or choose another path with `--socket`",
        path.display()
    )]
    Foreign {
        /// Where.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Nobody answers on the socket that is in the way, and this user may not remove it.
    #[error(
        "{} was left behind by user {owner}, and this user may not remove it: remove the file as root, or choose \
         another path with `--socket`",
        path.display()
    )]
    Stale {
        /// Where.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Why.
        source: io::Error,
    },
    /// A file that is no socket is in the way.
    #[error("{} exists and is not a socket; remove it, or choose another path", .0.display())]
    NotSocket(PathBuf),
    /// A step of making the listener.
    #[error("socket {}", path.display())]
    Unix {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A UDP socket with our mark on each packet, if there is one, and the port it has. Non-blocking. `port` 0 is
/// a random one. No other socket can share the port.
///
/// It is not bound to the uplink's device: a packet of a bound socket that has no route is taken for a
/// neighbour's (`ip_route_output_key_hash_rcu`, net/ipv4/route.c), so the endpoint's address would be
/// asked for by ARP when the link comes up before its routes. The mark leads to a table whose last
/// route is `unreachable`, and the rules name the device.
///
/// # Errors
/// Names the step that was refused: the mark takes NET_ADMIN, the port may be taken.
pub fn udp(mark: Option<Fwmark>, port: u16) -> Result<(UdpSocket, u16), SocketError> {
    let at = |step: String| move |source| SocketError::Udp { step, source };
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))
        .map_err(at("create".to_owned()))?;
    if let Some(mark) = mark {
        let step = format!("mark {mark} (SO_MARK, takes the capability NET_ADMIN)");
        socket.set_mark(mark.0).map_err(at(step))?;
    }
    // DF on each packet, and what does not fit the path is refused (EMSGSIZE): the rules let no fragment out, and
    // a router that cannot pass a packet on says so (RFC 1191) instead of cutting it.
    sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DO)
        .map_err(|error| at("no fragments (IP_MTU_DISCOVER)".to_owned())(error.into()))?;
    grow(&socket);
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
    let step = format!("bind to port {port}; is another program using it?");
    socket.bind(&any.into()).map_err(at(step))?;
    socket
        .set_nonblocking(true)
        .map_err(at("non-blocking".to_owned()))?;
    let socket = UdpSocket::from(socket);
    match socket.local_addr() {
        Ok(SocketAddr::V4(address)) => Ok((socket, address.port())),
        Ok(SocketAddr::V6(_)) => Err(SocketError::Udp {
            step: "an IPv4 socket has an IPv6 address".to_owned(),
            source: io::ErrorKind::InvalidData.into(),
        }),
        Err(source) => Err(at("port".to_owned())(source)),
    }
}

/// Where a probe goes: an address set aside for documentation (RFC 5737), and the port where nothing is
/// answered (RFC 863).
pub const NOWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9);

/// What a probe carries.
pub const PROBE: &[u8] = b"vpngw probe";

/// Tries to send a datagram to [`NOWHERE`] by a device, past the routes.
///
/// # Errors
/// EPERM is the proof that rules held it. Others say nothing of the rules.
pub fn try_out(device: &IfName) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(&device.bytes()))?;
    socket.send_to(PROBE, &NOWHERE.into()).map(|_| ())
}

/// Large buffers: past the limits of `net.core.rmem_max` where we may, up to them where not. Small
/// ones cost speed, not correctness.
fn grow(socket: &Socket) {
    if sockopt::set_socket_recv_buffer_size_force(socket, BUFFER).is_err() {
        let _slower = socket.set_recv_buffer_size(BUFFER);
    }
    if sockopt::set_socket_send_buffer_size_force(socket, BUFFER).is_err() {
        let _slower = socket.set_send_buffer_size(BUFFER);
    }
}

/// A non-blocking TCP listener. Connections that wait when it closes are reset.
///
/// # Errors
/// Where the address is not ours or the port is taken.
pub fn tcp_listener(at: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(TCP_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A TCP connection from this address that is under way: it does not block, and is writable once it stands
/// or has failed.
///
/// # Errors
/// Where the address is not ours, or the failure is known at once.
pub fn tcp_from(source: Ipv4Addr, to: SocketAddrV4) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddrV4::new(source, 0).into())?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        Ok(()) | Err(_) => Ok(socket.into()),
    }
}

/// A non-blocking UNIX listener at `path`, mode 0660. Makes the folder; replaces a socket that nobody
/// answers on.
///
/// # Errors
/// Where someone answers there, another kind of file is in the way, or the folder cannot be written.
pub fn listener(path: &Path) -> Result<UnixListener, SocketError> {
    let at = |source| SocketError::Unix {
        path: path.to_owned(),
        source,
    };
    claim(path)?;
    let listener = UnixListener::bind(path).map_err(at)?;
    let mode = fs::Permissions::from_mode(LISTENER_MODE);
    fs::set_permissions(path, mode).map_err(at)?;
    listener.set_nonblocking(true).map_err(at)?;
    Ok(listener)
}

/// Makes the folder of `path`, and room for a socket: one that nobody answers on goes.
///
/// # Errors
/// As [`listener`].
pub fn claim(path: &Path) -> Result<(), SocketError> {
    let at = |source| SocketError::Unix {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder.create(folder).map_err(at)?;
    }
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at(error)),
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::NotSocket(path.to_owned()));
    }
    let (path, owner) = (path.to_owned(), found.uid());
    match ask(&path) {
        Answer::Somebody => Err(SocketError::InUse(path)),
        Answer::Untold => Err(SocketError::Foreign { path, owner }),
        Answer::Nobody => match fs::remove_file(&path) {
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                Err(SocketError::Stale {
                    path,
                    owner,
                    source,
                })
            }
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(SocketError::Unix { path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        },
    }
}

/// Who answers at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Someone, or what cannot be told: a full queue of connections is someone.
    Somebody,
    /// No one, for certain.
    Nobody,
    /// We may not ask.
    Untold,
}

/// Whether someone accepts connections at `path`, or that cannot be told. Never waits: where someone listens and does
/// not accept, connect(2) would wait for room in the queue (`unix_wait_for_peer`, net/unix/af_unix.c).
pub fn answers(path: &Path) -> bool {
    match ask(path) {
        Answer::Somebody | Answer::Untold => true,
        Answer::Nobody => false,
    }
}

fn ask(path: &Path) -> Answer {
    let asked = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    });
    let Err(error) = asked else {
        return Answer::Somebody;
    };
    let kind = error.kind();
    if [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound].contains(&kind) {
        Answer::Nobody
    } else if kind == io::ErrorKind::PermissionDenied {
        Answer::Untold
    } else {
        Answer::Somebody
    }
}

/// What an action gives, done again as long as a signal interrupts it. A wait with a timeout is interrupted
/// also where a program has no handler, when it is stopped and goes on (signal(7)).
///
/// # Errors
///
/// Those of the action, but for `Interrupted`.
pub fn uninterrupted<T>(mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match act() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/vpngw.sock");
        let first = listener(&path).unwrap();
        assert!(matches!(listener(&path), Err(SocketError::InUse(_))));
        drop(first);
        assert!(!answers(&path));
        let _second = listener(&path).unwrap();
        assert!(answers(&path));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, LISTENER_MODE);
    }

    #[test]
    fn a_socket_with_a_full_queue_is_in_use_and_nobody_waits_for_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vpngw.sock");
        let address = SockAddr::unix(&path).unwrap();
        let deaf = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        deaf.bind(&address).unwrap();
        deaf.listen(0).unwrap();
        let mut waiting = Vec::new();
        let full = loop {
            let one = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            one.set_nonblocking(true).unwrap();
            match one.connect(&address) {
                Ok(()) => waiting.push(one),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let (told, tell) = std::sync::mpsc::channel();
        let asked = path.clone();
        std::thread::spawn(move || {
            told.send(matches!(listener(&asked), Err(SocketError::InUse(_))))
        });
        let patience = std::time::Duration::from_secs(10);
        assert_eq!(tell.recv_timeout(patience), Ok(true));
        // What follows shows that the queue was what it would have waited for.
        drop((waiting, deaf));
        listener(&path).unwrap();
    }

    #[test]
    fn only_an_interruption_is_tried_again() {
        let told = std::cell::RefCell::new(vec![
            Ok(7),
            Err(io::ErrorKind::WouldBlock),
            Err(io::ErrorKind::Interrupted),
            Err(io::ErrorKind::Interrupted),
        ]);
        let act = || told.borrow_mut().pop().unwrap().map_err(io::Error::from);
        let first = uninterrupted(act);
        assert_eq!(first.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(uninterrupted(act).unwrap(), 7);
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(listener(&path), Err(SocketError::NotSocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
