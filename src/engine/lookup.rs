//! The address of a server that is named, by the one resolver that was granted.

use std::net::{SocketAddrV4, UdpSocket};

use crate::config::Host as Name;
use crate::dns;
use crate::gateway::Event;

/// Asks by the socket that was granted, and where it leads.
pub(super) async fn look_up(host: Name, granted: Option<(UdpSocket, SocketAddrV4)>) -> Event {
    let Name::Name(name) = host else {
        return Event::Unresolved("the endpoint is an address already".to_owned());
    };
    let Some((socket, server)) = granted else {
        return Event::Unresolved("the warden granted no socket".to_owned());
    };
    let socket = match tokio::net::UdpSocket::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return Event::Unresolved(format!("the granted socket: {error}")),
    };
    match dns::lookup(&socket, server, &name, dns::Patience::default()).await {
        Ok(addresses) => Event::Resolved(addresses),
        Err(error) => Event::Unresolved(format!("look up `{name}`: {error}")),
    }
}
