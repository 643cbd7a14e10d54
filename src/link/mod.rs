//! The protocol between the two processes: typed messages and file descriptors over one UNIX socket.

mod listeners;
mod message;
mod socket;

pub use crate::guard::Offer;
pub use listeners::{Listeners, Visitor};
pub use message::{
    Accounting, Count, Decline, Facts, Health, Ipv6Fact, ResolverFact, ToEngine, ToWarden, VERSION,
};
pub use socket::{Link, LinkError};
