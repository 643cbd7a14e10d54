//! Intersects what a sealed engine's configuration says with what the warden's own permits. Pure.
//!
//! The tunnel's addresses, MTU and resolvers are the engine's to say: whatever enters the tunnel device goes to
//! the engine anyway. What joined programs can be reached by, and reach, past the tunnel is not.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

use crate::config::{Config, Inbound, Lan, MOST_EXCEPTIONS, Outbound, Resolvers};
use crate::net::networks::{host, masked};
use crate::net::{IfName, Port, mtu};
use crate::policy::Policy;

/// Addresses, resolvers and private networks that an engine may name: each is some rules, looked at for every packet.
const MOST: usize = 1024;

/// What an engine's configuration says of the app namespace. The warden takes the tunnel's own from it, and
/// nothing that its own configuration does not permit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What the engine takes the tunnel device to be called.
    pub device: IfName,
    /// Our addresses inside the tunnel.
    pub addresses: Vec<Ipv4Network>,
    /// Bytes of the largest inner packet.
    pub mtu: u16,
    /// Resolvers reached through the tunnel.
    pub dns: Option<Resolvers>,
    /// Private destinations allowed through the tunnel.
    pub private: Vec<Ipv4Network>,
    /// LAN exceptions.
    pub lan: Lan,
    /// Ports accepted from the tunnel.
    pub forward: Vec<u16>,
}

impl Offer {
    /// What this configuration says.
    pub fn of(config: &Config) -> Self {
        Self {
            device: config.tunnel.device.clone(),
            addresses: config.tunnel.addresses.clone(),
            mtu: config.tunnel.mtu,
            dns: config.tunnel.dns.clone(),
            private: config.tunnel.private.clone(),
            lan: config.lan.clone(),
            forward: config.forward.clone(),
        }
    }
}

/// The configuration that both agree on.
///
/// # Errors
///
/// One line for the operator: the first thing that the engine's configuration has and the warden's does not
/// permit.
pub(super) fn agree(own: &Config, offer: &Offer) -> Result<Config, String> {
    let (ours, theirs) = (&own.tunnel.device, &offer.device);
    if ours != theirs {
        return Err(format!(
            "the engine's [tunnel] device is {theirs}, and the warden's is {ours}: give both services the \
             same (VPNGW_TUNNEL_DEVICE, or the same vpngw.toml)"
        ));
    }
    bounded(offer)?;
    if offer.addresses.is_empty() {
        return Err("the engine's tunnel has no address".to_owned());
    }
    if resolvers(offer).is_empty() {
        return Err("the engine's tunnel has no resolver".to_owned());
    }
    for network in &offer.addresses {
        if let Err(why) = host(network.ip()) {
            return Err(format!("the tunnel's address {network} {why}"));
        }
    }
    for resolver in resolvers(offer) {
        if let Err(why) = host(*resolver) {
            return Err(format!("the tunnel's resolver {resolver} {why}"));
        }
    }
    if offer.mtu < mtu::LEAST {
        return Err(format!(
            "an MTU of {} bytes is below {}",
            offer.mtu,
            mtu::LEAST
        ));
    }
    let lan = Permitted::of(own);
    if let Some(rule) = offer.lan.inbound.iter().find(|rule| !lan.inbound(rule)) {
        let (from, to) = (rule.from(), rule.to());
        let what = format!("[lan] inbound lets {from} reach {to}");
        return Err(missing(&what, "VPNGW_LAN_INBOUND"));
    }
    if let Some(rule) = offer.lan.outbound.iter().find(|rule| !lan.outbound(rule)) {
        let what = format!("[lan] outbound names {} {}", rule.to(), rule.port());
        return Err(missing(&what, "VPNGW_LAN_OUTBOUND"));
    }
    if let Some(port) = offer
        .forward
        .iter()
        .find(|port| !own.forward.contains(port))
    {
        let what = format!("[forward] ports names {port}");
        return Err(missing(&what, "VPNGW_FORWARD_PORTS"));
    }
    if let Some(net) = offer.private.iter().find(|net| !private(own, **net)) {
        let what = format!("[tunnel] private names {net}");
        return Err(missing(&what, "VPNGW_TUNNEL_PRIVATE"));
    }
    let config = with(own, offer);
    match Policy::sealed(&config) {
        Ok(_) => Ok(config),
        Err(error) => Err(error.to_string()),
    }
}

/// The resolvers that an engine names.
fn resolvers(offer: &Offer) -> &[Ipv4Addr] {
    offer.dns.as_deref().unwrap_or_default()
}

/// Whether there is no more of anything than the rules are made for. An engine that was taken over may say what it likes.
fn bounded(offer: &Offer) -> Result<(), String> {
    let lan = offer.lan.inbound.len() + offer.lan.outbound.len();
    let counts = [
        ("LAN exceptions", lan, MOST_EXCEPTIONS),
        ("addresses of the tunnel", offer.addresses.len(), MOST),
        ("resolvers", resolvers(offer).len(), MOST),
        ("private networks", offer.private.len(), MOST),
        (
            "forwarded ports",
            offer.forward.len(),
            usize::from(u16::MAX),
        ),
    ];
    let over = counts.into_iter().find(|(_, count, most)| count > most);
    over.map_or(Ok(()), |(what, count, most)| {
        Err(format!(
            "the engine's configuration names {count} {what}, and {most} is the most"
        ))
    })
}

/// The part of an offer that the warden's configuration permits.
pub(super) fn narrowed(own: &Config, offer: &Offer) -> Offer {
    let mut narrow = offer.clone();
    let lan = Permitted::of(own);
    narrow.lan.inbound.retain(|rule| lan.inbound(rule));
    narrow.lan.outbound.retain(|rule| lan.outbound(rule));
    narrow.forward.retain(|port| own.forward.contains(port));
    narrow.private.retain(|net| private(own, *net));
    narrow
}

fn with(own: &Config, offer: &Offer) -> Config {
    let mut config = own.clone();
    config.tunnel.addresses = offer.addresses.clone();
    config.tunnel.mtu = offer.mtu;
    config.tunnel.dns = offer.dns.clone();
    config.tunnel.private = offer.private.clone();
    config.lan = offer.lan.clone();
    config.forward = offer.forward.clone();
    config
}

/// The LAN exceptions of the warden's configuration, to be looked up: an engine may offer thousands, and must not keep
/// the warden busy.
struct Permitted {
    inbound: HashSet<(Port, Ipv4Network)>,
    outbound: HashSet<(Port, Ipv4Addr)>,
}

impl Permitted {
    fn of(own: &Config) -> Self {
        let inbound = own.lan.inbound.iter();
        let outbound = own.lan.outbound.iter();
        Self {
            inbound: inbound
                .map(|rule| (rule.to(), masked(rule.from())))
                .collect(),
            outbound: outbound.map(|rule| (rule.port(), rule.to())).collect(),
        }
    }

    /// Whether a network that is permitted holds the whole of this one.
    fn inbound(&self, rule: &Inbound) -> bool {
        let ip = rule.from().ip();
        let wider =
            (0..=rule.from().prefix()).filter_map(|prefix| Ipv4Network::new(ip, prefix).ok());
        wider
            .map(masked)
            .any(|network| self.inbound.contains(&(rule.to(), network)))
    }

    fn outbound(&self, rule: &Outbound) -> bool {
        self.outbound.contains(&(rule.port(), rule.to()))
    }
}

fn private(own: &Config, network: Ipv4Network) -> bool {
    let mut known = own.tunnel.private.iter();
    known.any(|known| network.is_subnet_of(*known))
}

fn missing(what: &str, variable: &str) -> String {
    format!(
        "the engine's {what}, and the warden's configuration does not: give both services the same \
         ({variable}, or the same vpngw.toml)"
    )
}

#[cfg(test)]
mod tests {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    use proptest::test_runner::{Config as Cases, RngAlgorithm, TestRng, TestRunner};

    use super::*;
    use crate::config::drawn::drawn;
    use crate::config::{example, load_sealed, load_without_tunnel};

    fn own() -> Config {
        let mut own = example::config();
        own.tunnel.addresses.clear();
        own.tunnel.dns = None;
        own.tunnel.private = vec!["10.9.0.0/16".parse().unwrap()];
        own.forward = vec![6881];
        own
    }

    fn offer() -> Offer {
        Offer::of(&example::config())
    }

    fn refused(change: impl Fn(&mut Offer)) -> String {
        let mut offer = offer();
        change(&mut offer);
        agree(&own(), &offer).unwrap_err()
    }

    #[test]
    fn the_tunnel_is_the_engines_to_say() {
        let config = agree(&own(), &offer()).unwrap();
        assert_eq!(config.tunnel.addresses, offer().addresses);
        assert_eq!(config.tunnel.dns, offer().dns);
        assert_eq!(config.lan, own().lan);
        // Less than the warden permits is what the engine asks for.
        assert_eq!((config.forward, config.tunnel.private), (vec![], vec![]));
    }

    #[test]
    fn a_sealed_engine_gets_no_more_than_the_wardens_configuration_holds() {
        let wider = refused(|o| o.lan.inbound[0] = example::inbound("192.168.0.0/16", "tcp/8080"));
        assert!(wider.contains("VPNGW_LAN_INBOUND"), "{wider}");
        refused(|o| o.lan.inbound[0] = example::inbound("192.168.1.0/24", "tcp/8081"));
        refused(|o| o.lan.outbound[0] = example::outbound("172.30.0.21", "tcp/445"));
        refused(|o| o.lan.outbound[0] = example::outbound("172.30.0.20", "tcp/139"));
        refused(|o| o.forward = vec![6882]);
        refused(|o| o.private = vec!["10.0.0.0/8".parse().unwrap()]);
        let one = offer().lan.inbound[0];
        let many = refused(|o| o.lan.inbound = vec![one; MOST_EXCEPTIONS + 1]);
        assert!(many.contains("is the most"), "{many}");
        refused(|o| o.addresses = vec!["10.64.0.2/32".parse().unwrap(); MOST + 1]);
        let narrower =
            |o: &mut Offer| o.lan.inbound[0] = example::inbound("192.168.1.7/32", "tcp/8080");
        let mut offer = offer();
        narrower(&mut offer);
        assert!(agree(&own(), &offer).is_ok());
    }

    #[test]
    fn a_tunnel_that_cannot_be_one_is_refused() {
        refused(|o| o.addresses.clear());
        refused(|o| o.dns = None);
        for address in [
            "127.0.0.1/32",
            "224.0.0.1/32",
            "0.0.0.0/0",
            "169.254.169.254/32",
        ] {
            refused(|o| o.addresses = vec![address.parse().unwrap()]);
        }
        refused(|o| o.dns = Resolvers::new(vec![[127, 0, 0, 11].into()]));
        refused(|o| o.mtu = 100);
        refused(|o| o.device = "tun1".parse().unwrap());
        // A resolver inside a LAN exception would be asked on this machine.
        refused(|o| o.dns = Resolvers::new(vec![[192, 168, 1, 9].into()]));
    }

    /// What both services read of the same file fits.
    #[test]
    fn the_two_halves_agree_on_every_configuration_that_check_accepts() {
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let mut runner = TestRunner::new_with_rng(Cases::default(), rng);
        let mut agreed = 0;
        for _ in 0..1_000 {
            let drawn = drawn().new_tree(&mut runner).unwrap().current();
            if let Ok(engine) = drawn.load(load_sealed) {
                let own = drawn.load(load_without_tunnel).unwrap().config;
                let offer = Offer::of(&engine.config);
                assert_eq!(agree(&own, &offer).map(|_| ()), Ok(()), "{drawn:#?}");
                agreed += 1;
            }
        }
        assert!(agreed > 100, "{agreed}");
    }

    #[test]
    fn only_connections_are_handed_over() {
        let mut own = own();
        own.lan.inbound[0] = example::inbound("192.168.1.0/24", "udp/27015");
        let mut offer = offer();
        offer.lan = own.lan.clone();
        assert!(agree(&own, &offer).unwrap_err().contains("UDP"));
    }

    #[test]
    fn what_is_no_longer_permitted_goes() {
        let mut own = own();
        own.lan.inbound.clear();
        let narrow = narrowed(&own, &offer());
        assert_eq!(narrow.lan.inbound, []);
        assert_eq!(narrow.lan.outbound, own.lan.outbound);
        assert!(agree(&own, &narrow).is_ok());
    }
}
