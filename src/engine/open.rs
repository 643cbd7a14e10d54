//! What a tunnel to one server is opened with. Pure.

use std::net::SocketAddrV4;

use crate::config::{Peer, Tunnel};
use crate::wireguard::uapi::{UapiPeer, UapiState};
use crate::wireguard::{Asks, PeerSetup, Returns};

/// The keys and permissions of the session.
pub(super) fn setup(tunnel: &Tunnel, peer: &Peer) -> PeerSetup {
    PeerSetup {
        private_key: tunnel.private_key.clone(),
        public_key: peer.public_key,
        preshared_key: peer.preshared_key.clone(),
        keepalive: peer.keepalive,
        allowed_ips: peer.allowed_ips.clone(),
    }
}

/// How it is found out whether anything comes back: the tunnel's first resolver may be asked.
pub(super) fn returns(tunnel: &Tunnel, prove: bool) -> Returns {
    let asks = || {
        Some(Asks {
            from: tunnel.addresses.first()?.ip(),
            resolver: *tunnel.resolvers().first()?,
        })
    };
    Returns {
        asks: asks(),
        prove,
    }
}

/// What `wg show` says of it.
pub(super) fn shown(
    peer: &Peer,
    listen_port: Option<u16>,
    fwmark: Option<u32>,
    endpoint: SocketAddrV4,
) -> UapiState {
    UapiState {
        listen_port,
        fwmark,
        peer: Some(UapiPeer {
            public_key: peer.public_key,
            endpoint,
            keepalive: peer.keepalive,
            allowed_ips: peer.allowed_ips.clone(),
            last_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
        }),
    }
}
