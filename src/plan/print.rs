//! A plan as text: one line a command, in the notation of `ip` and `sysctl`.

use std::fmt;

use super::{MEMORY, Plan, Tunnel};
use crate::net::Uplink;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tunnel,
            uplink,
            routes,
            rules,
            sysctls,
            nameservers,
        } = self;
        writeln!(f, "# kernel parameters, where /proc/sys can be written")?;
        for sysctl in sysctls {
            writeln!(f, "sysctl -w {sysctl}")?;
        }
        writeln!(f, "\n# the tunnel device")?;
        print_tunnel(f, tunnel)?;
        match uplink {
            Some(uplink) => print_uplink(f, uplink)?,
            None => writeln!(f, "\n# no uplink: no route, no address, nothing to permit")?,
        }
        writeln!(f, "\n# routes")?;
        for route in routes {
            writeln!(f, "ip -4 route replace {route}")?;
        }
        writeln!(f, "\n# policy rules")?;
        for rule in rules {
            writeln!(f, "ip -4 rule add {rule}")?;
        }
        writeln!(f, "\n# /etc/resolv.conf")?;
        if nameservers.is_empty() {
            writeln!(f, "# no nameserver: no name resolves")?;
        }
        for nameserver in nameservers {
            writeln!(f, "# nameserver {nameserver}")?;
        }
        Ok(())
    }
}

fn print_uplink(f: &mut fmt::Formatter<'_>, uplink: &Uplink) -> fmt::Result {
    let Uplink {
        device, gateway, ..
    } = uplink;
    writeln!(
        f,
        "\n# the uplink; default routes, and others that lead past the tunnel, leave the main table"
    )?;
    writeln!(f, "# table {MEMORY} remembers them: no rule leads there")?;
    if let Some(gateway) = gateway {
        let route = format!("default via {gateway} dev {device}");
        writeln!(f, "ip -4 route replace {route} onlink table {MEMORY}")?;
        writeln!(f, "ip -4 route del {route}")?;
    }
    Ok(())
}

fn print_tunnel(f: &mut fmt::Formatter<'_>, tunnel: &Tunnel) -> fmt::Result {
    let Tunnel {
        device,
        mtu,
        tx_queue,
        addresses,
    } = tunnel;
    writeln!(f, "ip tuntap add dev {device} mode tun")?;
    writeln!(f, "ip link set dev {device} addrgenmode none")?;
    writeln!(
        f,
        "ip link set dev {device} mtu {mtu} txqueuelen {tx_queue}"
    )?;
    for address in addresses {
        writeln!(f, "ip -4 address replace {address} dev {device}")?;
    }
    writeln!(f, "ip link set dev {device} up")
}
