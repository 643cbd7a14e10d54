//! One WireGuard session: boringtun's `Tunn`, with what it leaves to its caller.
//!
//! Added here: padding to 16 bytes, a random index, jitter between retries, retries that never end,
//! a rekey that does not wait for traffic, message limits, and word of handshakes and of silence.
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
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// "Some random value between 0 and 333 ms" is added to each retry.
const MOST_JITTER: Duration = Duration::from_millis(333);

/// How often boringtun's timers are looked at.
const TICK: Duration = Duration::from_millis(250);

/// Handshakes unanswered for this long are a silence: the state machine tries another peer then.
const SILENCE: Duration = Duration::from_secs(15);

const HANDSHAKE_INITIATION: u8 = 1;
const HANDSHAKE_RESPONSE: u8 = 2;
const DATA: u8 = 4;

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
    next_tick: Instant,
    /// Packets queued inside boringtun may leave now.
    drain: bool,
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
            next_tick: now,
            drain: false,
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
            return Sealed::Queued;
        };
        let size = message.len();
        if message[0] == HANDSHAKE_INITIATION {
            self.initiated(now);
            return Sealed::Send(size);
        }
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
                    // A cookie: the peer is asked to try again.
                    _ => {}
                }
                Opened::Reply(size)
            }
            // An IPv6 packet is told from an IPv4 one by whoever looks at it next.
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Opened::Packet(packet.len())
            }
        };
        if kind == DATA && self.offered.is_some_and(|index| datagram[4..8] == index) {
            self.completed(now, false);
        }
        opened
    }

    /// Writes to `dst` the next message that waited for the session; called until there is none.
    pub fn next_queued(&mut self, now: Instant, dst: &mut [u8]) -> Option<usize> {
        if !self.drain {
            return None;
        }
        match self.tunn.decapsulate(None, &[], dst) {
            TunnResult::WriteToNetwork(message) => {
                let (size, kind) = (message.len(), message[0]);
                if kind == HANDSHAKE_INITIATION {
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
        if self.silence == Silence::Unreported
            && self.waiting.is_some_and(|since| now >= since + SILENCE)
        {
            self.silence = Silence::Due;
        }
        let message = match self.tunn.update_timers(dst) {
            TunnResult::WriteToNetwork(message) => Some((message.len(), message[0])),
            TunnResult::Err(WireGuardError::ConnectionExpired) => return self.initiate(now, dst),
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => None,
        };
        if let Some((size, kind)) = message {
            if kind == HANDSHAKE_INITIATION {
                self.initiated(now);
            }
            return Some(size);
        }
        let idle = self.retry.is_none_or(|(_, next)| now >= next);
        if idle && self.rekey_is_due(now) {
            return self.initiate(now, dst);
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

    fn initiated(&mut self, now: Instant) {
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
mod tests {
    use super::*;
    use crate::config::{PublicKey, Secret};

    const MTU: usize = 1420;

    fn pair() -> (Session, Session) {
        let (a, b) = ([1; 32], [2; 32]);
        let public = |key: [u8; 32]| {
            let key = x25519::StaticSecret::from(key);
            PublicKey(x25519::PublicKey::from(&key).to_bytes())
        };
        let session = |own, other| {
            let peer = PeerSetup {
                private_key: Secret::new(own),
                public_key: public(other),
                preshared_key: Some(Secret::new([3; 32])),
                keepalive: None,
                allowed_ips: Vec::new(),
            };
            Session::new(&peer, Ipv4Addr::new(192, 0, 2, 1), Instant::now()).unwrap()
        };
        (session(a, b), session(b, a))
    }

    fn packet(len: usize, mark: u8) -> Vec<u8> {
        let mut packet = vec![mark; len];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet
    }

    fn seal(session: &mut Session, packet: &[u8]) -> (Sealed, Vec<u8>) {
        let mut buffer = packet.to_vec();
        buffer.extend([0x77; PADDING]);
        let mut dst = vec![0; buffer.len() + OVERHEAD + SMALLEST_BUFFER];
        let sealed = session.seal(Instant::now(), &mut buffer, packet.len(), MTU, &mut dst);
        assert_eq!(buffer[..packet.len()], *packet);
        assert_eq!(buffer[packet.len()..], [0x77; PADDING]);
        if let Sealed::Send(len) = sealed {
            dst.truncate(len);
        }
        (sealed, dst)
    }

    fn open(session: &mut Session, datagram: &[u8]) -> (Opened, Vec<u8>) {
        let mut dst = vec![0; datagram.len() + SMALLEST_BUFFER];
        let opened = session.open(Instant::now(), datagram, &mut dst);
        if let Opened::Packet(len) | Opened::Reply(len) = opened {
            dst.truncate(len);
        }
        (opened, dst)
    }

    fn queued(session: &mut Session) -> Vec<Vec<u8>> {
        let mut dst = vec![0; 2000];
        let mut all = Vec::new();
        while let Some(len) = session.next_queued(Instant::now(), &mut dst) {
            all.push(dst[..len].to_vec());
        }
        all
    }

    /// Completes a handshake that `a` begins with this initiation.
    fn shake(a: &mut Session, b: &mut Session, initiation: &[u8]) {
        let (opened, response) = open(b, initiation);
        assert_eq!(opened, Opened::Reply(92));
        assert!(!b.take_handshake());
        let (opened, keepalive) = open(a, &response);
        assert_eq!(opened, Opened::Reply(32));
        assert!(a.take_handshake());
        assert_eq!(open(b, &keepalive).0, Opened::Nothing);
        assert!(b.take_handshake());
    }

    fn initiation(session: &mut Session, now: Instant) -> Vec<u8> {
        let mut dst = vec![0; SMALLEST_BUFFER];
        assert_eq!(session.initiate(now, &mut dst), Some(148));
        dst
    }

    fn connected() -> (Session, Session) {
        let (mut a, mut b) = pair();
        let first = initiation(&mut a, Instant::now());
        shake(&mut a, &mut b, &first);
        (a, b)
    }

    #[test]
    fn two_sessions_talk() {
        let (mut a, mut b) = connected();
        for len in [20, 21, 36, 1000, 1419, 1420] {
            let sent = packet(len, 9);
            let (sealed, datagram) = seal(&mut a, &sent);
            let padded = len.next_multiple_of(16).min(MTU);
            assert_eq!(sealed, Sealed::Send(padded + OVERHEAD));
            assert_eq!(open(&mut b, &datagram), (Opened::Packet(len), sent.clone()));
            let (_, datagram) = seal(&mut b, &sent);
            assert_eq!(open(&mut a, &datagram), (Opened::Packet(len), sent));
        }
    }

    #[test]
    fn packets_sent_before_the_handshake_arrive_after_it() {
        let (mut a, mut b) = pair();
        let (sealed, first) = seal(&mut a, &packet(100, 1));
        assert_eq!(sealed, Sealed::Send(148));
        assert_eq!(seal(&mut a, &packet(101, 2)).0, Sealed::Queued);
        assert!(queued(&mut a).is_empty());
        shake(&mut a, &mut b, &first);
        let waiting = queued(&mut a);
        assert_eq!(waiting.len(), 2);
        assert_eq!(open(&mut b, &waiting[0]).1, packet(100, 1));
        assert_eq!(open(&mut b, &waiting[1]).1, packet(101, 2));
    }

    #[test]
    fn loss_and_reordering_lose_only_what_was_lost() {
        let (mut a, mut b) = connected();
        let mut datagrams: Vec<_> = (0..100).map(|n| seal(&mut a, &packet(60, n)).1).collect();
        datagrams.remove(50);
        datagrams.swap(10, 40);
        for datagram in &datagrams {
            assert_eq!(open(&mut b, datagram).0, Opened::Packet(60));
        }
        assert_eq!(open(&mut b, &datagrams[3]).0, Opened::Rejected, "a repeat");
    }

    #[test]
    fn a_lost_response_is_made_up_for_by_the_next_initiation() {
        let (mut a, mut b) = pair();
        let now = Instant::now();
        let lost = initiation(&mut a, now);
        assert_eq!(open(&mut b, &lost).0, Opened::Reply(92));
        let next = initiation(&mut a, now + REKEY_TIMEOUT);
        shake(&mut a, &mut b, &next);
    }

    #[test]
    fn forged_datagrams_are_rejected() {
        let (mut a, mut b) = connected();
        let (_, datagram) = seal(&mut a, &packet(60, 1));
        for at in 0..datagram.len() {
            let mut forged = datagram.clone();
            forged[at] ^= 1;
            assert_eq!(open(&mut b, &forged).0, Opened::Rejected, "byte {at}");
        }
        for len in 0..datagram.len() {
            assert_eq!(open(&mut b, &datagram[..len]).0, Opened::Rejected);
        }
        assert_eq!(open(&mut b, &datagram).0, Opened::Packet(60));
    }

    #[test]
    fn an_inner_length_beyond_the_datagram_is_rejected() {
        let (mut a, mut b) = connected();
        let mut long = packet(60, 1);
        long[2..4].copy_from_slice(&100_u16.to_be_bytes());
        let (_, datagram) = seal(&mut a, &long);
        assert_eq!(open(&mut b, &datagram).0, Opened::Rejected);
    }

    #[test]
    fn the_initiator_renews_an_idle_session_before_the_responder() {
        let (mut a, mut b) = connected();
        let mut dst = vec![0; SMALLEST_BUFFER];
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert_eq!(a.tick(later(119), &mut dst), None);
        assert_eq!(b.tick(later(164), &mut dst), None);
        assert_eq!(a.tick(later(121), &mut dst), Some(148));
        assert_eq!(b.tick(later(166), &mut dst), Some(148));
    }

    #[test]
    fn a_silence_is_told_once_until_the_next_handshake() {
        let (mut a, mut b) = pair();
        let start = Instant::now();
        let mut dst = vec![0; SMALLEST_BUFFER];
        initiation(&mut a, start);
        a.tick(start + Duration::from_secs(14), &mut dst);
        assert!(!a.take_silence());
        a.tick(start + Duration::from_secs(16), &mut dst);
        assert!(a.take_silence());
        a.tick(start + Duration::from_secs(40), &mut dst);
        assert!(!a.take_silence());
        let again = initiation(&mut a, start);
        shake(&mut a, &mut b, &again);
        initiation(&mut a, start);
        a.tick(start + Duration::from_secs(60), &mut dst);
        assert!(a.take_silence());
    }

    #[test]
    fn a_retry_waits_for_its_jitter() {
        let (mut a, _) = pair();
        let start = Instant::now();
        initiation(&mut a, start);
        let (_, next) = a.retry.unwrap();
        assert!(next >= start + REKEY_TIMEOUT && next <= start + REKEY_TIMEOUT + MOST_JITTER);
        let mut dst = vec![0; SMALLEST_BUFFER];
        a.tick(next - Duration::from_micros(1), &mut dst);
        assert_eq!(a.deadline(), next);
    }

    #[test]
    fn message_limits_are_those_of_the_paper() {
        assert_eq!(limit((1 << 60) - 1), Limit::Within);
        assert_eq!(limit(1 << 60), Limit::Rekey);
        assert_eq!(limit(u64::MAX - (1 << 13) - 1), Limit::Rekey);
        assert_eq!(limit(u64::MAX - (1 << 13)), Limit::Reject);
    }

    #[test]
    fn padding_stays_within_the_mtu() {
        for (len, mtu, expected) in [
            (1, 1420, 16),
            (16, 1420, 16),
            (1409, 1420, 1420),
            (1420, 1420, 1420),
            (1500, 1420, 1500),
        ] {
            assert_eq!(padded(len, mtu), expected);
        }
    }
}
