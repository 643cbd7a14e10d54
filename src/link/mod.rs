//! The protocol between the two processes: typed messages and file descriptors over one UNIX socket.

mod listeners;
mod message;
mod socket;
mod wire;

pub use listeners::{Listeners, Visitor};
pub use message::{
    Accounting, Count, Decline, Facts, Health, Ipv6Fact, Listener, Long, Message, Offer,
    ResolverFact, ToEngine, ToWarden, Unheard, VERSION,
};
pub use socket::{Link, LinkError};
