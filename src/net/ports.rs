//! Ports that give away names or open the router: one table for whatever refuses them.

/// DNS and DNS over TLS or QUIC (RFC 1035, RFC 7858, RFC 9250).
pub const DNS_PORTS: [u16; 2] = [53, 853];

/// UPnP discovery, NAT-PMP and PCP (UPnP Device Architecture 2.0, RFC 6886, RFC 6887): they ask the
/// router of the LAN for a way in past the tunnel.
pub const MAPPING_PORTS: [u16; 3] = [1900, 5350, 5351];

/// NetBIOS names, multicast DNS and LLMNR (RFC 1002, RFC 6762, RFC 4795): names, asked of neighbours.
const NEIGHBOUR_PORTS: [u16; 3] = [137, 5353, 5355];

/// What a joined program may never open on the LAN, and what it is called.
const REFUSED: [(u16, &str); 8] = [
    (DNS_PORTS[0], "DNS"),
    (DNS_PORTS[1], "DNS over TLS"),
    (MAPPING_PORTS[0], "UPnP"),
    (MAPPING_PORTS[1], "NAT-PMP"),
    (MAPPING_PORTS[2], "NAT-PMP"),
    (NEIGHBOUR_PORTS[0], "NetBIOS names"),
    (NEIGHBOUR_PORTS[1], "multicast DNS"),
    (NEIGHBOUR_PORTS[2], "LLMNR"),
];

/// What the port is called, if no exception may open it on the LAN.
pub fn refused_on_the_lan(number: u16) -> Option<&'static str> {
    let found = REFUSED.iter().find(|(port, _)| *port == number);
    found.map(|(_, name)| *name)
}
