//! Decides what the gateway does next: events in, actions out. No I/O, no clock, no logging.
//!
//! ```text
//! Arming ──Attached──► Connecting ──Handshake──► Connected
//!                        ▲   │ Timeout: next server   │ Silent, NothingReturns, UplinkChanged
//!                        └───┴────────────────────────┘
//! any state ──Disconnect, Blocked──► Blocked ──Connect──► Connecting
//! ```

mod backoff;
mod event;

use std::net::SocketAddrV4;
use std::time::Instant;

use backoff::Dice;
pub use backoff::{FIRST, LONGEST};
pub use event::{Action, BlockReason, Command, Event};

use crate::config::{Host, Peer};
use crate::policy::Permit;

/// The state machine.
#[derive(Clone, Debug)]
pub struct Gateway {
    peers: Vec<Peer>,
    state: State,
    since: Instant,
    /// Nothing came back from beyond the last server, and nothing has since.
    fruitless: bool,
    dice: Dice,
}

/// Where the gateway stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The warden has not confirmed the rules. Nothing else may start.
    Arming,
    /// Rules in force, no handshake yet.
    Connecting(Attempt),
    /// The server answers.
    Connected {
        /// Index into the peers.
        peer: usize,
        /// Where it is.
        address: SocketAddrV4,
    },
    /// Loopback only, until an operator connects.
    Blocked(BlockReason),
}

/// One attempt to reach one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Index into the peers.
    pub peer: usize,
    /// Attempts before this one since the last handshake.
    pub tries: u32,
    /// How far it got.
    pub step: Step,
    /// When the next server is tried.
    pub give_up_at: Instant,
}

/// How far an attempt got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The warden was asked for this.
    Asking(Permit),
    /// The name of the endpoint is being looked up.
    Resolving,
    /// Handshakes are under way.
    Shaking(SocketAddrV4),
    /// It failed for this reason; waiting for the next.
    Waiting(String),
}

impl Gateway {
    /// A gateway that has not heard from its warden. `peers` is never empty ([`Config`]); `seed`
    /// spreads the attempts of many gateways over time.
    ///
    /// [`Config`]: crate::config::Config
    pub fn new(peers: Vec<Peer>, seed: u64, now: Instant) -> Self {
        Self {
            peers,
            state: State::Arming,
            since: now,
            fruitless: false,
            dice: Dice::new(seed),
        }
    }

    /// Where it stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When it got there. Attempts that follow each other are one stay in `connecting`.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Whether nothing comes back from beyond the server: connected, and of no use.
    pub fn is_fruitless(&self) -> bool {
        self.fruitless
    }

    /// The servers it knows.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// When [`Event::Timeout`] is due, if nothing else happens first.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Connecting(attempt) => Some(attempt.give_up_at),
            State::Arming | State::Connected { .. } | State::Blocked(_) => None,
        }
    }

    /// Takes one event that happened at `now`; returns what to do about it, in order.
    #[must_use = "an action not performed leaves the kernel behind the state"]
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            // Fail closed: these do not ask which state we are in.
            Event::Blocked(reason) => self.block(reason, now),
            Event::Command(Command::Disconnect) => self.block(BlockReason::Operator, now),
            Event::Command(Command::Connect) => self.lift(now),
            Event::Attached { blocked } => self.attached(blocked, now),
            Event::Granted(permit) => self.granted(permit, now),
            Event::Refused { permit, why } => self.refused(&permit, why, now),
            Event::Resolved(addresses) => self.resolved(&addresses, now),
            Event::Unresolved(why) => self.unresolved(why, now),
            Event::Handshake => self.shaken(now),
            Event::Silent => self.silent(now),
            Event::NothingReturns => self.nothing_returns(now),
            Event::Returns => {
                self.fruitless = false;
                vec![]
            }
            Event::Reconfigured(peers) => self.reconfigured(peers, now),
            Event::UplinkChanged => self.uplink_changed(now),
            Event::Timeout => self.timeout(now),
        }
    }

    fn attached(&mut self, blocked: Option<BlockReason>, now: Instant) -> Vec<Action> {
        match (&self.state, blocked) {
            (State::Arming, Some(reason)) => self.block(reason, now),
            (State::Arming, None) => self.attempt(0, 0, now),
            (State::Connecting(_) | State::Connected { .. } | State::Blocked(_), _) => vec![],
        }
    }

    fn lift(&mut self, now: Instant) -> Vec<Action> {
        match &self.state {
            State::Blocked(_) => self.attempt(0, 0, now),
            State::Connecting(attempt) => self.attempt(attempt.peer, 0, now),
            State::Arming | State::Connected { .. } => vec![],
        }
    }

    fn granted(&mut self, permit: Permit, now: Instant) -> Vec<Action> {
        let State::Connecting(attempt) = &mut self.state else {
            return vec![];
        };
        if attempt.step != Step::Asking(permit.clone()) {
            return vec![];
        }
        match permit {
            Permit::Idle => vec![],
            Permit::Resolver { peer } => match self.peers.get(peer) {
                Some(peer) => {
                    attempt.step = Step::Resolving;
                    vec![Action::Resolve(peer.endpoint.clone())]
                }
                None => self.attempt(0, 0, now),
            },
            Permit::Endpoint { peer, address } => {
                attempt.step = Step::Shaking(address);
                vec![Action::Open {
                    peer,
                    address,
                    prove: self.fruitless,
                }]
            }
        }
    }

    fn refused(&mut self, permit: &Permit, why: String, now: Instant) -> Vec<Action> {
        match &self.state {
            State::Connecting(attempt) if attempt.step == Step::Asking(permit.clone()) => {
                self.wait(why, now)
            }
            State::Arming | State::Connecting(_) | State::Connected { .. } | State::Blocked(_) => {
                vec![]
            }
        }
    }

    fn resolved(&mut self, addresses: &[std::net::Ipv4Addr], now: Instant) -> Vec<Action> {
        let State::Connecting(attempt) = &mut self.state else {
            return vec![];
        };
        if attempt.step != Step::Resolving {
            return vec![];
        }
        // A name with several addresses: another one each time round.
        let turn = attempt.tries as usize / self.peers.len().max(1);
        let (Some(peer), Some(ip)) = (
            self.peers.get(attempt.peer),
            addresses.get(turn % addresses.len().max(1)),
        ) else {
            return self.wait("the endpoint's name has no IPv4 address".to_owned(), now);
        };
        let address = SocketAddrV4::new(*ip, peer.endpoint.port);
        let permit = Permit::Endpoint {
            peer: attempt.peer,
            address,
        };
        attempt.step = Step::Asking(permit.clone());
        vec![Action::Ask(permit)]
    }

    fn unresolved(&mut self, why: String, now: Instant) -> Vec<Action> {
        match &self.state {
            State::Connecting(attempt) if attempt.step == Step::Resolving => {
                // The resolver's permission is not left open while we wait.
                let mut actions = self.wait(why, now);
                actions.push(Action::Ask(Permit::Idle));
                actions
            }
            State::Arming | State::Connecting(_) | State::Connected { .. } | State::Blocked(_) => {
                vec![]
            }
        }
    }

    fn shaken(&mut self, now: Instant) -> Vec<Action> {
        if let State::Connecting(attempt) = &self.state
            && let Step::Shaking(address) = attempt.step
        {
            let peer = attempt.peer;
            self.enter(State::Connected { peer, address }, now);
        }
        vec![]
    }

    fn silent(&mut self, now: Instant) -> Vec<Action> {
        match self.state {
            // The server had its 15 s; the next one's turn.
            State::Connected { peer, .. } => self.attempt(self.after(peer), 1, now),
            State::Arming | State::Connecting(_) | State::Blocked(_) => vec![],
        }
    }

    /// An account that ended, or a key that was withdrawn: the next server may be of more use.
    fn nothing_returns(&mut self, now: Instant) -> Vec<Action> {
        match self.state {
            State::Connected { peer, .. } => {
                self.fruitless = true;
                self.attempt(self.after(peer), 1, now)
            }
            State::Arming | State::Connecting(_) | State::Blocked(_) => vec![],
        }
    }

    fn timeout(&mut self, now: Instant) -> Vec<Action> {
        match &self.state {
            State::Connecting(attempt) if attempt.give_up_at <= now => self.attempt(
                self.after(attempt.peer),
                attempt.tries.saturating_add(1),
                now,
            ),
            State::Arming | State::Connecting(_) | State::Connected { .. } | State::Blocked(_) => {
                vec![]
            }
        }
    }

    fn uplink_changed(&mut self, now: Instant) -> Vec<Action> {
        match &self.state {
            State::Connecting(attempt) => self.attempt(attempt.peer, 0, now),
            State::Connected { peer, address } => self.reopen(*peer, *address, now),
            State::Arming | State::Blocked(_) => vec![],
        }
    }

    fn reconfigured(&mut self, peers: Vec<Peer>, now: Instant) -> Vec<Action> {
        self.fruitless = false;
        let old = std::mem::replace(&mut self.peers, peers);
        let moved = |index: usize| {
            let peer = old.get(index)?;
            self.peers
                .iter()
                .position(|p| p.public_key == peer.public_key && p.endpoint == peer.endpoint)
        };
        match &self.state {
            State::Arming | State::Blocked(_) => vec![],
            State::Connecting(attempt) => {
                let peer = moved(attempt.peer).unwrap_or(0);
                self.attempt(peer, 0, now)
            }
            State::Connected { peer, address } => match moved(*peer) {
                Some(peer) => self.reopen(peer, *address, now),
                None => self.attempt(0, 0, now),
            },
        }
    }

    /// Asks for the same server at the same address again: what was granted before is worth nothing.
    fn reopen(&mut self, peer: usize, address: SocketAddrV4, now: Instant) -> Vec<Action> {
        self.ask(peer, 0, Permit::Endpoint { peer, address }, now)
    }

    /// Starts an attempt with a server. A name is looked up each time, an address asked for at once.
    fn attempt(&mut self, peer: usize, tries: u32, now: Instant) -> Vec<Action> {
        let permit = match self
            .peers
            .get(peer)
            .map(|p| (&p.endpoint.host, p.endpoint.port))
        {
            Some((Host::Address(ip), port)) => Permit::Endpoint {
                peer,
                address: SocketAddrV4::new(*ip, port),
            },
            Some((Host::Name(_), _)) => Permit::Resolver { peer },
            None => return self.wait("no peer is configured".to_owned(), now),
        };
        self.ask(peer, tries, permit, now)
    }

    fn ask(&mut self, peer: usize, tries: u32, permit: Permit, now: Instant) -> Vec<Action> {
        let round = tries / self.peers.len().max(1) as u32;
        let give_up_at = now + backoff::window(round, self.dice.roll());
        let step = Step::Asking(permit.clone());
        self.enter(
            State::Connecting(Attempt {
                peer,
                tries,
                step,
                give_up_at,
            }),
            now,
        );
        vec![Action::Ask(permit)]
    }

    /// Something failed at once: waits a little, then tries the next server.
    fn wait(&mut self, why: String, now: Instant) -> Vec<Action> {
        let (peer, tries) = match &self.state {
            State::Connecting(attempt) => (attempt.peer, attempt.tries),
            State::Arming | State::Connected { .. } | State::Blocked(_) => (0, 0),
        };
        let give_up_at = now + backoff::pause(tries, self.dice.roll());
        let step = Step::Waiting(why);
        self.enter(
            State::Connecting(Attempt {
                peer,
                tries,
                step,
                give_up_at,
            }),
            now,
        );
        vec![]
    }

    fn block(&mut self, reason: BlockReason, now: Instant) -> Vec<Action> {
        self.fruitless = false;
        // A leak stays the reason: it is what the operator has to hear of.
        if !matches!(self.state, State::Blocked(BlockReason::Leak(_))) {
            self.enter(State::Blocked(reason), now);
        }
        vec![Action::Close]
    }

    fn enter(&mut self, state: State, now: Instant) {
        let stays = matches!(
            (&self.state, &state),
            (State::Connecting(_), State::Connecting(_))
        );
        if !stays {
            self.since = now;
        }
        self.state = state;
    }

    fn after(&self, peer: usize) -> usize {
        (peer + 1) % self.peers.len().max(1)
    }
}

#[cfg(test)]
mod tests;
