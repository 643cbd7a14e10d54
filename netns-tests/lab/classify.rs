//! What a frame on the uplink is. Anything not on the list is a leak.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol,
    Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket,
};

use super::canary::Flow;

/// What may leave the gateway.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The source addresses of everything; more than one only while the address changes.
    pub uplink: Vec<Ipv4Addr>,
    /// Where everything goes on the link, LAN exceptions and ARP aside.
    pub router_mac: EthernetAddress,
    /// Hosts that may be asked for by ARP.
    pub arp: Vec<Ipv4Addr>,
    /// VPN servers, each with the source port that may talk to it; `None` is any.
    pub endpoints: Vec<(SocketAddrV4, Option<u16>)>,
    /// LAN exceptions.
    pub lan: Vec<LanFlow>,
    /// The resolver asked for the endpoint's address.
    pub resolver: Option<SocketAddrV4>,
    /// Whether it may be asked again once the tunnel was open: the server has gone silent.
    pub resolver_again: bool,
}

/// A flow that a test declares. `None` is any port.
#[derive(Clone, Copy, Debug)]
pub struct LanFlow {
    /// IP protocol number.
    pub protocol: u8,
    /// Port on our side.
    pub local: Option<u16>,
    /// The host on the other side.
    pub remote: Ipv4Addr,
    /// Its port.
    pub remote_port: Option<u16>,
}

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// A message of the protocol to a VPN server.
    WireGuard(WireGuard),
    /// ARP for a host that may be asked for, or an answer that names the uplink's address.
    Arp,
    /// A declared LAN exception.
    Lan,
    /// A question to the declared resolver.
    Resolver,
    /// Everything else, and why.
    Other(String),
}

/// A message of the WireGuard protocol (whitepaper, section 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireGuard {
    /// 1 initiation, 2 response, 3 cookie, 4 data.
    pub kind: u8,
    /// Whom it goes to.
    pub remote: SocketAddrV4,
    /// Our port.
    pub source: u16,
}

/// Classifies a whole frame.
pub fn classify(bytes: &[u8], vlan: Option<u16>, rules: &Rules) -> Class {
    let Ok(frame) = EthernetFrame::new_checked(bytes) else {
        return Class::Other("shorter than a header".into());
    };
    if let Some(tag) = vlan {
        return Class::Other(format!("tagged for VLAN {tag}"));
    }
    let verdict = match frame.ethertype() {
        EthernetProtocol::Arp => arp(frame.payload(), rules),
        EthernetProtocol::Ipv4 => ipv4(frame.payload(), frame.dst_addr(), rules),
        EthernetProtocol::Ipv6 => Err(ipv6(frame.payload())),
        EthernetProtocol::Unknown(other) => Err(format!("ethertype {other:#06x}")),
    };
    verdict.unwrap_or_else(Class::Other)
}

fn arp(bytes: &[u8], rules: &Rules) -> Result<Class, String> {
    let packet = ArpPacket::new_checked(bytes).map_err(|_| "short ARP".to_owned())?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_protocol_addr: from,
        target_protocol_addr: to,
        ..
    } = ArpRepr::parse(&packet).map_err(|_| "malformed ARP".to_owned())?
    else {
        return Err("unknown ARP".into());
    };
    // Whoever on the link asks for the uplink's address knows it, so an answer tells him nothing.
    let known = rules.arp.contains(&to) || operation == ArpOperation::Reply;
    if rules.uplink.contains(&from) && known {
        return Ok(Class::Arp);
    }
    Err(format!("ARP from {from} for {to}"))
}

fn ipv4(bytes: &[u8], to: EthernetAddress, rules: &Rules) -> Result<Class, String> {
    let packet = Ipv4Packet::new_checked(bytes).map_err(|_| "malformed IPv4".to_owned())?;
    let (from, remote) = (packet.src_addr(), packet.dst_addr());
    let protocol = packet.next_header();
    let what = format!("IPv4 {from} -> {remote} {protocol}");
    if packet.more_frags() || packet.frag_offset() > 0 {
        return Err(format!("{what}, a fragment"));
    }
    if !rules.uplink.contains(&from) {
        return Err(format!("{what}, not our address"));
    }
    let (source, port) = ports(protocol, packet.payload()).ok_or_else(|| what.clone())?;
    let what = format!("{what}, port {source} -> {port}");
    let lan = rules.lan.iter().any(|flow| {
        flow.protocol == u8::from(protocol)
            && flow.remote == remote
            && flow.local.is_none_or(|p| p == source)
            && flow.remote_port.is_none_or(|p| p == port)
    });
    if lan {
        return Ok(Class::Lan);
    }
    let remote = SocketAddrV4::new(remote, port);
    if protocol != IpProtocol::Udp {
        return Err(what);
    }
    if rules.resolver == Some(remote) {
        return Ok(Class::Resolver);
    }
    let named = rules.endpoints.iter();
    let named = named.filter(|(a, p)| *a == remote && p.is_none_or(|p| p == source));
    if named.count() == 0 {
        return Err(what);
    }
    if to != rules.router_mac {
        return Err(format!("{what}, by way of {to}"));
    }
    let kind = UdpPacket::new_checked(packet.payload()).map(|udp| wireguard(udp.payload()));
    match kind {
        Ok(Some(kind)) => Ok(Class::WireGuard(WireGuard {
            kind,
            remote,
            source,
        })),
        Ok(None) | Err(_) => Err(format!("{what}, not WireGuard")),
    }
}

/// The type of a message whose length and reserved bytes are right. A train of segments is one frame
/// here, because veth hands it over before it is cut: then each message in it must be right.
fn wireguard(message: &[u8]) -> Option<u8> {
    let kind = *message.first()?;
    let size = match kind {
        1 => 148,
        2 => 92,
        3 => 64,
        4 => message.len().max(32),
        _ => return None,
    };
    let (this, rest) = message.split_at_checked(size)?;
    let fits = this[1..4] == [0; 3] && (rest.is_empty() || wireguard(rest).is_some());
    fits.then_some(kind)
}

fn ipv6(bytes: &[u8]) -> String {
    match Ipv6Packet::new_checked(bytes) {
        Ok(p) => format!(
            "IPv6 {} -> {} {}",
            p.src_addr(),
            p.dst_addr(),
            p.next_header()
        ),
        Err(_) => "malformed IPv6".into(),
    }
}

fn ports(protocol: IpProtocol, payload: &[u8]) -> Option<(u16, u16)> {
    if protocol == IpProtocol::Udp {
        let udp = UdpPacket::new_checked(payload).ok()?;
        return Some((udp.src_port(), udp.dst_port()));
    }
    if protocol == IpProtocol::Tcp {
        let tcp = TcpPacket::new_checked(payload).ok()?;
        return Some((tcp.src_port(), tcp.dst_port()));
    }
    None
}

/// The flow of an IPv4 or IPv6 packet with ports, or the group of a membership report: by this a probe
/// without payload is recognised.
pub fn flow(bytes: &[u8]) -> Option<Flow> {
    let frame = EthernetFrame::new_checked(bytes).ok()?;
    packet_flow(frame.payload())
}

/// As [`flow`], of a packet without a link-layer header.
pub fn packet_flow(bytes: &[u8]) -> Option<Flow> {
    if bytes.first()? >> 4 == 4 {
        let packet = Ipv4Packet::new_checked(bytes).ok()?;
        let payload = packet.payload();
        if packet.next_header() == IpProtocol::Igmp {
            // Version 2: the group follows the checksum (RFC 2236). Version 3: the first record (RFC 3376).
            let place = if *payload.first()? == 0x22 { 12 } else { 4 };
            let group: [u8; 4] = payload.get(place..place + 4)?.try_into().ok()?;
            return Some((2, 0, Ipv4Addr::from(group).into(), 0));
        }
        let (source, port) = ports(packet.next_header(), payload)?;
        let protocol = packet.next_header().into();
        return Some((protocol, source, packet.dst_addr().into(), port));
    }
    let packet = Ipv6Packet::new_checked(bytes).ok()?;
    let (mut protocol, mut payload) = (packet.next_header(), packet.payload());
    if protocol == IpProtocol::HopByHop {
        // Router alert, eight octets long, stands before a report (RFC 3810, section 5).
        protocol = IpProtocol::from(*payload.first()?);
        payload = payload.get(8..)?;
    }
    if protocol == IpProtocol::Icmpv6 && *payload.first()? == 143 {
        let group: [u8; 16] = payload.get(12..28)?.try_into().ok()?;
        return Some((58, 0, Ipv6Addr::from(group).into(), 0));
    }
    let (source, port) = ports(protocol, payload)?;
    Some((protocol.into(), source, packet.dst_addr().into(), port))
}

#[test]
fn a_wireguard_message_has_its_type_and_length() {
    let message = |kind: u8, len: usize| {
        let mut bytes = vec![0; len];
        bytes[0] = kind;
        wireguard(&bytes)
    };
    assert_eq!(message(1, 148), Some(1));
    assert_eq!(message(4, 32), Some(4));
    for (kind, len) in [(1, 147), (2, 93), (3, 63), (4, 31), (0, 148), (5, 148)] {
        assert_eq!(message(kind, len), None, "{kind} {len}");
    }
    assert_eq!(wireguard(&[4; 64]), None);
    let mut train = vec![0; 92 + 32];
    (train[0], train[92]) = (2, 4);
    assert_eq!(wireguard(&train), Some(2));
    train[92] = 9;
    assert_eq!(wireguard(&train), None);
    assert_eq!(wireguard(&[]), None);
}
