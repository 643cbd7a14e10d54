//! The kernel parameters the gateway wants.

use std::fmt;
use std::path::PathBuf;

use crate::net::IfName;

/// One parameter below `net.ipv4` or `net.ipv6`, mostly of a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl {
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// `all`, `default` or a device; empty where it is of the namespace.
    pub scope: String,
    /// Last part of the name.
    pub name: &'static str,
    /// The value, a number as text.
    pub value: &'static str,
}

impl Sysctl {
    /// The file below `/proc/sys`.
    pub fn path(&self) -> PathBuf {
        let conf: &[&str] = match self.scope.as_str() {
            "" => &[],
            scope => &["conf", scope],
        };
        let parts = ["net", self.family].into_iter().chain(conf.iter().copied());
        parts.chain([self.name]).collect()
    }
}

impl fmt::Display for Sysctl {
    /// As sysctl(8) takes it: a dot inside a device's name is written as a slash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            family,
            scope,
            name,
            value,
        } = self;
        if scope.is_empty() {
            return write!(f, "net.{family}.{name}={value}");
        }
        let scope = scope.replace('.', "/");
        write!(f, "net.{family}.conf.{scope}.{name}={value}")
    }
}

/// Parameters and values (Documentation/networking/ip-sysctl.rst).
const WANTED: &[(&str, &str, &str)] = &[
    ("ipv6", "disable_ipv6", "1"),
    // For the moment between a device's birth and the line above, and where it is not heeded.
    ("ipv6", "accept_ra", "0"),
    ("ipv6", "accept_redirects", "0"),
    ("ipv4", "accept_redirects", "0"),
    // 1: the tunnel's address is not told to who asks for it on the LAN.
    ("ipv4", "arp_ignore", "1"),
    // 2: an ARP request never carries the tunnel's address as its sender.
    ("ipv4", "arp_announce", "2"),
];

/// What is wanted of all devices, of those to come, and of each of `devices`.
pub fn sysctls(devices: &[IfName]) -> Vec<Sysctl> {
    let general = ["all", "default"].into_iter().map(str::to_owned);
    let scopes = general.chain(devices.iter().map(|device| device.as_str().to_owned()));
    let of = |scope: String| {
        WANTED.iter().map(move |&(family, name, value)| Sysctl {
            family,
            scope: scope.clone(),
            name,
            value,
        })
    };
    // 1: a connection that a router swallows without a word finds out by itself what passes (RFC 4821).
    let probing = Sysctl {
        family: "ipv4",
        scope: String::new(),
        name: "tcp_mtu_probing",
        value: "1",
    };
    scopes.flat_map(of).chain([probing]).collect()
}
