//! Which device is the uplink, decided from routes and addresses.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use super::MEMORY;
use super::route::{Kind, MAIN, Route};
use crate::net::beside::Link;
use crate::net::{IfName, Uplink};

/// The uplink: the device of the default route in the main table, else of the one an earlier run of
/// ours took from there, else the configured device. `own` is the tunnel, which never is it.
///
/// `None` where there is no such route, or the device has no address or is down.
pub fn choose(
    routes: &[Route],
    addresses: &[Link],
    configured: Option<&IfName>,
    own: &IfName,
) -> Option<Uplink> {
    let default_in = |table: u32| {
        let candidates = routes.iter().filter(|route| {
            let device = route.device.as_ref();
            route.table == table
                && route.kind == Kind::Unicast
                && route.destination.prefix() == 0
                && device.is_some_and(|device| device != own)
                && configured.is_none_or(|configured| device == Some(configured))
        });
        candidates.min_by_key(|route| route.metric)
    };
    let by_route = |route: &Route| {
        let device = route.device.clone()?;
        let address = address(addresses, &device, route.gateway, route.source)?;
        Some(Uplink {
            device,
            address,
            gateway: route.gateway,
        })
    };
    [MAIN, MEMORY]
        .into_iter()
        .filter_map(default_in)
        .find_map(by_route)
        .or_else(|| by_device(addresses, configured?, own))
}

/// The uplink as it was before its link went down and came up again, or with the address it has now,
/// when the kernel has forgotten its routes and nobody has set them anew. `None` where the device is
/// down, or its router is on none of its networks.
pub fn resume(last: &Uplink, addresses: &[Link]) -> Option<Uplink> {
    let of_device = || {
        let own = |address: &&Link| address.device == last.device;
        addresses.iter().filter(own).map(|link| link.address)
    };
    let same = || of_device().find(|network| *network == last.address);
    let near = || of_device().find(|network| last.gateway.is_some_and(|ip| network.contains(ip)));
    let address = same().or_else(near)?;
    Some(Uplink {
        address,
        ..last.clone()
    })
}

/// On a link without a router every destination is a neighbour.
fn by_device(addresses: &[Link], device: &IfName, own: &IfName) -> Option<Uplink> {
    (device != own).then_some(())?;
    Some(Uplink {
        device: device.clone(),
        address: address(addresses, device, None, None)?,
        gateway: None,
    })
}

/// The address a packet to the router would have: what the route says, else that of the router's own
/// network, else the first.
fn address(
    addresses: &[Link],
    device: &IfName,
    gateway: Option<Ipv4Addr>,
    source: Option<Ipv4Addr>,
) -> Option<Ipv4Network> {
    let of_device = || {
        addresses
            .iter()
            .filter(|address| &address.device == device)
            .map(|link| link.address)
    };
    let said = source.and_then(|source| of_device().find(|network| network.ip() == source));
    let near = || gateway.and_then(|gateway| of_device().find(|network| network.contains(gateway)));
    said.or_else(near).or_else(|| of_device().next())
}

#[cfg(test)]
mod tests {
    use super::super::tests::uplink;
    use super::*;
    use crate::net::networks;

    fn default(table: u32, device: &str, metric: u32) -> Route {
        Route {
            metric,
            ..Route::by_router(
                table,
                networks::ALL,
                "172.30.0.1".parse().unwrap(),
                &device.parse().unwrap(),
                None,
            )
        }
    }

    fn addresses() -> Vec<Link> {
        [
            ("tun0", "10.64.0.2/32"),
            ("eth0", "192.168.9.9/24"),
            ("eth0", "172.30.0.2/24"),
            ("eth1", "10.9.0.2/16"),
        ]
        .map(|(device, network)| Link {
            device: device.parse().unwrap(),
            address: network.parse().unwrap(),
        })
        .to_vec()
    }

    fn chosen(routes: &[Route], configured: Option<&str>) -> Option<Uplink> {
        let configured = configured.map(|name| name.parse().unwrap());
        choose(
            routes,
            &addresses(),
            configured.as_ref(),
            &"tun0".parse().unwrap(),
        )
    }

    #[test]
    fn the_uplink_is_the_device_of_the_best_default_route() {
        let routes = [default(MAIN, "eth1", 100), default(MAIN, "eth0", 0)];
        assert_eq!(chosen(&routes, None), Some(uplink()));
    }

    #[test]
    fn the_tunnel_is_never_the_uplink() {
        assert_eq!(chosen(&[default(MAIN, "tun0", 0)], None), None);
        assert_eq!(chosen(&[], Some("tun0")), None);
    }

    #[test]
    fn an_earlier_run_left_a_memory() {
        let routes = [default(MAIN, "tun0", 0), default(MEMORY, "eth0", 0)];
        assert_eq!(chosen(&routes, None), Some(uplink()));
    }

    #[test]
    fn a_new_default_route_outweighs_the_memory() {
        let routes = [default(MEMORY, "eth0", 0), default(MAIN, "eth1", 100)];
        assert_eq!(chosen(&routes, None).unwrap().device.as_str(), "eth1");
    }

    #[test]
    fn a_configured_device_without_a_default_route_has_no_router() {
        let uplink = chosen(&[default(MAIN, "eth0", 0)], Some("eth1")).unwrap();
        assert_eq!((uplink.device.as_str(), uplink.gateway), ("eth1", None));
    }

    #[test]
    fn a_device_without_an_address_is_no_uplink() {
        assert_eq!(chosen(&[default(MAIN, "eth7", 0)], None), None);
    }

    #[test]
    fn an_uplink_resumes_with_the_address_it_had() {
        assert_eq!(resume(&uplink(), &addresses()), Some(uplink()));
        assert_eq!(resume(&uplink(), &addresses()[..2]), None);
    }

    #[test]
    fn an_uplink_resumes_with_another_address_on_the_routers_network() {
        let moved = |network: &str| {
            let network = network.parse().unwrap();
            [Link {
                device: uplink().device,
                address: network,
            }]
        };
        let resumed = resume(&uplink(), &moved("172.30.0.77/24")).unwrap();
        assert_eq!(resumed.address, "172.30.0.77/24".parse().unwrap());
        assert_eq!(resumed.gateway, uplink().gateway);
        assert_eq!(resume(&uplink(), &moved("192.168.7.2/24")), None);
    }
}
