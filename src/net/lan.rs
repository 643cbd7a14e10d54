//! LAN exceptions. A value of [`Inbound`] or [`Outbound`] cannot name what no exception may open: whatever can
//! be decided without knowing the tunnel or the uplink is decided by its constructor.

use std::fmt;
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

use super::inside::Inside;
use super::networks::{LINK_LOCAL, METADATA, NoHost, PRIVATE, host, masked, shown, without_all};
use super::ports::refused_on_the_lan;
use super::{Port, Transport};

/// LAN exceptions: each has a direction and names a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lan {
    /// Who may open connections to which port of a joined program.
    pub inbound: Vec<Inbound>,
    /// Which host and port a joined program may open connections to.
    pub outbound: Vec<Outbound>,
}

/// `{ from = "192.168.1.0/24", to = "tcp/8080" }`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "InboundFields")]
pub struct Inbound {
    from: Ipv4Network,
    to: Port,
}

/// `{ to = "192.168.1.20", port = "tcp/445" }`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "OutboundFields")]
pub struct Outbound {
    to: Ipv4Addr,
    port: Port,
}

/// Why there is no such exception.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LanError {
    /// No private network is that wide.
    #[error("`{}` is wider than any private network, and would leak", shown(*.0))]
    TooWide(Ipv4Network),
    /// The address means no host, or none that may be reached.
    #[error("`{0}` {1}, which is refused")]
    NoHost(Ipv4Addr, NoHost),
    /// A host of the Internet is reached through the tunnel.
    #[error("`{}` is not on a private network", shown(*.0))]
    NotPrivate(Ipv4Network),
    /// The port gives away names, or opens the router.
    #[error("port {0} is {1}, which is refused on the LAN")]
    Port(u16, &'static str),
}

impl Lan {
    /// Whether an exception lets this client reach this port of a joined program.
    pub fn admits(&self, client: Ipv4Addr, port: Port) -> bool {
        self.inbound.iter().any(|rule| rule.admits(client, port))
    }

    /// Whether an exception lets a joined program reach this port of this host.
    pub fn reaches(&self, host: Ipv4Addr, port: Port) -> bool {
        self.outbound.iter().any(|rule| rule.admits(host, port))
    }

    /// The first exception of another transport than TCP: only connections can be handed from one namespace to
    /// another.
    pub fn over_udp(&self) -> Option<String> {
        let udp = |port: Port| port.transport == Transport::Udp;
        let inbound = self.inbound.iter().find(|rule| udp(rule.to));
        let outbound = self.outbound.iter().find(|rule| udp(rule.port));
        inbound
            .map(Inbound::to_string)
            .or_else(|| outbound.map(Outbound::to_string))
    }
}

impl Inbound {
    /// Lets these clients reach this port. Host bits of the network are cleared.
    ///
    /// # Errors
    ///
    /// Whatever [`clients`] refuses. Every port may be published.
    pub fn new(from: Ipv4Network, to: Port) -> Result<Self, LanError> {
        let from = clients(masked(from))?;
        Ok(Self { from, to })
    }

    /// The clients.
    pub fn from(&self) -> Ipv4Network {
        self.from
    }

    /// The port that they may reach.
    pub fn to(&self) -> Port {
        self.to
    }

    /// Whether it lets this client reach this port.
    pub fn admits(&self, client: Ipv4Addr, port: Port) -> bool {
        self.to == port && self.from.contains(client)
    }

    /// Whether it permits all that the other one does.
    pub fn covers(&self, other: &Self) -> bool {
        self.to == other.to && other.from.is_subnet_of(self.from)
    }

    /// It alone as a line of vpngw.toml, below `[lan]`.
    pub fn line(&self) -> String {
        format!("inbound = [{self}]")
    }

    /// It alone as a variable.
    pub fn variable(&self) -> String {
        format!("VPNGW_LAN_INBOUND={}={}", self.from, self.to)
    }
}

impl Outbound {
    /// Lets joined programs reach this port of this host.
    ///
    /// # Errors
    ///
    /// Whatever [`lan_host`] and [`lan_port`] refuse.
    pub fn new(to: Ipv4Addr, port: Port) -> Result<Self, LanError> {
        let (to, port) = (lan_host(to)?, lan_port(port)?);
        Ok(Self { to, port })
    }

    /// The host.
    pub fn to(&self) -> Ipv4Addr {
        self.to
    }

    /// The port of that host.
    pub fn port(&self) -> Port {
        self.port
    }

    /// Whether it lets a program reach this port of this host.
    pub fn admits(&self, host: Ipv4Addr, port: Port) -> bool {
        self.port == port && self.to == host
    }
}

/// Clients that an exception may let in: those of a private network.
///
/// # Errors
///
/// A network that is too wide, that is not private, or that is a metadata service and nothing else.
pub fn clients(from: Ipv4Network) -> Result<Ipv4Network, LanError> {
    // The widest private network is 10.0.0.0/8.
    if from.prefix() < 8 {
        return Err(LanError::TooWide(from));
    }
    host(from.ip()).map(|_| ()).or_else(|why| match why {
        // Clouds use ordinary addresses of networks that have other hosts too.
        NoHost::Metadata if from.prefix() < 32 => Ok(()),
        NoHost::DockerResolver
        | NoHost::Loopback
        | NoHost::Nobody
        | NoHost::Multicast
        | NoHost::Broadcast
        | NoHost::Reserved
        | NoHost::Metadata => Err(LanError::NoHost(from.ip(), why)),
    })?;
    let mut networks = PRIVATE.iter().chain([&LINK_LOCAL]);
    if networks.any(|net| from.is_subnet_of(*net)) {
        Ok(from)
    } else {
        Err(LanError::NotPrivate(from))
    }
}

/// Prefix of what is kept free around an address of the tunnel: fewer pieces, and what else is near it is the provider's.
const AROUND: u8 = 16;

/// Every private network but the tunnel's and these hosts: what `private` means as the clients of an exception.
pub fn private_clients(inside: Inside<'_>, hosts: &[Ipv4Addr]) -> Vec<Ipv4Network> {
    let around = |network: Ipv4Network| {
        let prefix = network.prefix().min(AROUND);
        // Invariant: a prefix that is no longer than another one is one.
        Ipv4Network::new(network.ip(), prefix).map_or(network, masked)
    };
    let addresses = inside.addresses.iter().copied().map(around);
    let resolvers = inside.dns.iter().map(|ip| around((*ip).into()));
    let private = inside.private.iter().copied().map(masked);
    let hosts = hosts.iter().map(|ip| Ipv4Network::from(*ip));
    let holes = addresses.chain(resolvers).chain(private).chain(hosts);
    without_all(PRIVATE.to_vec(), holes)
}

/// A host that an exception may let a program reach: one of a private network.
///
/// # Errors
///
/// As [`clients`] has them.
pub fn lan_host(to: Ipv4Addr) -> Result<Ipv4Addr, LanError> {
    clients(Ipv4Network::from(to)).map(|_| to)
}

/// A port that an exception may let a program reach on the LAN.
///
/// # Errors
///
/// A port of [`refused_on_the_lan`].
pub fn lan_port(port: Port) -> Result<Port, LanError> {
    match refused_on_the_lan(port.number) {
        Some(name) => Err(LanError::Port(port.number, name)),
        None => Ok(port),
    }
}

/// The metadata service in this network, which stays refused whatever the exception says.
pub fn metadata_in(network: Ipv4Network) -> Option<Ipv4Addr> {
    let mut all = METADATA.iter().map(|net| net.ip());
    all.find(|ip| network.contains(*ip))
}

impl fmt::Display for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{ from = \"{}\", to = \"{}\" }}", self.from, self.to)
    }
}

impl fmt::Display for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{ to = \"{}\", port = \"{}\" }}", self.to, self.port)
    }
}

/// [`Inbound`] as it is written, before it is looked at.
#[derive(Deserialize)]
struct InboundFields {
    from: Ipv4Network,
    to: Port,
}

/// [`Outbound`] as it is written, before it is looked at.
#[derive(Deserialize)]
struct OutboundFields {
    to: Ipv4Addr,
    port: Port,
}

impl TryFrom<InboundFields> for Inbound {
    type Error = LanError;

    fn try_from(fields: InboundFields) -> Result<Self, LanError> {
        Self::new(fields.from, fields.to)
    }
}

impl TryFrom<OutboundFields> for Outbound {
    type Error = LanError;

    fn try_from(fields: OutboundFields) -> Result<Self, LanError> {
        Self::new(fields.to, fields.port)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::networks::{LOOPBACK, MULTICAST, without};

    fn inbound(from: &str) -> Result<Inbound, LanError> {
        Inbound::new(from.parse().unwrap(), "tcp/8080".parse().unwrap())
    }

    fn outbound(to: &str, port: &str) -> Result<Outbound, LanError> {
        Outbound::new(to.parse().unwrap(), port.parse().unwrap())
    }

    #[test]
    fn an_exception_names_hosts_of_a_private_network() {
        for (bad, why) in [
            ("0.0.0.0/0", "wider than any private network"),
            ("0.0.0.0/7", "wider than any private network"),
            ("224.0.0.0/4", "wider than any private network"),
            ("0.0.0.0/8", "no address of a host"),
            ("127.0.0.0/8", "this machine itself"),
            ("127.0.0.11/32", "Docker's resolver"),
            ("239.0.0.0/8", "multicast"),
            ("255.255.255.255/32", "broadcast"),
            ("240.0.0.0/8", "reserved"),
            ("169.254.169.254/32", "metadata"),
            ("169.254.170.2/32", "metadata"),
            ("100.100.100.200/32", "metadata"),
            ("168.63.129.16/32", "metadata"),
            ("192.168.0.0/15", "not on a private network"),
            ("203.0.113.7/32", "not on a private network"),
        ] {
            let error = inbound(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
            let host: Ipv4Network = bad.parse().unwrap();
            if host.prefix() == 32 {
                let error = Outbound::new(host.ip(), "tcp/445".parse().unwrap()).unwrap_err();
                assert!(error.to_string().contains(why), "{bad}: {error}");
            }
        }
        for good in ["10.0.0.0/8", "169.254.0.0/16", "192.168.1.7/32"] {
            assert!(inbound(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn ports_that_give_away_names_or_open_the_router_are_refused_outwards() {
        for number in [53, 137, 853, 1900, 5350, 5351, 5353, 5355] {
            for transport in ["tcp", "udp"] {
                let port = format!("{transport}/{number}");
                let error = outbound("192.168.1.20", &port).unwrap_err().to_string();
                assert!(error.contains("refused on the LAN"), "{port}: {error}");
            }
        }
        assert!(outbound("192.168.1.20", "tcp/445").is_ok());
    }

    #[test]
    fn an_exception_admits_its_hosts_at_its_port_only() {
        let lan = Lan {
            inbound: vec![inbound("192.168.1.7/24").unwrap()],
            outbound: vec![outbound("192.168.1.20", "tcp/445").unwrap()],
        };
        let port = |text: &str| text.parse::<Port>().unwrap();
        let ip = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        assert!(lan.admits(ip("192.168.1.9"), port("tcp/8080")));
        assert!(!lan.admits(ip("192.168.1.9"), port("udp/8080")));
        assert!(!lan.admits(ip("192.168.1.9"), port("tcp/8081")));
        assert!(!lan.admits(ip("192.168.2.9"), port("tcp/8080")));
        assert!(lan.reaches(ip("192.168.1.20"), port("tcp/445")));
        assert!(!lan.reaches(ip("192.168.1.21"), port("tcp/445")));
        assert!(!lan.reaches(ip("192.168.1.20"), port("udp/445")));
        let narrow = inbound("192.168.1.9/32").unwrap();
        assert!(lan.inbound[0].covers(&narrow) && !narrow.covers(&lan.inbound[0]));
    }

    #[test]
    fn what_is_read_is_looked_at_too() {
        let good = r#"{"from":"192.168.1.0/24","to":"tcp/8080"}"#;
        let read: Inbound = serde_json::from_str(good).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), good);
        for bad in ["0.0.0.0/0", "169.254.169.254/32", "8.8.8.8/32"] {
            let text = good.replace("192.168.1.0/24", bad);
            assert!(serde_json::from_str::<Inbound>(&text).is_err(), "{bad}");
        }
        let good = r#"{"to":"192.168.1.20","port":"tcp/445"}"#;
        let read: Outbound = serde_json::from_str(good).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), good);
        let dns = good.replace("tcp/445", "udp/53");
        assert!(serde_json::from_str::<Outbound>(&dns).is_err());
    }

    #[test]
    fn private_clients_are_all_but_the_tunnels() {
        assert_eq!(private_clients(Inside::default(), &[]), PRIVATE);
        let inside = Inside {
            addresses: &["10.64.0.2/32".parse().unwrap()],
            dns: &["10.64.0.1".parse().unwrap()],
            private: &["192.168.0.0/16".parse().unwrap()],
        };
        let clients = private_clients(inside, &["172.16.0.1".parse().unwrap()]);
        let holds = |text: &str| {
            let ip = text.parse().unwrap();
            clients.iter().any(|network| network.contains(ip))
        };
        for client in [
            "10.63.255.255",
            "10.65.0.0",
            "10.0.0.1",
            "172.16.0.2",
            "100.64.0.1",
        ] {
            assert!(holds(client), "{client}");
        }
        for other in [
            "10.64.0.1",
            "10.64.255.255",
            "192.168.1.1",
            "172.16.0.1",
            "8.8.8.8",
        ] {
            assert!(!holds(other), "{other}");
        }
        for network in &clients {
            Inbound::new(*network, "tcp/8080".parse().unwrap()).unwrap();
            assert_eq!(inside.overlaps(*network).next(), None);
        }
        // Eight pieces of 10/8, twenty of 172.16/12, and the carriers' network.
        assert_eq!(clients.len(), 29);
    }

    proptest! {
        #[test]
        fn what_is_left_without_a_part_is_all_but_that(a: u32, b: u32, p in 0..=32_u8, q in 0..=32_u8, ip: u32) {
            let network = Ipv4Network::new(a.into(), p).unwrap();
            let hole = Ipv4Network::new(b.into(), q).unwrap();
            let left = without(network, hole);
            for ip in [ip, a, b, u32::from(hole.network()), u32::from(hole.broadcast())].map(Ipv4Addr::from) {
                let held = left.iter().filter(|part| part.contains(ip)).count();
                prop_assert_eq!(held, usize::from(network.contains(ip) && !hole.contains(ip)));
            }
            prop_assert!(left.len() <= 32);
        }

        #[test]
        fn no_exception_holds_loopback_multicast_or_the_internet(bits: u32, prefix in 0..=32_u8) {
            let from = Ipv4Network::new(Ipv4Addr::from(bits), prefix).unwrap();
            if let Ok(rule) = Inbound::new(from, "udp/1".parse().unwrap()) {
                prop_assert!(!rule.from().overlaps(LOOPBACK) && !rule.from().overlaps(MULTICAST));
                prop_assert_eq!(rule.from(), masked(from));
                let ends = [rule.from().network(), rule.from().broadcast()];
                let mut all = PRIVATE.iter().chain([&LINK_LOCAL]);
                prop_assert!(all.any(|net| ends.iter().all(|ip| net.contains(*ip))));
            }
        }
    }
}
