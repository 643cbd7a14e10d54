//! What a worker that was taken over may say to the warden, with the guard behind it: whatever comes, nothing panics, and
//! nothing is permitted that the configuration does not hold. `benches/fuzz` looks for bytes for which that is not so;
//! what it learnt is gone through by a test.

use std::time::{Duration, Instant};

use super::message::{Message, ToWarden};
use super::wire::{Packet, Parts};
use crate::config::{Config, example};
use crate::gateway::{BlockReason, Command};
use crate::guard::{Do, Enforced, Event, Guard, Leak, Order, Refusal, Seen, Start, Topology};
use crate::net::Uplink;
use crate::policy::{Permit, way};

/// Packets of the socket, a line each; the first byte says which topology, and each line may begin with what the
/// kernel and the rest of the world do meanwhile.
pub fn worker(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    let mut world = World::new(first & 1 == 1);
    let mut parts = Parts::default();
    for line in rest.split(|byte| *byte == b'\n') {
        let line = world.meanwhile(line);
        let Some(packet) = Packet::read(line) else {
            continue;
        };
        let Ok(Some(message)) = parts.take(packet, ToWarden::LONGEST) else {
            continue;
        };
        if let Ok(message) = serde_json::from_slice::<ToWarden>(&message) {
            world.hear(message);
        }
    }
}

struct World {
    guard: Guard,
    now: Instant,
    /// Whether the kernel takes orders.
    takes: bool,
}

impl World {
    fn new(sealed: bool) -> Self {
        let mut config = example::config();
        let topology = if sealed {
            config.tunnel.addresses.clear();
            config.tunnel.dns = None;
            Topology::Sealed
        } else {
            Topology::Shared
        };
        let start = Start {
            config,
            topology,
            former_resolver: None,
            seen: seen(Some(uplink()).filter(|_| !sealed)),
        };
        // Invariant of the test's own clock: it is only ever added to.
        let now = epoch();
        let mut world = Self {
            guard: Guard::new(start),
            now,
            takes: true,
        };
        world.happen(Event::Look);
        world
    }

    /// What happens before a line is heard: the kernel's mood, an uplink, a leak, a restart. The rest of the line.
    fn meanwhile<'a>(&mut self, line: &'a [u8]) -> &'a [u8] {
        let Some((first, rest)) = line.split_first() else {
            return line;
        };
        let event = match first {
            b'0' => None,
            b'1' => Some(Event::Observed(seen(Some(uplink())))),
            b'2' => Some(Event::Observed(seen(None))),
            b'3' => Some(Event::Leaked(vec![Leak {
                device: uplink().device,
                what: "udp by eth0".to_owned(),
            }])),
            b'4' => Some(Event::EngineCame),
            b'5' => Some(Event::EngineGone),
            b'6' => Some(Event::Reloaded(Box::new(example::config()))),
            b'7' => Some(Event::Tick),
            b'8' | b'9' => {
                self.takes = *first == b'8';
                None
            }
            // Not one of ours: the line is the packet.
            _ => return line,
        };
        self.now += Duration::from_millis(300);
        if let Some(event) = event {
            self.happen(event);
        }
        rest
    }

    /// As the warden takes it in (`src/warden/hear.rs`).
    fn hear(&mut self, message: ToWarden) {
        let event = match message {
            ToWarden::Offer(offer) => Event::Offered(offer),
            ToWarden::Ask { id, permit } => Event::Asked {
                id,
                permit,
                port: Ok(40000),
            },
            ToWarden::Operator { id, command } => Event::Operator { id, command },
            ToWarden::Attach { .. } => Event::EngineCame,
            ToWarden::Connect { port, client, .. } => {
                let lan = &self.guard.config().lan;
                // Whether it is admitted is looked up, and must not fail.
                let _ = lan.inbound.iter().any(|rule| {
                    let to = crate::net::Port {
                        transport: crate::net::Transport::Tcp,
                        number: port,
                    };
                    rule.admits(client, to)
                });
                return;
            }
            ToWarden::Health(_)
            | ToWarden::AskHealth
            | ToWarden::PathMtu { .. }
            | ToWarden::Stamp { .. }
            | ToWarden::Stopped => return,
        };
        let lifts = matches!(
            event,
            Event::Operator {
                command: Command::Connect,
                ..
            }
        );
        let before = self.guard.blocked().cloned();
        self.happen(event);
        if before.is_some() && self.guard.blocked().is_none() {
            assert!(lifts, "{before:?} ended by itself");
        }
        if let Some(BlockReason::Leak(_)) = before
            && !lifts
        {
            assert!(matches!(self.guard.blocked(), Some(BlockReason::Leak(_))));
        }
    }

    fn happen(&mut self, event: Event) {
        let mut todo = std::collections::VecDeque::from(self.guard.handle(event, self.now));
        while let Some(next) = todo.pop_front() {
            let outcome = match next {
                Do::Enforce(order) => Some(self.enforce(&order)),
                Do::LinksDown => Some(Event::LinksDown(vec![uplink().device])),
                Do::SetDown(_)
                | Do::SetUp(_)
                | Do::Verify
                | Do::Forgive
                | Do::Adopt
                | Do::DropEngine
                | Do::Answer(_)
                | Do::Tell(_)
                | Do::Note(_) => None,
            };
            let more = outcome.map(|event| self.guard.handle(event, self.now));
            for next in more.into_iter().flatten().rev() {
                todo.push_front(next);
            }
        }
    }

    fn enforce(&self, order: &Order) -> Event {
        no_more_than(order, self.guard.config());
        let number = order.number;
        if self.takes {
            Event::Enforced(Enforced {
                number,
                routes: None,
                bare: Vec::new(),
            })
        } else {
            let refusal = Refusal::Refused("no memory".to_owned());
            Event::Refused { number, refusal }
        }
    }
}

/// Nothing is open that the configuration does not hold.
fn no_more_than(order: &Order, config: &Config) {
    for lan in order.policy.lans() {
        let inbound = |rule| config.lan.inbound.contains(rule);
        let outbound = |rule| config.lan.outbound.contains(rule);
        assert!(lan.inbound.iter().all(inbound) && lan.outbound.iter().all(outbound));
    }
    let Some(uplink) = &order.policy.uplink else {
        return;
    };
    let Some(hole) = uplink.endpoint else {
        return;
    };
    let held = (0..config.peers.len()).any(|peer| {
        let address = hole.remote;
        way::check(config, None, &Permit::Endpoint { peer, address }).is_ok()
    });
    assert!(held, "{hole:?}");
}

fn seen(uplink: Option<Uplink>) -> Seen {
    Seen {
        uplink,
        ..Seen::default()
    }
}

fn uplink() -> Uplink {
    // Invariant: these are a name, a network and an address.
    Uplink {
        device: "eth0".parse().unwrap(),
        address: "172.30.0.2/24".parse().unwrap(),
        gateway: Some([172, 30, 0, 1].into()),
    }
}

/// Any moment does; the guard compares moments only.
fn epoch() -> Instant {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn what_the_fuzzer_learnt_of_a_hostile_worker_does_no_harm() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/fuzz/corpus/worker");
        let mut count = 0;
        for entry in fs::read_dir(&folder).unwrap() {
            worker(&fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 10, "{count} files in {}", folder.display());
    }
}
