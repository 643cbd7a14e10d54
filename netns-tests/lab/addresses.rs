//! Who is where in the lab; the probe program aims at these too.

use std::net::Ipv4Addr;

/// The gateway's address on the uplink.
pub const APP: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);
/// The router's address on the LAN.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// A friendly host on the LAN.
pub const LAN: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 50);
/// A hostile host on the LAN.
pub const EVIL: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 66);
/// A LAN client that is not on the link.
pub const BEHIND: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 5);
/// A public host, one outside the tunnel and another behind each VPN server.
pub const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// The VPN server inside the tunnel; also its resolver.
pub const INNER: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
/// The gateway inside the tunnel.
pub const TUNNEL: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 2);
/// A private host behind the VPN servers, outside the tunnel's prefix.
pub const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);
/// A well-known public resolver.
pub const ONES: Ipv4Addr = Ipv4Addr::new(1, 1, 1, 1);
/// Where clouds keep secrets.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Source port of the gateway unless a test says otherwise.
pub const LISTEN: u16 = 40123;
/// Link-layer address of the router.
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Link-layer address of the gateway.
pub const APP_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The first VPN server.
pub const ENDPOINT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
