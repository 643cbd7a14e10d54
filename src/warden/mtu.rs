//! The MTU of the tunnel device follows the way to the endpoint: programs learn from it what to send, and
//! tell the other end what to send to them (RFC 9293, section 3.7.1).

use std::net::SocketAddrV4;

use tracing::{info, warn};

use super::namespace::Namespace;
use crate::net::mtu;
use crate::sys::link::{self, Device};

impl Namespace {
    /// The engine found out how many bytes fit the path to the endpoint.
    pub(super) fn path_is(&mut self, remote: SocketAddrV4, bytes: u32) {
        // It may speak of a way that is closed by now. In the sealed topology every way is the engine's own.
        if let Some(open) = self.open.as_mut().filter(|o| o.way.remote() == remote) {
            open.path = Some(bytes);
            self.keep_mtu();
        } else if let Some(sealed) = &mut self.sealed {
            sealed.path = Some(bytes);
            self.keep_mtu();
        }
    }

    /// Gives the tunnel device the MTU that fits, within what is configured.
    pub(super) fn keep_mtu(&mut self) {
        let devices = match link::devices() {
            Ok(devices) => devices,
            Err(error) => {
                warn!(%error, "the MTU of the uplink cannot be read");
                return;
            }
        };
        let uplink = self.uplink.as_ref().map(|uplink| &uplink.device);
        let named = |device: &&Device| Some(&device.name) == uplink;
        let device = devices.iter().find(named).map(|device| device.mtu);
        let sealed = self.sealed.as_ref().and_then(|sealed| sealed.path);
        let path = self.open.as_ref().and_then(|open| open.path).or(sealed);
        let narrowest = device.into_iter().chain(path).min();
        let configured = self.config.tunnel.mtu;
        let wanted = narrowest.map_or(configured, |path| mtu::inner(configured, path));
        if wanted != self.mtu {
            let (path, device) = (path.unwrap_or(0), device.unwrap_or(0));
            info!(
                mtu = wanted,
                path, device, "the MTU of the tunnel follows the way to the server"
            );
        }
        self.mtu = wanted;
        let tunnel = &self.config.tunnel.device;
        let fits = |device: &Device| device.name == *tunnel && device.mtu == u32::from(wanted);
        if !devices.iter().any(fits)
            && let Err(error) = link::set_mtu(tunnel, wanted)
        {
            warn!(%error, "the tunnel device keeps its MTU");
        }
    }
}
