//! `vpngw engine`: the unprivileged half, started by `run`.

use std::os::fd::RawFd;

use anyhow::Context;

use super::exit::{Code, Failure};
use super::{block_on, log};
use crate::engine;
use crate::sys::{privilege, process};

/// Runs the engine over the inherited socket until the warden closes it.
///
/// # Errors
///
/// Why it cannot go on. The warden starts another one.
pub fn run(link_fd: RawFd) -> Result<Code, Failure> {
    // The first act: nothing is read or parsed with a privilege.
    let parent = rustix::process::getppid().context("the engine is started by the gateway only")?;
    privilege::drop_all(parent).map_err(anyhow::Error::from)?;
    let link = process::inherited(link_fd).context("the inherited socket")?;
    block_on(engine::run(link, log::start)).map_err(anyhow::Error::from)?;
    Ok(Code::Ok)
}
