//! Whom an inbound LAN exception lets in.

use ipnetwork::Ipv4Network;

use super::value::{self, Parsed};

/// Whom an exception lets in, as written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Clients {
    /// `private`: every private network but the tunnel's.
    Private,
    /// Those of one network.
    Network(Ipv4Network),
}

/// `private`, or a network.
pub(super) fn clients(text: &str) -> Parsed<Clients> {
    if text.eq_ignore_ascii_case("private") {
        return Ok(Clients::Private);
    }
    value::network(text).map(Clients::Network)
}
