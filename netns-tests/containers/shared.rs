//! The shared topology as README shows it.

use std::time::Duration;

use crate::docker::text;
use crate::lab::wait;
use crate::stage::{GATEWAY, JOINED, MACHINE, Stage};

#[test]
fn a_client_joins_and_only_the_lan_reaches_its_web_page() {
    let stage = Stage::new();
    let profile = stage.profile("shared");
    let sensor = stage.gateway(&profile);
    stage.up(&profile, "qbittorrent");

    let page = wait("the LAN sees the page", Duration::from_secs(30), || {
        let page = stage.lan_curl(&format!("http://{MACHINE}:8080/"));
        page.status.success().then(|| text("curl", &page))
    });
    assert!(page.contains("qBittorrent"), "{page}");

    // The way from the server into the tunnel is open: it is the page that is refused.
    let greeting = stage.docker.run(&[
        "exec",
        JOINED,
        "sh",
        "-c",
        "exec 3<>/dev/tcp/203.0.113.9/7 && head -n 1 <&3",
    ]);
    assert_eq!(greeting.trim(), "inside1 10.64.0.2");
    let refused = stage
        .ns
        .output("vpn1", "curl --silent --max-time 3 http://10.64.0.2:8080/");
    assert!(
        !refused.status.success(),
        "the page is seen from the VPN's side"
    );

    let answer = stage
        .docker
        .run(&["exec", JOINED, "getent", "ahostsv4", "tracker.test"]);
    assert!(answer.contains("203.0.113.9"), "{answer}");

    // As anybody can try it: a container of its own beside the others.
    let network = format!("--network=container:{GATEWAY}");
    let tried = stage
        .docker
        .run(&["run", "--rm", &network, "vpngw", "leaktest"]);
    assert!(tried.contains("HELD:"), "{tried}");

    stage.docker.run(&["exec", GATEWAY, "vpngw", "status"]);
    let engine = stage.docker.engine_status(GATEWAY);
    for line in [
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(engine.contains(line), "{line}: {engine}");
    }
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
    let greeting = stage.docker.run(&[
        "exec",
        JOINED,
        "sh",
        "-c",
        "exec 3<>/dev/tcp/203.0.113.9/7 && head -n 1 <&3",
    ]);
    assert_eq!(greeting.trim(), "inside1 10.64.0.2");
    wait("the LAN sees the page", Duration::from_secs(30), || {
        let page = stage.lan_curl(&format!("http://{MACHINE}:8080/"));
        page.status.success().then_some(())
    });
}
