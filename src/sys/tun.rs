//! The TUN device.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode};
use tun_rs::DeviceBuilder;

use super::link;
use super::rtnl::RtnlError;
use crate::config::Offload;
use crate::net::IfName;
use crate::ruleset::attribute::until_end_mark;

/// The character device (Documentation/networking/tuntap.rst).
const NODE: &str = "/dev/net/tun";

/// `TUNGETIFF` (linux/if_tun.h), and bytes of the `ifreq` that it fills in on 64-bit machines.
const TUNGETIFF: libc::Ioctl = 0x8004_54d2_u32 as libc::Ioctl;
const IFREQ: usize = 40;

/// How long an engine that was killed with its warden may take to let go of the device.
const PATIENCE: Duration = Duration::from_secs(2);

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// There is no TUN device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// No device node.
    #[error(
        "{NODE} does not exist and cannot be made here; give it to the container with `devices: [{NODE}]` (docker run --device {NODE}), or load the module with `modprobe tun`"
    )]
    NoNode,
    /// A device node that may not be opened.
    #[error(
        "{NODE} may not be opened; give it to the container with `devices: [{NODE}]` (docker run --device {NODE})"
    )]
    NodeClosed(#[source] io::Error),
    /// No module behind the node.
    #[error("the kernel has no TUN devices; load the module on the host with `modprobe tun`")]
    NoModule(#[source] io::Error),
    /// No capability.
    #[error(
        "the TUN device `{0}` cannot be made without the capability NET_ADMIN; give it to the container with `cap_add: [NET_ADMIN]`"
    )]
    NoCapability(IfName),
    /// The name is that of another kind of device.
    #[error(
        "`{name}` exists and is a {kind} device; remove it, or set another name as `[tunnel] device`"
    )]
    NotTun {
        /// The name.
        name: IfName,
        /// What it is, as `ip -d link` calls it.
        kind: String,
    },
    /// Another program has the device.
    #[error(
        "the TUN device `{0}` is in use by another program; stop that one, or set another name as `[tunnel] device`"
    )]
    Busy(IfName),
    /// A device that was left behind with other properties.
    #[error("`{0}` exists and cannot be taken over; remove it with `ip link del {0}`")]
    Foreign(IfName, #[source] io::Error),
    /// Something else.
    #[error("the TUN device `{0}`")]
    Create(IfName, #[source] io::Error),
    /// The devices there are could not be listed.
    #[error(transparent)]
    Rtnl(#[from] RtnlError),
}

/// A TUN device that lives as long as one of its file descriptors.
#[derive(Debug)]
pub struct Tun {
    /// Reads and writes inner packets; blocking.
    pub fd: OwnedFd,
    /// Whether a `virtio_net_hdr` stands before each packet.
    pub vnet_hdr: bool,
}

impl Tun {
    /// The name that the device has now. It may be in another network namespace by now.
    ///
    /// # Errors
    /// `EBADFD` once the device was removed (`__tun_chr_ioctl`, drivers/net/tun.c).
    pub fn name(&self) -> io::Result<IfName> {
        let mut request = [0_u8; IFREQ];
        #[expect(unsafe_code, reason = "no wrapper for TUNGETIFF")]
        // SAFETY: the kernel writes one `ifreq`, no longer than `request`, which outlives the call.
        let done = unsafe { libc::ioctl(self.fd.as_raw_fd(), TUNGETIFF, request.as_mut_ptr()) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        let name = until_end_mark(&request[..libc::IFNAMSIZ]);
        IfName::from_bytes(name).map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

/// Creates the device, down and without addresses. With [`Offload::Auto`] it has segmentation offloads
/// where the kernel can.
///
/// # Errors
/// Each says what would help.
pub fn create(name: &IfName, offload: Offload) -> Result<Tun, TunError> {
    open_node()?;
    if let Some(existing) = link::devices()?.into_iter().find(|d| &d.name == name) {
        let kind = existing.kind.unwrap_or_else(|| "hardware".to_owned());
        if kind != "tun" {
            return Err(TunError::NotTun {
                name: name.clone(),
                kind,
            });
        }
    }
    match offload {
        Offload::Off => build(name, false),
        Offload::Auto => match build(name, true) {
            // An old kernel: without offloads it is slower and works.
            Err(TunError::Create(..) | TunError::Foreign(..)) => build(name, false),
            other => other,
        },
    }
}

/// Opening the node says more about what is missing than creating a device does.
fn open_node() -> Result<(), TunError> {
    let open = || OpenOptions::new().read(true).write(true).open(NODE);
    let opened = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_node().map_err(|_| TunError::NoNode)?;
            open()
        }
        other => other,
    };
    match opened {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(TunError::NoNode),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) => {
            Err(TunError::NoModule(error))
        }
        Err(error) => Err(TunError::NodeClosed(error)),
    }
}

/// Character device 10:200 (Documentation/admin-guide/devices.txt).
fn make_node() -> io::Result<()> {
    std::fs::create_dir_all("/dev/net")?;
    let device = rustix::fs::makedev(10, 200);
    let mode = Mode::from_raw_mode(0o600);
    Ok(rustix::fs::mknodat(
        CWD,
        NODE,
        FileType::CharacterDevice,
        mode,
        device,
    )?)
}

fn build(name: &IfName, offload: bool) -> Result<Tun, TunError> {
    let mut waited = Duration::ZERO;
    loop {
        let built = DeviceBuilder::new()
            .name(name.as_str())
            .offload(offload)
            .enable(false)
            .build_sync();
        let error = match built {
            Ok(device) => return Ok(own(device)),
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EBUSY) if waited < PATIENCE => {
                thread::sleep(PAUSE);
                waited += PAUSE;
            }
            Some(libc::EBUSY) => return Err(TunError::Busy(name.clone())),
            Some(libc::EPERM) => return Err(TunError::NoCapability(name.clone())),
            Some(libc::EINVAL) => return Err(TunError::Foreign(name.clone(), error)),
            Some(_) | None => return Err(TunError::Create(name.clone(), error)),
        }
    }
}

fn own(device: tun_rs::SyncDevice) -> Tun {
    let vnet_hdr = device.tcp_gso();
    #[expect(unsafe_code, reason = "tun-rs gives the descriptor away as a number")]
    // SAFETY: `into_raw_fd` transfers the ownership of an open descriptor to us.
    let fd = unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) };
    Tun { fd, vnet_hdr }
}
