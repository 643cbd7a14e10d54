//! The sensor: watches what arrives at the router's end of the uplink, from before the client's end
//! is up. Everything that is not expected is a leak.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockFilter;

use super::expected::Expected;
use super::probe::Canary;
use crate::leak::frame::{Frame, Message};
use crate::sys::capture::Capture;

/// Bytes kept of a WireGuard data message: room for the headers of both layers and a canary.
const SNAP: u32 = 160;
/// Receive buffer of each capture.
const BUFFER: usize = 16 << 20;
/// Leaks kept with their text; all are counted.
const KEPT: usize = 20;

/// A handle to the running sensor. It stops when dropped.
pub(super) struct Sensor {
    shared: Arc<Shared>,
}

/// What the sensor saw since [`Sensor::guard`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// WireGuard messages to the endpoint.
    pub(super) wireguard: BTreeMap<Message, u64>,
    /// ARP between us and the router.
    pub(super) arp: u64,
    /// All other frames, by kind.
    pub(super) leaks: BTreeMap<&'static str, u64>,
    /// The first of them, in words, with the time since the guard began.
    pub(super) evidence: Vec<(Duration, String)>,
    /// Frames that may have been leaks and that the sensor had no room for.
    pub(super) missed: u64,
    /// WireGuard data messages that were not counted.
    pub(super) uncounted: u64,
}

impl Record {
    /// Whether nothing left that should not have, as far as could be told.
    pub(super) fn held(&self) -> bool {
        self.leaks.is_empty() && self.missed == 0
    }

    /// All frames counted.
    pub(super) fn frames(&self) -> u64 {
        self.wireguard.values().sum::<u64>() + self.arp + self.leaked()
    }

    /// Frames that should not have left.
    pub(super) fn leaked(&self) -> u64 {
        self.leaks.values().sum()
    }
}

struct Shared {
    stopped: AtomicBool,
    /// Turns of the sensor's loop; each empties the capture in which a leak would be.
    turns: AtomicU64,
    state: Mutex<State>,
}

struct State {
    since: Instant,
    record: Record,
    probes: BTreeSet<u8>,
    destinations: BTreeSet<(IpAddr, Option<u16>)>,
}

impl Sensor {
    /// Starts to watch the device with this index in the calling thread's network namespace.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; those of starting a thread.
    pub(super) fn start(index: u32, expected: Expected, canary: Canary) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            stopped: AtomicBool::new(false),
            turns: AtomicU64::new(0),
            state: Mutex::new(State {
                since: Instant::now(),
                record: Record::default(),
                probes: BTreeSet::new(),
                destinations: BTreeSet::new(),
            }),
        });
        let watch = Watch {
            rest: Capture::open(index, &filter(expected.endpoint, 0, u32::MAX), BUFFER)?,
            data: Capture::open(index, &filter(expected.endpoint, SNAP, 0), BUFFER)?,
            expected,
            canary,
            shared: Arc::clone(&shared),
        };
        thread::Builder::new()
            .name("sensor".to_owned())
            .spawn(move || watch.run())?;
        Ok(Self { shared })
    }

    /// Forgets what was seen: from here on everything counts.
    pub(super) fn guard(&self) {
        self.settle();
        let mut state = self.shared.state();
        state.since = Instant::now();
        state.record = Record::default();
        state.probes.clear();
        state.destinations.clear();
    }

    /// Waits until nothing has arrived for 300 ms, 3 s at most: the kernel's own frames (multicast
    /// reports, neighbour discovery) that belong to what was before.
    pub(super) fn wait_quiet(&self) {
        let begin = Instant::now();
        let mut last = (begin, self.record().frames());
        while last.0.elapsed() < Duration::from_millis(300)
            && begin.elapsed() < Duration::from_secs(3)
        {
            thread::sleep(Duration::from_millis(20));
            let frames = self.record().frames();
            if frames != last.1 {
                last = (Instant::now(), frames);
            }
        }
    }

    /// Whether the probe with this number was seen, by its canary.
    pub(super) fn saw_probe(&self, number: u8) -> bool {
        self.shared.state().probes.contains(&number)
    }

    /// Whether a frame to this destination was seen.
    pub(super) fn saw_destination(&self, address: IpAddr, port: u16) -> bool {
        let state = self.shared.state();
        state.destinations.contains(&(address, Some(port)))
    }

    /// What was seen since [`Self::guard`], everything that has arrived by now included.
    pub(super) fn record(&self) -> Record {
        self.settle();
        self.shared.state().record.clone()
    }

    /// Waits for two turns of the sensor: a leak that had arrived before is in the record then.
    fn settle(&self) {
        let begin = Instant::now();
        let turns = self.shared.turns.load(Ordering::Acquire);
        while self.shared.turns.load(Ordering::Acquire) < turns + 2 {
            if begin.elapsed() > Duration::from_secs(5) {
                // The thread is stuck or dead: nobody watches.
                self.shared.state().record.missed += 1;
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole after every line that changes it, so a panic elsewhere spoils nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sensor's thread.
struct Watch {
    /// All but WireGuard data messages to the endpoint: few frames, so none is lost.
    rest: Capture,
    /// WireGuard data messages to the endpoint, cut to [`SNAP`] bytes.
    data: Capture,
    expected: Expected,
    canary: Canary,
    shared: Arc<Shared>,
}

impl Watch {
    fn run(self) {
        let mut buffer = vec![0; 1 << 18];
        while !self.shared.stopped.load(Ordering::Acquire) {
            let mut seen = self.drain(&self.rest, &mut buffer, usize::MAX);
            seen += self.drain(&self.data, &mut buffer, 256);
            self.count_missed();
            self.shared.turns.fetch_add(1, Ordering::Release);
            if seen == 0 {
                self.wait();
            }
        }
    }

    fn drain(&self, capture: &Capture, buffer: &mut [u8], most: usize) -> usize {
        let mut seen = 0;
        while seen < most {
            match capture.receive(buffer) {
                Ok(Some(frame)) => self.look(frame),
                // ENETDOWN is reported once when the device goes down; nothing arrives then.
                Ok(None) | Err(_) => break,
            }
            seen += 1;
        }
        seen
    }

    fn look(&self, bytes: &[u8]) {
        let frame = Frame::parse(bytes);
        let probe = self.canary.find(bytes);
        let mut state = self.shared.state();
        if let Some(number) = probe {
            state.probes.insert(number);
        }
        let since = state.since;
        match frame {
            Frame::WireGuard { message, .. } if self.expected.holds(&frame) && probe.is_none() => {
                *state.record.wireguard.entry(message).or_default() += 1;
            }
            Frame::Arp { .. } if self.expected.holds(&frame) => state.record.arp += 1,
            Frame::WireGuard { .. }
            | Frame::Arp { .. }
            | Frame::Ipv6 { .. }
            | Frame::Dns { .. }
            | Frame::Tcp { .. }
            | Frame::Udp { .. }
            | Frame::Icmp { .. }
            | Frame::Fragment { .. }
            | Frame::Ipv4 { .. }
            | Frame::Other { .. } => {
                state.destinations.extend(frame.destination());
                *state.record.leaks.entry(frame.kind()).or_default() += 1;
                if state.record.evidence.len() < KEPT {
                    let entry = (since.elapsed(), frame.to_string());
                    state.record.evidence.push(entry);
                }
            }
        }
    }

    fn count_missed(&self) {
        // A count that cannot be read is not a count of zero.
        let missed = self.rest.dropped().unwrap_or(1);
        let uncounted = self.data.dropped().unwrap_or(1);
        let mut state = self.shared.state();
        state.record.missed += u64::from(missed);
        state.record.uncounted += u64::from(uncounted);
    }

    fn wait(&self) {
        let mut fds = [
            PollFd::new(&self.rest, PollFlags::IN),
            PollFd::new(&self.data, PollFlags::IN),
        ];
        let most = Timespec {
            tv_sec: 0,
            tv_nsec: 5_000_000,
        };
        // A signal only ends the wait early.
        let _ = poll(&mut fds, Some(&most));
    }
}

/// A classic BPF program that returns `data` for WireGuard data messages to the endpoint and `rest`
/// for every other frame. A load beyond the end of a frame would end the program with 0, so the
/// length is asked first.
fn filter(endpoint: SocketAddrV4, data: u32, rest: u32) -> [SockFilter; 20] {
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF_AT_X: u16 = 0x48;
    const LOAD_WORD_AT_X: u16 = 0x40;
    const LOAD_LENGTH: u16 = 0x80;
    const LOAD_X_HEADER: u16 = 0xb1;
    const SUBTRACT_X: u16 = 0x1c;
    const EQUAL: u16 = 0x15;
    const AT_LEAST: u16 = 0x35;
    const ANY_BIT: u16 = 0x45;
    const RETURN: u16 = 0x06;
    let op = |code, k| SockFilter::new(code, 0, 0, k);
    // Jumps are relative: to `RETURN rest`, which is instruction 18, unless the test holds.
    let or_rest = |code, k, at: u8| SockFilter::new(code, 0, 18 - at - 1, k);
    [
        op(LOAD_LENGTH, 0),
        or_rest(AT_LEAST, 34, 1),
        op(LOAD_HALF, 12),
        or_rest(EQUAL, 0x0800, 3),
        op(LOAD_BYTE, 23),
        or_rest(EQUAL, 17, 5),
        op(LOAD_WORD, 30),
        or_rest(EQUAL, endpoint.ip().to_bits(), 7),
        op(LOAD_HALF, 20),
        // More fragments, or a fragment offset.
        SockFilter::new(ANY_BIT, 18 - 9 - 1, 0, 0x3fff),
        op(LOAD_X_HEADER, 14),
        op(LOAD_LENGTH, 0),
        op(SUBTRACT_X, 0),
        or_rest(AT_LEAST, 14 + 8 + 4, 13),
        op(LOAD_HALF_AT_X, 14 + 2),
        or_rest(EQUAL, u32::from(endpoint.port()), 15),
        op(LOAD_WORD_AT_X, 14 + 8),
        SockFilter::new(EQUAL, 1, 0, 0x0400_0000),
        op(RETURN, rest),
        op(RETURN, data),
    ]
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use socket2::{Domain, Socket, Type};

    use super::*;

    const ENDPOINT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 10), 51820);

    #[test]
    fn the_filters_part_data_messages_from_everything_else() {
        let data = frame();
        assert_eq!(passes(&data), (false, true));
        let mutations: [(usize, u8); 8] = [
            (13, 6),    // ARP
            (20, 0x20), // more fragments
            (21, 5),    // a fragment offset
            (23, 6),    // TCP
            (30, 199),  // another address
            (37, 0x6d), // another port
            (42, 1),    // a handshake
            (45, 1),    // reserved bytes that are not zero
        ];
        for (at, value) in mutations {
            let mut other = data.clone();
            other[at] = value;
            assert_eq!(passes(&other), (true, false), "byte {at}");
        }
    }

    #[test]
    fn the_filters_miss_no_short_frame() {
        let data = frame();
        for length in 1..46 {
            assert_eq!(passes(&data[..length]), (true, false), "{length} bytes");
        }
    }

    /// Whether a frame passes the filter of the rest, and that of the data messages.
    fn passes(frame: &[u8]) -> (bool, bool) {
        (
            received(&filter(ENDPOINT, 0, u32::MAX), frame),
            received(&filter(ENDPOINT, SNAP, 0), frame),
        )
    }

    /// The kernel runs socket filters on UNIX sockets too, and that needs no privilege.
    fn received(filter: &[SockFilter], frame: &[u8]) -> bool {
        let (sender, receiver) = Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap();
        receiver.attach_filter(filter).unwrap();
        receiver.set_nonblocking(true).unwrap();
        sender.send(frame).unwrap();
        let mut buffer = [0; 2048];
        rustix::net::recv(&receiver, &mut buffer[..], rustix::net::RecvFlags::empty()).is_ok()
    }

    /// A WireGuard data message to the endpoint.
    fn frame() -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend([
            8, 0, 0x45, 0, 0, 76, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 168, 77, 2,
        ]);
        frame.extend(ENDPOINT.ip().octets());
        frame.extend([0x9c, 0x40, 0xca, 0x6c, 0, 56, 0, 0, 4, 0, 0, 0]);
        frame.extend([0; 44]);
        frame
    }
}
