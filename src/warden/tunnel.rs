//! The tunnel device: it gets back what another program took from it, and its MTU follows the way to the server, since
//! programs learn from it what to send, and tell the other end what to send to them (RFC 9293, section 3.7.1).

use std::os::fd::{AsFd, BorrowedFd};

use tracing::{info, warn};

use super::record::Record;
use crate::config::Config;
use crate::net::beside::Link;
use crate::net::{IfName, mtu};
use crate::plan;
use crate::sys::link::{self, Device};
use crate::sys::rtnl::RtnlError;
use crate::sys::tun::{self, Tun, TunError};

/// The device, and what fits through it.
pub(super) struct Tunnel {
    tun: Tun,
    /// Bytes of the largest packet that the device takes now.
    mtu: u16,
    /// Bytes that fit the path to the server, once the engine has found out.
    path: Option<u32>,
}

impl Tunnel {
    /// Makes the device.
    pub(super) fn create(config: &Config) -> Result<Self, TunError> {
        let tunnel = &config.tunnel;
        Ok(Self {
            tun: tun::create(&tunnel.device, tunnel.offload)?,
            mtu: tunnel.mtu,
            path: None,
        })
    }

    /// The descriptor that packets are read from and written to.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.tun.fd.as_fd()
    }

    /// Bytes of the largest packet that the device takes now.
    pub(super) fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The engine found out how many bytes fit the path; `None` for a path that nobody has tried yet.
    pub(super) fn path_is(&mut self, bytes: Option<u32>) {
        self.path = bytes;
    }

    /// Gives the device what the plan says.
    pub(super) fn configure(&self, wanted: &plan::Tunnel) -> Result<(), RtnlError> {
        link::configure(&self.as_now(wanted))
    }

    /// Whether the device is lost: removed, or taken to another namespace. Nothing can give it back to the engine, so
    /// the gateway has to be started anew.
    pub(super) fn is_lost(&self) -> bool {
        match self.tun.name() {
            Ok(name) => link::index(&name).is_err_and(|error| error.errno() == Some(libc::ENODEV)),
            Err(error) => error.raw_os_error() == Some(libc::EBADFD),
        }
    }

    /// Gives the device back what somebody took from it: under another name, down, or without its address, it carries
    /// nothing.
    pub(super) fn keep(&self, wanted: &plan::Tunnel, record: &mut Record) {
        if let Ok(name) = self.tun.name()
            && name != wanted.device
        {
            warn!(%name, "another program renamed the tunnel device; it gets its name back");
            record.undone("tunnel", &format!("the tunnel device was called {name}"));
            if let Err(error) = link::rename(&name, &wanted.device) {
                warn!(%error, "the tunnel device keeps the wrong name and carries nothing");
                return;
            }
        }
        let whole = |found: &[Link]| {
            wanted.addresses.iter().all(|network| {
                let same = |it: &Link| it.device == wanted.device && it.address == *network;
                found.iter().any(same)
            })
        };
        let kept = match link::addresses() {
            Ok(found) if whole(&found) => Ok(()),
            Ok(_) => {
                let what = format!("{} was down or without its address", wanted.device);
                record.undone("tunnel", &what);
                self.configure(wanted)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            warn!(%error, "the tunnel device is not as it should be");
        }
    }

    /// Gives the device the MTU that fits the uplink and the path, within what is configured.
    pub(super) fn keep_mtu(&mut self, config: &Config, uplink: Option<&IfName>) {
        let devices = match link::devices() {
            Ok(devices) => devices,
            Err(error) => {
                warn!(%error, "the MTU of the uplink cannot be read");
                return;
            }
        };
        let named = |device: &&Device| Some(&device.name) == uplink;
        let device = devices.iter().find(named).map(|device| device.mtu);
        let narrowest = device.into_iter().chain(self.path).min();
        let configured = config.tunnel.mtu;
        let wanted = narrowest.map_or(configured, |path| mtu::inner(configured, path));
        if wanted != self.mtu {
            let (path, device) = (self.path.unwrap_or(0), device.unwrap_or(0));
            info!(
                mtu = wanted,
                path, device, "the MTU of the tunnel follows the way to the server"
            );
        }
        self.mtu = wanted;
        let tunnel = &config.tunnel.device;
        let fits = |device: &Device| device.name == *tunnel && device.mtu == u32::from(wanted);
        if !devices.iter().any(fits)
            && let Err(error) = link::set_mtu(tunnel, wanted)
        {
            warn!(%error, "the tunnel device keeps its MTU");
        }
    }

    fn as_now(&self, wanted: &plan::Tunnel) -> plan::Tunnel {
        plan::Tunnel {
            mtu: self.mtu,
            ..wanted.clone()
        }
    }
}
