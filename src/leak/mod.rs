//! What left by the uplink, seen from outside the rules.

pub mod account;
pub mod evidence;
pub mod filter;
pub mod frame;
pub mod packet;
pub mod pcapng;
mod permitted;
pub mod refused;
pub mod report;
pub mod stopped;

pub use permitted::permitted;
