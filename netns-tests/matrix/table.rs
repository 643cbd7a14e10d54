//! The expected outcome of every probe, for everybody, in every state: `expected.txt`, read.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::probes::program::Persona;

/// The table.
pub struct Table {
    /// Each probe, in order, with a cell for each of [`Persona::JOINED`].
    pub rows: Vec<(String, [Cell; 5])>,
    residuals: BTreeMap<String, Residual>,
}

/// What one probe leads to for one persona while the rules stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// It reaches nobody: neither outside nor through the tunnel.
    Held,
    /// It goes through the tunnel if that is open, and nowhere else.
    Tunnel,
    /// The kernel does not let this persona try.
    Impossible,
    /// It may leave: one of the known limits of `SECURITY.md`.
    Residual(String),
}

/// What is guaranteed of a known limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residual {
    /// Whether it leaves.
    pub leaves: Leaves,
    /// Whether the gateway knows, and blocks.
    pub detected: Detected,
}

/// Whether the gateway notices that a frame left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// So soon after it left.
    Within(Duration),
    /// Sometimes.
    Perhaps,
    /// Never.
    Never,
}

/// Whether a frame leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// Each time.
    Always,
    /// If it is faster than the gateway.
    Perhaps,
}

impl Table {
    /// Reads it; panics where it makes no sense.
    pub fn read() -> Self {
        let mut table = Self {
            rows: Vec::new(),
            residuals: BTreeMap::new(),
        };
        for line in include_str!("expected.txt").lines() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<_> = line.split_whitespace().collect();
            match words.as_slice() {
                [] | ["probe", ..] => {}
                ["residual", name, leaves, detected] => {
                    let residual = Residual::parse(leaves, detected);
                    let residual = residual.unwrap_or_else(|| panic!("unclear: {line}"));
                    table.residuals.insert((*name).to_owned(), residual);
                }
                [name, cells @ ..] if cells.len() == Persona::JOINED.len() => {
                    let cells: Vec<_> = cells.iter().map(|word| Cell::parse(word)).collect();
                    let cells = cells.try_into().expect("five of them");
                    table.rows.push(((*name).to_owned(), cells));
                }
                _ => panic!("unclear: {line}"),
            }
        }
        for (name, cells) in &table.rows {
            for cell in cells {
                if let Cell::Residual(residual) = cell {
                    assert!(
                        table.residuals.contains_key(residual),
                        "{name}: {residual}?"
                    );
                }
            }
        }
        table
    }

    /// The cell of a probe and a persona.
    pub fn cell(&self, probe: &str, persona: Persona) -> &Cell {
        let row = self.rows.iter().find(|(name, _)| name == probe);
        let (_, cells) = row.unwrap_or_else(|| panic!("the table lacks {probe}"));
        let column = Persona::JOINED.iter().position(|other| *other == persona);
        &cells[column.expect("a persona of the matrix")]
    }

    /// What is guaranteed of a known limit.
    pub fn residual(&self, name: &str) -> Residual {
        self.residuals[name]
    }
}

impl Cell {
    fn parse(word: &str) -> Self {
        match word {
            "held" => Self::Held,
            "tunnel" => Self::Tunnel,
            "-" => Self::Impossible,
            name => Self::Residual(name.to_owned()),
        }
    }
}

impl Residual {
    fn parse(leaves: &str, detected: &str) -> Option<Self> {
        let leaves = match leaves {
            "leaves" => Leaves::Always,
            "may-leave" => Leaves::Perhaps,
            _ => return None,
        };
        let detected = match detected {
            "undetected" => Detected::Never,
            "perhaps-blocked" => Detected::Perhaps,
            words => {
                let seconds = words.strip_prefix("blocked-within-")?.strip_suffix("s")?;
                Detected::Within(Duration::from_secs(seconds.parse().ok()?))
            }
        };
        Some(Self { leaves, detected })
    }
}

/// The program and the table know the same probes, so none is left out of the matrix.
#[test]
fn every_probe_stands_in_the_table() {
    let table = Table::read();
    let listed: Vec<_> = table.rows.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(listed, crate::probes::all());
}
