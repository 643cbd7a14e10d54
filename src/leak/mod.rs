//! What left by the uplink, seen from outside the rules.

pub mod account;
pub mod evidence;
pub mod filter;
pub mod frame;
mod permitted;

pub use permitted::permitted;
