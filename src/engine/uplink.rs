//! The way across the uplink: the warden's to open in the shared topology, the engine's own in the sealed
//! one, where the engine lives in the uplink's namespace and no rule of ours holds it back.

use std::net::{SocketAddrV4, UdpSocket};
use std::path::PathBuf;

use crate::config::Config;
use crate::policy::{Permit, Way, way};
use crate::sys::{resolv, socket};

/// Who opens the way.
pub(super) enum Uplink {
    /// The warden, when it is asked.
    Warden,
    /// The engine itself.
    Own(Own),
}

/// The engine's own namespace.
pub(super) struct Own {
    resolv_conf: PathBuf,
    /// The socket of a configured port, and the port: it cannot be bound twice, so it stays one socket.
    kept: Option<(UdpSocket, u16)>,
}

impl Own {
    /// `resolv_conf` names the resolvers of this namespace.
    pub(super) fn new(resolv_conf: PathBuf) -> Self {
        Self {
            resolv_conf,
            kept: None,
        }
    }

    /// A socket for what is to be permitted, and where it leads, as far as the configuration holds it.
    pub(super) fn open(
        &mut self,
        config: &Config,
        permit: &Permit,
    ) -> Result<Option<(UdpSocket, SocketAddrV4)>, String> {
        let first = || {
            let text = resolv::read(&self.resolv_conf).unwrap_or_default();
            resolv::former_nameservers(&text).first().copied()
        };
        let resolver = config.resolver.or_else(first);
        let Some(way) = way::check(config, resolver, permit)? else {
            return Ok(None);
        };
        let port = match way {
            Way::Endpoint(_) => config.tunnel.listen_port.unwrap_or(0),
            Way::Resolver(_) => 0,
        };
        Ok(Some((self.socket(port)?, way.remote())))
    }

    fn socket(&mut self, port: u16) -> Result<UdpSocket, String> {
        let kept = self.kept.as_ref().filter(|(_, bound)| *bound == port);
        let socket = match kept {
            Some((socket, _)) => socket.try_clone().map_err(|error| error.to_string())?,
            None => {
                let (socket, _) = socket::udp(None, port).map_err(|error| {
                    let cause = std::error::Error::source(&error);
                    let cause = cause.map(ToString::to_string).unwrap_or_default();
                    format!("{error}: {cause}")
                })?;
                socket
            }
        };
        if port != 0 {
            let kept = socket.try_clone().map_err(|error| error.to_string())?;
            self.kept = Some((kept, port));
        }
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Host, example};

    #[test]
    fn only_the_configured_server_is_reached() {
        let mut own = Own::new("/nowhere".into());
        let config = example::config();
        let ask = |address: &str| Permit::Endpoint {
            peer: 0,
            address: address.parse().unwrap(),
        };
        let (_, remote) = own
            .open(&config, &ask("198.51.100.10:51820"))
            .unwrap()
            .unwrap();
        assert_eq!(remote, "198.51.100.10:51820".parse().unwrap());
        assert!(own.open(&config, &ask("198.51.100.11:51820")).is_err());
        assert!(own.open(&config, &Permit::Idle).unwrap().is_none());
    }

    #[test]
    fn a_name_is_asked_of_the_namespaces_resolver() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        fs::write(&path, "nameserver 127.0.0.11\n").unwrap();
        let mut own = Own::new(path);
        let mut config = example::config();
        config.peers[0].endpoint.host = Host::Name("vpn.example".to_owned());
        let permit = Permit::Resolver { peer: 0 };
        let (_, remote) = own.open(&config, &permit).unwrap().unwrap();
        assert_eq!(remote, "127.0.0.11:53".parse().unwrap());
    }

    #[test]
    fn a_configured_port_is_bound_once() {
        let mut own = Own::new("/nowhere".into());
        let mut config = example::config();
        let free = UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap();
        config.tunnel.listen_port = Some(free.port());
        let address = "198.51.100.10:51820".parse().unwrap();
        let permit = Permit::Endpoint { peer: 0, address };
        for _ in 0..2 {
            let (socket, _) = own.open(&config, &permit).unwrap().unwrap();
            assert_eq!(socket.local_addr().unwrap().port(), free.port());
        }
    }
}
