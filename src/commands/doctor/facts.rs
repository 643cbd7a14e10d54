//! What there is to judge by. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::commands::kernel;
use crate::control::api::Status;
use crate::net::{IfName, Port};
use crate::warden::Inexact;

/// The namespace, the kernel and this process, as they are now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Facts {
    /// Every device but loopback and TUN.
    pub(super) uplinks: Vec<Uplink>,
    /// The TUN device.
    pub(super) tunnel: Option<IfName>,
    /// Whether this may be the machine's own namespace.
    pub(super) machine: bool,
    /// Whether the namespace has a name (ip-netns(8)), as in the host topology.
    pub(super) named: bool,
    /// Release of the kernel, as `uname -r` says it.
    pub(super) kernel: String,
    /// Our rules.
    pub(super) rules: Rules,
    /// Whether /dev/net/tun is there.
    pub(super) tun_node: bool,
    /// What this process may do.
    pub(super) net_admin: bool,
    /// The same.
    pub(super) net_raw: bool,
    /// Whether /proc/sys is mounted so that it can be written to; `None` if that is not known.
    pub(super) sysctls_writable: Option<bool>,
    /// Whether IPv6 is off on every device.
    pub(super) ipv6_off: bool,
    /// The resolvers that /etc/resolv.conf names, as they stand there; or why it cannot be read.
    pub(super) nameservers: Result<Vec<String>, String>,
    /// Ports that something is bound to, with the address; `None` if that is not known.
    pub(super) bound: Option<BTreeSet<Bound>>,
    /// The other processes.
    pub(super) joiners: Joiners,
    /// What the gateway says; or why it says nothing.
    pub(super) status: Result<Status, String>,
}

/// A device that frames could leave by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uplink {
    /// Its name.
    pub(super) name: IfName,
    /// Why what it sends cannot be counted exactly.
    pub(super) inexact: Option<Inexact>,
    /// Whether it is a veth.
    pub(super) veth: bool,
    /// Whether it joins what it receives (`rx-gro`); `None` if that is not known.
    pub(super) gro: Option<bool>,
}

/// The tables of the kill switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// There are some, which belong to this process, or to none.
    There(Option<u32>),
    /// There are none.
    Absent,
    /// It takes CAP_NET_ADMIN to see them.
    Denied,
    /// The kernel does not say; its words.
    Unread(String),
}

/// A socket that waits for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bound {
    /// Its port.
    pub(super) port: Port,
    /// Its address; `None` for one of IPv6 that takes no IPv4.
    pub(super) address: Option<Ipv4Addr>,
}

/// The processes of this network namespace other than the gateway's and those that started us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Joiners {
    /// Those that hold NET_ADMIN or NET_RAW.
    pub(super) capable: Vec<Joiner>,
    /// How many others live here.
    pub(super) harmless: usize,
    /// How many processes hold one of the two and do not let us see which namespace they live in.
    pub(super) unread: usize,
    /// Whether every process of the machine is visible.
    pub(super) all_visible: bool,
    /// The users of the engines that are visible.
    pub(super) engines: BTreeSet<u32>,
    /// Those that live here as one of these users.
    pub(super) kin: Vec<Kin>,
}

/// A process that may end an engine, since it is the same user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kin {
    /// Its number, here.
    pub(super) pid: u32,
    /// What it calls itself.
    pub(super) name: String,
    /// Its user.
    pub(super) user: u32,
}

/// A process with a capability that it could harm with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Joiner {
    /// Its number, here.
    pub(super) pid: u32,
    /// What it calls itself.
    pub(super) name: String,
    /// What it may do.
    pub(super) net_admin: bool,
    /// The same.
    pub(super) net_raw: bool,
    /// Whether it could take the uplink to a namespace that it makes: it has NET_ADMIN, no seccomp filter forbids it to
    /// make one, and it has SYS_ADMIN or may make a user namespace.
    pub(super) may_take_uplink: bool,
}

impl Facts {
    /// Whether the kernel is of this release, major and minor, or a later one; `None` if that cannot be read.
    pub(super) fn is_at_least(&self, wanted: (u32, u32)) -> Option<bool> {
        kernel::is_at_least(&self.kernel, wanted)
    }

    /// What the gateway says, if it answers.
    pub(super) fn said(&self) -> Option<&Status> {
        self.status.as_ref().ok()
    }

    /// Whether the rules are in force, as far as anybody can tell.
    pub(super) fn in_force(&self) -> Option<bool> {
        match self.rules {
            Rules::There(_) => Some(true),
            Rules::Absent => Some(false),
            Rules::Denied | Rules::Unread(_) => self.said().map(|it| it.kill_switch.armed),
        }
    }
}
