//! The stage: two network namespaces and the cable between them, and a private copy of the places
//! the gateway writes to.
//!
//! ```text
//!   app namespace                         internet namespace
//!   client, gateway                       router, VPN server, sensor
//!   eth0 192.168.77.2 ------------------- lan0 192.168.77.1
//!                                         lo   198.51.100.10 (the VPN server)
//! ```

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, anyhow, bail};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount,
};

use crate::net::IfName;
use crate::sys::veth::{self, End};
use crate::sys::{link, namespace};

/// The client's address on the uplink.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
/// The router on the uplink.
pub(super) const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
/// The VPN server.
pub(super) const ENDPOINT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 10), 51820);
/// The uplink as the client sees it.
pub(super) const UPLINK: &str = "eth0";
/// Ethernet address of the client's end (locally administered, IEEE 802).
pub(super) const MAC: [u8; 6] = [0x02, 0, 0, 0, 0x77, 2];
/// Ethernet address of the router's end.
pub(super) const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x77, 1];
/// Where the demo keeps its files; `/run` is a private tmpfs by then.
pub(super) const FOLDER: &str = "/run/vpngw-demo";

const LOOPBACK: &str = "lo";
const ROUTER_END: &str = "lan0";
const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

/// What the stage turned out to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stage {
    /// Built inside a user namespace, without privilege.
    pub(super) rootless: bool,
    /// The uplink has IPv6, so the client can try it.
    pub(super) ipv6: bool,
    /// Index of the uplink in the app namespace.
    pub(super) uplink: u32,
}

/// Moves the calling thread, the only one of the process, into the app namespace.
///
/// # Errors
/// Says what this machine lacks and what to do about it.
pub(super) fn enter() -> anyhow::Result<bool> {
    check_tun()?;
    let root = rustix::process::geteuid().is_root();
    let rootless = match namespace::new_network_and_mounts() {
        Ok(()) => false,
        Err(plain) => {
            namespace::new_user_network_and_mounts()
                .map_err(|user| no_namespaces(root, &plain, &user))?;
            true
        }
    };
    private_mounts(rootless).context("making private copies of /run and /etc/resolv.conf")?;
    Ok(rootless)
}

/// Lays the cable. `far` runs in the internet namespace once the router's end is up, before the
/// client's end is; it gets the index of the router's end, and threads it starts stay there.
///
/// # Errors
/// Those of netlink, and those of `far`.
pub(super) fn connect<T: Send>(
    rootless: bool,
    far: impl FnOnce(u32) -> anyhow::Result<T> + Send,
) -> anyhow::Result<(Stage, T)> {
    let app = File::open("/proc/thread-self/ns/net").context("opening our network namespace")?;
    quiet_ipv6();
    let result = thread::scope(|scope| {
        let router = scope.spawn(|| {
            namespace::new_network().context("making the internet namespace")?;
            quiet_ipv6();
            far(lay_router(&app).context("building the router's side")?)
        });
        router
            .join()
            .map_err(|_| anyhow!("the internet namespace's thread panicked"))?
    })?;
    let uplink = UPLINK.parse()?;
    link::set_up(&LOOPBACK.parse()?)?;
    link::set_up(&uplink)?;
    veth::add_address(&uplink, v4(ADDRESS, 24)?)?;
    veth::add_default_route(&uplink, IpAddr::V4(ROUTER))?;
    let ipv6 = veth::add_address(&uplink, v6(ADDRESS_V6)?).is_ok()
        && veth::add_default_route(&uplink, IpAddr::V6(ROUTER_V6)).is_ok();
    let stage = Stage {
        rootless,
        ipv6,
        uplink: link::index(&uplink)?,
    };
    Ok((stage, result))
}

/// Builds the router's side; returns the index of its end of the cable.
fn lay_router(app: &File) -> anyhow::Result<u32> {
    let (lo, lan) = (LOOPBACK.parse()?, ROUTER_END.parse::<IfName>()?);
    let here = End {
        name: lan.clone(),
        mac: ROUTER_MAC,
    };
    let there = End {
        name: UPLINK.parse()?,
        mac: MAC,
    };
    veth::create(&here, &there, app.as_fd())
        .context("making a veth pair: is the kernel module `veth` available? (modprobe veth)")?;
    link::set_up(&lo)?;
    veth::add_address(&lo, v4(*ENDPOINT.ip(), 32)?)?;
    link::set_up(&lan)?;
    veth::add_address(&lan, v4(ROUTER, 24)?)?;
    // Where the kernel has no IPv6 the client's side finds out, and the demo says so.
    let _ = veth::add_address(&lan, v6(ROUTER_V6)?);
    Ok(link::index(&lan)?)
}

/// IPv6 on, but without the kernel's own chatter (duplicate address detection, router
/// solicitations), which would stand between the client's attempts in the capture. The files are
/// read-only in some containers; then the chatter is seen and harms nothing.
fn quiet_ipv6() {
    for (key, value) in [
        ("disable_ipv6", "0"),
        ("accept_dad", "0"),
        ("dad_transmits", "0"),
        ("router_solicitations", "0"),
    ] {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/default/{key}"), value);
    }
}

fn check_tun() -> anyhow::Result<()> {
    let tun = Path::new("/dev/net/tun");
    match File::options().read(true).write(true).open(tun) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!("/dev/net/tun may not be opened by this user: run as root (sudo vpngw demo)")
        }
        Err(error) => bail!(
            "/dev/net/tun: {error}. Load the driver (sudo modprobe tun); in a container start it \
             with --device /dev/net/tun"
        ),
    }
}

fn no_namespaces(root: bool, plain: &io::Error, user: &io::Error) -> anyhow::Error {
    if root {
        anyhow!(
            "no namespaces can be made here ({plain}): in a container, start it with \
             --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined"
        )
    } else {
        anyhow!(
            "this user may not make user namespaces ({user}): run as root (sudo vpngw demo), or \
             allow them (sysctl kernel.unprivileged_userns_clone=1, \
             kernel.apparmor_restrict_unprivileged_userns=0)"
        )
    }
}

/// Gives this mount namespace a `/run` and an `/etc/resolv.conf` of its own: the gateway writes to
/// both.
fn private_mounts(rootless: bool) -> anyhow::Result<()> {
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )?;
    let resolv = Path::new("/etc/resolv.conf");
    let target = fs::canonicalize(resolv).unwrap_or_else(|_| PathBuf::from(resolv));
    mount(
        "tmpfs",
        "/run",
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        c"mode=0755",
    )?;
    fs::create_dir(FOLDER)?;
    let text = format!("nameserver {ROUTER}\n");
    if target.starts_with("/run") {
        fs::create_dir_all(target.parent().unwrap_or_else(|| Path::new("/run")))?;
        return Ok(fs::write(&target, text)?);
    }
    if !rootless {
        // Root could make files in the real /etc; in this mount namespace nobody can.
        mount_bind("/etc", "/etc")?;
        mount_remount("/etc", MountFlags::BIND | MountFlags::RDONLY, c"")?;
    }
    if target.exists() {
        let copy = Path::new(FOLDER).join("resolv.conf");
        fs::write(&copy, text)?;
        mount_bind(&copy, &target)?;
    }
    Ok(())
}

fn v4(address: Ipv4Addr, prefix: u8) -> anyhow::Result<IpNetwork> {
    Ok(IpNetwork::V4(Ipv4Network::new(address, prefix)?))
}

fn v6(address: Ipv6Addr) -> anyhow::Result<IpNetwork> {
    Ok(IpNetwork::V6(Ipv6Network::new(address, 64)?))
}
