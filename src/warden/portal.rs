//! The LAN exceptions of a sealed namespace: connections that are handed over, since there is no device to
//! carry them.
//!
//! The networks and hosts of the exceptions are local addresses on `lo`, so that a connection made for a LAN
//! client comes from that client's own address, and a program finds a LAN host under its own. Whatever else
//! a program sends there comes back to the namespace itself.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use ipnetwork::Ipv4Network;
use tokio::time;
use tracing::{info, warn};

use crate::config::{Inbound, Lan, Outbound};
use crate::link::Listeners;
use crate::net::{Port, Transport};
use crate::sys::{link, socket};

/// Where joined programs are reached by LAN clients: TEST-NET-1, which is no address of anybody (RFC 5737).
const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// How long to wait before a listener that failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// The listeners inside, one for each host and port that joined programs may reach.
#[derive(Default)]
pub(super) struct Portal {
    listeners: Listeners,
    /// Why something is missing.
    wanting: Option<String>,
}

impl Portal {
    /// Makes addresses and listeners those of the exceptions. What is missing is tried again with the next
    /// call.
    pub(super) fn follow(&mut self, lan: &Lan) {
        let local = link::localhost(&addresses(lan)).map_err(|error| error.to_string());
        let wanted: Vec<_> = lan.outbound.iter().map(target).collect();
        let wanting = self.listeners.follow(&wanted).and(local).err();
        if self.wanting != wanting {
            match &wanting {
                Some(why) => warn!(why, "a LAN exception is not open"),
                None => info!("every LAN exception is open"),
            }
            self.wanting = wanting;
        }
    }

    /// Whether something is missing.
    pub(super) fn is_wanting(&self) -> bool {
        self.wanting.is_some()
    }

    /// The next connection of a joined program to a LAN host, and to which.
    pub(super) async fn accepted(&self) -> (SocketAddrV4, OwnedFd) {
        loop {
            let accepted = self.listeners.visitor().await;
            match accepted.and_then(|visitor| Ok((visitor.at, visitor.stream.into_std()?.into()))) {
                Ok(accepted) => return accepted,
                Err(error) => {
                    warn!(%error, "a connection to the LAN could not be taken");
                    time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// A connection to a published port, for a client of its exception. It may still be under way.
///
/// # Errors
///
/// One line for the operator: no exception holds it, or the kernel refused.
pub(super) fn connect(lan: &Lan, port: u16, client: Ipv4Addr) -> Result<OwnedFd, String> {
    if !lan.admits(client, tcp(port)) {
        return Err(format!(
            "no [lan] inbound lets that client reach tcp/{port}"
        ));
    }
    let to = SocketAddrV4::new(INSIDE, port);
    socket::tcp_from(client, to).map_err(|error| format!("connect to tcp/{port} inside: {error}"))
}

/// Only connections are handed over.
fn tcp(number: u16) -> Port {
    let transport = Transport::Tcp;
    Port { transport, number }
}

/// What is local, so that connections can come from and go to it.
fn addresses(lan: &Lan) -> Vec<Ipv4Network> {
    let mut all: Vec<_> = lan.inbound.iter().map(Inbound::from).collect();
    if !all.is_empty() {
        all.push(INSIDE.into());
    }
    all.extend(lan.outbound.iter().map(|rule| Ipv4Network::from(rule.to())));
    all.sort();
    all.dedup();
    all
}

fn target(rule: &Outbound) -> SocketAddrV4 {
    SocketAddrV4::new(rule.to(), rule.port().number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::example;

    #[test]
    fn a_connection_is_made_for_clients_of_the_exception_only() {
        let lan = example::config().lan;
        let refused = |port, client: [u8; 4]| connect(&lan, port, client.into()).unwrap_err();
        assert!(refused(8081, [192, 168, 1, 7]).contains("[lan] inbound"));
        assert!(refused(8080, [192, 168, 2, 7]).contains("[lan] inbound"));
        assert!(refused(8080, [127, 0, 0, 1]).contains("[lan] inbound"));
        assert!(connect(&Lan::default(), 8080, [192, 168, 1, 7].into()).is_err());
    }

    #[test]
    fn only_what_exceptions_name_is_local() {
        assert_eq!(addresses(&Lan::default()), []);
        let shown = |lan: &Lan| {
            addresses(lan)
                .iter()
                .map(Ipv4Network::to_string)
                .collect::<Vec<_>>()
        };
        let lan = example::config().lan;
        assert_eq!(
            shown(&lan),
            ["172.30.0.20/32", "192.0.2.1/32", "192.168.1.0/24"]
        );
    }
}
