//! `vpngw explain 1.1.1.1:53/udp`: what becomes of a packet that a program sends, and the rule that says so.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use anyhow::{Context, bail};

use crate::net::{Fwmark, IfName, Transport};
use crate::policy::{Device, DeviceKind, Direction, Flow, Policy, Protocol, Reason, verdict};
use crate::ruleset::{Kernel, Ruleset};

/// A source port as the kernel picks one (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: u16 = 49152;

/// Prints the verdict on `target` (`ADDR:PORT/udp`, `ADDR:PORT/tcp` or `ADDR/icmp`, optionally followed by
/// ` via DEVICE`) for each device it could leave by, and the nft rule that gives it.
///
/// # Errors
///
/// `target` is not one, or `out` cannot be written.
pub fn run(policy: &Policy, target: &str, out: &mut dyn Write) -> anyhow::Result<()> {
    let target: Target = target.parse()?;
    let ruleset = Ruleset::of(policy, &[], Kernel::FULL);
    for device in target.devices(policy) {
        let flow = target.flow(policy, &device);
        let decision = ruleset.decide(&flow);
        let reason = decision.rule.map_or(Reason::Other, |rule| rule.reason);
        debug_assert_eq!(verdict(policy, &flow).accept, decision.accept);
        let verb = if decision.accept {
            "passes"
        } else {
            "is refused"
        };
        let why = why(reason, decision.accept);
        writeln!(
            out,
            "{} via {} {verb} ({reason}): {why}",
            target.text(),
            device.name
        )?;
        if let Some(rule) = decision.rule {
            let rule = rule.to_string().replace(" packets 0 bytes 0", "");
            writeln!(out, "    inet vpngw {}: {rule}", decision.hook.chain())?;
        }
    }
    Ok(())
}

/// Where a packet goes, as written on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    address: IpAddr,
    port: Option<(Transport, u16)>,
    via: Option<IfName>,
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let expected = || {
            format!(
                "`{text}` is not a destination: write `1.1.1.1:53/udp`, `1.1.1.1:443/tcp` or \
                 `1.1.1.1/icmp`, and `via eth0` behind it to name the device"
            )
        };
        let (packet, via) = match text.trim().split_once(" via ") {
            Some((packet, device)) => (packet.trim(), Some(device.trim().parse()?)),
            None => (text.trim(), None),
        };
        let (place, protocol) = packet.rsplit_once('/').with_context(expected)?;
        let transport = match protocol.to_ascii_lowercase().as_str() {
            "udp" => Transport::Udp,
            "tcp" => Transport::Tcp,
            "icmp" => {
                let address = bare(place).with_context(expected)?;
                let port = None;
                return Ok(Self { address, port, via });
            }
            _ => bail!(expected()),
        };
        let (address, port) = place.rsplit_once(':').with_context(expected)?;
        let address = bare(address).with_context(expected)?;
        match port.parse() {
            Ok(port) if port > 0 => Ok(Self {
                address,
                port: Some((transport, port)),
                via,
            }),
            Ok(_) | Err(_) => bail!(expected()),
        }
    }
}

/// An address, an IPv6 one with or without its brackets.
fn bare(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    inner.unwrap_or(text).parse().ok()
}

impl Target {
    fn text(&self) -> String {
        match (self.port, self.address) {
            (Some((transport, port)), IpAddr::V4(ip)) => format!("{ip}:{port}/{transport}"),
            (Some((transport, port)), IpAddr::V6(ip)) => format!("[{ip}]:{port}/{transport}"),
            (None, ip) => format!("{ip}/icmp"),
        }
    }

    /// The device that was named; else loopback for what is here, and both others for what is not: the
    /// answer has to hold whatever the routes are.
    fn devices(&self, policy: &Policy) -> Vec<Device> {
        let tunnel = policy.tunnel.as_ref().map(|t| &t.device);
        let uplink = policy.uplink.as_ref().map(|u| &u.device);
        let known = |name: &IfName| Device {
            name: name.clone(),
            kind: match name.as_str() {
                "lo" => DeviceKind::Loopback,
                _ if tunnel == Some(name) => DeviceKind::Tun,
                _ => DeviceKind::Other,
            },
        };
        // Invariant: both are device names.
        let name = |text: &str| text.parse::<IfName>().ok();
        if let Some(via) = &self.via {
            vec![known(via)]
        } else if self.address.is_loopback() {
            name("lo").iter().map(known).collect()
        } else if tunnel.is_none() && uplink.is_none() {
            name("eth0").iter().map(known).collect()
        } else {
            tunnel.into_iter().chain(uplink).map(known).collect()
        }
    }

    /// The packet that an ordinary program would send there by this device.
    fn flow(&self, policy: &Policy, device: &Device) -> Flow {
        let tunnel = policy.tunnel.as_ref().filter(|t| t.device == device.name);
        let uplink = policy.uplink.as_ref().filter(|u| u.device == device.name);
        let own = tunnel
            .and_then(|t| t.addresses.first().map(|a| a.ip()))
            .or_else(|| uplink.map(|u| u.address))
            .unwrap_or(Ipv4Addr::LOCALHOST);
        let source = match self.address {
            IpAddr::V4(_) => IpAddr::V4(own),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let protocol = match self.port {
            Some((Transport::Tcp, destination)) => Protocol::Tcp {
                source: EPHEMERAL,
                destination,
            },
            Some((Transport::Udp, destination)) => Protocol::Udp {
                source: EPHEMERAL,
                destination,
                wireguard: false,
            },
            None => Protocol::Icmp,
        };
        Flow {
            direction: Direction::Out,
            device: device.clone(),
            source,
            destination: self.address,
            protocol,
            mark: Fwmark(0),
            reply: false,
        }
    }
}

/// The reason in a sentence.
fn why(reason: Reason, accept: bool) -> &'static str {
    match reason {
        Reason::Loopback => "it stays in this namespace",
        Reason::Ipv6 => "IPv6 is off",
        Reason::DockerResolver => "Docker's resolver asks from outside the namespace",
        Reason::Endpoint => "it is our own WireGuard flow",
        Reason::Resolver => "it is our own look-up of the server's name",
        Reason::Multicast => "multicast and broadcast tell the whole network that we are here",
        Reason::Metadata => "a metadata service hands out credentials",
        Reason::Dns => "names are asked of the tunnel's resolvers only",
        Reason::Private => {
            "private addresses go through the tunnel only if [tunnel] private lists them"
        }
        Reason::Tunnel => "it goes through the tunnel",
        Reason::ForwardedPort => "[forward] ports lists it",
        Reason::LanInbound => "it answers a LAN client that [lan] inbound lists",
        Reason::LanOutbound => "[lan] outbound lists it",
        Reason::PortMapping => "UPnP, NAT-PMP and PCP open ports past the tunnel",
        Reason::Spoofed => "its addresses cannot be true on this device",
        Reason::Arp => "it is address resolution of our own address",
        Reason::Forward => "this namespace forwards nothing",
        Reason::Raw => "it passed no rule of output",
        Reason::Other if accept => "a rule permits it",
        Reason::Other => "nothing permits it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Outbound;
    use crate::policy::{TunnelPolicy, UplinkPolicy};

    fn policy() -> Policy {
        Policy {
            uplink: Some(UplinkPolicy {
                device: "eth0".parse().unwrap(),
                address: "172.30.0.2".parse().unwrap(),
                endpoint: None,
                resolver: None,
                inbound: Vec::new(),
                outbound: vec![Outbound {
                    to: "192.168.1.20".parse().unwrap(),
                    port: "tcp/445".parse().unwrap(),
                }],
            }),
            tunnel: Some(TunnelPolicy {
                device: "tun0".parse().unwrap(),
                addresses: vec!["10.64.0.2/32".parse().unwrap()],
                dns: vec!["10.64.0.1".parse().unwrap()],
                private: Vec::new(),
                forward: Vec::new(),
            }),
        }
    }

    fn explain(target: &str) -> String {
        let mut out = Vec::new();
        run(&policy(), target, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dns_past_the_tunnel_is_explained_for_both_devices() {
        insta::assert_snapshot!(explain("1.1.1.1:53/udp"), @r#"
    1.1.1.1:53/udp via tun0 is refused (dns): names are asked of the tunnel's resolvers only
        inet vpngw output: udp dport 53 counter log prefix "dns" group 5 snaplen 128 log prefix "dns" group 7 reject with icmpx admin-prohibited comment "dns"
    1.1.1.1:53/udp via eth0 is refused (dns): names are asked of the tunnel's resolvers only
        inet vpngw output: udp dport 53 counter log prefix "dns" group 5 snaplen 128 log prefix "dns" group 7 reject with icmpx admin-prohibited comment "dns"
    "#);
    }

    #[test]
    fn a_permission_is_named() {
        let text = explain("192.168.1.20:445/tcp via eth0");
        assert!(text.starts_with("192.168.1.20:445/tcp via eth0 passes (lan-outbound)"));
        assert!(explain("10.64.0.1:53/udp via tun0").contains("passes (tunnel)"));
        assert!(explain("127.0.0.11:53/udp").contains("via lo is refused (docker-resolver)"));
        assert!(explain("[2606:4700::1111]:443/tcp via eth0").contains("is refused (ipv6)"));
        assert!(explain("192.168.1.7/icmp via tun0").contains("is refused (private)"));
    }

    #[test]
    fn the_default_policy_refuses_by_any_device() {
        let mut out = Vec::new();
        run(&Policy::default(), "1.1.1.1:443/tcp", &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("is refused (other): nothing permits it"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_target_says_what_would_be() {
        for bad in [
            "",
            "1.1.1.1",
            "1.1.1.1:53",
            "1.1.1.1/udp",
            "1.1.1.1:0/udp",
            "x:53/udp",
        ] {
            let error = bad.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("`1.1.1.1:53/udp`"), "{bad}: {error}");
        }
        assert!("1.1.1.1:53/udp via a/b".parse::<Target>().is_err());
    }
}
