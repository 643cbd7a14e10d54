//! The TUN device, as a file descriptor that packets are read from and written to.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::header::VIRTIO;

/// What a TUN device hands over and takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// A virtio header is in front of each packet (`IFF_VNET_HDR`).
    pub vnet_hdr: bool,
    /// Superpackets of TCP.
    pub tcp: bool,
    /// Superpackets of UDP (Linux 6.2).
    pub udp: bool,
}

/// Asks the device for superpackets if `wanted`, for none otherwise, and says what it will do. The
/// descriptor of an attached device needs no privilege for that.
///
/// # Errors
/// Not the descriptor of a TUN device, or one that hands over packet information (`IFF_NO_PI` is missing),
/// Ethernet frames, or a virtio header of another size than 10 bytes.
pub fn features(fd: BorrowedFd<'_>, wanted: bool) -> io::Result<Features> {
    let flags = flags(fd)?;
    let has = |flag: libc::c_int| flags & flag != 0;
    if !has(libc::IFF_TUN) || !has(libc::IFF_NO_PI) {
        return Err(io::Error::other(
            "the descriptor is not of a TUN device without packet information (IFF_TUN, IFF_NO_PI)",
        ));
    }
    if !has(libc::IFF_VNET_HDR) {
        return Ok(Features {
            vnet_hdr: false,
            tcp: false,
            udp: false,
        });
    }
    if header_size(fd)? != VIRTIO {
        return Err(io::Error::other(
            "the device's virtio header does not have 10 bytes",
        ));
    }
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO_ECN;
    // The kernel takes the two kinds of USO together only.
    let udp = tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let (tcp, udp) = if !wanted {
        set_offload(fd, 0)?;
        (false, false)
    } else if set_offload(fd, udp).is_ok() {
        (true, true)
    } else if set_offload(fd, tcp).is_ok() {
        (true, false)
    } else {
        set_offload(fd, 0)?;
        (false, false)
    };
    Ok(Features {
        vnet_hdr: true,
        tcp,
        udp,
    })
}

/// The device of the data thread.
pub(super) struct Tun {
    fd: OwnedFd,
    pub(super) features: Features,
    /// Superpackets are refused, as some kernels do.
    #[cfg(test)]
    pub(super) refuses: Option<libc::c_int>,
}

impl Tun {
    pub(super) fn new(fd: OwnedFd, offload: bool) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let features = features(fd.as_fd(), offload)?;
        Ok(Self {
            fd,
            features,
            #[cfg(test)]
            refuses: None,
        })
    }

    #[cfg(test)]
    pub(super) fn stand_in(fd: OwnedFd, features: Features, refuses: Option<libc::c_int>) -> Self {
        Self {
            fd,
            features,
            refuses,
        }
    }

    /// Reads one packet behind its virtio header, which is all zero where the device has none. `None`
    /// means there is none now.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let skipped = if self.features.vnet_hdr { 0 } else { VIRTIO };
        buffer[..skipped].fill(0);
        match rustix::io::read(&self.fd, &mut buffer[skipped..]) {
            Ok(len) => Ok(Some(skipped + len)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes one packet behind its virtio header.
    pub(super) fn write(&self, packet: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if let Some(errno) = self.refuses.filter(|_| packet[1] != 0) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let skipped = if self.features.vnet_hdr { 0 } else { VIRTIO };
        rustix::io::write(&self.fd, &packet[skipped..])?;
        Ok(())
    }

    /// Writes one complete packet that has no virtio header yet.
    pub(super) fn write_plain(&self, packet: &[u8]) -> io::Result<()> {
        let header = [0; VIRTIO];
        let parts = [io::IoSlice::new(&header), io::IoSlice::new(packet)];
        let skipped = usize::from(!self.features.vnet_hdr);
        rustix::io::writev(&self.fd, &parts[skipped..])?;
        Ok(())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn flags(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: an `ifreq` of zeros is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: TUNGETIFF writes one `ifreq` (drivers/net/tun.c), and `request` is one.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
    check(result)?;
    // SAFETY: TUNGETIFF has set the flags, and any bits are a valid `c_short`.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(flags.into())
}

fn header_size(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut size: libc::c_int = 0;
    // SAFETY: TUNGETVNETHDRSZ writes one `int` (drivers/net/tun.c).
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETVNETHDRSZ, &raw mut size) };
    check(result)?;
    Ok(usize::try_from(size).unwrap_or(0))
}

fn set_offload(fd: BorrowedFd<'_>, offload: libc::c_uint) -> io::Result<()> {
    let offload = libc::c_ulong::from(offload);
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, offload) };
    check(result)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
