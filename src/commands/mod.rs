//! One file for each subcommand: what it prints, and the code it exits with.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};

pub mod blocked;
pub mod capture;
pub mod check;
pub mod cleanup;
mod confine;
pub mod connect;
pub mod demo;
pub mod disconnect;
pub mod doctor;
pub mod engine;
pub mod exec;
pub mod exit;
pub mod explain;
pub mod healthcheck;
mod kernel;
pub mod leaks;
pub mod leaktest;
mod lines;
pub mod load;
pub mod log;
pub mod plan;
pub mod preview;
pub mod rejoin;
pub mod run;
pub mod servers;
pub mod status;
mod surroundings;
mod units;
pub mod warden;

/// Runs a future on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    // It needs an epoll and an eventfd; without file descriptors no command can do anything.
    let runtime = runtime.unwrap_or_else(|error| panic!("no event loop: {error}"));
    runtime.block_on(future)
}

/// Waits for `work`; `None` when INT or TERM came before it was done.
async fn until_told<T>(work: impl Future<Output = T>) -> io::Result<Option<T>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        done = work => Some(done),
    })
}
