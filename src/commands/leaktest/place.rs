//! The namespace as the test finds it.

use std::net::Ipv4Addr;

use crate::net::IfName;
use crate::sys::link;
use crate::sys::rtnl::RtnlError;

/// What there is to leave by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Every device but loopback and TUN.
    pub(super) devices: Vec<Exit>,
    /// Name and address of the tunnel device.
    pub(super) tunnel: Option<(IfName, Option<Ipv4Addr>)>,
}

/// A device that frames could leave by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) name: IfName,
    pub(super) index: u32,
    pub(super) address: Option<Ipv4Addr>,
}

impl Place {
    /// Looks at the namespace of this process.
    ///
    /// # Errors
    /// The kernel does not say what devices there are.
    pub(super) fn look() -> Result<Self, RtnlError> {
        let addresses = link::addresses()?;
        let address = |name: &IfName| {
            let found = addresses.iter().find(|it| it.device == *name);
            found.map(|it| it.address.ip())
        };
        let mut place = Self {
            devices: Vec::new(),
            tunnel: None,
        };
        for device in link::devices()? {
            if device.loopback {
                continue;
            }
            let address = address(&device.name);
            if device.leads_out {
                place.devices.push(Exit {
                    name: device.name,
                    index: device.index,
                    address,
                });
            } else {
                place.tunnel = Some((device.name, address));
            }
        }
        Ok(place)
    }

    /// Whether there is a device to leave by.
    pub(super) fn has_way_out(&self) -> bool {
        !self.devices.is_empty()
    }
}
