//! The protocol between the two processes: typed messages and file descriptors over one UNIX socket.

mod message;
mod socket;

pub use message::{Accounting, Count, Facts, Ipv6Fact, ResolverFact, ToEngine, ToWarden, VERSION};
pub use socket::{Link, LinkError};
