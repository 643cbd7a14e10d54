//! Ways out that a joined program may try, tried by a program of their own (`netns-tests/probe`). Each is
//! shown to be seen without the gateway before its absence with the gateway means anything.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

pub mod program;

use program::{Answer, PROGRAM, Persona, Program};

use crate::lab::Lab;
use crate::lab::canary::{self, Canary};
use crate::lab::sensor::Tally;

/// Probes of one kind, as the program groups them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// TCP, UDP, ICMP and raw protocols.
    Ip,
    /// Sockets bound to the uplink.
    Device,
    /// The hole for the VPN server.
    Endpoint,
    /// Names.
    Dns,
    /// Multicast, broadcast and what is on the LAN.
    Multicast,
    /// IPv6.
    Ipv6,
    /// Packet sockets.
    Packet,
    /// Packet sockets with a ring.
    Ring,
}

impl Family {
    /// All that change nothing.
    pub const ALL: [Self; 8] = [
        Self::Ip,
        Self::Device,
        Self::Endpoint,
        Self::Dns,
        Self::Multicast,
        Self::Ipv6,
        Self::Packet,
        Self::Ring,
    ];

    fn prefix(self) -> &'static str {
        match self {
            Self::Ip => "ip/",
            Self::Device => "device/",
            Self::Endpoint => "endpoint/",
            Self::Dns => "dns/",
            Self::Multicast => "multicast/",
            Self::Ipv6 => "ipv6/",
            Self::Packet => "packet/",
            Self::Ring => "ring/",
        }
    }

    /// The names of its probes.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let all = all().iter().map(String::as_str);
        all.filter(move |name| name.starts_with(self.prefix()))
    }
}

/// The name of every probe, as the program lists them.
pub fn all() -> &'static [String] {
    static ALL: OnceLock<Vec<String>> = OnceLock::new();
    ALL.get_or_init(|| {
        let listed = Command::new(PROGRAM).arg("list").output();
        let listed = String::from_utf8(listed.expect("the probe program starts").stdout);
        listed.unwrap().lines().map(str::to_owned).collect()
    })
}

/// Fires each probe where no gateway runs, and fails unless the sensor sees each one.
pub fn control(lab: &Lab, family: Family) {
    let names: Vec<_> = family.names().collect();
    assert!(!names.is_empty(), "{family:?} has no probes");
    let mut program = Program::start(&lab.ns, Persona::Lab);
    seen_without_a_gateway(lab, &mut program, &names);
    println!(
        "control: {} probes, each seen without the gateway",
        names.len()
    );
}

/// Fires until the sensor has seen each; panics with those that it does not see.
pub fn seen_without_a_gateway(lab: &Lab, program: &mut Program, names: &[&str]) {
    let mut left: BTreeMap<&str, Option<Answer>> = names.iter().map(|name| (*name, None)).collect();
    let mut rounds = 0;
    let seen = wait_or(Duration::from_secs(20), || {
        // Address resolution may swallow the first packets, so they are sent anew each time.
        let shots = shoot(lab, program, left.keys().copied());
        lab.sensor.drain();
        if rounds > 0 {
            std::thread::sleep(Duration::from_millis(50));
        }
        rounds += 1;
        for shot in shots {
            if shot.seen(lab) {
                left.remove(shot.name);
            } else {
                left.insert(shot.name, Some(shot.answer));
            }
        }
        left.is_empty()
    });
    assert!(
        seen,
        "invalid: without a gateway the sensor must see {left:#?}"
    );
}

/// Fires each probe and fails if the sensor sees any, or anything else that is not permitted.
pub fn fire(lab: &Lab, family: Family) -> Tally {
    let mut program = Program::start(&lab.ns, Persona::Lab);
    let shots = shoot(lab, &mut program, family.names());
    lab.sensor.drain();
    let refused = shots.iter().filter(|shot| shot.refused()).count();
    println!(
        "fired: {} probes, {refused} refused by the kernel",
        shots.len()
    );
    for shot in &shots {
        assert!(!shot.seen(lab), "leaked: {} ({:?})", shot.name, shot.answer);
    }
    lab.sensor.verdict()
}

/// One probe that was tried.
pub struct Shot {
    /// Which.
    pub name: &'static str,
    /// What it carried.
    pub token: Canary,
    /// What became of it, as far as its sender knows.
    pub answer: Answer,
}

impl Shot {
    /// Whether the sensor saw it.
    pub fn seen(&self, lab: &Lab) -> bool {
        let flow = match &self.answer {
            Answer::Sent(flow) => flow.as_ref(),
            Answer::Refused { .. } => None,
        };
        lab.sensor.saw(&self.token) || flow.is_some_and(|flow| lab.sensor.saw_flow(flow))
    }

    fn refused(&self) -> bool {
        matches!(self.answer, Answer::Refused { .. })
    }
}

/// Fires each probe once.
pub fn shoot<'a>(
    lab: &Lab,
    program: &mut Program,
    names: impl Iterator<Item = &'a str>,
) -> Vec<Shot> {
    let shots: Vec<_> = names
        .map(|name| {
            let token = canary::fresh();
            Shot {
                name: known(name),
                token,
                answer: program.fire(name, &token),
            }
        })
        .collect();
    lab.sensor.tried(shots.len() as u64);
    shots
}

fn known(name: &str) -> &'static str {
    let mut all = all().iter().map(String::as_str);
    all.find(|other| *other == name)
        .unwrap_or_else(|| panic!("there is no probe {name}"))
}

fn wait_or(patience: Duration, mut look: impl FnMut() -> bool) -> bool {
    let start = std::time::Instant::now();
    while start.elapsed() < patience {
        if look() {
            return true;
        }
    }
    false
}
