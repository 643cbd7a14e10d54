//! Probes that change the network, or that the gateway may take for a leak: each has a lab and a gateway of
//! its own. Where `expected.txt` names a known limit, what is guaranteed of that limit is asserted, and what
//! left is measured.

use std::time::{Duration, SystemTime};

use rustix::process::{Signal, kill_process};
use vpngw::control::api;

use super::crew::not_permitted;
use super::table::{Cell, Detected, Leaves, Residual, Table};
use crate::lab::gateway::Gateway;
use crate::lab::machine::Machine;
use crate::lab::sensor::Sighting;
use crate::lab::server::Swallow;
use crate::lab::{Lab, canary, report, wait};
use crate::probes::program::{Persona, Program};
use crate::probes::{Family, all, seen_without_a_gateway, shoot};

const PATIENCE: Duration = Duration::from_secs(30);

/// What eight tests at a time on two cores may add without the machine standing still.
const BUSY: Duration = Duration::from_secs(2);

/// What the gateway is doing meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connected,
    Pending,
    Suspended,
    Killed,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Pending => "handshake-pending",
            Self::Suspended => "suspended",
            Self::Killed => "killed",
        }
    }

    /// Whether somebody is there to notice.
    fn is_watched(self) -> bool {
        match self {
            Self::Connected | Self::Pending => true,
            Self::Suspended | Self::Killed => false,
        }
    }

    fn enter(self, lab: &Lab) -> Gateway {
        if self == Self::Pending {
            lab.servers[0].swallow(Swallow::Everything);
            let gateway = lab.start(&lab.conf());
            wait("a handshake is tried", PATIENCE, || {
                lab.sensor.handshakes().pop()
            });
            return gateway;
        }
        let mut gateway = lab.connect(&lab.conf());
        if self == Self::Suspended {
            for half in [gateway.engine(), gateway.warden()] {
                kill_process(half, Signal::STOP).unwrap();
            }
        }
        if self == Self::Killed {
            gateway.kill();
        }
        gateway
    }
}

/// The probes of a group, each as everybody who can, with a gateway of its own.
fn attacks(group: &str, state: State) {
    let table = Table::read();
    for (name, _) in table
        .rows
        .iter()
        .filter(|(name, _)| group_of(name) == group)
    {
        for persona in Persona::JOINED {
            let cell = table.cell(name, persona);
            let owned = changes_the_rules(name) && state != State::Killed;
            if owned && !matches!(cell, Cell::Impossible) {
                in_a_lab(|lab| nobody_changes_the_rules(lab, name, persona, state));
            }
            match cell {
                Cell::Impossible => {}
                Cell::Held | Cell::Tunnel => attack(name, persona, state, None),
                Cell::Residual(limit) => {
                    let residual = table.residual(limit);
                    attack(name, persona, state, Some((limit, residual)));
                }
            }
        }
    }
}

/// Whether it tries to change our tables, which the kernel refuses where they belong to a living gateway. What it
/// would lead to is tried as on a kernel where they belong to nobody.
fn changes_the_rules(name: &str) -> bool {
    name.starts_with("admin/nft-")
}

fn group_of(name: &str) -> &str {
    match name.split_once('/') {
        Some(("admin", rest)) => rest.split('-').next().unwrap_or(rest),
        Some((family, _)) => family,
        None => name,
    }
}

fn attack(name: &str, persona: Persona, state: State, limit: Option<(&str, Residual)>) {
    println!("{name} as {}, {}:", persona.name(), state.name());
    // A lab of its own, because what an attack does without a gateway is not always undone.
    in_a_lab(|lab| {
        seen_without_a_gateway(lab, &mut Program::start(&lab.ns, persona), &[name]);
    });
    in_a_lab(|lab| try_it(lab, name, persona, state, limit));
}

/// Runs in a thread, because a lab is built around one, under the name by which counts are reported.
fn in_a_lab(work: impl FnOnce(&Lab) + Send) {
    let test = std::thread::current();
    let named = std::thread::Builder::new().name(test.name().unwrap_or("unnamed").to_owned());
    std::thread::scope(|scope| {
        let worker = named.spawn_scoped(scope, || work(&Lab::new())).unwrap();
        if let Err(panic) = worker.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Where the tables belong to a gateway that is not dead, who else would change them is refused (or passed over,
/// by a flush of everything), and nothing leaves.
fn nobody_changes_the_rules(lab: &Lab, name: &str, persona: Persona, state: State) {
    let mut program = Program::start(&lab.ns, persona);
    let _gateway = state.enter(lab);
    let token = canary::fresh();
    program.fire(name, &token);
    lab.sensor.tried(1);
    lab.sensor.drain();
    let seen = lab.sensor.sighting(&token);
    assert!(seen.is_none(), "LEAKED: {name}: {seen:?}");
    lab.sensor.verdict();
    cell(state, persona, "held");
}

fn try_it(lab: &Lab, name: &str, persona: Persona, state: State, limit: Option<(&str, Residual)>) {
    let mut program = Program::start(&lab.ns, persona);
    if changes_the_rules(name) {
        lab.tables_belong_to_nobody();
    }
    let gateway = state.enter(lab);
    let (machine, token) = (Machine::watch(), canary::fresh());
    let begun = std::time::Instant::now();
    let (answer, blocked) = std::thread::scope(|scope| {
        let attacker = scope.spawn(|| program.fire(name, &token));
        let mut blocked = None;
        while !attacker.is_finished() {
            blocked = blocked.or_else(|| blocked_since(&gateway, state));
            std::thread::sleep(Duration::from_millis(5));
        }
        (attacker.join().unwrap(), blocked)
    });
    lab.sensor.tried(1);
    lab.sensor.drain();
    let seen = lab.sensor.sighting(&token);
    let who = persona.name();
    assert!(!not_permitted(&answer), "{name} as {who}: {answer:?}");
    let Some((limit, residual)) = limit else {
        assert!(seen.is_none(), "LEAKED: {name} as {who}: {seen:?}");
        lab.sensor.verdict();
        cell(state, persona, "held");
        return;
    };
    cell(state, persona, "residual");
    assert!(
        seen.is_some() || residual.leaves == Leaves::Perhaps,
        "{name} as {who} was held: the table can say so"
    );
    let mut detected = None;
    if let (Some(seen), true) = (seen, state.is_watched()) {
        detected = judge(name, &gateway, state, seen, residual, blocked, || {
            machine.stood_still_since(begun)
        });
    }
    lab.sensor.drain();
    if detected.is_none() {
        // What was changed may stay so, and lets out what the kernel itself sends later.
        lab.sensor.disarm();
    }
    let frames = lab.sensor.excuse();
    if detected.is_some() {
        nothing_leaves_any_more(lab);
    }
    expose(name, who, state, limit, (frames, seen), detected);
}

/// How long it took from the first frame to the block; fails if that is not as the table says.
fn judge(
    name: &str,
    gateway: &Gateway,
    state: State,
    seen: Sighting,
    residual: Residual,
    blocked: Option<SystemTime>,
    stalls: impl Fn() -> Duration,
) -> Option<Duration> {
    let bound = match residual.detected {
        Detected::Within(bound) => bound,
        Detected::Perhaps => return blocked.and_then(|at| at.duration_since(seen.first).ok()),
        Detected::Never => {
            std::thread::sleep(Duration::from_secs(2));
            let status = gateway.status().expect("it lives");
            let unknown = status.state != api::State::Blocked && status.leaks.detected == 0;
            assert!(unknown, "{name} is detected: the table can say so");
            return None;
        }
    };
    let blocked = blocked.unwrap_or_else(|| {
        wait(
            &format!("{name}: it blocks"),
            Duration::from_secs(10),
            || blocked_since(gateway, state),
        )
    });
    let took = blocked.duration_since(seen.first).unwrap_or_default();
    assert!(
        took <= bound + BUSY + stalls(),
        "{name}: blocked after {took:?}"
    );
    assert_eq!(gateway.ctl(&["status"]).status.code(), Some(3), "{name}");
    Some(took)
}

/// Since when it is blocked.
fn blocked_since(gateway: &Gateway, state: State) -> Option<SystemTime> {
    if !state.is_watched() {
        return None;
    }
    let status = gateway.status()?;
    let since = Duration::from_secs_f64(status.since_seconds);
    (status.state == api::State::Blocked).then(|| SystemTime::now() - since)
}

/// After the attack is over, a blocked gateway holds what any container can do.
fn nothing_leaves_any_more(lab: &Lab) {
    let mut program = Program::start(&lab.ns, Persona::Docker);
    for family in [Family::Ip, Family::Device, Family::Packet] {
        let shots = shoot(lab, &mut program, family.names());
        lab.sensor.drain();
        for shot in shots {
            assert!(!shot.seen(lab), "leaked after the block: {}", shot.name);
        }
    }
    lab.sensor.verdict();
}

fn cell(state: State, persona: Persona, outcome: &str) {
    let (state, who) = (state.name(), persona.name());
    report::line(&format!("cell {state} {who} {outcome} 1"));
}

fn expose(
    name: &str,
    who: &str,
    state: State,
    limit: &str,
    (frames, seen): (u64, Option<Sighting>),
    detected: Option<Duration>,
) {
    let span = seen.and_then(|seen| seen.last.duration_since(seen.first).ok());
    let span = span.unwrap_or_default().as_secs_f64() * 1000.0;
    let detected = detected.map_or_else(
        || "-".to_owned(),
        |after| format!("{:.0}", after.as_secs_f64() * 1000.0),
    );
    let state = state.name();
    println!(
        "exposure: {name} as {who}, {state}: {frames} frames in {span:.1} ms, blocked after {detected} ms"
    );
    report::line(&format!(
        "exposure {name} {who} {state} {limit} {frames} {span:.1} {detected}"
    ));
}

/// What is impossible without a capability is impossible with a gateway too, and trying changes nothing.
#[test]
fn attacks_without_the_capability_are_refused() {
    let (lab, table) = (Lab::new(), Table::read());
    let gateway = lab.connect(&lab.conf());
    let rules = lab.app("nft -s list ruleset");
    for persona in Persona::JOINED {
        let mut program = Program::start(&lab.ns, persona);
        let own = all().iter().map(String::as_str);
        let own = own.filter(|name| !is_harmless(name));
        let own = own.filter(|name| *table.cell(name, persona) == Cell::Impossible);
        let shots = shoot(&lab, &mut program, own);
        lab.sensor.drain();
        let who = persona.name();
        for shot in &shots {
            assert!(
                not_permitted(&shot.answer) && !shot.seen(&lab),
                "{} as {who}: {:?}",
                shot.name,
                shot.answer
            );
        }
        report::line(&format!("cell connected {who} impossible {}", shots.len()));
    }
    assert_eq!(lab.app("nft -s list ruleset"), rules);
    let status = gateway.status().unwrap();
    assert_eq!(
        (status.state, status.leaks.detected),
        (api::State::Connected, 0)
    );
    lab.sensor.verdict();
}

/// Every group of attacks has a test below.
#[test]
fn every_attack_belongs_to_a_group() {
    for name in all() {
        assert!(
            is_harmless(name) || GROUPS.contains(&group_of(name)),
            "{name} is in no group"
        );
    }
}

fn is_harmless(name: &str) -> bool {
    Family::ALL
        .iter()
        .any(|f| f.names().any(|other| other == name))
}

const GROUPS: [&str; 12] = [
    "forged", "xdp", "address", "route", "rule", "rules", "tunnel", "link", "uplink", "sysctl",
    "nft", "tc",
];

/// For those groups that share a test.
fn groups(groups: &[&str], state: State) {
    for group in groups {
        attacks(group, state);
    }
}

#[test]
fn raw_packets_let_out_what_is_documented() {
    groups(&GROUPS[..2], State::Connected);
}

#[test]
fn addresses_routes_and_links_open_no_way() {
    groups(&GROUPS[2..10], State::Connected);
}

#[test]
fn rules_that_are_removed_let_out_what_is_documented() {
    attacks("nft", State::Connected);
}

#[test]
fn traffic_control_lets_out_what_is_documented() {
    attacks("tc", State::Connected);
}

#[test]
fn attacks_while_the_handshake_is_pending() {
    groups(&GROUPS, State::Pending);
}

#[test]
fn attacks_while_suspended() {
    groups(&GROUPS, State::Suspended);
}

#[test]
fn attacks_when_both_are_killed() {
    groups(&GROUPS, State::Killed);
}
