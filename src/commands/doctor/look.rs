//! Looks at the namespace, the kernel and this process; changes nothing.

use std::io;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::thread::{CapabilitySet, capabilities};

use super::facts::{Facts, Rules, Uplink};
use super::{ports, processes};
use crate::commands::kernel;
use crate::commands::run::RESOLV_CONF;
use crate::control::api::Status;
use crate::sys::rtnl::RtnlError;
use crate::sys::{ethtool, host, link, nft, resolv, sysctl};
use crate::warden;

/// All that there is to judge by; `status` is what the gateway said.
///
/// # Errors
/// The kernel does not say what devices there are.
pub(super) fn look(status: Result<Status, String>) -> Result<Facts, RtnlError> {
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let rules = rules();
    let owner = match rules {
        Rules::There(owner) => owner,
        Rules::Absent | Rules::Denied | Rules::Unread(_) => None,
    };
    let (others, tunnels): (Vec<_>, Vec<_>) = link::devices()?
        .into_iter()
        .filter(|device| !device.loopback)
        .partition(|device| device.leads_out);
    Ok(Facts {
        uplinks: uplinks(&others)?,
        tunnel: tunnels.into_iter().next().map(|device| device.name),
        machine: host::may_be_own_namespace(),
        named: host::has_name(),
        kernel: kernel::release(),
        joiners: processes::look(owner),
        rules,
        tun_node: Path::new("/dev/net/tun").exists(),
        net_admin: held.contains(CapabilitySet::NET_ADMIN),
        net_raw: held.contains(CapabilitySet::NET_RAW),
        sysctls_writable: sysctls_writable(),
        ipv6_off: sysctl::ipv6_is_off(),
        nameservers: nameservers(),
        bound: ports::bound(),
        status,
    })
}

fn uplinks(devices: &[link::Device]) -> Result<Vec<Uplink>, RtnlError> {
    let traffic = link::traffic()?;
    let found = traffic
        .iter()
        .filter(|it| devices.iter().any(|device| device.index == it.index));
    let uplink = |device: &link::Traffic| Uplink {
        name: device.name.clone(),
        inexact: warden::inexact(device),
        veth: device.kind.as_deref() == Some("veth"),
        gro: ethtool::features(&device.name)
            .ok()
            .map(|active| active.iter().any(|name| name == "rx-gro")),
    };
    Ok(found.map(uplink).collect())
}

fn rules() -> Rules {
    let owner = || {
        if nft::is_there()? {
            nft::owner().map(Rules::There)
        } else {
            Ok(Rules::Absent)
        }
    };
    owner().unwrap_or_else(|error: io::Error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            Rules::Denied
        } else {
            Rules::Unread(error.to_string())
        }
    })
}

/// Where it is not mounted by itself, the flags are those of /proc.
fn sysctls_writable() -> Option<bool> {
    let mount = statvfs("/proc/sys").ok()?;
    Some(!mount.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn nameservers() -> Result<Vec<String>, String> {
    let text = resolv::read(Path::new(RESOLV_CONF)).map_err(|error| error.to_string())?;
    Ok(resolv::named(&text))
}
