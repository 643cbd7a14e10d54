//! The data plane: packets between the TUN device and the UDP socket, sealed and opened.
//!
//! One thread owns the TUN device, the UDP socket and the WireGuard session, and runs every packet
//! to completion: read, split, seal, send in `tx`, and the mirror image in `rx`. `device` is
//! the handle the rest of the program holds; it reaches the thread through a queue that is looked
//! at between packets, and reads counters that the thread alone writes.
//!
//! The protocol is in three layers: `aead` seals bytes, `noise` agrees on keys, `session` decides when
//! to do which.

mod admit;
mod aead;
mod checksum;
mod coalesce;
mod counters;
mod device;
mod ecn;
mod flow;
#[cfg(test)]
mod fuzz;
mod header;
mod noise;
#[cfg(test)]
mod packets;
mod peer;
mod question;
mod run;
mod rx;
pub mod session;
mod split;
pub mod tun;
mod tx;
pub mod uapi;
mod udp;
mod wait;

#[cfg(test)]
#[cfg(feature = "netns")]
mod lab;

pub use counters::{DropReason, Snapshot};
pub use device::{Device, Event, Returns, Setup};
pub use peer::PeerSetup;
pub use question::Asks;
