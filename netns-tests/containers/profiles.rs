//! Every compose file under `profiles/` is one that docker-compose takes.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::docker::text;

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
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        fs::read_to_string(path).unwrap()
    };
    let readme = read("README.md");
    for name in ["shared", "sealed"] {
        let profile = read(&format!("profiles/{name}/compose.yaml"));
        assert!(readme.contains(&format!("```yaml\n{profile}```\n")));
        assert!(profile.lines().count() <= 20, "{name}");
    }
}
