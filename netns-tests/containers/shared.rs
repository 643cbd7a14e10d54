//! The shared topology as README shows it.

use crate::joined::INSIDE;
use crate::stage::{GATEWAY, Stage};

#[test]
fn a_client_joins_and_only_the_lan_reaches_its_web_page() {
    let stage = Stage::new();
    let profile = stage.profile("shared");
    let sensor = stage.gateway(&profile);
    stage.up(&profile, "qbittorrent");

    let page = stage.lan_page();
    assert!(page.contains("qBittorrent"), "{page}");
    stage.assert_inside();
    stage.assert_names();

    // As anybody can try it: a container of its own beside the others.
    let network = format!("--network=container:{GATEWAY}");
    let tried = stage
        .docker
        .run(&["run", "--rm", &network, "vpngw", "leaktest"]);
    assert!(tried.contains("HELD:"), "{tried}");

    stage.docker.run(&["exec", GATEWAY, "vpngw", "status"]);
    stage.assert_engine_has_nothing(&[]);
    let tally = sensor.verdict();
    assert!(tally.wireguard > 0 && tally.lan > 0, "{tally}");
}

#[test]
fn a_file_written_for_gluetun_works_with_the_image_changed() {
    let stage = Stage::new();
    let profile = stage.profile("gluetun");
    stage.up(&profile, "qbittorrent");
    let check = stage
        .docker
        .run(&["exec", "lab_gluetun_1", "vpngw", "check"]);
    let ports = check.lines().find(|line| line.starts_with("forward.ports"));
    assert!(
        ports.is_some_and(
            |line| line.contains("6881") && line.ends_with("variable FIREWALL_VPN_INPUT_PORTS")
        ),
        "{check}"
    );
    assert_eq!(stage.greeting().as_deref(), Some(INSIDE));
    stage.lan_page();
}
