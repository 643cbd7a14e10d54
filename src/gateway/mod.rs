//! Decides what the gateway does next: events in, actions out. No I/O, no clock, no logging.

mod event;

pub use event::{Action, BlockReason, Command, Event};
