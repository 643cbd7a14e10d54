//! The LAN exceptions of the sealed topology, on the engine's side: it takes LAN clients in and passes what
//! they say to a connection inside the app namespace; and the other way round for LAN hosts.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time;
use tracing::{debug, info, warn};

use crate::config::Lan;
use crate::leak::refused::Refused;
use crate::leak::stopped::Report;
use crate::link::{Listeners, Visitor};
use crate::net::{Port, Transport};

/// Connections at a time. Each has two descriptors, of which a process has 1024 unless told otherwise.
const MOST: usize = 400;

/// How long a LAN host may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait before a listener that failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Idle time after which the other side is asked whether it still lives.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Bytes under way in each direction of a connection.
const BUFFER: usize = 64 * 1024;

/// Published ports, and the connections that are passed on.
#[derive(Default)]
pub(super) struct Portal {
    listeners: Listeners,
    /// Why one is missing.
    wanting: Option<String>,
    /// Those that the log has named.
    named: Vec<u16>,
    /// LAN clients whose connection inside was asked for.
    waiting: BTreeMap<u64, TcpStream>,
    asked: u64,
    /// LAN clients that no exception lets in, and since when they are counted.
    refused: Refused,
    began: Option<Instant>,
    connections: JoinSet<()>,
}

/// A LAN client whose connection inside is to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) id: u64,
    pub(super) port: u16,
    pub(super) client: Ipv4Addr,
}

impl Portal {
    /// Listens on the published ports and no other. What is missing is tried again with the next call.
    pub(super) fn follow(&mut self, lan: &Lan) {
        let mut ports: Vec<_> = lan.inbound.iter().map(|rule| rule.to().number).collect();
        ports.sort_unstable();
        ports.dedup();
        if self.named != ports {
            if !ports.is_empty() {
                info!(
                    ?ports,
                    "LAN clients come in by these ports; in a container, publish them on this service, the engine's"
                );
            }
            self.named.clone_from(&ports);
        }
        let any = |port| SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
        let all: Vec<_> = ports.into_iter().map(any).collect();
        let wanting = self.listeners.follow(&all).err();
        if let Some(why) = wanting.as_ref().filter(|_| self.wanting != wanting) {
            warn!(why, "a LAN exception is not open");
        }
        self.wanting = wanting;
    }

    /// The next LAN client. Cancelled, none is lost.
    pub(super) async fn visitor(&self) -> Visitor {
        loop {
            match self.listeners.visitor().await {
                Ok(visitor) => return visitor,
                Err(error) => {
                    warn!(%error, "a LAN client could not be taken");
                    time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Takes a client in, if its address and port are those of an exception and there is room.
    pub(super) fn admit(&mut self, visitor: Visitor, lan: &Lan, now: Instant) -> Option<Wanted> {
        self.bury();
        let (port, client) = (visitor.at.port(), visitor.from);
        if !lan.admits(client, tcp(port)) {
            let (age, port) = (self.age(now), tcp(port));
            if let Some(advice) = self.refused.note(client, port, age) {
                debug!(%client, %port, "a client was refused: no [lan] inbound lets it in; {advice}");
            }
            reset(&visitor.stream);
            return None;
        }
        if self.waiting.len() + self.connections.len() >= MOST {
            warn!(port, "{MOST} connections are open already");
            reset(&visitor.stream);
            return None;
        }
        self.asked += 1;
        let id = self.asked;
        self.waiting.insert(id, visitor.stream);
        Some(Wanted { id, port, client })
    }

    /// The LAN clients that were refused.
    pub(super) fn refused(&mut self, now: Instant) -> Report {
        let age = self.age(now);
        self.refused.report(age)
    }

    fn age(&mut self, now: Instant) -> Duration {
        now.saturating_duration_since(*self.began.get_or_insert(now))
    }

    /// The connection inside for a client that waits.
    pub(super) fn connected(&mut self, id: u64, inside: Option<OwnedFd>) {
        let (Some(outside), Some(inside)) = (self.waiting.remove(&id), inside) else {
            return;
        };
        self.connections.spawn(async move {
            let Ok(inside) = stream(inside) else { return };
            match established(&inside).await {
                Ok(()) => pass(outside, inside).await,
                Err(error) => {
                    debug!(%error, "no program answers inside");
                    reset(&outside);
                }
            }
        });
    }

    /// There is no connection inside for a client that waits.
    pub(super) fn not_connected(&mut self, id: u64, why: &str) {
        debug!(why, "no connection inside");
        if let Some(outside) = self.waiting.remove(&id) {
            reset(&outside);
        }
    }

    /// A program inside wants to reach a LAN host.
    pub(super) fn accepted(&mut self, to: SocketAddrV4, inside: Option<OwnedFd>, lan: &Lan) {
        self.bury();
        let Some(Ok(inside)) = inside.map(stream) else {
            return;
        };
        let permitted = lan.reaches(*to.ip(), tcp(to.port()));
        if !permitted || self.connections.len() >= MOST {
            debug!(%to, permitted, "a connection to the LAN is not passed on");
            return reset(&inside);
        }
        self.connections.spawn(async move {
            match time::timeout(PATIENCE, TcpStream::connect(to)).await {
                Ok(Ok(outside)) => pass(outside, inside).await,
                Ok(Err(error)) => {
                    debug!(%to, %error, "the LAN host does not answer");
                    reset(&inside);
                }
                Err(_) => {
                    debug!(%to, "the LAN host does not answer");
                    reset(&inside);
                }
            }
        });
    }

    /// Ends every connection: blocked is loopback only.
    pub(super) fn cut(&mut self) {
        self.connections.abort_all();
        self.waiting.clear();
    }

    /// Forgets connections that ended.
    fn bury(&mut self) {
        while self.connections.try_join_next().is_some() {}
    }
}

/// Only connections are handed over.
fn tcp(number: u16) -> Port {
    let transport = Transport::Tcp;
    Port { transport, number }
}

/// Passes bytes on in both directions until both have ended: as fast as the slower side takes them, and an
/// end in one direction is one on the other side too, while the other direction goes on.
async fn pass(mut outside: TcpStream, mut inside: TcpStream) {
    for stream in [&outside, &inside] {
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
        // Without either it is slower to notice things, not wrong.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
    }
    let passed = copy_bidirectional_with_sizes(&mut outside, &mut inside, BUFFER, BUFFER).await;
    if let Err(error) = passed {
        debug!(%error, "a connection broke");
        // What broke on one side is broken on the other.
        reset(&outside);
        reset(&inside);
    }
}

/// Waits for a connection that is under way.
async fn established(stream: &TcpStream) -> io::Result<()> {
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn stream(fd: OwnedFd) -> io::Result<TcpStream> {
    let stream = std::net::TcpStream::from(fd);
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// Makes the end of this connection a reset: the other side learns that it was refused, or broke.
fn reset(stream: &TcpStream) {
    // Without it the end looks like an orderly one.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
