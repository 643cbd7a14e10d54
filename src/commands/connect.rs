//! `vpngw connect`: leaves `blocked`, or moves on to the next server.

use std::io::{self, Write};
use std::path::Path;

use super::block_on;
use super::exit::{Code, Failure};
use crate::control::client;
use crate::gateway::Command;

/// Tells the gateway to connect and prints what it does now; does not wait for the server.
///
/// # Errors
/// Nothing usable answered.
pub fn run(socket: &Path) -> Result<Code, Failure> {
    let status = block_on(client::command(socket, Command::Connect))?;
    writeln!(io::stdout(), "{}", status.summary())?;
    Ok(Code::Ok)
}
