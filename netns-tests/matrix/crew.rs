//! One program a persona, all in one lab, and the comparison with the table.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::table::{Cell, Table};
use crate::lab::canary::Flow;
use crate::lab::inside::Inside;
use crate::lab::{Lab, report};
use crate::probes::program::{Answer, Persona, Program};
use crate::probes::{Family, Shot, seen_without_a_gateway, shoot};

/// How long packets may be under way in the tunnel on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everybody who may join.
pub struct Crew {
    table: Table,
    programs: Vec<(Persona, Program)>,
}

/// Whether what may go through the tunnel has to arrive there.
#[derive(Clone, Copy)]
pub enum Tunnel<'a> {
    /// It is open.
    Open(&'a Inside),
    /// It is not, or not all the time.
    Unknown,
}

impl Crew {
    /// Starts everybody, and shows that the sensor sees each probe where no gateway runs, and that what the
    /// table calls impossible is.
    pub fn with_control(lab: &Lab) -> Self {
        let programs = Persona::JOINED.map(|persona| (persona, Program::start(&lab.ns, persona)));
        let mut crew = Self {
            table: Table::read(),
            programs: programs.into(),
        };
        let mut seen = 0;
        for (persona, program) in &mut crew.programs {
            let (impossible, possible): (Vec<_>, Vec<_>) =
                harmless().partition(|name| *crew.table.cell(name, *persona) == Cell::Impossible);
            seen_without_a_gateway(lab, program, &possible);
            for shot in shoot(lab, program, impossible.iter().copied()) {
                let name = persona.name();
                assert!(
                    not_permitted(&shot.answer),
                    "{} as {name} is not impossible: {:?}",
                    shot.name,
                    shot.answer
                );
            }
            seen += possible.len();
            record("before start", *persona, "control", possible.len());
            record("before start", *persona, "impossible", impossible.len());
        }
        println!("control: {seen} probes of 5 personas, each seen without the gateway");
        crew
    }

    /// Everybody tries everything once in this state; panics with all that is not as the table says.
    pub fn fire(&mut self, lab: &Lab, state: &str, tunnel: Tunnel<'_>) {
        let shots = Persona::JOINED.map(|persona| (persona, self.shoot_as(persona, lab)));
        self.judge(shots.into(), lab, state, tunnel);
    }

    /// Only tries; the shots are to be judged later.
    pub fn shoot_as(&mut self, persona: Persona, lab: &Lab) -> Vec<Shot> {
        shoot(lab, self.program(persona), harmless())
    }

    /// Compares with the table; panics with all that is not as it says.
    pub fn judge(
        &mut self,
        shots: Vec<(Persona, Vec<Shot>)>,
        lab: &Lab,
        state: &str,
        tunnel: Tunnel<'_>,
    ) {
        let mut wrong = String::new();
        for (persona, shots) in shots {
            let shots = match tunnel {
                Tunnel::Open(inside) => self.until_inside(persona, shots, lab, inside),
                Tunnel::Unknown => shots,
            };
            lab.sensor.drain();
            for shot in &shots {
                let cell = self.table.cell(shot.name, persona);
                if let Some(why) = differs(cell, shot, lab, tunnel) {
                    let (name, who) = (shot.name, persona.name());
                    writeln!(wrong, "  {name} as {who}: {why} ({:?})", shot.answer).unwrap();
                }
            }
            let count = |cell: &Cell| {
                let of_kind = shots.iter();
                of_kind
                    .filter(|s| self.table.cell(s.name, persona) == cell)
                    .count()
            };
            let (held, through) = (count(&Cell::Held), count(&Cell::Tunnel));
            let (held, through) = match tunnel {
                Tunnel::Open(_) => (held, through),
                Tunnel::Unknown => (held + through, 0),
            };
            record(state, persona, "held", held);
            record(state, persona, "tunnel", through);
            record(state, persona, "impossible", count(&Cell::Impossible));
        }
        assert!(wrong.is_empty(), "{state}:\n{wrong}");
        lab.sensor.verdict();
    }

    /// Tries anew what has not come out of the tunnel: queues may be full on a busy machine.
    fn until_inside(
        &mut self,
        persona: Persona,
        mut shots: Vec<Shot>,
        lab: &Lab,
        inside: &Inside,
    ) -> Vec<Shot> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(100));
            let missing: Vec<_> = shots
                .iter()
                .filter(|shot| *self.table.cell(shot.name, persona) == Cell::Tunnel)
                .filter(|shot| !inside.saw(&shot.token, flow(&shot.answer)))
                .map(|shot| shot.name)
                .collect();
            if missing.is_empty() {
                break;
            }
            let again = shoot(lab, self.program(persona), missing.iter().copied());
            shots.retain(|shot| !missing.contains(&shot.name));
            shots.extend(again);
        }
        shots
    }

    fn program(&mut self, persona: Persona) -> &mut Program {
        let mut programs = self.programs.iter_mut();
        let found = programs.find(|(other, _)| *other == persona);
        &mut found.expect("everybody was started").1
    }
}

/// The probes that change nothing.
fn harmless() -> impl Iterator<Item = &'static str> {
    Family::ALL.into_iter().flat_map(Family::names)
}

fn differs(cell: &Cell, shot: &Shot, lab: &Lab, tunnel: Tunnel<'_>) -> Option<&'static str> {
    if shot.seen(lab) {
        return Some("LEAKED");
    }
    let arrived = match tunnel {
        Tunnel::Open(inside) => Some(inside.saw(&shot.token, flow(&shot.answer))),
        Tunnel::Unknown => None,
    };
    match (cell, arrived) {
        (Cell::Held | Cell::Impossible | Cell::Residual(_), Some(true)) => {
            Some("went through the tunnel")
        }
        (Cell::Tunnel, Some(false)) => Some("did not come through the tunnel"),
        (Cell::Impossible, _) if !not_permitted(&shot.answer) => Some("was not impossible"),
        (Cell::Residual(_), _) => Some("is no probe that changes nothing"),
        (Cell::Held | Cell::Tunnel | Cell::Impossible, _) => None,
    }
}

/// Whether the kernel said that this persona must not.
pub fn not_permitted(answer: &Answer) -> bool {
    match answer {
        Answer::Sent(_) => false,
        Answer::Refused { errno, .. } => [libc::EPERM, libc::EACCES].contains(errno),
    }
}

fn flow(answer: &Answer) -> Option<&Flow> {
    match answer {
        Answer::Sent(flow) => flow.as_ref(),
        Answer::Refused { .. } => None,
    }
}

fn record(state: &str, persona: Persona, outcome: &str, probes: usize) {
    let state = state.replace(' ', "-");
    report::line(&format!(
        "cell {state} {} {outcome} {probes}",
        persona.name()
    ));
}
