//! The uplink: which device it is, and the sockets that are the gateway's own on it.
//!
//! The socket to the server is made once and kept over engines, uplinks, look-ups and reloads: a port that is let
//! go can be taken by whoever asks for it first.

use std::net::UdpSocket;

use tracing::warn;

use crate::config::Config;
use crate::guard::{Seen, Topology};
use crate::net::{Fwmark, Uplink as Observed};
use crate::policy::Permit;
use crate::sys::chain;
use crate::sys::link;
use crate::sys::route::{self, RouteError};
use crate::sys::socket;

/// What the warden holds of the uplink.
pub(super) struct Uplink {
    mark: Fwmark,
    topology: Topology,
    /// The last uplink there was: a link that went down takes its routes with it.
    last: Option<Observed>,
    /// To the server.
    server: Option<Kept>,
    /// For a look-up when no other port can be had: joined programs may hold them all.
    spare: Option<Kept>,
    /// For the question that the guard decides on now.
    candidate: Option<(u64, UdpSocket)>,
}

struct Kept {
    socket: UdpSocket,
    port: u16,
}

impl Uplink {
    /// Makes the sockets. What cannot be had now is tried again when it is asked for.
    pub(super) fn new(mark: Fwmark, config: &Config, topology: Topology) -> Self {
        let mut uplink = Self {
            mark,
            topology,
            last: None,
            server: None,
            spare: None,
            candidate: None,
        };
        uplink.keep(config);
        uplink
    }

    /// Makes what is missing. A configured port that is another one now is taken beside the one before, which stays
    /// until then.
    pub(super) fn keep(&mut self, config: &Config) {
        // The engine of the sealed topology has its own.
        if self.topology == Topology::Sealed {
            return;
        }
        if let Err(why) = self.server(config) {
            warn!(why, "there is no socket to the server yet");
        }
        if self.spare.is_none() {
            self.spare = self.make(0).ok();
        }
    }

    /// The links as they are now.
    pub(super) fn observe(&mut self, config: &Config) -> Result<Seen, RouteError> {
        // Whatever appears in a sealed namespace, it is no uplink.
        if self.topology == Topology::Sealed {
            return Ok(Seen::default());
        }
        let (wanted, own) = (config.uplink.as_ref(), &config.tunnel.device);
        let links = link::addresses().map_err(RouteError::from)?;
        let uplink = match &self.last {
            Some(last) => route::observe_again(&links, wanted, own, last),
            None => route::observe(&links, wanted, own),
        }?;
        if uplink.is_some() {
            self.last.clone_from(&uplink);
        }
        Ok(Seen { uplink, links })
    }

    /// The socket for what the engine asks for, kept until it is granted or another one is asked for. Returns its port;
    /// an error is one line for the operator.
    pub(super) fn prepare(
        &mut self,
        id: u64,
        permit: &Permit,
        config: &Config,
    ) -> Result<u16, String> {
        self.candidate = None;
        let (socket, port) = match permit {
            Permit::Idle => return Ok(0),
            Permit::Endpoint { .. } => copy(self.server(config)?)?,
            // An answer to a look-up is harder to forge at a port that nobody has seen before.
            Permit::Resolver { .. } => match (self.make(0), &self.spare) {
                (Ok(fresh), _) => (fresh.socket, fresh.port),
                (Err(_), Some(spare)) => copy(spare)?,
                (Err(why), None) => return Err(why),
            },
        };
        self.candidate = Some((id, socket));
        Ok(port)
    }

    /// The socket that was prepared for this question.
    pub(super) fn take(&mut self, id: u64) -> Option<UdpSocket> {
        let (known, socket) = self.candidate.take()?;
        (known == id).then_some(socket)
    }

    fn server(&mut self, config: &Config) -> Result<&Kept, String> {
        let wanted = config.tunnel.listen_port;
        let fits = |kept: &Kept| wanted.is_none_or(|port| port == kept.port);
        if !self.server.as_ref().is_some_and(fits) {
            self.server = Some(self.make(wanted.unwrap_or(0))?);
        }
        self.server
            .as_ref()
            .ok_or_else(|| "there is no socket to the server".to_owned())
    }

    fn make(&self, port: u16) -> Result<Kept, String> {
        let (socket, port) = socket::udp(Some(self.mark), port).map_err(|error| chain(&error))?;
        Ok(Kept { socket, port })
    }
}

fn copy(kept: &Kept) -> Result<(UdpSocket, u16), String> {
    let socket = kept.socket.try_clone();
    let socket = socket.map_err(|error| format!("the socket to the server: {error}"))?;
    Ok((socket, kept.port))
}
