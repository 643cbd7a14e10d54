//! `vpngw disconnect`: loopback only, until `vpngw connect`.

use std::io::{self, Write};
use std::path::Path;

use super::block_on;
use super::exit::{Code, Failure};
use crate::control::api::State;
use crate::control::client;
use crate::gateway::Command;

/// Tells the gateway to block everything and prints that it does.
///
/// # Errors
/// Nothing usable answered, or the gateway is in another state than `blocked` after the command.
pub fn run(socket: &Path) -> Result<Code, Failure> {
    let status = block_on(client::command(socket, Command::Disconnect))?;
    match status.state {
        State::Blocked => {
            let text = "blocked: nothing but loopback passes until `vpngw connect`";
            writeln!(io::stdout(), "{text}")?;
            Ok(Code::Ok)
        }
        State::Arming | State::Connecting | State::Connected => Err(Failure::from(
            anyhow::anyhow!("the gateway did not block; it is {}", status.summary()),
        )),
    }
}
