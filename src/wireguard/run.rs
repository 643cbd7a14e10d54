//! The data thread: one loop for both directions.
//!
//! It waits only when neither the TUN device nor the socket has anything, and never longer than to
//! the next timer of the session.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::config::PublicKey;
use crate::net::{Stamp, Stamps, mtu};
use crate::policy::IntoTunnel;

use super::counters::{Counters, DropReason};
use super::device::Event;
use super::device::Returns;
use super::ecn::Ecn;
use super::peer::{Allowed, PeerSetup};
use super::question::Question;
use super::rx::Inward;
use super::session::{OVERHEAD, PADDING, Return, SMALLEST_BUFFER, Sealed, Session, random};
use super::tun::Tun;
use super::tx::Outward;
use super::udp::{self, Receiver, Sender};
use super::wait::{Ready, Waiter};

/// Bytes of the longest message of a timer: an initiation, or a sealed keepalive.
const TIMER_MESSAGE: usize = SMALLEST_BUFFER;

/// How often the kernel is asked what fits the path, for it may have forgotten a narrow one.
const LOOK: Duration = Duration::from_secs(1);

/// A clock that is this far behind the newest stamp was set back. Putting it right little by little takes less.
const SET_BACK: Duration = Duration::from_secs(2);

/// What the thread is told.
pub(super) enum Command {
    Connect {
        peer: PeerSetup,
        socket: UdpSocket,
        remote: SocketAddrV4,
        returns: Returns,
    },
    Disconnect,
    Permit(IntoTunnel),
    Stop,
}

/// What the handle and the thread share.
pub(super) struct Shared {
    pub(super) counters: Arc<Counters>,
    commands: Mutex<VecDeque<Command>>,
    /// There are commands: looked at between packets, without a system call.
    pending: AtomicBool,
    /// Ends a wait.
    wake: OwnedFd,
}

impl Shared {
    pub(super) fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self {
            counters: Arc::default(),
            commands: Mutex::default(),
            pending: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    pub(super) fn send(&self, command: Command) {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.push_back(command);
        self.pending.store(true, Ordering::Release);
        drop(commands);
        // Only an overflow of the counter can fail, and then the thread is awake.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn take(&self) -> VecDeque<Command> {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        self.pending.store(false, Ordering::Release);
        std::mem::take(&mut *commands)
    }
}

/// The session with a peer and the way to it.
pub(super) struct Link {
    peer: PeerSetup,
    pub(super) session: Session,
    pub(super) allowed: Allowed,
    pub(super) remote: SocketAddrV4,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    /// What is asked through the tunnel where nothing comes back.
    pub(super) question: Option<Question>,
    /// When the kernel is asked for the path MTU again.
    look: Instant,
    /// The path MTU that was told last.
    told: Option<u32>,
    /// The stamp that was told last.
    told_stamp: Stamp,
}

/// What the thread owns.
pub(super) struct Loop<F> {
    tun: Tun,
    /// The configured one.
    mtu: u16,
    offload: bool,
    shared: Arc<Shared>,
    notify: F,
    waiter: Waiter,
    link: Option<Link>,
    /// The newest stamp that each peer was sent, by whatever session.
    stamps: Stamps<PublicKey>,
    /// The peer whose newest stamp the clock is behind, once that was told.
    behind: Option<PublicKey>,
    outward: Outward,
    inward: Inward,
}

impl<F: Fn(Event)> Loop<F> {
    /// # Errors
    /// There is no waiting on the device.
    pub(super) fn new(
        tun: Tun,
        mtu: u16,
        offload: bool,
        outward: Outward,
        stamps: Stamps<PublicKey>,
        shared: Arc<Shared>,
        notify: F,
    ) -> io::Result<Self> {
        Ok(Self {
            waiter: Waiter::new(tun.as_fd(), shared.wake.as_fd())?,
            outward,
            inward: Inward::new(&tun),
            link: None,
            stamps,
            behind: None,
            tun,
            mtu,
            offload,
            shared,
            notify,
        })
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// The TUN device is gone, or there is no waiting on it.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut ready = Ready {
            tun: true,
            ..Ready::default()
        };
        loop {
            if self.shared.pending.load(Ordering::Acquire) {
                for command in self.shared.take() {
                    if !self.obey(command)? {
                        return Ok(());
                    }
                }
                ready.udp = true;
            }
            let now = Instant::now();
            if ready.tun {
                let link = self.link.as_mut();
                let counters = &self.shared.counters;
                ready.tun = self.outward.turn(now, &self.tun, link, counters)?;
            }
            ready.udp = ready.udp && self.receive(now);
            self.keep_time(now);
            if !ready.tun && !ready.udp {
                ready = self.wait()?;
                if let Some(link) = &mut self.link {
                    link.session.waited(Instant::now());
                }
            }
        }
    }

    fn receive(&mut self, now: Instant) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        self.inward
            .turn(now, &self.tun, link, &self.shared.counters)
    }

    /// Sends what the timers call for, and tells what the session has to tell.
    fn keep_time(&mut self, now: Instant) {
        let counters = &self.shared.counters;
        let Some(link) = &mut self.link else {
            return;
        };
        if now >= link.look {
            link.look = now + LOOK;
            link.sender.path.look();
        }
        let path = link.sender.path.mtu();
        if path != link.told
            && let Some(path) = path
        {
            link.told = Some(path);
            self.outward.pad_to(mtu::inner(self.mtu, path));
            (self.notify)(Event::PathMtu {
                remote: link.remote,
                mtu: path,
            });
        }
        if now >= link.session.deadline() {
            let slot = link.sender.slot(TIMER_MESSAGE);
            if let Some(size) = link.session.tick(now, slot) {
                link.sender.commit(size, Ecn::NotEct);
            }
            link.sender.flush();
        }
        ask(link, now, self.mtu);
        counters.dropped(DropReason::NoSession, link.session.take_lost());
        if link.session.take_handshake() {
            counters.handshake(SystemTime::now());
            (self.notify)(Event::Handshake);
        }
        if link.session.take_silence() {
            (self.notify)(Event::Silent);
        }
        match link.session.take_return() {
            Some(Return::Missing) => (self.notify)(Event::NothingReturns),
            Some(Return::Seen) => (self.notify)(Event::Returns),
            None => {}
        }
        self.tell_stamp();
    }

    /// Tells of the newest initiation, and once that its stamp was not taken from the clock.
    fn tell_stamp(&mut self) {
        let Some(link) = &mut self.link else {
            return;
        };
        let (peer, stamp) = (link.peer.public_key, link.session.stamp());
        if stamp == link.told_stamp {
            return;
        }
        link.told_stamp = stamp;
        self.stamps.note(peer, stamp);
        (self.notify)(Event::Stamp { peer, stamp });
        let behind = link.session.behind();
        if behind < SET_BACK {
            self.behind.take_if(|told| *told == peer);
        } else if self.behind.is_none() {
            self.behind = Some(peer);
            (self.notify)(Event::ClockWentBack(behind));
        }
    }

    /// False: stop.
    fn obey(&mut self, command: Command) -> io::Result<bool> {
        match command {
            Command::Stop => return Ok(false),
            Command::Disconnect => {
                self.waiter.watch(None)?;
                self.link = None;
                self.shared.counters.forget_handshake();
            }
            Command::Permit(policy) => self.outward.permit(policy),
            Command::Connect {
                peer,
                socket,
                remote,
                returns,
            } => self.connect(peer, socket, remote, returns)?,
        }
        Ok(true)
    }

    fn connect(
        &mut self,
        peer: PeerSetup,
        socket: UdpSocket,
        remote: SocketAddrV4,
        returns: Returns,
    ) -> io::Result<()> {
        let counters = &self.shared.counters;
        let now = Instant::now();
        let (gso, gro) = udp::prepare(&socket, self.offload)?;
        counters.udp_gso.store(gso, Ordering::Relaxed);
        counters.udp_gro.store(gro, Ordering::Relaxed);
        let session = match self.link.take() {
            Some(link) if link.peer.same_session(&peer) => {
                let mut session = link.session;
                session.moved(*remote.ip());
                session
            }
            Some(_) | None => {
                counters.forget_handshake();
                let mut session = Session::new(&peer, *remote.ip(), now)?;
                session.go_on_from(self.stamps.of(peer.public_key));
                if returns.prove {
                    session.prove();
                }
                session
            }
        };
        let socket = Rc::new(socket);
        self.waiter.watch(Some(Rc::clone(&socket)))?;
        let sender = Sender::new(Rc::clone(&socket), remote, gso, Arc::clone(counters));
        let allowed = Allowed::new(&peer.allowed_ips);
        // An answer that the server may not send is none.
        let asks = returns.asks.filter(|asks| allowed.contains(asks.resolver));
        let link = self.link.insert(Link {
            allowed,
            question: asks.map(Question::new),
            peer,
            told_stamp: session.stamp(),
            session,
            remote,
            sender,
            receiver: Receiver::new(socket),
            look: now,
            told: None,
        });
        let slot = link.sender.slot(TIMER_MESSAGE);
        if let Some(size) = link.session.begin(now, slot) {
            link.sender.commit(size, Ecn::NotEct);
        }
        link.sender.flush();
        self.tell_stamp();
        Ok(())
    }

    fn wait(&self) -> io::Result<Ready> {
        let timeout = self.link.as_ref().map(|link| {
            let deadline = link.session.deadline();
            deadline.saturating_duration_since(Instant::now())
        });
        let ready = self.waiter.wait(timeout)?;
        if ready.woken {
            let mut count = [0; 8];
            // Empty already: nothing to take back.
            let _ = rustix::io::read(&self.shared.wake, &mut count);
        }
        Ok(ready)
    }
}

/// Asks the tunnel's resolver something where programs send and nothing comes back.
fn ask(link: &mut Link, now: Instant, mtu: u16) {
    if !link.session.wants_return(now) {
        return;
    }
    let Some(question) = &mut link.question else {
        return;
    };
    // Without entropy it is one that anybody could answer: the server, which knows it anyway.
    let packet = question.next(random().map_or(0, u32::from_ne_bytes));
    let slot = link
        .sender
        .slot(packet.len() + PADDING + OVERHEAD + TIMER_MESSAGE);
    match link.session.seal(now, &packet, mtu.into(), slot) {
        Sealed::Send(size) | Sealed::Ask(size) => link.sender.commit(size, Ecn::NotEct),
        Sealed::Queued | Sealed::Exhausted => {}
    }
    link.sender.flush();
}
