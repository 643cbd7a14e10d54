//! One WireGuard session: boringtun's `Tunn`, with what it leaves to its caller.
//!
//! Added here: padding to 16 bytes, a random index, jitter between retries, retries that never end,
//! a rekey that does not wait for traffic, message limits, and word of handshakes and of silence.
//! Also the two timers that begin with a packet: boringtun stamps packets with the time of its last
//! tick, so a question and its answer within one tick look simultaneous and start neither.
//! Time is passed in; boringtun reads a clock of its own for its timers. Numbers without a source
//! beside them are those of the WireGuard paper, section 6 (<https://www.wireguard.com/papers/wireguard.pdf>).

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;

use super::peer::PeerSetup;

/// Bytes a sealed packet is longer than the packet: header 16, tag 16.
pub const OVERHEAD: usize = 32;

/// Bytes of padding a packet may need; the buffer given to [`Session::seal`] holds as many spare ones.
pub const PADDING: usize = 15;

/// The least a buffer for a message must hold: a handshake initiation.
pub const SMALLEST_BUFFER: usize = 148;

const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that has not answered for this long has lost the session (section 6.5).
const UNANSWERED: Duration = KEEPALIVE_TIMEOUT.saturating_add(REKEY_TIMEOUT);
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// "Some random value between 0 and 333 ms" is added to each retry.
const MOST_JITTER: Duration = Duration::from_millis(333);

/// How often boringtun's timers are looked at.
const TICK: Duration = Duration::from_millis(250);

/// Handshakes unanswered for this long are a silence: the state machine tries another peer then.
const SILENCE: Duration = Duration::from_secs(15);

/// Packets boringtun keeps while there is no session (`MAX_QUEUE_DEPTH`, boringtun 0.7.1).
const QUEUE: usize = 256;

const HANDSHAKE_INITIATION: u8 = 1;
const HANDSHAKE_RESPONSE: u8 = 2;
/// The first byte of a message that holds an inner packet, or a keepalive.
pub const DATA: u8 = 4;

/// A session with one peer, or the attempt to have one.
pub struct Session {
    tunn: Tunn,
    remote: IpAddr,
    /// The newest completed handshake.
    established: Option<Established>,
    /// Index of the session our last handshake response offered, until the peer uses it.
    offered: Option<[u8; 4]>,
    /// When the first initiation that is still unanswered left.
    waiting: Option<Instant>,
    /// When the last initiation left, and when the next one may.
    retry: Option<(Instant, Instant)>,
    /// When the first packet arrived that nothing was sent after.
    heard: Option<Instant>,
    /// When the first packet left that nothing valid arrived after.
    asked: Option<Instant>,
    next_tick: Instant,
    /// Packets queued inside boringtun may leave now.
    drain: bool,
    /// How many there are.
    queued: usize,
    /// How many were given up since somebody asked.
    lost: u64,
    handshake: bool,
    silence: Silence,
}

#[derive(Clone, Copy)]
struct Established {
    at: Instant,
    initiator: bool,
}

#[derive(PartialEq, Eq)]
enum Silence {
    Unreported,
    Due,
    Reported,
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
        let mut index = [0; 4];
        rustix::rand::getrandom(&mut index, rustix::rand::GetRandomFlags::empty())?;
        // boringtun numbers sessions in the low 8 bits of the index.
        let index = u32::from_le_bytes(index) >> 8;
        let tunn = Tunn::new(
            x25519::StaticSecret::from(*peer.private_key.expose()),
            x25519::PublicKey::from(peer.public_key.0),
            peer.preshared_key.as_ref().map(|key| *key.expose()),
            peer.keepalive,
            index,
            None,
        );
        Ok(Self {
            tunn,
            remote: remote.into(),
            established: None,
            offered: None,
            waiting: None,
            retry: None,
            heard: None,
            asked: None,
            next_tick: now,
            drain: false,
            queued: 0,
            lost: 0,
            handshake: false,
            silence: Silence::Unreported,
        })
    }

    /// The peer is reached at another address from now on.
    pub fn moved(&mut self, remote: Ipv4Addr) {
        self.remote = remote.into();
        self.waiting = None;
        self.silence = Silence::Unreported;
    }

    /// Writes a handshake initiation to `dst`, or leaves it to the timer where the last one left less than
    /// REKEY_TIMEOUT ago: closer ones look like a flood to the peer (drivers/net/wireguard/noise.c,
    /// `INITIATIONS_PER_SECOND`), and their timestamps may not differ.
    pub fn begin(&mut self, now: Instant, dst: &mut [u8]) -> Option<usize> {
        match self.retry {
            Some((_, next)) if now < next => {
                self.next_tick = next;
                None
            }
            Some(_) | None => self.initiate(now, dst),
        }
    }

    /// Writes a handshake initiation to `dst`, even when one is on its way.
    pub fn initiate(&mut self, now: Instant, dst: &mut [u8]) -> Option<usize> {
        match self.tunn.format_handshake_initiation(dst, true) {
            TunnResult::WriteToNetwork(message) => {
                let len = message.len();
                self.initiated(now);
                Some(len)
            }
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => None,
        }
    }

    /// Seals the packet in the first `len` bytes of `buffer` into `dst`. The bytes after it are padding
    /// meanwhile and themselves again afterwards; there are at least [`PADDING`] of them. `dst` holds at
    /// least `len` + [`PADDING`] + [`OVERHEAD`] and [`SMALLEST_BUFFER`] bytes.
    pub fn seal(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
        len: usize,
        mtu: usize,
        dst: &mut [u8],
    ) -> Sealed {
        let padded = padded(len, mtu);
        let mut saved = [0; PADDING];
        let saved = &mut saved[..padded - len];
        saved.copy_from_slice(&buffer[len..padded]);
        buffer[len..padded].fill(0);
        let result = self.tunn.encapsulate(&buffer[..padded], dst);
        buffer[len..padded].copy_from_slice(saved);
        let TunnResult::WriteToNetwork(message) = result else {
            self.keep();
            return Sealed::Queued;
        };
        let size = message.len();
        if message[0] == HANDSHAKE_INITIATION {
            self.keep();
            self.initiated(now);
            return Sealed::Ask(size);
        }
        self.heard = None;
        self.asked.get_or_insert(now);
        match limit(counter(message)) {
            Limit::Within => {}
            Limit::Rekey => self.age(),
            Limit::Reject => {
                self.age();
                return Sealed::Exhausted;
            }
        }
        Sealed::Send(size)
    }

    /// Opens one datagram into `dst`, which is at least as long and holds [`SMALLEST_BUFFER`] bytes.
    pub fn open(&mut self, now: Instant, datagram: &[u8], dst: &mut [u8]) -> Opened {
        let Some(&kind) = datagram.first() else {
            // boringtun takes an empty datagram for a question about its queue.
            return Opened::Rejected;
        };
        if kind == DATA && datagram.len() >= OVERHEAD && counter(datagram) >= REJECT_AFTER_MESSAGES
        {
            return Opened::Rejected;
        }
        let opened = match self.tunn.decapsulate(Some(self.remote), datagram, dst) {
            TunnResult::Done => Opened::Nothing,
            TunnResult::Err(_) => return Opened::Rejected,
            TunnResult::WriteToNetwork(reply) => {
                let size = reply.len();
                match (kind, reply[0]) {
                    (HANDSHAKE_INITIATION, HANDSHAKE_RESPONSE) => {
                        self.offered = Some([reply[4], reply[5], reply[6], reply[7]]);
                    }
                    (HANDSHAKE_RESPONSE, DATA) => self.completed(now, true),
                    // A cookie: whoever this was is asked to try again.
                    _ => return Opened::Reply(size),
                }
                Opened::Reply(size)
            }
            // An IPv6 packet is told from an IPv4 one by whoever looks at it next.
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Opened::Packet(packet.len())
            }
        };
        // What is left was authentic.
        self.asked = None;
        if matches!(opened, Opened::Packet(_)) {
            self.heard.get_or_insert(now);
        }
        if kind == DATA && self.offered.is_some_and(|index| datagram[4..8] == index) {
            self.completed(now, false);
        }
        opened
    }

    /// Writes to `dst` the next message that waited for the session; called until there is none. It is an
    /// inner packet sealed, or an initiation.
    pub fn next_queued(&mut self, now: Instant, dst: &mut [u8]) -> Option<usize> {
        if !self.drain {
            return None;
        }
        match self.tunn.decapsulate(None, &[], dst) {
            TunnResult::WriteToNetwork(message) => {
                let (size, kind) = (message.len(), message[0]);
                if kind == DATA {
                    self.queued = self.queued.saturating_sub(1);
                } else {
                    self.drain = false;
                    self.initiated(now);
                }
                Some(size)
            }
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => {
                self.drain = false;
                self.queued = 0;
                None
            }
        }
    }

    /// When [`Self::tick`] wants to be called next.
    pub fn deadline(&self) -> Instant {
        self.next_tick
    }

    /// Looks at the timers. Writes to `dst` the message they call for: an initiation or a keepalive.
    pub fn tick(&mut self, now: Instant, dst: &mut [u8]) -> Option<usize> {
        self.next_tick = now + TICK;
        if let Some((sent, next)) = self.retry
            && now >= sent + REKEY_TIMEOUT - TICK
            && now < next
        {
            // boringtun would repeat the initiation after 5 s to the dot.
            self.next_tick = next;
            return None;
        }
        if self.silence == Silence::Unreported && elapsed(self.waiting, now, SILENCE) {
            self.silence = Silence::Due;
        }
        let message = match self.tunn.update_timers(dst) {
            TunnResult::WriteToNetwork(message) => Some((message.len(), message[0])),
            TunnResult::Err(WireGuardError::ConnectionExpired) => {
                // It has emptied its queue.
                self.lost += std::mem::take(&mut self.queued) as u64;
                return self.initiate(now, dst);
            }
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => None,
        };
        if let Some((size, kind)) = message {
            if kind == HANDSHAKE_INITIATION {
                self.initiated(now);
            } else {
                self.heard = None;
            }
            return Some(size);
        }
        let idle = self.retry.is_none_or(|(_, next)| now >= next);
        // boringtun counts time asleep, `now` does not: it may have dropped a session that looks young.
        let gone = self.tunn.time_since_last_handshake().is_none();
        if idle && (gone || self.rekey_is_due(now) || elapsed(self.asked, now, UNANSWERED)) {
            return self.initiate(now, dst);
        }
        if elapsed(self.heard, now, KEEPALIVE_TIMEOUT) {
            return self.keepalive(dst);
        }
        None
    }

    /// Whether a handshake was completed since the last call.
    pub fn take_handshake(&mut self) -> bool {
        std::mem::take(&mut self.handshake)
    }

    /// Whether a silence has begun that was not told of yet.
    pub fn take_silence(&mut self) -> bool {
        let due = self.silence == Silence::Due;
        if due {
            self.silence = Silence::Reported;
        }
        due
    }

    /// How many packets were given up, while there was no session, since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// boringtun has queued a packet, or dropped it because there are too many.
    fn keep(&mut self) {
        if self.queued < QUEUE {
            self.queued += 1;
        } else {
            self.lost += 1;
        }
    }

    /// Tells the peer that what it sent has arrived.
    fn keepalive(&mut self, dst: &mut [u8]) -> Option<usize> {
        self.heard = None;
        match self.tunn.encapsulate(&[], dst) {
            TunnResult::WriteToNetwork(message) => Some(message.len()),
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => None,
        }
    }

    fn initiated(&mut self, now: Instant) {
        self.asked = None;
        self.waiting.get_or_insert(now);
        let next = now + REKEY_TIMEOUT + jitter();
        self.retry = Some((now, next));
    }

    fn completed(&mut self, now: Instant, initiator: bool) {
        self.established = Some(Established { at: now, initiator });
        self.offered = None;
        self.waiting = None;
        self.retry = None;
        self.silence = Silence::Unreported;
        self.handshake = true;
        self.drain = true;
    }

    /// Makes the session so old that the next tick renews it.
    fn age(&mut self) {
        self.established = None;
    }

    /// The initiator renews after 120 s, sent anything or not; the responder steps in when the
    /// initiator has not by the time only a handshake's worth is left.
    fn rekey_is_due(&self, now: Instant) -> bool {
        self.established.is_none_or(|session| {
            let age = now.saturating_duration_since(session.at);
            let most = if session.initiator {
                REKEY_AFTER_TIME
            } else {
                REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
            };
            age >= most
        })
    }
}

fn elapsed(since: Option<Instant>, now: Instant, time: Duration) -> bool {
    since.is_some_and(|since| now >= since + time)
}

/// The length with padding: a multiple of 16, and not more than the MTU where the packet itself is not
/// (section 5.4.6).
fn padded(len: usize, mtu: usize) -> usize {
    len.next_multiple_of(16).min(mtu).max(len)
}

/// The counter of a data message (section 5.4.6).
fn counter(message: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&message[8..16]);
    u64::from_le_bytes(bytes)
}

#[derive(Debug, PartialEq, Eq)]
enum Limit {
    Within,
    Rekey,
    Reject,
}

fn limit(counter: u64) -> Limit {
    if counter < REKEY_AFTER_MESSAGES {
        Limit::Within
    } else if counter < REJECT_AFTER_MESSAGES {
        Limit::Rekey
    } else {
        Limit::Reject
    }
}

fn jitter() -> Duration {
    let mut random = [0; 2];
    // Without random bytes there is no jitter, which is what boringtun does by itself.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    MOST_JITTER.mul_f64(f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests;
