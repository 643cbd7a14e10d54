//! `vpngw healthcheck`: 0 or 1, and one line, for a container's health check.

use std::io::{self, Write};
use std::path::Path;

use super::block_on;
use super::exit::{Code, Failure};
use crate::control::client;

/// Asks the gateway once. Docker knows the codes 0 and 1 only.
///
/// # Errors
/// Nothing usable answered; that is code 1, too.
pub fn run(socket: &Path) -> Result<Code, Failure> {
    let health = block_on(client::health(socket))?;
    writeln!(io::stdout(), "{}", health.line)?;
    Ok(if health.ready {
        Code::Ok
    } else {
        Code::NotConnected
    })
}
