//! The handle to the data thread.

use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::config::{Offload, PublicKey};
use crate::net::{Stamp, Stamps};
use crate::policy::IntoTunnel;

use super::counters::Snapshot;
use super::peer::PeerSetup;
use super::question::Asks;
use super::run::{Command, Loop, Shared};
use super::tun::Tun;
use super::tx::Outward;

/// What the data thread tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A handshake was completed: the first one, or a rekey.
    Handshake,
    /// Handshakes have gone unanswered for 15 s. Told once for each silence; they go on.
    Silent,
    /// Programs have sent for a minute, the tunnel's resolver was asked, and nothing came back, though the server answers
    /// handshakes. Told once for each server.
    NothingReturns,
    /// Something came back after [`Event::NothingReturns`].
    Returns,
    /// What fits the path to the endpoint: at the start, and whenever it changes.
    PathMtu {
        /// The endpoint.
        remote: SocketAddrV4,
        /// Bytes of the longest IPv4 packet that arrives there, as far as is known.
        mtu: u32,
    },
    /// A handshake initiation was sent. Later ones to this peer must have later stamps, whoever sends them.
    Stamp {
        /// The peer.
        peer: PublicKey,
        /// The stamp.
        stamp: Stamp,
    },
    /// The wall clock is this far behind the newest stamp of the peer: it was set back. Told once each time.
    ClockWentBack(Duration),
    /// The data thread has ended. The text says why.
    Failed(String),
}

/// The data plane of one TUN device. Dropping it stops the thread.
pub struct Device {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// How it is found out whether anything comes back from beyond the server. `Default` asks nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Returns {
    /// Who is asked, where programs send and nothing comes back.
    pub asks: Option<Asks>,
    /// As soon as there is a session: from the server before nothing came back.
    pub prove: bool,
}

/// What a data plane starts from.
pub struct Setup {
    /// A TUN device with IFF_NO_PI and, for offloads, IFF_VNET_HDR.
    pub tun: OwnedFd,
    /// Bytes of the largest inner packet.
    pub mtu: u16,
    /// Whether segmentation offloads may be used.
    pub offload: Offload,
    /// What may enter the tunnel.
    pub policy: IntoTunnel,
    /// Handshakes have later stamps than these.
    pub stamps: Stamps<PublicKey>,
}

impl Device {
    /// Starts the data thread, with no peer. `notify` is called on the data thread and must not block.
    ///
    /// # Errors
    /// `tun` is not such a descriptor; the system has no thread or descriptor left.
    pub fn start(setup: Setup, notify: impl Fn(Event) + Send + 'static) -> io::Result<Self> {
        let Setup {
            tun,
            mtu,
            offload,
            policy,
            stamps,
        } = setup;
        let offload = offload == Offload::Auto;
        let tun = Tun::new(tun, offload)?;
        let shared = Arc::new(Shared::new()?);
        let counters = &shared.counters;
        counters
            .tun_offload
            .store(tun.features.tcp, Ordering::Relaxed);
        let own = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("wireguard".to_owned())
            .spawn(move || {
                let outward = Outward::new(mtu, policy);
                let run = || Loop::new(tun, mtu, offload, outward, stamps, own, &notify)?.run();
                // A thread that dies in silence would leave a tunnel that looks alive.
                match catch_unwind(AssertUnwindSafe(run)) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => notify(Event::Failed(format!("the data thread: {error}"))),
                    Err(_) => notify(Event::Failed("the data thread panicked".to_owned())),
                }
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Replaces peer and socket and starts a handshake at once. `socket` is bound, marked, and not
    /// connected. A session with the same keys and keepalive is kept.
    pub fn connect(
        &self,
        peer: PeerSetup,
        socket: UdpSocket,
        remote: SocketAddrV4,
        returns: Returns,
    ) {
        self.shared.send(Command::Connect {
            peer,
            socket,
            remote,
            returns,
        });
    }

    /// Forgets peer, session and socket; packets from the TUN device are read and dropped.
    pub fn disconnect(&self) {
        self.shared.send(Command::Disconnect);
    }

    /// Replaces what may enter the tunnel.
    pub fn permit(&self, policy: IntoTunnel) {
        self.shared.send(Command::Permit(policy));
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.counters.snapshot()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.shared.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // It catches its own panics.
            let _ = thread.join();
        }
    }
}
