//! The demo's VPN server: WireGuard for one peer on a UDP socket, the simulated Internet behind it.
//! Dead, it has no socket and no session; the Internet behind it lives on.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::internet::Internet;

/// How often WireGuard's timers are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Datagrams read before the stack gets its turn.
const BATCH: usize = 64;
/// Bytes of the largest datagram.
const DATAGRAM: usize = 65536;

/// The two keys the server needs.
#[derive(Clone)]
pub(super) struct Keys {
    /// The server's own.
    pub(super) private: StaticSecret,
    /// The client's.
    pub(super) peer: PublicKey,
}

/// A handle to the running server. It stops when dropped.
pub(super) struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    alive: AtomicBool,
    stopped: AtomicBool,
}

impl Server {
    /// Starts the server on `listen`, in the calling thread's network namespace.
    ///
    /// # Errors
    /// EADDRINUSE, EADDRNOTAVAIL; those of starting a thread.
    pub(super) fn start(listen: SocketAddrV4, keys: Keys, seed: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            alive: AtomicBool::new(true),
            stopped: AtomicBool::new(false),
        });
        let mut host = Host {
            listen,
            keys,
            peer: None,
            internet: Internet::new(seed),
            born: Instant::now(),
            shared: Arc::clone(&shared),
        };
        let first = host.tunnel()?;
        thread::Builder::new()
            .name("vpn-server".to_owned())
            .spawn(move || host.run(first))?;
        Ok(Self { shared })
    }

    /// Kills the server: its socket closes and its keys are forgotten.
    pub(super) fn kill(&self) {
        self.shared.alive.store(false, Ordering::Release);
    }

    /// Starts it again. Like a kernel WireGuard device that was set down and up, it has no session
    /// and knows where its peer was last.
    pub(super) fn revive(&self) {
        self.shared.alive.store(true, Ordering::Release);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
    }
}

/// The machine the server runs on.
struct Host {
    listen: SocketAddrV4,
    keys: Keys,
    peer: Option<SocketAddr>,
    internet: Internet,
    born: Instant,
    shared: Arc<Shared>,
}

/// What dies with the server.
struct Tunnel {
    socket: UdpSocket,
    session: Tunn,
    ticked: Instant,
    buffer: Box<[u8]>,
    datagram: Box<[u8]>,
}

impl Host {
    fn run(&mut self, first: Tunnel) {
        let mut tunnel = Some(first);
        while !self.shared.stopped.load(Ordering::Acquire) {
            let alive = self.shared.alive.load(Ordering::Acquire);
            if !alive {
                tunnel = None;
            } else if tunnel.is_none() {
                // The old socket is closed, so the port is free; if not, the next turn tries again.
                tunnel = self.tunnel().ok();
            }
            let rest = self.turn(tunnel.as_mut()).unwrap_or(TICK).min(TICK);
            match &tunnel {
                Some(tunnel) => tunnel.wait(rest),
                None => thread::sleep(rest.max(Duration::from_millis(1))),
            }
        }
    }

    fn tunnel(&self) -> io::Result<Tunnel> {
        let socket = UdpSocket::bind(self.listen)?;
        socket.set_nonblocking(true)?;
        let session = Tunn::new(
            self.keys.private.clone(),
            self.keys.peer,
            None,
            None,
            1,
            None,
        );
        Ok(Tunnel {
            socket,
            session,
            ticked: Instant::now(),
            buffer: vec![0; DATAGRAM].into(),
            datagram: vec![0; DATAGRAM].into(),
        })
    }

    /// Moves packets both ways once; returns how long to rest.
    fn turn(&mut self, mut tunnel: Option<&mut Tunnel>) -> Option<Duration> {
        if let Some(tunnel) = tunnel.as_deref_mut() {
            for _ in 0..BATCH {
                if !self.receive(tunnel) {
                    break;
                }
            }
            tunnel.tick(self.peer);
        }
        let peer = self.peer;
        self.internet.poll(self.born.elapsed(), |packet| {
            if let Some(tunnel) = tunnel.as_deref_mut() {
                tunnel.seal(packet, peer);
            }
        })
    }

    /// Opens one datagram; false when none waits.
    fn receive(&mut self, tunnel: &mut Tunnel) -> bool {
        let Ok((length, from)) = tunnel.socket.recv_from(&mut tunnel.datagram) else {
            return false;
        };
        let datagram = &tunnel.datagram[..length];
        let mut result = tunnel
            .session
            .decapsulate(Some(from.ip()), datagram, &mut tunnel.buffer);
        loop {
            match result {
                TunnResult::WriteToNetwork(reply) => {
                    self.peer = Some(from);
                    let _ = tunnel.socket.send_to(reply, from);
                    result = tunnel.session.decapsulate(None, &[], &mut tunnel.buffer);
                }
                TunnResult::WriteToTunnelV4(packet, _) => {
                    self.peer = Some(from);
                    self.internet.push(packet);
                    return true;
                }
                // IPv6 has no Internet here; an error is a datagram that is not from the peer.
                TunnResult::WriteToTunnelV6(..) | TunnResult::Err(_) | TunnResult::Done => {
                    return true;
                }
            }
        }
    }
}

impl Tunnel {
    fn seal(&mut self, packet: &[u8], peer: Option<SocketAddr>) {
        // Padded to 16 bytes, as the protocol has it (WireGuard paper, section 5.4.6).
        let length = packet.len().next_multiple_of(16);
        let padded = &mut self.datagram[..length];
        padded[..packet.len()].copy_from_slice(packet);
        padded[packet.len()..].fill(0);
        if let (TunnResult::WriteToNetwork(datagram), Some(peer)) =
            (self.session.encapsulate(padded, &mut self.buffer), peer)
        {
            // A full socket buffer loses the datagram, as a network would.
            let _ = self.socket.send_to(datagram, peer);
        }
    }

    fn tick(&mut self, peer: Option<SocketAddr>) {
        if self.ticked.elapsed() < TICK {
            return;
        }
        self.ticked = Instant::now();
        if let (TunnResult::WriteToNetwork(datagram), Some(peer)) =
            (self.session.update_timers(&mut self.buffer), peer)
        {
            let _ = self.socket.send_to(datagram, peer);
        }
    }

    fn wait(&self, rest: Duration) {
        let mut fds = [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)];
        let rest = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(rest.subsec_nanos()),
        };
        // A signal only ends the wait early.
        let _ = poll(&mut fds, Some(&rest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An echo request from 10.64.0.2 to 192.0.2.77, padded to 32 bytes as WireGuard does.
    const PING: [u8; 32] = [
        0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0xae, 0x52, 10, 64, 0, 2, 192, 0, 2, 77, 8, 0, 0xf7,
        0xfe, 0, 1, 0, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn a_peer_gets_an_answer_before_and_after_the_death() {
        let (server, peer) = pair();
        assert_eq!(peer.ping()[12..20], [192, 0, 2, 77, 10, 64, 0, 2]);
        server.kill();
        peer.wait_closed();
        server.revive();
        assert_eq!(peer.ping()[12..20], [192, 0, 2, 77, 10, 64, 0, 2]);
    }

    struct Peer {
        socket: UdpSocket,
        private: StaticSecret,
        server: PublicKey,
    }

    impl Peer {
        /// Pings until an answer comes, each time with a new session.
        fn ping(&self) -> Vec<u8> {
            let (mut out, mut datagram) = ([0; 2048], [0; 2048]);
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_secs(10) {
                let private = self.private.clone();
                let mut session = Tunn::new(private, self.server, None, None, 2, None);
                if let TunnResult::WriteToNetwork(sealed) = session.encapsulate(&PING, &mut out) {
                    let _ = self.socket.send(sealed);
                }
                while let Ok(length) = self.socket.recv(&mut datagram) {
                    let mut result = session.decapsulate(None, &datagram[..length], &mut out);
                    while let TunnResult::WriteToNetwork(reply) = result {
                        let _ = self.socket.send(reply);
                        result = session.decapsulate(None, &[], &mut out);
                    }
                    if let TunnResult::WriteToTunnelV4(packet, _) = result {
                        return packet.to_vec();
                    }
                }
            }
            panic!("no answer");
        }

        /// Waits until the kernel says that the server's port is closed.
        fn wait_closed(&self) {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_secs(10) {
                let _ = self.socket.send(&[0]);
                if matches!(self.socket.recv(&mut [0; 2048]), Err(error)
                    if error.kind() == io::ErrorKind::ConnectionRefused)
                {
                    return;
                }
            }
            panic!("the port is still open");
        }
    }

    fn pair() -> (Server, Peer) {
        let private = StaticSecret::from([7; 32]);
        let keys = Keys {
            private: StaticSecret::from([8; 32]),
            peer: PublicKey::from(&private),
        };
        let server_key = PublicKey::from(&keys.private);
        let free = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let SocketAddr::V4(listen) = free else {
            panic!("{free}")
        };
        let server = Server::start(listen, keys, 1).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(listen).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let peer = Peer {
            socket,
            private,
            server: server_key,
        };
        (server, peer)
    }
}
