//! One WireGuard session: when to shake hands, what to seal with, and what to make of each datagram.
//!
//! Time is passed in; only the wall clock of an initiation's timestamp, random bytes and how long the machine
//! has slept are asked for here. Numbers without a source beside them are those of the WireGuard paper,
//! section 6 (<https://www.wireguard.com/papers/wireguard.pdf>). Where it is stricter than the paper: retries
//! never end, a session is renewed before it is needed, and silence is told of.

mod keypair;
mod outside;
mod returns;
mod timers;
mod window;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use boringtun::noise::TunnResult;
use boringtun::noise::rate_limiter::RateLimiter;

use super::aead;
use super::header::word;
use super::noise::{
    COOKIE_REPLY, INITIATION, Identity, Keys, Macs, Pending, RESPONSE, TIMESTAMP, kind,
};
use super::peer::PeerSetup;
use crate::net::Stamp;
use keypair::{Keypair, Keypairs, Place};
pub(super) use outside::random;
use outside::{asleep, clock, jitter, new_key};

pub use returns::Return;

/// Bytes of the header of a data message (section 5.4.6).
const HEADER: usize = 16;

/// Bytes a sealed packet is longer than the packet: header 16, tag 16.
pub const OVERHEAD: usize = HEADER + aead::TAG;

/// Bytes of padding a packet may get.
pub const PADDING: usize = aead::PADDING;

/// The least a buffer for a message must hold: a handshake initiation.
pub const SMALLEST_BUFFER: usize = INITIATION;

const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that has not answered for this long has lost the session (section 6.5).
const UNANSWERED: Duration = KEEPALIVE_TIMEOUT.saturating_add(REKEY_TIMEOUT);

/// How often the timers are looked at.
const TICK: Duration = Duration::from_millis(250);

/// Handshakes unanswered for this long are a silence: the state machine tries another peer then.
const SILENCE: Duration = Duration::from_secs(15);

/// A server of which nothing has been heard for this long is asked for a handshake, sent anything or not: an idle one says
/// nothing by itself. With SILENCE behind it, a dead one is noticed within 35 s.
const DOUBT: Duration = Duration::from_secs(18);

/// How often it is asked then, for so long as there is doubt: with a third of all packets lost, as many are enough.
const DOUBT_RETRY: Duration = Duration::from_secs(2);

/// By then it is dead.
const NOTICED: Duration = Duration::from_secs(35);

/// Nothing is a silence while something was heard so recently.
const UNHEARD: Duration = Duration::from_secs(30);

/// Packets that are kept while there is no session.
const QUEUE: usize = 256;

/// Messages of handshakes a second that are answered without a cookie.
const UNDER_LOAD: u64 = 10;

/// A session with one peer, or the attempt to have one.
pub struct Session {
    identity: Identity,
    macs: Macs,
    limiter: RateLimiter,
    remote: IpAddr,
    keypairs: Keypairs,
    /// The initiation that is still unanswered.
    pending: Option<Asked>,
    /// Of the newest initiation of ours, and of the peer.
    sent: Stamp,
    received: [u8; TIMESTAMP],
    /// What waits for a session: packets, and their lengths with padding.
    queue: VecDeque<(Vec<u8>, usize)>,
    /// How many packets were given up since somebody asked.
    lost: u64,
    /// How far the wall clock was behind the stamp of the newest initiation before.
    behind: Duration,
    timers: timers::Timers,
    handshake: bool,
}

struct Asked {
    at: Instant,
    /// The index that answers carry.
    index: u32,
    pending: Pending,
}

/// What became of a packet that should leave.
#[derive(Debug, PartialEq, Eq)]
pub enum Sealed {
    /// The first this many bytes of the buffer are to be sent.
    Send(usize),
    /// Kept until there is a session.
    Queued,
    /// Kept until there is a session; the first this many bytes of the buffer ask for one.
    Ask(usize),
    /// The session has sent as many messages as it may, and the packet is lost.
    Exhausted,
}

/// What became of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// An inner packet, in the first this many bytes of the buffer.
    Packet(usize),
    /// A message to send back, in the first this many bytes of the buffer.
    Reply(usize),
    /// Valid, and done with: a keepalive or a cookie.
    Nothing,
    /// Not a valid message of our peer.
    Rejected,
}

impl Session {
    /// Makes a session that has not begun; [`Self::initiate`] begins it.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn new(peer: &PeerSetup, remote: Ipv4Addr, now: Instant) -> io::Result<Self> {
        random::<1>()?;
        let preshared = peer.preshared_key.as_ref();
        let identity = Identity::new(&peer.private_key, peer.public_key, preshared);
        Ok(Self {
            macs: Macs::new(identity.peer()),
            limiter: RateLimiter::new(&(*identity.public()).into(), UNDER_LOAD),
            identity,
            remote: remote.into(),
            keypairs: Keypairs::default(),
            pending: None,
            sent: Stamp::default(),
            received: [0; TIMESTAMP],
            queue: VecDeque::new(),
            lost: 0,
            behind: Duration::ZERO,
            timers: timers::Timers::new(peer.keepalive, now),
            handshake: false,
        })
    }

    /// Initiations have later stamps than this one, which a session before has sent.
    pub fn go_on_from(&mut self, stamp: Stamp) {
        self.sent = self.sent.max(stamp);
    }

    /// The stamp of the newest initiation.
    pub fn stamp(&self) -> Stamp {
        self.sent
    }

    /// How far the wall clock was behind the newest stamp when the last initiation was made: it was set back.
    pub fn behind(&self) -> Duration {
        self.behind
    }

    /// The peer is reached at another address from now on.
    pub fn moved(&mut self, remote: Ipv4Addr) {
        self.remote = remote.into();
        self.timers.moved();
    }

    /// Writes a handshake initiation to `dst`, or leaves it to the timer where the last one left less than
    /// REKEY_TIMEOUT ago: closer ones look like a flood to the peer (drivers/net/wireguard/noise.c,
    /// `INITIATIONS_PER_SECOND`), and their timestamps may not differ.
    pub fn begin(&mut self, now: Instant, dst: &mut [u8]) -> Option<usize> {
        if self.timers.may_initiate(now) {
            self.initiate(now, dst)
        } else {
            self.timers.wait_for_retry();
            None
        }
    }

    /// Writes a handshake initiation to `dst`, even when one is on its way.
    pub fn initiate(&mut self, now: Instant, dst: &mut [u8]) -> Option<usize> {
        // Without random bytes, or with a peer whose key is none, there is no handshake: a silence all the same.
        self.timers.initiated(now, jitter());
        let message = dst.first_chunk_mut::<INITIATION>()?;
        let index = self.new_index()?;
        let clock = clock();
        self.behind = self.sent.ahead_of(clock);
        self.sent = Stamp::after(self.sent, clock);
        let stamp = &self.sent.0;
        let pending = self.identity.initiate(index, stamp, new_key()?, message)?;
        self.macs.sign(now, message);
        self.pending = Some(Asked {
            at: now,
            index,
            pending,
        });
        Some(INITIATION)
    }

    /// Seals a packet into `dst`, which holds at least the packet, [`PADDING`] and [`OVERHEAD`], and
    /// [`SMALLEST_BUFFER`] bytes. Its padding keeps within `mtu`.
    pub fn seal(&mut self, now: Instant, packet: &[u8], mtu: usize, dst: &mut [u8]) -> Sealed {
        let Some(keypair) = self.keypairs.fresh(now) else {
            return self.keep(now, packet, padded(packet.len(), mtu), dst);
        };
        if keypair.is_used_up() {
            self.timers.renew();
        }
        self.timers.asked(now);
        keypair
            .seal(packet, padded(packet.len(), mtu), dst)
            .map_or(Sealed::Exhausted, Sealed::Send)
    }

    /// Opens one datagram into `dst`, which is at least as long and holds [`SMALLEST_BUFFER`] bytes.
    pub fn open(&mut self, now: Instant, datagram: &[u8], dst: &mut [u8]) -> Opened {
        let Some(kind) = datagram.first_chunk::<4>() else {
            return Opened::Rejected;
        };
        let opened = match *kind {
            kind::DATA => self.open_data(now, datagram, dst),
            kind::INITIATION => self.answer(now, datagram, dst),
            kind::RESPONSE => self.complete(now, datagram, dst),
            kind::COOKIE_REPLY => self.take_cookie(now, datagram),
            _ => None,
        };
        opened.unwrap_or(Opened::Rejected)
    }

    fn open_data(&mut self, now: Instant, datagram: &[u8], dst: &mut [u8]) -> Option<Opened> {
        let (header, body) = datagram.split_first_chunk::<HEADER>()?;
        let (place, keypair) = self.keypairs.find(index(header, 4))?;
        let len = keypair.open(now, counter(header), body, dst)?;
        self.timers.heard_something(now);
        if place == Place::Next {
            self.keypairs.confirm();
            self.completed(now);
        }
        if len == 0 {
            return Some(Opened::Nothing);
        }
        let len = inner_len(&dst[..len])?;
        self.timers.heard_packet(now);
        Some(Opened::Packet(len))
    }

    /// The peer asks for a session.
    fn answer(&mut self, now: Instant, datagram: &[u8], dst: &mut [u8]) -> Option<Opened> {
        let initiation = datagram.try_into().ok()?;
        if let Some(cookie) = self.verify(datagram, dst)? {
            return Some(cookie);
        }
        let initiation = self.identity.read(initiation)?;
        if initiation.timestamp <= self.received {
            return None;
        }
        self.received = initiation.timestamp;
        let response = dst.first_chunk_mut::<RESPONSE>()?;
        let ours = self.new_index()?;
        let keys = self
            .identity
            .respond(initiation, ours, &new_key()?, response)?;
        self.macs.sign(now, response);
        let keypair = self.keypair(&keys, ours, now, false);
        self.keypairs.offer(keypair);
        self.timers.heard_something(now);
        Some(Opened::Reply(RESPONSE))
    }

    /// The peer has answered our initiation: a keepalive tells it that the answer has arrived.
    fn complete(&mut self, now: Instant, datagram: &[u8], dst: &mut [u8]) -> Option<Opened> {
        let response: &[u8; RESPONSE] = datagram.try_into().ok()?;
        let asked = self.pending.as_ref()?;
        let ours = asked.index;
        if index(response, 8) != ours || now >= asked.at + REKEY_ATTEMPT_TIME {
            return None;
        }
        if let Some(cookie) = self.verify(datagram, dst)? {
            return Some(cookie);
        }
        let keys = self.identity.finish(&asked.pending, response)?;
        self.pending = None;
        let keypair = self.keypair(&keys, ours, now, true);
        self.keypairs.install(keypair);
        self.timers.heard_something(now);
        self.completed(now);
        self.keepalive(now, dst).map(Opened::Reply)
    }

    fn take_cookie(&mut self, now: Instant, datagram: &[u8]) -> Option<Opened> {
        let reply: &[u8; COOKIE_REPLY] = datagram.try_into().ok()?;
        // Whatever we sent, the index in it was ours: an initiation's or an offered pair's.
        let asked = index(reply, 4);
        (self.is_ours(asked) && self.macs.take_cookie(now, reply)).then_some(Opened::Nothing)
    }

    /// Looks at the codes of a handshake's message; under load the answer may be a cookie. `None`: it was made
    /// by somebody who does not even know our public key.
    fn verify(&self, datagram: &[u8], dst: &mut [u8]) -> Option<Option<Opened>> {
        match self.limiter.verify_packet(Some(self.remote), datagram, dst) {
            Ok(_) => Some(None),
            Err(TunnResult::WriteToNetwork(cookie)) => Some(Some(Opened::Reply(cookie.len()))),
            Err(
                TunnResult::Done
                | TunnResult::Err(_)
                | TunnResult::WriteToTunnelV4(..)
                | TunnResult::WriteToTunnelV6(..),
            ) => None,
        }
    }

    /// Writes to `dst` the next packet that waited for the session, sealed; called until there is none.
    pub fn next_queued(&mut self, now: Instant, dst: &mut [u8]) -> Option<usize> {
        let keypair = self.keypairs.fresh(now)?;
        let (packet, padded) = self.queue.pop_front()?;
        self.timers.asked(now);
        keypair.seal(&packet, padded, dst)
    }

    /// When [`Self::tick`] wants to be called next.
    pub fn deadline(&self) -> Instant {
        self.timers.next_tick
    }

    /// Looks at the timers. Writes to `dst` the message they call for: an initiation or a keepalive.
    pub fn tick(&mut self, now: Instant, dst: &mut [u8]) -> Option<usize> {
        self.limiter.reset_count();
        self.tick_after(asleep(), now, dst)
    }

    /// `asleep`: how long the machine has slept since it started.
    fn tick_after(&mut self, asleep: Duration, now: Instant, dst: &mut [u8]) -> Option<usize> {
        self.keypairs.expire(now, asleep);
        self.pending
            .take_if(|asked| now >= asked.at + REKEY_ATTEMPT_TIME);
        if self.timers.has_given_up(now) {
            self.lost += self.queue.len() as u64;
            self.queue.clear();
        }
        let age = |keypair: &Keypair| (keypair.age(now, asleep), keypair.initiator);
        match self
            .timers
            .tick(now, self.keypairs.current.as_ref().map(age))
        {
            timers::Due::Nothing => None,
            timers::Due::Initiation => self.initiate(now, dst),
            timers::Due::Keepalive => self.keepalive(now, dst),
        }
    }

    /// Whether a handshake was completed since the last call.
    pub fn take_handshake(&mut self) -> bool {
        std::mem::take(&mut self.handshake)
    }

    /// It is to be found out whether anything comes back from beyond the server, as soon as it answers.
    pub fn prove(&mut self) {
        self.timers.prove();
    }

    /// Whether a packet is to be sent now that has to be answered from beyond the server, if there are keys for it.
    pub fn wants_return(&mut self, now: Instant) -> bool {
        self.keypairs.current.is_some() && self.timers.wants_return(now)
    }

    /// What there is to tell of packets that come back, or do not.
    pub fn take_return(&mut self) -> Option<Return> {
        self.timers.take_return()
    }

    /// Whether a silence has begun that was not told of yet.
    pub fn take_silence(&mut self) -> bool {
        self.timers.take_silence()
    }

    /// To be called after a wait, in which the machine may have slept: keys that have become too old are of no
    /// use from now on.
    pub fn waited(&mut self, now: Instant) {
        self.keypairs.expire(now, asleep());
    }

    /// How many packets were given up, while there was no session, since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Keeps a packet until there is a session, which an initiation asks for unless one is on its way.
    fn keep(&mut self, now: Instant, packet: &[u8], padded: usize, dst: &mut [u8]) -> Sealed {
        if self.queue.len() == QUEUE {
            self.queue.pop_front();
            self.lost += 1;
        }
        self.queue.push_back((packet.to_owned(), padded));
        let asked = self
            .timers
            .may_initiate(now)
            .then(|| self.initiate(now, dst));
        asked.flatten().map_or(Sealed::Queued, Sealed::Ask)
    }

    /// Tells the peer that what it sent has arrived.
    fn keepalive(&mut self, now: Instant, dst: &mut [u8]) -> Option<usize> {
        let keypair = self.keypairs.current.as_mut()?;
        self.timers.answered(now);
        keypair.seal(&[], 0, dst)
    }

    fn completed(&mut self, now: Instant) {
        self.timers.completed(now);
        self.handshake = true;
    }

    fn keypair(&self, keys: &Keys, ours: u32, now: Instant, initiator: bool) -> Keypair {
        Keypair::new(keys, ours, now, asleep(), initiator)
    }

    /// An index by which no other answer comes. `None`: the kernel gives no random bytes.
    fn new_index(&mut self) -> Option<u32> {
        loop {
            let index = u32::from_le_bytes(random().ok()?);
            if !self.is_ours(index) {
                return Some(index);
            }
        }
    }

    fn is_ours(&mut self, index: u32) -> bool {
        let asked = self.pending.as_ref();
        asked.is_some_and(|asked| asked.index == index) || self.keypairs.find(index).is_some()
    }
}

/// The length with padding: a multiple of 16, and not more than the MTU where the packet itself is not
/// (section 5.4.6).
fn padded(len: usize, mtu: usize) -> usize {
    len.next_multiple_of(16).min(mtu).max(len)
}

/// The length of the inner packet by its own header, without the padding; `None` if it says more than there is.
fn inner_len(packet: &[u8]) -> Option<usize> {
    let (at, least) = match packet[0] >> 4 {
        4 => (2, 20),
        6 => (4, 40),
        _ => return None,
    };
    let told = usize::from(word(packet.get(..least)?, at));
    // The length field of IPv6 does not count its header (RFC 8200, section 3).
    let len = if least == 40 { told + least } else { told };
    (least..=packet.len()).contains(&len).then_some(len)
}

/// The counter of a data message (section 5.4.6).
fn counter(header: &[u8; HEADER]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&header[8..]);
    u64::from_le_bytes(bytes)
}

fn index(message: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([
        message[at],
        message[at + 1],
        message[at + 2],
        message[at + 3],
    ])
}

#[cfg(test)]
mod tests;
