//! Networks that come and go while the gateway's container runs: `docker network connect` and `disconnect`.

use crate::docker::{APP, PATIENCE};
use crate::joined::INSIDE;
use crate::lab::wait;
use crate::stage::{GATEWAY, Stage};

/// The network that docker-compose makes for the project.
const NETWORK: &str = "lab_default";

fn wait_inside(stage: &Stage) {
    wait("the joined program is behind the server", PATIENCE, || {
        (stage.greeting().as_deref() == Some(INSIDE)).then_some(())
    });
}

fn network(stage: &Stage, verb: &str, name: &str) {
    stage.docker.run(&["network", verb, name, GATEWAY]);
}

/// Nothing is made anew: the joined program has the namespace and the tunnel that it had.
#[test]
fn a_running_gateway_is_taken_off_its_network_and_put_on_others() {
    let stage = Stage::new();
    let profile = stage.profile("shared");
    stage.up(&profile, "qbittorrent");
    stage.assert_inside();
    let before = stage.network(GATEWAY);

    network(&stage, "disconnect", NETWORK);
    assert_eq!(stage.greeting(), None, "the control: there is no network");
    network(&stage, "connect", NETWORK);
    wait_inside(&stage);
    stage.wait_healthy(GATEWAY);
    assert_eq!(stage.network(GATEWAY), before);

    // It lies inside the profile's LAN exception, 192.168.0.0/16.
    let create = ["network", "create", "--subnet", "192.168.7.0/24", "zone"];
    stage.docker.run(&create);
    network(&stage, "connect", "zone");
    wait_inside(&stage);
    wait(
        "a neighbour in the second network sees the page",
        PATIENCE,
        || (visited(&stage) == "200").then_some(()),
    );
    // The other one has to do it alone.
    network(&stage, "disconnect", NETWORK);
    wait_inside(&stage);
    stage.wait_healthy(GATEWAY);
    assert_eq!(stage.network(GATEWAY), before);
    let log = stage.docker.logs(GATEWAY);
    assert!(!log.contains("another program"), "{log}");
}

/// The status that a reverse proxy in the second network gets for the joined program's page.
fn visited(stage: &Stage) -> String {
    let field = "{{.NetworkSettings.Networks.zone.IPAddress}}";
    let page = format!("http://{}:8080/", stage.docker.inspect(GATEWAY, field));
    let run = [
        "run",
        "--rm",
        "--network",
        "zone",
        "--entrypoint",
        "curl",
        APP,
    ];
    let curl = ["--silent", "--max-time", "5", "--output", "/dev/null"];
    let code = ["--write-out", "%{http_code}", &page];
    let done = stage.docker.try_run(&[&run[..], &curl, &code].concat());
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

#[test]
fn a_gateway_starts_before_its_network() {
    let stage = Stage::new();
    let profile = stage.profile("shared");
    let made = ["up", "--no-start", "vpngw"];
    let done = stage.docker.compose(&profile, &made);
    assert!(done.status.success(), "{done:?}");
    network(&stage, "disconnect", NETWORK);
    stage.docker.run(&["start", GATEWAY]);
    wait("it says that there is no uplink", PATIENCE, || {
        stage
            .docker
            .logs(GATEWAY)
            .contains("no uplink")
            .then_some(())
    });
    network(&stage, "connect", NETWORK);
    stage.wait_healthy(GATEWAY);
    stage.up(&profile, "qbittorrent");
    wait_inside(&stage);
}
