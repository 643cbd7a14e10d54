//! Logs: a line a state change, on standard error.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::lines::Lines;
use crate::config::{Log, LogFormat, LogLevel};

/// How long the last lines may take to be written.
const PATIENCE: Duration = Duration::from_millis(200);

/// The log of this process, as the subscriber of `tracing` is: one.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Has the last lines written, before the process ends.
pub fn finish() {
    if let Some(lines) = LINES.get() {
        lines.finish(PATIENCE);
    }
}

/// Starts writing logs as configured. Only the first call counts.
pub fn start(log: Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Ours only: what a library says of its own affairs is no state change of the gateway.
    let ours = Targets::new().with_target("vpngw", level);
    // Without a thread to write there is no log; the gateway goes on.
    let Ok(lines) = Lines::to(std::io::stderr()) else {
        return;
    };
    let to = tracing_subscriber::fmt::layer().with_writer(LINES.get_or_init(|| lines).clone());
    let registry = tracing_subscriber::registry();
    // A second start is a bug of ours, not a reason to end a gateway.
    let _ = match log.format {
        LogFormat::Text => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let to = to.with_target(false).with_ansi(colour);
            registry.with(to.with_filter(ours)).try_init()
        }
        LogFormat::Json => registry
            .with(to.json().flatten_event(true).with_filter(ours))
            .try_init(),
    };
}
