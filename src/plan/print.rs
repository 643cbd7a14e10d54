//! A plan as text: one line a command, in the notation of `ip` and `sysctl`.

use std::fmt;

use super::{MEMORY, Plan, Tunnel};

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
            Some(uplink) => {
                let device = &uplink.device;
                writeln!(
                    f,
                    "\n# the uplink: {device}, {}{}",
                    uplink.address,
                    uplink.gateway.map_or_else(
                        || ", no router".to_owned(),
                        |router| format!(", router {router}")
                    )
                )?;
                writeln!(
                    f,
                    "# its routes are remembered in table {MEMORY}, which no rule leads to, and then removed:"
                )?;
                writeln!(
                    f,
                    "# every other one that `ip -4 route show dev {device}` lists"
                )?;
                writeln!(f, "ip -4 route del default dev {device}")?;
            }
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
