//! Features of a device (ethtool): what it does itself, and what the kernel does before handing it frames.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

use crate::net::IfName;

/// linux/ethtool.h: `ETHTOOL_GSTRINGS`, `ETHTOOL_GSSET_INFO`, `ETHTOOL_GFEATURES`, and the set of strings
/// that names features.
const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const ETH_SS_FEATURES: u32 = 4;

/// Bytes of one name (`ETH_GSTRING_LEN`).
const NAME: usize = 32;

/// More features than any kernel has; Linux 6.18 has about 65.
const MOST: usize = 256;

/// The names of the features that are active on a device, as `ethtool -k` has them in the kernel's words:
/// `tx-tcp-segmentation`, `rx-gro`.
///
/// # Errors
/// ENODEV where there is no such device, EOPNOTSUPP where it has no features.
pub fn features(device: &IfName) -> io::Result<Vec<String>> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let count = count(&socket, device)?;
    // struct ethtool_gstrings: command, set, number, names.
    let mut names = vec![0_u8; 12 + count * NAME];
    names[..4].copy_from_slice(&GSTRINGS.to_ne_bytes());
    names[4..8].copy_from_slice(&ETH_SS_FEATURES.to_ne_bytes());
    names[8..12].copy_from_slice(&(count as u32).to_ne_bytes());
    call(&socket, device, &mut names)?;
    // struct ethtool_gfeatures: command, blocks of 32 features; each block has four words, of which the
    // third is `active`.
    let blocks = count.div_ceil(32);
    let mut bits = vec![0_u8; 8 + blocks * 16];
    bits[..4].copy_from_slice(&GFEATURES.to_ne_bytes());
    bits[4..8].copy_from_slice(&(blocks as u32).to_ne_bytes());
    call(&socket, device, &mut bits)?;
    let names = names[12..].chunks_exact(NAME).enumerate();
    let active = names.filter(|(at, _)| is_active(&bits, *at));
    Ok(active.map(|(_, name)| text(name)).collect())
}

/// How many features this kernel names: `struct ethtool_sset_info` with one set asked for.
fn count(socket: &Socket, device: &IfName) -> io::Result<usize> {
    let mut info = [0_u8; 20];
    info[..4].copy_from_slice(&GSSET_INFO.to_ne_bytes());
    info[8..16].copy_from_slice(&(1_u64 << ETH_SS_FEATURES).to_ne_bytes());
    call(socket, device, &mut info)?;
    let count = u32::from_ne_bytes([info[16], info[17], info[18], info[19]]) as usize;
    Ok(count.min(MOST))
}

fn is_active(bits: &[u8], feature: usize) -> bool {
    let start = 8 + feature / 32 * 16 + 8;
    let Some(word) = bits.get(start..start + 4) else {
        return false;
    };
    let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
    word >> (feature % 32) & 1 == 1
}

fn text(name: &[u8]) -> String {
    let end = name.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&name[..end.unwrap_or(name.len())]).into_owned()
}

fn call(socket: &Socket, device: &IfName, command: &mut [u8]) -> io::Result<()> {
    // SAFETY: an all-zero `ifreq` is valid: it holds numbers and a pointer that may be null.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // A name has at most 15 bytes, so a zero stays behind it.
    let name = device.bytes().into_iter().take(libc::IFNAMSIZ - 1);
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = command.as_mut_ptr().cast();
    // SAFETY: the request and the command behind it outlive the call, and the counts in the command are
    // those that its length was made for.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_features() {
        let features = features(&"lo".parse().unwrap()).unwrap();
        assert!(
            features.iter().any(|name| name == "loopback"),
            "{features:?}"
        );
        assert!(
            features.iter().any(|name| name == "tx-tcp-segmentation"),
            "{features:?}"
        );
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        let error = features(&"nosuchdevice0".parse().unwrap()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
