//! What is missing is said in one line that names what would help, with the code for wrong usage.

use crate::docker::PATIENCE;
use crate::lab::wait;
use crate::stage::{GATEWAY, JOINED, Stage};

/// As the profile has it.
const USUAL: [&str; 6] = [
    "--cap-drop=ALL",
    "--cap-add=NET_ADMIN",
    "--cap-add=NET_RAW",
    "--security-opt=no-new-privileges",
    "--device=/dev/net/tun",
    "--network=bridge",
];

#[test]
fn what_is_missing_is_named_with_what_would_help() {
    let stage = Stage::new();
    let folder = stage.profile("shared");
    let conf = format!(
        "--volume={}/wg0.conf:/etc/wireguard/wg0.conf:ro",
        folder.display()
    );
    let without = |flag: &str| {
        USUAL
            .iter()
            .copied()
            .filter(|f| *f != flag)
            .collect::<Vec<_>>()
    };

    let (code, last) = refused(&stage, &without("--device=/dev/net/tun"), &conf);
    assert_eq!(code, 2, "{last}");
    assert!(last.contains("devices: [/dev/net/tun]"), "{last}");

    let (code, last) = refused(&stage, &without("--cap-add=NET_ADMIN"), &conf);
    assert_eq!(code, 2, "{last}");
    assert!(last.contains("cap_add: [NET_ADMIN]"), "{last}");

    // The machine of the lab has a bridge, that of its containers.
    let mut host = without("--network=bridge");
    host.push("--network=host");
    let rules = stage.ns.run("machine", "nft list tables");
    let (code, last) = refused(&stage, &host, &conf);
    assert_eq!(code, 2, "{last}");
    assert!(last.contains("without `network_mode: host`"), "{last}");
    assert_eq!(stage.ns.run("machine", "nft list tables"), rules);
}

#[test]
fn read_only_takes_a_resolver_that_docker_writes() {
    let stage = Stage::new();
    let folder = stage.profile("shared");
    let conf = format!(
        "--volume={}/wg0.conf:/etc/wireguard/wg0.conf:ro",
        folder.display()
    );
    let start = |name: &str, more: &[&str]| {
        let mut words = vec!["run", "--detach", "--name", name, &conf];
        words.extend(["--read-only", "--tmpfs=/run"]);
        words.extend(USUAL);
        words.extend(more);
        words.push("vpngw");
        stage.docker.run(&words);
        stage.wait_healthy(name);
        stage.docker.logs(name)
    };
    let logs = start("without", &[]);
    assert!(logs.contains("`read_only: true`: leave that out"), "{logs}");
    let logs = start("with", &["--dns=10.64.0.1"]);
    assert!(!logs.contains("WARN"), "{logs}");
}

#[test]
fn a_name_for_the_server_needs_a_resolver_that_is_not_dockers() {
    let stage = Stage::new();
    let folder = stage.profile("shared");
    let path = folder.join("wg0.conf");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("198.51.100.10", "vpn.test")).unwrap();
    assert!(!stage.try_up(&folder, "vpngw").stdout.contains(&0));
    wait("the gateway says what would help", PATIENCE, || {
        let logs = stage.docker.logs(GATEWAY);
        logs.contains("set `[uplink] resolver`").then_some(())
    });
}

#[test]
fn ports_of_a_joined_program_are_refused_by_docker() {
    let stage = Stage::new();
    let folder = stage.profile("shared");
    let path = folder.join("compose.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let join = "    network_mode: \"service:vpngw\"\n";
    let moved = text.replace(join, &format!("{join}    ports: [\"9090:9090\"]\n"));
    assert_ne!(moved, text);
    std::fs::write(&path, moved).unwrap();
    let done = stage.try_up(&folder, "qbittorrent");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        !done.status.success() && said.contains("port publishing"),
        "{said}"
    );
    let joined = stage.docker.try_run(&["exec", JOINED, "id"]);
    assert!(!joined.status.success(), "it runs all the same");
}

/// The code and the last line of a gateway that cannot start.
fn refused(stage: &Stage, flags: &[&str], conf: &str) -> (i32, String) {
    let mut words = vec!["run", "--rm", conf];
    words.extend(flags);
    words.push("vpngw");
    let done = stage.docker.try_run(&words);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let last = said.trim_end().lines().last().unwrap_or_default();
    (done.status.code().unwrap_or(-1), last.to_owned())
}
