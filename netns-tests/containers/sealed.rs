//! The sealed topology as README shows it.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::docker::{PATIENCE, text};
use crate::inside;
use crate::joined::{INSIDE, echo};
use crate::lab::classify::LanFlow;
use crate::lab::services::{Service, Services};
use crate::lab::{HOST, at, wait};
use crate::stage::{CLIENT, GATEWAY, MACHINE, Stage, WARDEN};
use crate::torrent::{self, Client};

/// How often the engine is killed.
const TIMES: usize = 100;

#[test]
fn a_client_joins_the_warden_and_the_lan_reaches_it_by_the_engine() {
    let stage = Stage::new();
    let profile = stage.sealed_profile();
    let sensor = stage.sealed(&profile);
    stage.up(&profile, "qbittorrent");

    let page = stage.lan_page();
    assert!(page.contains("qBittorrent"), "{page}");
    stage.assert_inside();

    // qBittorrent writes down who logs in, with the address that it sees.
    let client = Client::log_in(&stage);
    let log = client.call("log/main", "").unwrap();
    let line = format!("login success. IP: ::ffff:{CLIENT}\"");
    assert!(log.contains(&line), "{log}");

    stage.assert_names();
    assert_eq!(stage.links("up"), ["lo", "tun0"]);

    stage.docker.run(&["exec", GATEWAY, "vpngw", "status"]);
    for half in [WARDEN, GATEWAY] {
        let logs = stage.docker.logs(half);
        assert!(!logs.contains("WARN"), "{half}: {logs}");
    }
    let user = "Uid:\t65534\t65534\t65534\t65534";
    stage.assert_engine_has_nothing(&[user, "CapBnd:\t0000000000000000"]);
    let tally = sensor.verdict();
    assert!(tally.wireguard > 0 && tally.lan > 0, "{tally}");
}

#[test]
fn a_joined_container_reaches_one_host_and_one_port_on_the_lan() {
    let stage = Stage::new();
    let any = Ipv4Addr::UNSPECIFIED;
    let ports = [445, 446].map(|port| Service::Tcp(at(any, port)));
    let _lan = Services::start(&stage.ns, "lan", "lan", ports.to_vec());
    let profile = stage.sealed_profile();
    let path = profile.join("compose.yaml");
    let usual = fs::read_to_string(&path).unwrap();
    let inbound = "VPNGW_LAN_INBOUND: \"tcp/8080\"";
    let both = format!("{inbound}, VPNGW_LAN_OUTBOUND: \"{CLIENT}=tcp/445\"");
    assert!(usual.contains(inbound));
    fs::write(&path, usual.replacen(inbound, &both, 1)).unwrap();
    let sensor = stage.sealed(&profile);
    sensor.permit(|rules| {
        rules.lan = vec![LanFlow {
            protocol: 6,
            local: None,
            remote: CLIENT,
            remote_port: Some(445),
        }];
    });
    let reach = |port: u16| stage.greeting_beside(WARDEN, CLIENT, port);
    assert_eq!(reach(445), Some(format!("lan {MACHINE}")));
    assert_eq!(reach(446), None);
    assert!(sensor.verdict().lan > 0);
}

#[test]
fn the_halves_find_each_other_in_either_order() {
    let stage = Stage::new();
    let profile = stage.sealed_profile();
    stage.up(&profile, "vpngw");
    wait("the engine looks for the warden", PATIENCE, || {
        let logs = stage.docker.logs(GATEWAY);
        logs.contains("is `vpngw warden` running").then_some(())
    });
    stage.up(&profile, "vpn");
    stage.wait_healthy(GATEWAY);
    stage.wait_healthy(WARDEN);
    down(&stage, &profile);

    stage.up(&profile, "vpn");
    let waiting = || {
        let check = ["exec", WARDEN, "/usr/bin/vpngw", "healthcheck"];
        let said = stage.docker.try_run(&check);
        let waits = said.stdout.starts_with(b"waiting for the engine");
        (waits && said.status.code() == Some(1)).then_some(())
    };
    wait("the warden waits for the engine", PATIENCE, waiting);
    assert_eq!(joined(&stage), None);
    stage.up(&profile, "vpngw");
    stage.wait_healthy(GATEWAY);
    stage.wait_healthy(WARDEN);
    assert_eq!(joined(&stage).as_deref(), Some(INSIDE));
    // As the program itself: it brings up what it depends on.
    down(&stage, &profile);
    stage.up(&profile, "qbittorrent");
    stage.lan_page();
}

#[test]
fn a_joined_container_keeps_its_connection_over_every_engine() {
    let stage = Stage::new();
    let profile = stage.sealed_profile();
    let sensor = stage.sealed(&profile);
    stage.up(&profile, "qbittorrent");
    let before = stage.network(WARDEN);
    let mut connection = stage.connection();

    // Docker starts it again, as after a crash.
    stage.docker.kill_engine(GATEWAY, None);
    echo(&mut connection);
    for _ in 1..TIMES {
        stage.docker.run(&["kill", GATEWAY]);
        stage.docker.run(&["start", GATEWAY]);
        echo(&mut connection);
    }
    stage.docker.run(&["restart", GATEWAY]);
    echo(&mut connection);
    assert_eq!(stage.network(WARDEN), before);

    // Another image, as after an upgrade.
    let id = |what: &str| stage.docker.inspect(GATEWAY, what);
    let old = (id("{{.Id}}"), id("{{.Image}}"));
    let upgrade = stage.folder.path().join("upgrade");
    fs::create_dir(&upgrade).unwrap();
    fs::write(upgrade.join("Dockerfile"), "FROM vpngw\nLABEL upgrade=1\n").unwrap();
    let folder = upgrade.to_str().unwrap();
    stage.docker.run(&["build", "--tag", "vpngw", folder]);
    let words = ["up", "-d", "--force-recreate", "vpngw"];
    text("recreate", &stage.docker.compose(&profile, &words));
    assert_ne!(id("{{.Id}}"), old.0);
    assert_ne!(id("{{.Image}}"), old.1);
    echo(&mut connection);
    stage.wait_healthy(GATEWAY);
    assert_eq!(stage.network(WARDEN), before);
    stage.lan_page();
    sensor.verdict();
}

#[test]
fn a_joined_administrator_finds_nothing_to_leave_by() {
    let stage = Stage::new();
    let profile = stage.sealed_profile();
    inside::control(&stage);

    stage.up(&profile, "vpn");
    stage.up(&profile, "vpngw");
    let sensor = inside::watch(&stage, GATEWAY);
    stage.wait_healthy(GATEWAY);
    stage.wait_healthy(WARDEN);
    sensor.arm(std::time::SystemTime::now());
    let nothing = BTreeSet::new();
    assert_eq!(inside::fire(&stage, WARDEN, &sensor, &[]), nothing);
    // Devices and routes of its own, and none of our rules.
    for line in [
        "ip link add eth0 type veth peer name eth1",
        "ip addr add 172.30.0.2/24 dev eth0",
        "ip link set eth0 up",
        "ip link set eth1 up",
        "ip route replace default dev eth0",
        "nft flush ruleset",
    ] {
        stage.docker.run_in(WARDEN, line);
    }
    let admin = ["--cap-add=NET_ADMIN"];
    assert_eq!(inside::fire(&stage, WARDEN, &sensor, &admin), nothing);
    sensor.verdict();
    stage.docker.run_in(WARDEN, "ip link del eth0");
    stage.wait_healthy(WARDEN);
    assert_eq!(joined(&stage).as_deref(), Some(INSIDE));
}

#[test]
fn a_torrent_survives_the_death_of_the_server_in_the_sealed_topology() {
    let stage = Stage::new();
    let profile = stage.sealed_profile();
    torrent::survives(&stage, &profile, Stage::sealed);
}

#[test]
fn what_is_wrong_in_the_file_is_named_and_the_namespace_stays_shut() {
    let stage = Stage::new();
    let profile = stage.sealed_profile();
    // Readable for another user, too, so that it is the warden who refuses it.
    fs::set_permissions(profile.join("wg0.conf"), Permissions::from_mode(0o444)).unwrap();
    let usual = fs::read_to_string(profile.join("compose.yaml")).unwrap();
    let wrong = |from: &str, to: &str, half: &str, words: &str| {
        assert!(usual.contains(from), "{from}");
        let text = usual.replacen(from, to, 1);
        fs::write(profile.join("compose.yaml"), text).unwrap();
        stage.up(&profile, "vpn");
        stage.up(&profile, "vpngw");
        wait(&format!("{words} is said"), PATIENCE, || {
            stage.docker.logs(half).contains(words).then_some(())
        });
        if half == GATEWAY {
            assert_eq!(joined(&stage), None, "{words}");
        }
        let code = stage.docker.inspect(half, "{{.State.ExitCode}}");
        down(&stage, &profile);
        code
    };
    wrong(
        "volumes: [\"link:/run/vpngw\", ",
        "volumes: [",
        GATEWAY,
        "do both services mount the same volume at /run/vpngw?",
    );
    wrong(
        "user: \"65534:65534\", ",
        "",
        GATEWAY,
        "run the engine's service as that user (`user: \"65534\"`)",
    );
    wrong(
        "command: engine,",
        "command: engine, environment: {VPNGW_LAN_INBOUND: \"192.168.0.0/16=tcp/8081\"},",
        GATEWAY,
        "give both services the same (VPNGW_LAN_INBOUND, or the same vpngw.toml)",
    );
    let code = wrong(
        "network_mode: none,",
        "ports: [\"8080:8080\"], restart: \"no\",",
        WARDEN,
        "give the warden's service `network_mode: none`, and publish ports on the engine's service",
    );
    assert_eq!(code, "2");

    // Docker says nothing of ports beside `network_mode: none`, and publishes none.
    let moved = usual.replacen("ports: [\"8080:8080\"],", "", 1).replacen(
        "network_mode: none,",
        "network_mode: none, ports: [\"8080:8080\"],",
        1,
    );
    fs::write(profile.join("compose.yaml"), moved).unwrap();
    stage.up(&profile, "qbittorrent");
    let logs = stage.docker.logs(GATEWAY);
    let line = "publish them on this service, the engine's";
    assert!(
        logs.contains(line) && logs.contains("ports=[8080]"),
        "{logs}"
    );
    let page = stage.lan_curl(&format!("http://{MACHINE}:8080/"));
    assert!(!page.status.success(), "the control: no port is published");
}

/// What another joined container gets from the Internet.
fn joined(stage: &Stage) -> Option<String> {
    stage.greeting_beside(WARDEN, HOST, 7)
}

fn down(stage: &Stage, profile: &Path) {
    let words = ["down", "--volumes", "--timeout", "5"];
    text("down", &stage.docker.compose(profile, &words));
}
