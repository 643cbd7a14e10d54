//! What left by the uplink, seen from outside the rules.

pub mod expected;
pub mod frame;
