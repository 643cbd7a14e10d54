//! `vpngw explain --from 172.30.0.50 tcp/8080`: what becomes of somebody who wants to reach a program here.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, bail};

use super::{EPHEMERAL, Via, decided, known};
use crate::config::Lan;
use crate::leak::refused::advice;
use crate::net::lan::clients;
use crate::net::{Fwmark, Port, Transport};
use crate::policy::{Device, Direction, Flow, Policy, Protocol, Reason};

/// Who takes a client in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// The rules of this namespace.
    Shared(&'a Policy),
    /// The engine of the sealed topology, by these exceptions.
    Sealed(&'a Lan),
}

/// Prints what becomes of `client` at `port` (`tcp/8080`, `8080/tcp`), and what would let it in.
pub(super) fn run(
    place: Place<'_>,
    client: IpAddr,
    port: &str,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let (port, via) = Via::split(port)?;
    let port = wanted(port)?;
    let IpAddr::V4(client) = client else {
        let refused = Reason::Ipv6;
        writeln!(
            out,
            "{client} to {port} here is refused ({refused}): IPv6 is off"
        )?;
        return Ok(());
    };
    match place {
        Place::Sealed(lan) => sealed(lan, client, port, out),
        Place::Shared(policy) => {
            let devices = devices(policy, client, &via);
            if devices.is_empty() {
                writeln!(
                    out,
                    "{client} to {port} here: there is no uplink at the moment, so nobody of the LAN gets in"
                )?;
            }
            for device in devices {
                shared(policy, client, port, &device, out)?;
            }
            Ok(())
        }
    }
}

/// `tcp/8080`, or the other way round.
fn wanted(text: &str) -> anyhow::Result<Port> {
    let turned = text.split_once('/').map(|(a, b)| format!("{b}/{a}"));
    let port = text.parse().ok();
    let port = port.or_else(|| turned.and_then(|text| text.parse().ok()));
    port.with_context(|| {
        format!(
            "`{text}` is not a port here: write `tcp/8080` or `udp/27015`, and `via eth0` behind it to name the \
             device"
        )
    })
}

/// The tunnel carries no client of the LAN.
fn devices(policy: &Policy, client: Ipv4Addr, via: &Via) -> Vec<Device> {
    let lans = policy.lans().map(|lan| lan.device);
    let tunnel = policy.tunnel.as_ref().map(|tunnel| &tunnel.device);
    let on_the_lan = clients(client.into()).is_ok();
    match &via.0 {
        Some(name) => vec![known(policy, name)],
        None => {
            let tunnel = tunnel.filter(|_| !on_the_lan);
            let all = lans.chain(tunnel);
            all.map(|name| known(policy, name)).collect()
        }
    }
}

fn shared(
    policy: &Policy,
    client: Ipv4Addr,
    port: Port,
    device: &Device,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let flow = flow(policy, client, port, device);
    let decision = decided(policy, &flow)?;
    let name = &device.name;
    writeln!(out, "{client} to {port} here, by {name}, {decision}")?;
    if !decision.accept && decision.reason == Reason::Inbound {
        writeln!(out, "    {}", advice(client, port))?;
    }
    Ok(())
}

fn flow(policy: &Policy, client: Ipv4Addr, port: Port, device: &Device) -> Flow {
    let lan = policy.lan_on(&device.name);
    let tunnel = policy.tunnel.as_ref().filter(|t| t.device == device.name);
    let own = lan
        .map(|lan| lan.address)
        .or_else(|| tunnel.and_then(|t| t.addresses.first().map(|a| a.ip())))
        .unwrap_or(Ipv4Addr::LOCALHOST);
    let (source, destination) = (EPHEMERAL, port.number);
    Flow {
        direction: Direction::In,
        device: device.clone(),
        source: client.into(),
        destination: own.into(),
        protocol: match port.transport {
            Transport::Tcp => Protocol::Tcp {
                source,
                destination,
            },
            Transport::Udp => Protocol::Udp {
                source,
                destination,
                wireguard: false,
            },
        },
        mark: Fwmark(0),
        reply: false,
    }
}

/// The engine takes connections in at the published port.
fn sealed(lan: &Lan, client: Ipv4Addr, port: Port, out: &mut dyn Write) -> anyhow::Result<()> {
    if port.transport == Transport::Udp {
        writeln!(
            out,
            "{client} to {port} here is refused (inbound): the sealed topology hands over TCP connections only"
        )?;
    } else if lan.admits(client, port) {
        writeln!(
            out,
            "{client} to {port} here passes (lan-inbound): the engine takes it in at its port {} and hands it to \
             the programs",
            port.number
        )?;
    } else {
        let why = super::why(Reason::Inbound, false);
        writeln!(out, "{client} to {port} here is refused (inbound): {why}")?;
        writeln!(out, "    {}, at both services", advice(client, port))?;
    }
    Ok(())
}

/// A port alone is a question about a client that was not named.
///
/// # Errors
///
/// The target is a port here.
pub(super) fn needs_a_port(target: &str) -> anyhow::Result<()> {
    if wanted(Via::split(target)?.0).is_ok() {
        bail!("`{target}` is a port here: name who wants to reach it by `--from 172.30.0.50`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::policy;
    use super::*;
    use crate::config::example;

    fn explain(place: Place<'_>, client: &str, port: &str) -> String {
        let mut out = Vec::new();
        run(place, client.parse().unwrap(), port, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_client_that_no_exception_lets_in_is_told_the_line() {
        let mut policy = policy();
        insta::assert_snapshot!(explain(Place::Shared(&policy), "172.30.0.50", "tcp/8080"), @r#"
        172.30.0.50 to tcp/8080 here, by eth0, is refused (inbound): no [lan] inbound lets it in
            inet vpngw input: iifname "eth0" ip daddr 172.30.0.2 meta l4proto tcp ct state new counter log prefix "inbound" group 8 snaplen 128 drop comment "inbound"
            to let it in: [lan] inbound = [{ from = "172.30.0.50/32", to = "tcp/8080" }], or VPNGW_LAN_INBOUND=172.30.0.50/32=tcp/8080
        "#);
        let uplink = policy.uplink.as_mut().unwrap();
        uplink.inbound = vec![example::inbound("172.30.0.0/24", "tcp/8080")];
        for port in ["tcp/8080", "8080/tcp", "tcp/8080 via eth0"] {
            let text = explain(Place::Shared(&policy), "172.30.0.50", port);
            assert!(
                text.starts_with("172.30.0.50 to tcp/8080 here, by eth0, passes (lan-inbound)"),
                "{text}"
            );
        }
        let other = explain(Place::Shared(&policy), "172.30.0.50", "udp/8080");
        assert!(other.contains("is refused (inbound)"), "{other}");
        let spoofed = explain(Place::Shared(&policy), "172.30.0.50", "tcp/8080 via tun0");
        assert!(spoofed.contains("is refused (spoofed)"), "{spoofed}");
    }

    #[test]
    fn a_host_of_the_internet_comes_by_the_tunnel_or_not_at_all() {
        let mut policy = policy();
        policy.tunnel.as_mut().unwrap().forward = vec![6881];
        let text = explain(Place::Shared(&policy), "203.0.113.7", "tcp/6881");
        assert!(text.contains("by eth0, is refused (inbound)"), "{text}");
        assert!(text.contains("no exception can let it in"), "{text}");
        assert!(text.contains("by tun0, passes (forwarded-port)"), "{text}");
        let six = explain(Place::Shared(&policy), "fd00::1", "tcp/6881");
        assert!(six.contains("refused (ipv6)"), "{six}");
        policy.uplink = None;
        let none = explain(Place::Shared(&policy), "172.30.0.50", "tcp/8080");
        assert!(none.contains("there is no uplink"), "{none}");
    }

    #[test]
    fn the_sealed_topology_answers_by_its_exceptions() {
        let lan = Lan {
            inbound: vec![example::inbound("172.30.0.0/24", "tcp/8080")],
            outbound: Vec::new(),
        };
        let all =
            ["172.30.0.50", "192.168.9.9"].map(|ip| explain(Place::Sealed(&lan), ip, "8080/tcp"));
        insta::assert_snapshot!(all.concat(), @r#"
        172.30.0.50 to tcp/8080 here passes (lan-inbound): the engine takes it in at its port 8080 and hands it to the programs
        192.168.9.9 to tcp/8080 here is refused (inbound): no [lan] inbound lets it in
            to let it in: [lan] inbound = [{ from = "192.168.9.9/32", to = "tcp/8080" }], or VPNGW_LAN_INBOUND=192.168.9.9/32=tcp/8080, at both services
        "#);
        let udp = explain(Place::Sealed(&lan), "172.30.0.50", "udp/8080");
        assert!(udp.contains("TCP connections only"), "{udp}");
    }

    #[test]
    fn what_is_no_port_says_what_would_be() {
        let policy = policy();
        for bad in ["", "8080", "tcp", "tcp/0", "1.1.1.1:53/udp"] {
            let client = Ipv4Addr::new(172, 30, 0, 50).into();
            let error = run(Place::Shared(&policy), client, bad, &mut Vec::new()).unwrap_err();
            assert!(error.to_string().contains("`tcp/8080`"), "{bad}: {error}");
        }
    }
}
