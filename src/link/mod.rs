//! The protocol between the two processes: typed messages and file descriptors over one UNIX socket.

#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod hostile;
mod listeners;
mod message;
mod socket;
mod wire;

pub use crate::guard::Offer;
#[cfg(any(test, fuzzing))]
pub use hostile::worker as hostile_worker;
pub use listeners::{Listeners, Visitor};
pub use message::{
    Accounting, Count, Decline, Facts, Health, Ipv6Fact, Listener, Long, Message, ResolverFact,
    ToEngine, ToWarden, Unheard, VERSION,
};
pub use socket::{Link, LinkError};
