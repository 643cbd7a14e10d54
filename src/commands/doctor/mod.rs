//! `vpngw doctor`: which topology this namespace is in, which guarantees hold here, which do not and why, and
//! what to change. Runs inside the namespace, beside the gateway or in a joined container; it only looks.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::block_on;
use super::exit::{Code, Failure};
use crate::control::client;

mod facts;
mod holds;
mod judge;
mod look;
mod ports;
mod processes;
mod report;
mod suits;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It is as it should be.
    Holds,
    /// No guarantee depends on it, and it could be better.
    Hint,
    /// It could not be told.
    Unknown,
    /// It is not.
    DoesNotHold,
}

/// One check, judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// What was looked at.
    check: &'static str,
    /// How it came out.
    outcome: Outcome,
    /// How that is known.
    why: String,
    /// What to change, if there is anything.
    change: Option<String>,
}

/// Where this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Layout {
    /// Uplink and joined programs in one namespace.
    Shared,
    /// Joined programs in a namespace without an uplink.
    Sealed,
    /// The sealed topology seen from the namespace of its engine: joined programs live elsewhere.
    SealedEngine,
    /// There is no sign of a gateway.
    NoGateway,
}

/// All checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Report {
    /// The worst of the outcomes.
    verdict: Outcome,
    /// Where this is.
    topology: Layout,
    /// Release of the kernel.
    kernel: String,
    /// In the order of their weight.
    checks: Vec<Finding>,
}

/// Looks, prints a table or JSON, and says in its code whether all holds.
///
/// # Errors
/// The kernel does not say what devices there are, or the output cannot be written to.
pub fn run(socket: &Path, json: bool) -> Result<Code, Failure> {
    let status = block_on(client::status(socket)).map_err(|error| error.to_string());
    let report = judge::judge(&look::look(status)?);
    let mut out = io::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        out.write_all(report.page().as_bytes())?;
    }
    Ok(report.code())
}

#[cfg(test)]
mod tests;
