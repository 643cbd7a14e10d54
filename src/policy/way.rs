//! Intersects what the engine asks for with what the operator configured. Pure.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::Permit;
use crate::config::{Config, Host};
use crate::net::networks;

/// The port of DNS (RFC 1035, section 4.2.1).
const DNS: u16 = 53;

/// Where the one socket that a permission grants leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the uplink's resolver.
    Resolver(SocketAddrV4),
    /// To a VPN server.
    Endpoint(SocketAddrV4),
}

impl Way {
    /// The one host and port that it leads to.
    pub fn remote(self) -> SocketAddrV4 {
        match self {
            Self::Resolver(remote) | Self::Endpoint(remote) => remote,
        }
    }
}

/// Checks what the engine asks for against the configuration; `resolver` is that of the uplink.
///
/// # Errors
///
/// One line for the operator: what was asked for that the configuration does not hold.
pub fn check(
    config: &Config,
    resolver: Option<Ipv4Addr>,
    permit: &Permit,
) -> Result<Option<Way>, String> {
    match permit {
        Permit::Idle => Ok(None),
        Permit::Resolver { peer } => {
            let peer = config.peers.get(*peer).ok_or("there is no such peer")?;
            let Host::Name(name) = &peer.endpoint.host else {
                return Err("the endpoint is an address; nothing to look up".to_owned());
            };
            let server = resolver.ok_or_else(|| no_resolver(name))?;
            Ok(Some(Way::Resolver(SocketAddrV4::new(server, DNS))))
        }
        Permit::Endpoint { peer, address } => {
            let peer = config.peers.get(*peer).ok_or("there is no such peer")?;
            let known = match peer.endpoint.host {
                Host::Address(ip) => ip == *address.ip(),
                // What a resolver says is only ever taken as a server on the Internet or the LAN.
                Host::Name(_) => networks::host(*address.ip()).is_ok(),
            };
            if known && peer.endpoint.port == address.port() {
                Ok(Some(Way::Endpoint(*address)))
            } else {
                Err(format!("{address} is not the endpoint of that peer"))
            }
        }
    }
}

fn no_resolver(name: &str) -> String {
    format!(
        "the endpoint is the name `{name}` and no resolver of the uplink is known (Docker's own at 127.0.0.11 is \
         not asked): set `[uplink] resolver`, or write the endpoint as an address"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::example;

    const EP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 10), 51820);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

    fn config(host: Host) -> Config {
        let mut config = example::config();
        config.peers[0].endpoint.host = host;
        config
    }

    #[test]
    fn only_the_configured_address_is_granted() {
        let config = config(Host::Address(*EP.ip()));
        let ask = |ip: [u8; 4], port| {
            let address = SocketAddrV4::new(ip.into(), port);
            check(
                &config,
                Some(ROUTER),
                &Permit::Endpoint { peer: 0, address },
            )
        };
        assert_eq!(ask([198, 51, 100, 10], 51820), Ok(Some(Way::Endpoint(EP))));
        assert!(ask([198, 51, 100, 10], 51821).is_err());
        assert!(ask([198, 51, 100, 11], 51820).is_err());
        let other = Permit::Endpoint {
            peer: 1,
            address: EP,
        };
        assert!(check(&config, Some(ROUTER), &other).is_err());
    }

    #[test]
    fn the_resolver_is_granted_for_a_name_only() {
        let resolver = Permit::Resolver { peer: 0 };
        let named = config(Host::Name("vpn.example".to_owned()));
        let way = Way::Resolver(SocketAddrV4::new(ROUTER, 53));
        assert_eq!(check(&named, Some(ROUTER), &resolver), Ok(Some(way)));
        assert!(
            check(&named, None, &resolver)
                .unwrap_err()
                .contains("[uplink] resolver")
        );
        let numbered = config(Host::Address(*EP.ip()));
        assert!(check(&numbered, Some(ROUTER), &resolver).is_err());
    }

    #[test]
    fn a_name_never_resolves_to_this_machine_or_a_group() {
        let named = config(Host::Name("vpn.example".to_owned()));
        let ask = |ip: [u8; 4]| {
            let address = SocketAddrV4::new(ip.into(), 51820);
            check(&named, None, &Permit::Endpoint { peer: 0, address })
        };
        assert!(ask([203, 0, 113, 5]).is_ok());
        for bad in [
            [127, 0, 0, 1],
            [224, 0, 0, 1],
            [255; 4],
            [0; 4],
            [169, 254, 169, 254],
        ] {
            assert!(ask(bad).is_err(), "{bad:?}");
        }
    }
}
