//! The judge: sees every frame that leaves the gateway's namespace, at the far end of the uplink,
//! and holds each that is not permitted against the test.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use super::canary::{self, Canary, Flow};
use super::capture::{Capture, Frame};
use super::classify::{Class, Rules, WireGuard, classify, flow};
use super::ns::Namespaces;
use super::raw::{Layer, PacketSocket};
use super::wait;

/// The device at the far end of the uplink, in namespace `rtr`.
const DEVICE: &str = "toapp";

/// How many leaks are kept with their bytes.
const KEPT: usize = 8;

/// The judge.
pub struct Sensor {
    state: Arc<Mutex<State>>,
    capture: Capture,
    namespaces: Namespaces,
    tries: Arc<AtomicU64>,
    namespace: String,
    device: String,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Everything, before arming too.
    pub frames: u64,
    /// Of those, before arming.
    pub before: u64,
    /// To a VPN server.
    pub wireguard: u64,
    /// ARP.
    pub arp: u64,
    /// LAN exceptions.
    pub lan: u64,
    /// Questions to the resolver.
    pub resolver: u64,
    /// Leaks.
    pub other: u64,
    /// Leaks that a known limit explains.
    pub excused: u64,
}

/// Frames with one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// How many.
    pub frames: u64,
    /// When the first left.
    pub first: SystemTime,
    /// When the last left.
    pub last: SystemTime,
}

/// A handshake message that left.
#[derive(Clone, Copy, Debug)]
pub struct Handshake {
    /// When.
    pub at: SystemTime,
    /// What.
    pub message: WireGuard,
}

struct State {
    rules: Rules,
    armed: Option<SystemTime>,
    tally: Tally,
    leaks: Vec<String>,
    canaries: HashMap<Canary, Sighting>,
    marks: HashSet<Canary>,
    flows: HashSet<Flow>,
    handshakes: Vec<Handshake>,
    spans: BTreeMap<SocketAddrV4, (SystemTime, SystemTime)>,
    data: u64,
    resolver_closed: bool,
}

impl Sensor {
    /// Returns once it receives. Nothing is a leak until [`Self::arm`].
    pub fn start(namespaces: &Namespaces, rules: Rules) -> Self {
        Self::start_at(namespaces, "rtr", DEVICE, rules)
    }

    /// As [`Self::start`], at another device that faces what is judged.
    pub fn start_at(namespaces: &Namespaces, namespace: &str, device: &str, rules: Rules) -> Self {
        let state = Arc::new(Mutex::new(State::new(rules)));
        let shared = state.clone();
        let capture = Capture::start(namespaces, namespace, device, move |frame| {
            shared.lock().unwrap().see(frame);
        });
        Self {
            state,
            capture,
            namespaces: namespaces.clone(),
            tries: Arc::default(),
            namespace: namespace.to_owned(),
            device: device.to_owned(),
        }
    }

    /// Counts probes that were tried, seen or not.
    pub fn tried(&self, probes: u64) {
        self.tries.fetch_add(probes, Ordering::Relaxed);
    }

    /// How many probes were tried so far, to be added to.
    pub fn tries(&self) -> Arc<AtomicU64> {
        self.tries.clone()
    }

    /// From `at` on, every frame must be permitted.
    pub fn arm(&self, at: SystemTime) {
        let mut state = self.lock();
        if state.armed.is_none() {
            // A port that a control had may be another packet's later.
            state.flows.clear();
            state.armed = Some(at);
        }
    }

    /// Nothing is a leak until armed again.
    pub fn disarm(&self) {
        self.lock().armed = None;
    }

    /// Takes the leaks so far for a known limit; how many there were.
    pub fn excuse(&self) -> u64 {
        let mut state = self.lock();
        let leaks = std::mem::take(&mut state.tally.other);
        state.tally.excused += leaks;
        state.leaks.clear();
        leaks
    }

    /// Changes what is permitted.
    pub fn permit(&self, change: impl FnOnce(&mut Rules)) {
        let mut state = self.lock();
        change(&mut state.rules);
        state.resolver_closed = false;
    }

    /// Waits until everything sent before now has been judged.
    pub fn drain(&self) {
        let mark = canary::fresh();
        let mut frame = vec![0xff; 12];
        frame.extend([0x88, 0xb5]);
        frame.extend(mark);
        frame.resize(60, 0);
        let mark_it = || {
            self.namespaces.enter(&self.namespace, || {
                let socket = PacketSocket::open(&self.device, Layer::Frame, 0).unwrap();
                socket.send(&frame).unwrap();
            });
        };
        // A link that came up just now swallows frames until the kernel has noticed (net/core/link_watch.c).
        let (start, mut marks, mut dead) = (Instant::now(), 0, 0);
        wait("the sensor keeps up", Duration::from_secs(20), || {
            if start.elapsed() >= Duration::from_millis(500) * marks {
                mark_it();
                marks += 1;
                dead = if self.has_carrier() { 0 } else { dead + 1 };
            }
            // A gateway that set its uplink down ends the link for the sensor, too: nothing comes any more.
            (dead > 4 || self.lock().marks.contains(&mark)).then_some(())
        });
    }

    fn has_carrier(&self) -> bool {
        let line = format!("ip -o link show dev {}", self.device);
        let shown = self.namespaces.output(&self.namespace, &line);
        String::from_utf8_lossy(&shown.stdout).contains("LOWER_UP")
    }

    /// Whether the token was seen in clear text.
    pub fn saw(&self, token: &Canary) -> bool {
        self.sighting(token).is_some()
    }

    /// How often the token was seen in clear text, and from when to when.
    pub fn sighting(&self, token: &Canary) -> Option<Sighting> {
        self.lock().canaries.get(token).copied()
    }

    /// Whether a packet of the flow was seen.
    pub fn saw_flow(&self, flow: &Flow) -> bool {
        self.lock().flows.contains(flow)
    }

    /// Counts so far.
    pub fn tally(&self) -> Tally {
        self.lock().tally.clone()
    }

    /// Handshake messages so far.
    pub fn handshakes(&self) -> Vec<Handshake> {
        self.lock().handshakes.clone()
    }

    /// Data messages so far.
    pub fn data_messages(&self) -> u64 {
        self.lock().data
    }

    /// First and last message to each server.
    pub fn spans(&self) -> BTreeMap<SocketAddrV4, (SystemTime, SystemTime)> {
        self.lock().spans.clone()
    }

    /// Fails the test if anything left that is not permitted, or if the sensor cannot know.
    pub fn verdict(&self) -> Tally {
        self.drain();
        assert_eq!(self.capture.dropped(), 0, "the sensor lost frames");
        let (armed, tally, leaks) = {
            let state = self.lock();
            (state.armed, state.tally.clone(), state.leaks.join("\n"))
        };
        println!("sensor: {tally}");
        assert!(armed.is_some(), "the sensor was never armed");
        assert!(tally.other == 0, "{} frames leaked:\n{leaks}", tally.other);
        tally
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            armed: None,
            tally: Tally::default(),
            leaks: Vec::new(),
            canaries: HashMap::new(),
            marks: HashSet::new(),
            flows: HashSet::new(),
            handshakes: Vec::new(),
            spans: BTreeMap::new(),
            data: 0,
            resolver_closed: false,
        }
    }

    fn see(&mut self, frame: &Frame<'_>) {
        if frame.outgoing {
            self.marks.extend(canary::find(frame.bytes));
            return;
        }
        self.tally.frames += 1;
        let tokens = canary::find(frame.bytes);
        let clear = !tokens.is_empty();
        for token in tokens {
            let seen = self.canaries.entry(token).or_insert(Sighting {
                frames: 0,
                first: frame.at,
                last: frame.at,
            });
            (seen.frames, seen.last) = (seen.frames + 1, frame.at);
        }
        if self.armed.is_none_or(|armed| frame.at >= armed) {
            self.flows.extend(flow(frame.bytes));
        }
        if self.armed.is_none_or(|armed| frame.at < armed) {
            self.tally.before += 1;
            return;
        }
        match classify(frame.bytes, frame.vlan, &self.rules) {
            Class::WireGuard(_) if clear => self.leak(frame, "a canary in clear text"),
            Class::WireGuard(message) => self.wireguard(frame.at, message),
            Class::Arp if clear => self.leak(frame, "a canary behind an ARP packet"),
            Class::Arp => self.tally.arp += 1,
            Class::Lan => self.tally.lan += 1,
            Class::Resolver if self.resolver_closed && !self.rules.resolver_again => {
                self.leak(frame, "a question to the resolver after the tunnel opened");
            }
            Class::Resolver => self.tally.resolver += 1,
            Class::Other(why) => self.leak(frame, &why),
        }
    }

    fn wireguard(&mut self, at: SystemTime, message: WireGuard) {
        self.tally.wireguard += 1;
        self.resolver_closed = true;
        let span = self.spans.entry(message.remote).or_insert((at, at));
        span.1 = at;
        match message.kind {
            4 => self.data += 1,
            _ => self.handshakes.push(Handshake { at, message }),
        }
    }

    fn leak(&mut self, frame: &Frame<'_>, why: &str) {
        self.tally.other += 1;
        if self.leaks.len() < KEPT {
            let after = self
                .armed
                .and_then(|armed| frame.at.duration_since(armed).ok());
            let after = after.unwrap_or_default().as_secs_f64();
            let head = &frame.bytes[..frame.bytes.len().min(96)];
            let bytes: String = head.iter().map(|b| format!("{b:02x}")).collect();
            let len = frame.bytes.len();
            self.leaks.push(format!(
                "  {after:.6} s after arming: {why} ({len} bytes)\n    {bytes}"
            ));
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} frames seen, {} before arming, {} WireGuard, {} ARP, {} LAN, {} resolver, {} other",
            self.frames, self.before, self.wireguard, self.arp, self.lan, self.resolver, self.other
        )
    }
}
