//! The parts of the data plane that have no effects, as the gateway has them, for the fuzzer.
#![allow(dead_code, unreachable_pub, missing_docs)]

#[path = "../../src/wireguard/checksum.rs"]
mod checksum;
#[path = "../../src/wireguard/coalesce.rs"]
mod coalesce;
#[path = "../../src/wireguard/flow.rs"]
mod flow;
#[path = "../../src/wireguard/fuzz.rs"]
mod fuzz;
#[path = "../../src/wireguard/header.rs"]
mod header;
#[path = "../../src/wireguard/packets.rs"]
mod packets;
#[path = "../../src/wireguard/split.rs"]
mod split;

mod session {
    /// As in the gateway (`src/wireguard/session/mod.rs`).
    pub const OVERHEAD: usize = 32;
}

pub fn split(bytes: &[u8]) {
    fuzz::split(bytes);
}

pub fn coalesce(bytes: &[u8]) {
    fuzz::coalesce(bytes);
}
