//! `vpngw blocked`: what the kill switch stopped, for a person or for a program.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::block_on;
use super::exit::{Code, Failure};
use super::status::screen;
use crate::control::api::Report;
use crate::control::client;

mod table;

use table::{Users, table};

/// The form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Once, for a person.
    Table,
    /// Again every second, in place.
    Follow,
    /// Once, as JSON: [`Report`].
    Json,
}

/// Prints what was stopped.
///
/// # Errors
/// Nothing usable answered, or the output cannot be written to. While following, a gateway that does
/// not answer is part of what is shown.
pub fn run(socket: &Path, output: Output) -> Result<Code, Failure> {
    match output {
        Output::Table => {
            let report = block_on(client::stopped(socket))?;
            io::stdout().write_all(table(&report, &users()).as_bytes())?;
            Ok(known(&report))
        }
        Output::Json => {
            let report = block_on(client::stopped(socket))?;
            writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
            Ok(known(&report))
        }
        Output::Follow => block_on(follow(socket)),
    }
}

/// "Could not tell" is not "nothing".
fn known(report: &Report) -> Code {
    match report.problem {
        None => Code::Ok,
        Some(_) => Code::NotConnected,
    }
}

/// Until interrupted.
async fn follow(socket: &Path) -> Result<Code, Failure> {
    let users = users();
    let page = |answer| match answer {
        Ok(report) => table(&report, &users),
        Err(error) => format!("{:#}\n", anyhow::Error::from(error)),
    };
    screen::refresh(|| client::stopped(socket), page).await?;
    Ok(Code::Ok)
}

/// The names of users where this command runs; a container may have others than its neighbour.
fn users() -> Users {
    Users::parse(&fs::read_to_string("/etc/passwd").unwrap_or_default())
}
