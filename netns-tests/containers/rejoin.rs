//! `vpngw rejoin`: whom Docker left without a network is started again, and nobody else.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::docker::{APP, PATIENCE, text};
use crate::joined::INSIDE;
use crate::lab::wait;
use crate::stage::{GATEWAY, JOINED, Stage};

/// The helper's container.
const HELPER: &str = "lab_rejoin_1";

/// Containers that are no affair of the helper's, and their networks.
const OTHERS: [(&str, &str); 2] = [("apart", "none"), ("aside", "bridge")];

#[test]
fn a_stranded_container_is_restarted_where_the_helper_runs_and_nobody_else() {
    let stage = Stage::new();
    let profile = stage.profile("shared");
    let sensor = stage.gateway(&profile);
    stage.up(&profile, "qbittorrent");
    for (name, network) in OTHERS {
        let words = ["run", "--detach", "--name", name, "--network", network];
        let sleeps = ["--entrypoint", "sleep", APP, "1000"];
        stage.docker.run(&[words.as_slice(), &sleeps].concat());
    }
    let others = OTHERS.map(|(name, _)| stage.started(name));

    // The control: without the helper it stays as it is.
    sensor.verdict();
    strand(&stage);
    let before = stage.started(JOINED);
    sleep(Duration::from_secs(15));
    assert_eq!(stage.links(""), ["lo"]);
    assert_eq!(stage.started(JOINED), before);

    helper(&stage, &profile);
    restored(&stage, &before);
    // The helper is there, and the gateway is started again.
    let before = stage.started(JOINED);
    strand(&stage);
    restored(&stage, &before);
    let (before, gateway) = (stage.started(JOINED), stage.started(GATEWAY));
    sleep(Duration::from_secs(12));
    assert_eq!(stage.started(JOINED), before, "restarted twice");
    assert_eq!(stage.started(GATEWAY), gateway);
    assert_eq!(OTHERS.map(|(name, _)| stage.started(name)), others);
    let logs = stage.docker.logs(HELPER);
    assert_eq!(logs.matches("is restarted").count(), 2, "{logs}");
    assert!(!logs.contains("WARN"), "{logs}");
    stage.docker.run(&["stop", "--time", "10", HELPER]);
    let code = stage.docker.inspect(HELPER, "{{.State.ExitCode}}");
    assert_eq!(code, "0", "it ends when it is told to");
}

#[test]
fn who_joined_a_gateway_that_was_made_anew_is_named_with_the_cure() {
    let stage = Stage::new();
    let profile = stage.profile("shared");
    stage.up(&profile, "qbittorrent");
    helper(&stage, &profile);
    let id = stage.docker.inspect(GATEWAY, "{{.Id}}");
    let before = stage.started(JOINED);
    stage.docker.run(&["rm", "--force", GATEWAY]);
    stage.up(&profile, "vpngw");
    stage.wait_healthy(GATEWAY);
    let cure = "docker compose up -d --force-recreate qbittorrent";
    let logs = wait("the helper names it", PATIENCE, || {
        let logs = stage.docker.logs(HELPER);
        logs.contains(cure).then_some(logs)
    });
    assert!(logs.contains(JOINED), "{logs}");
    sleep(Duration::from_secs(11));
    assert_eq!(stage.docker.logs(HELPER).matches(cure).count(), 1);
    assert_eq!(stage.started(JOINED), before, "it was only named");

    // Why: Docker keeps the number of the container that was joined, and a restart only stops the program.
    let network = stage.docker.inspect(JOINED, "{{.HostConfig.NetworkMode}}");
    assert_eq!(network, format!("container:{id}"));
    let restart = stage.docker.try_run(&["restart", "--time", "5", JOINED]);
    let said = String::from_utf8_lossy(&restart.stderr).into_owned();
    assert!(!restart.status.success() && said.contains(&id), "{said}");
    let words = ["up", "-d", "--force-recreate", "qbittorrent"];
    text("the cure", &stage.docker.compose(&profile, &words));
    assert_eq!(stage.links(""), ["lo", "tun0", "eth0"]);
}

#[test]
fn without_dockers_socket_the_helper_says_what_to_mount() {
    let stage = Stage::new();
    let words = ["run", "--rm", "--network=none", "vpngw", "rejoin"];
    let words = [words.as_slice(), &["--gateway", "vpngw"]].concat();
    let done = stage.docker.try_run(&words);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(2), "{said}");
    let line = "volumes: [\"/var/run/docker.sock:/var/run/docker.sock\"]";
    assert!(said.contains(line), "{said}");
}

/// Starts the gateway again; the joined container is left in the namespace that was.
fn strand(stage: &Stage) {
    stage.docker.run(&["restart", GATEWAY]);
    assert_eq!(stage.links(""), ["lo"]);
}

/// Starts the helper as README says; the lab's daemon listens elsewhere.
fn helper(stage: &Stage, profile: &Path) {
    let path = profile.join("compose.yaml");
    let usual = std::fs::read_to_string(&path).unwrap();
    let socket = stage.folder.path().join("docker/socket");
    let (from, to) = ("/var/run/docker.sock:", format!("{}:", socket.display()));
    assert!(usual.contains(from));
    std::fs::write(&path, usual.replacen(from, &to, 1)).unwrap();
    let words = ["--profile", "rejoin", "up", "-d", "--no-recreate"];
    text("up rejoin", &stage.docker.compose(profile, &words));
}

/// Waits until the joined container was started again, and has the tunnel.
fn restored(stage: &Stage, before: &str) {
    wait("it is started again", PATIENCE, || {
        (stage.started(JOINED) != before).then_some(())
    });
    let said = wait("it reaches the tunnel", PATIENCE, || stage.greeting());
    assert_eq!(said, INSIDE);
}
