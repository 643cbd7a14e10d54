//! `vpngw explain 1.1.1.1:53/udp`: what becomes of a packet that a program sends, and the rule that says so; with
//! `--from`, of somebody who wants to reach a program here.

use std::fmt;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};

use super::block_on;
use super::exit::{Code, Failure};
use super::preview::preview;
use crate::config::{Lan, Peer};
use crate::control::api::Topology;
use crate::control::client;
use crate::net::{Fwmark, IfName, Transport};
use crate::policy::{Device, DeviceKind, Direction, Flow, Policy, Protocol, Reason, verdict};
use crate::ruleset::{Kernel, Ruleset};

mod inbound;

/// A source port as the kernel picks one (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: u16 = 49152;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// What becomes of a packet that a program here sends: `ADDR:PORT/udp`, `ADDR:PORT/tcp` or `ADDR/icmp`,
    /// optionally followed by ` via DEVICE`.
    To(String),
    /// What becomes of somebody who wants to reach a port here: `tcp/PORT` or `udp/PORT`, optionally followed by
    /// ` via DEVICE`.
    From(IpAddr, String),
}

/// Answers by the configuration and the namespace; of the sealed topology, by the gateway that answers on
/// `socket`.
///
/// # Errors
///
/// What is wrong with the question or with the configuration.
pub fn run(
    config: Option<&Path>,
    socket: &Path,
    question: &Question,
    out: &mut dyn Write,
) -> Result<Code, Failure> {
    match question {
        Question::To(target) => {
            let preview = preview(config)?;
            outbound(&preview.policy, &preview.config.peers, target, out)
                .map_err(Failure::usage)?;
        }
        Question::From(client, port) => match block_on(client::status(socket)) {
            Ok(status) if status.topology == Topology::Sealed => {
                let lan = Lan {
                    inbound: status.lan.inbound,
                    outbound: status.lan.outbound,
                };
                let place = inbound::Place::Sealed(&lan);
                inbound::run(place, *client, port, out).map_err(Failure::usage)?;
            }
            // One of the shared topology, or none that could tell.
            Ok(_) | Err(_) => {
                let preview = preview(config)?;
                let place = inbound::Place::Shared(&preview.policy);
                inbound::run(place, *client, port, out).map_err(Failure::usage)?;
            }
        },
    }
    Ok(Code::Ok)
}

/// Prints the verdict on `target` for each device it could leave by, and the nft rule that gives it.
fn outbound(
    policy: &Policy,
    peers: &[Peer],
    target: &str,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    inbound::needs_a_port(target)?;
    let target: Target = target.parse()?;
    for device in target.devices(policy) {
        let decision = decided(policy, &target.flow(policy, &device))?;
        let (text, name) = (target.text(), &device.name);
        if decision.accept
            && decision.reason == Reason::Tunnel
            && let Some(why) = untaken(peers, target.address)
        {
            writeln!(out, "{text} via {name} goes nowhere: {why}")?;
        } else {
            writeln!(out, "{text} via {name} {decision}")?;
        }
    }
    Ok(())
}

/// Why no server takes a packet that the rules let into the tunnel.
fn untaken(peers: &[Peer], address: IpAddr) -> Option<String> {
    let IpAddr::V4(address) = address else {
        return None;
    };
    let mut allowed = peers.iter().flat_map(|peer| &peer.allowed_ips);
    if allowed.clone().any(|net| net.contains(address)) {
        return None;
    }
    let first = allowed.next()?;
    let rest: String = allowed.map(|net| format!(", {net}")).collect();
    Some(format!(
        "the rules pass it, but no peer takes it\n    AllowedIPs = {first}{rest} does not hold {address}: add \
         {address}/32, or write 0.0.0.0/0"
    ))
}

/// What becomes of a packet, with the rule that says so.
struct Decided {
    accept: bool,
    reason: Reason,
    rule: Option<String>,
}

impl fmt::Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accept, reason, .. } = self;
        let verb = if *accept { "passes" } else { "is refused" };
        write!(f, "{verb} ({reason}): {}", why(*reason, *accept))?;
        match &self.rule {
            Some(rule) => write!(f, "\n    {rule}"),
            None => Ok(()),
        }
    }
}

/// # Errors
/// Rules and policy do not agree.
fn decided(policy: &Policy, flow: &Flow) -> anyhow::Result<Decided> {
    let ruleset = Ruleset::of(policy, &[], Kernel::FULL);
    let decision = ruleset.decide(flow);
    let reason = decision.rule.map_or(Reason::Other, |rule| rule.reason);
    ensure!(
        verdict(policy, flow).accept == decision.accept,
        "the rules and the policy do not agree on this packet: please report it"
    );
    let rule = decision.rule.map(|rule| {
        let rule = rule.to_string().replace(" packets 0 bytes 0", "");
        format!("inet vpngw {}: {rule}", decision.hook.as_str())
    });
    Ok(Decided {
        accept: decision.accept,
        reason,
        rule,
    })
}

/// The device that was named behind a question.
struct Via(Option<IfName>);

impl Via {
    /// Takes ` via DEVICE` off.
    fn split(text: &str) -> anyhow::Result<(&str, Self)> {
        match text.trim().split_once(" via ") {
            Some((rest, device)) => Ok((rest.trim(), Self(Some(device.trim().parse()?)))),
            None => Ok((text.trim(), Self(None))),
        }
    }
}

/// A device by its name.
fn known(policy: &Policy, name: &IfName) -> Device {
    let tunnel = policy.tunnel.as_ref().map(|tunnel| &tunnel.device);
    let kind = match name.as_str() {
        "lo" => DeviceKind::Loopback,
        _ if tunnel == Some(name) => DeviceKind::Tun,
        _ => DeviceKind::Other,
    };
    let name = name.clone();
    Device { name, kind }
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
        let (packet, Via(via)) = Via::split(text)?;
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
        let lans: Vec<_> = policy.lans().map(|lan| lan.device).collect();
        let known = |name: &IfName| known(policy, name);
        // Invariant: both are device names.
        let name = |text: &str| text.parse::<IfName>().ok();
        if let Some(via) = &self.via {
            vec![known(via)]
        } else if self.address.is_loopback() {
            name("lo").iter().map(known).collect()
        } else if tunnel.is_none() && lans.is_empty() {
            name("eth0").iter().map(known).collect()
        } else {
            tunnel.into_iter().chain(lans).map(known).collect()
        }
    }

    /// The packet that an ordinary program would send there by this device.
    fn flow(&self, policy: &Policy, device: &Device) -> Flow {
        let tunnel = policy.tunnel.as_ref().filter(|t| t.device == device.name);
        let lan = policy.lan_on(&device.name);
        let own = tunnel
            .and_then(|t| t.addresses.first().map(|a| a.ip()))
            .or_else(|| lan.map(|lan| lan.address))
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
        Reason::Inbound => "no [lan] inbound lets it in",
        Reason::Raw => "it passed no rule of output",
        Reason::Other if accept => "a rule permits it",
        Reason::Other => "nothing permits it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::example;
    use crate::policy::{TunnelPolicy, UplinkPolicy};

    pub(super) fn policy() -> Policy {
        Policy {
            uplink: Some(UplinkPolicy {
                device: "eth0".parse().unwrap(),
                address: "172.30.0.2".parse().unwrap(),
                endpoint: None,
                resolver: None,
                inbound: Vec::new(),
                outbound: vec![example::outbound("192.168.1.20", "tcp/445")],
            }),
            beside: Vec::new(),
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
        outbound(&policy(), &example::config().peers, target, &mut out).unwrap();
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
        outbound(&Policy::default(), &[], "1.1.1.1:443/tcp", &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("is refused (other): nothing permits it"),
            "{text}"
        );
    }

    #[test]
    fn a_destination_that_no_peer_takes_does_not_pass() {
        let mut peers = example::config().peers;
        peers[0].allowed_ips = vec!["0.0.0.0/1".parse().unwrap()];
        let explain = |target: &str| {
            let mut out = Vec::new();
            outbound(&policy(), &peers, target, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        insta::assert_snapshot!(explain("203.0.113.9:443/tcp via tun0"), @r"
        203.0.113.9:443/tcp via tun0 goes nowhere: the rules pass it, but no peer takes it
            AllowedIPs = 0.0.0.0/1 does not hold 203.0.113.9: add 203.0.113.9/32, or write 0.0.0.0/0
        ");
        assert!(explain("8.8.8.8:443/tcp via tun0").contains("passes (tunnel)"));
        assert!(explain("203.0.113.9:53/udp via tun0").contains("is refused (dns)"));
    }

    #[test]
    fn a_port_alone_is_asked_for_whom() {
        let error = outbound(&policy(), &[], "8080/tcp", &mut Vec::new()).unwrap_err();
        assert!(
            error.to_string().contains("`--from 172.30.0.50`"),
            "{error}"
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
