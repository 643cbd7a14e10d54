//! Every compose file under `profiles/` is one that docker-compose takes; what no program here can run has the form
//! that its reader expects.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::docker::text;

/// Keys of `[Container]` in a quadlet, of those in podman-container.unit(5) that could be of use here.
const QUADLET: [&str; 22] = [
    "AddCapability",
    "AddDevice",
    "ContainerName",
    "DNS",
    "DropCapability",
    "Environment",
    "EnvironmentFile",
    "Exec",
    "HealthCmd",
    "HealthInterval",
    "HealthRetries",
    "HealthStartPeriod",
    "HealthTimeout",
    "Image",
    "Network",
    "NoNewPrivileges",
    "Notify",
    "PublishPort",
    "ReadOnly",
    "Tmpfs",
    "User",
    "Volume",
];

#[test]
fn docker_compose_takes_every_profile() {
    let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
    let mut found = 0;
    for entry in fs::read_dir(profiles).unwrap() {
        let file = entry.unwrap().path().join("compose.yaml");
        if !file.exists() {
            continue;
        }
        let mut command = Command::new("docker-compose");
        command.arg("--file").arg(&file).args(["config", "--quiet"]);
        text(&file.display().to_string(), &command.output().unwrap());
        found += 1;
    }
    assert!(found >= 4, "{found} profiles");
}

#[test]
fn the_readme_shows_the_profiles_that_are_tested() {
    let readme = read("README.md");
    for name in ["shared", "sealed"] {
        let profile = read(&format!("profiles/{name}/compose.yaml"));
        assert!(readme.contains(&format!("```yaml\n{profile}```\n")));
        assert!(profile.lines().count() <= 20, "{name}");
    }
}

/// By python3-yaml, which docker-compose brings.
#[test]
fn the_pod_starts_the_gateway_first_and_lets_it_do_no_more_than_it_needs() {
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/kubernetes/pod.yaml");
    let mut command = Command::new("python3");
    command
        .args(["-c", script])
        .stdin(fs::File::open(path).unwrap());
    let pod = text("the pod", &command.output().unwrap());
    let pod: Value = serde_json::from_str(&pod).unwrap();
    assert_eq!(
        (&pod["apiVersion"], &pod["kind"]),
        (&json!("v1"), &json!("Pod"))
    );
    let spec = &pod["spec"];
    assert_eq!(spec["enableServiceLinks"], json!(false));
    assert_eq!(spec["hostNetwork"], Value::Null);
    let [gateway] = spec["initContainers"].as_array().unwrap().as_slice() else {
        panic!("one sidecar");
    };
    assert_eq!(gateway["restartPolicy"], json!("Always"));
    let check = json!(["/usr/bin/vpngw", "healthcheck"]);
    for probe in ["startupProbe", "readinessProbe"] {
        assert_eq!(gateway[probe]["exec"]["command"], check);
    }
    let capabilities = json!({"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]});
    assert_eq!(gateway["securityContext"]["capabilities"], capabilities);
    let volumes = spec["volumes"].as_array().unwrap();
    let containers = spec["containers"].as_array().unwrap();
    for container in containers.iter().chain([gateway]) {
        for mount in container["volumeMounts"].as_array().unwrap() {
            let known = volumes.iter().any(|volume| volume["name"] == mount["name"]);
            assert!(known, "{mount} names no volume");
        }
    }
    for container in containers {
        let drop = &container["securityContext"]["capabilities"]["drop"];
        assert!(drop.as_array().unwrap().contains(&json!("NET_RAW")));
    }
    // Each variable is one that the gateway knows.
    for variable in gateway["env"].as_array().unwrap() {
        let name = variable["name"].as_str().unwrap();
        assert!(
            read("profiles/shared/compose.yaml").contains(name),
            "{name}"
        );
    }
}

#[test]
fn the_quadlets_have_keys_that_podman_knows() {
    for name in ["vpngw", "qbittorrent"] {
        let unit = read(&format!("profiles/podman/{name}.container"));
        let mut section = "";
        let mut keys = Vec::new();
        for line in unit
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            if line.starts_with('[') {
                section = line;
                continue;
            }
            let (key, value) = line.split_once('=').unwrap();
            assert!(!value.is_empty(), "{name}: {line}");
            if section == "[Container]" {
                assert!(QUADLET.contains(&key), "{name}: {line}");
                keys.push(key);
            } else {
                assert!(
                    ["[Unit]", "[Service]", "[Install]"].contains(&section),
                    "{section}"
                );
            }
        }
        assert!(keys.contains(&"Image"), "{name}");
    }
    let gateway = read("profiles/podman/vpngw.container");
    let joined = read("profiles/podman/qbittorrent.container");
    assert!(gateway.contains("\nContainerName=vpngw\n"));
    for line in [
        "Network=container:vpngw",
        "BindsTo=vpngw.service",
        "After=vpngw.service",
    ] {
        assert!(joined.contains(&format!("\n{line}\n")), "{line}");
    }
    assert!(
        !joined.contains("PublishPort"),
        "they are the gateway's to publish"
    );
}

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(path).unwrap()
}
