//! Every compose file under `profiles/` is one that docker-compose takes, the pod fits the schema of Kubernetes, and
//! Podman's generator makes units of the quadlets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::docker::text;

/// Versions of Kubernetes whose schema the pod has to fit: the first with sidecars, and the newest that
/// kubernetes-validate carries.
const KUBERNETES: [&str; 2] = ["1.29.0", "1.37.0"];

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
    // The control: a mistake is refused.
    let wrong = edited(
        "profiles/sealed/compose.yaml",
        "network_mode:",
        "networkmode:",
    );
    let mut command = Command::new("docker-compose");
    command.arg("--file").arg(wrong.path());
    let said = command.args(["config", "--quiet"]).output().unwrap();
    let complaint = String::from_utf8_lossy(&said.stderr);
    assert!(complaint.contains("networkmode"), "{complaint}");
    assert!(!said.status.success());
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
fn the_pod_fits_the_schema_of_kubernetes() {
    let validate = |version: &str, file: &Path| {
        let mut command = Command::new(tool("kubernetes-validate"));
        command.args(["--strict", "--kubernetes-version", version]);
        command.arg(file).output().unwrap()
    };
    let pod = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/kubernetes/pod.yaml");
    // The controls: a key in the wrong place, and a value of the wrong kind.
    let misplaced = edited(
        "profiles/kubernetes/pod.yaml",
        "allowPrivilegeEscalation",
        "allowEscalation",
    );
    let mistyped = edited(
        "profiles/kubernetes/pod.yaml",
        "enableServiceLinks: false",
        "enableServiceLinks: never",
    );
    for version in KUBERNETES {
        text(version, &validate(version, &pod));
        for (wrong, word) in [(&misplaced, "allowEscalation"), (&mistyped, "never")] {
            let said = validate(version, wrong.path());
            let (out, err) = (&said.stdout, &said.stderr);
            let complaint = format!(
                "{}{}",
                String::from_utf8_lossy(out),
                String::from_utf8_lossy(err)
            );
            assert!(!said.status.success(), "{version}: {complaint}");
            assert!(complaint.contains(word), "{version}: {complaint}");
        }
    }
}

/// By Podman's own generator, which systemd runs; it prints the units.
#[test]
fn podman_makes_units_of_the_quadlets() {
    let quadlet = |folder: &Path| {
        let mut command = Command::new(tool("quadlet"));
        command.arg("-dryrun").env("QUADLET_UNIT_DIRS", folder);
        command.output().unwrap()
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/podman");
    let units = text("quadlet", &quadlet(&folder));
    let (joined, gateway) = units.split_once("---vpngw.service---").unwrap();
    for words in [
        "--network container:vpngw",
        "--cap-drop net_raw",
        "BindsTo=vpngw.service",
        "After=vpngw.service",
    ] {
        assert!(joined.contains(words), "{words}: {joined}");
    }
    // They are the gateway's to publish.
    assert!(!joined.contains("--publish"), "{joined}");
    for words in [
        "--name vpngw ",
        "--cap-drop all --cap-add net_admin --cap-add net_raw",
        "--security-opt=no-new-privileges",
        "--device /dev/net/tun",
        "--sdnotify=healthy",
        "Type=notify",
    ] {
        assert!(gateway.contains(words), "{words}: {gateway}");
    }
    // The control: a mistake is refused.
    let wrong = tempfile::tempdir().unwrap();
    let unit =
        read("profiles/podman/vpngw.container").replace("DropCapability", "DropCapabilities");
    fs::write(wrong.path().join("vpngw.container"), unit).unwrap();
    let said = quadlet(wrong.path());
    let complaint = String::from_utf8_lossy(&said.stderr);
    assert!(!said.status.success(), "{complaint}");
    assert!(complaint.contains("DropCapabilities"), "{complaint}");
}

/// A file of this repository with something in it replaced.
fn edited(name: &str, from: &str, to: &str) -> tempfile::NamedTempFile {
    let source = read(name);
    assert!(source.contains(from), "{name}: {from}");
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    fs::write(&file, source.replace(from, to)).unwrap();
    file
}

/// A program that `scripts/test` installs below `target`.
pub fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/tools/bin")
        .join(name);
    assert!(
        path.exists(),
        "no {}: scripts/test installs it",
        path.display()
    );
    path
}

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(path).unwrap()
}
