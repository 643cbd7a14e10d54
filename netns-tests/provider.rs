//! A provider by name, with the list of servers that gluetun left.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lab::conf::Conf;
use crate::lab::gateway::Gateway;
use crate::lab::tunnel::assert_inside;
use crate::lab::{HOST, INNER, Lab, ONES, at};
use crate::probes::{self, Family};

/// A server that is silent has its 15 s before the next one's turn.
const PATIENCE: Duration = Duration::from_secs(60);

/// The lab's servers as Mullvad's in Sweden, and one in Norway that is nobody.
fn list(lab: &Lab) -> PathBuf {
    let server = |country: &str, name: &str, key: &str, ip: String| {
        format!(
            "{{\"vpn\":\"wireguard\",\"country\":\"{country}\",\"hostname\":\"{name}\",\"wgpubkey\":\"{key}\",\
             \"ips\":[\"2001:db8::1\",\"{ip}\"]}}"
        )
    };
    let [one, two] = &lab.servers;
    let ip = |server: &crate::lab::server::Server| server.endpoint.ip().to_string();
    let servers = [
        server(
            "Norway",
            "no-osl-wg-001",
            &lab.keys.public,
            "203.0.113.99".into(),
        ),
        server("Sweden", "se-sto-wg-001", &one.keys.public, ip(one)),
        server("Sweden", "se-sto-wg-002", &two.keys.public, ip(two)),
    ];
    let path = lab.folder.path().join("servers.json");
    let text = format!(
        "{{\"version\":1,\"mullvad\":{{\"version\":10,\"timestamp\":1793577600,\"servers\":[{}]}}}}",
        servers.join(",")
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    path
}

/// Starts a gateway with variables of gluetun's beside a wg-quick file that has no server.
fn start(lab: &Lab, list: &Path) -> Gateway {
    let both = Conf::new(&lab.keys, &[&lab.servers[0], &lab.servers[1]]);
    lab.sensor
        .permit(|rules| rules.endpoints = both.permitted());
    let mut conf = lab.conf();
    conf.peers.clear();
    conf.dns.clear();
    let config = conf.write(&lab.folder.path().join("app"));
    let port = lab.servers[0].endpoint.port().to_string();
    let variables = [
        ("VPN_SERVICE_PROVIDER", "mullvad"),
        ("VPN_TYPE", "wireguard"),
        ("SERVER_COUNTRIES", "sweden"),
        ("SERVER_SELECTION_MODE", "ordered"),
        ("STORAGE_FILEPATH", list.to_str().unwrap()),
        ("WIREGUARD_ENDPOINT_PORT", &port),
    ];
    Gateway::start_with(lab, "app", &config, &variables)
}

#[test]
fn the_servers_of_a_providers_list_are_tried_in_turn() {
    let lab = Lab::new();
    lab.servers[0].kill();
    let gateway = start(&lab, &list(&lab));
    let second = lab.servers[1].endpoint;
    let status = gateway.wait_for("the second server answers", PATIENCE, |s| {
        s.endpoint == Some(second) && s.handshake_age_seconds.is_some()
    });
    assert_eq!(status.dns.servers, [INNER], "the provider's own resolver");
    assert_inside(&lab.ns, 2);
    lab.sensor.verdict();
}

#[test]
fn a_list_that_others_can_write_leaves_the_namespace_closed() {
    let lab = Lab::new();
    probes::control(&lab, Family::Ip);
    let list = list(&lab);
    fs::set_permissions(&list, Permissions::from_mode(0o666)).unwrap();
    let mut gateway = start(&lab, &list);
    let ended = gateway.wait_exit(Duration::from_secs(20));
    assert_eq!(ended.code(), Some(2));
    probes::fire(&lab, Family::Ip);
}

#[test]
fn a_tunnel_without_a_named_resolver_resolves_names_inside() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    conf.dns.clear();
    let gateway = lab.connect(&conf);
    let servers = gateway.status().unwrap().dns.servers;
    assert_eq!(servers.last(), Some(&ONES));
    // The other one is not there in this Internet, and the C library goes on to the next.
    let answer = lab.ns.run("app", "getent ahostsv4 www.example.org");
    assert!(answer.starts_with(&HOST.to_string()), "{answer}");
    let visits = lab.servers[0].services.visits();
    assert!(visits.iter().any(|visit| visit.service == at(ONES, 53)));
    assert_eq!(lab.inet.visits().len(), 0);
    lab.sensor.verdict();
}
