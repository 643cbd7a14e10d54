//! Checks the shape of the code base: who may use whom, what the inside may not name, how long a
//! file may be. Runs with `cargo test`, like any other test.

use std::fs;
use std::path::{Path, PathBuf};

/// Layers, innermost first. A module may use modules of earlier layers only, never its own.
const LAYERS: &[&[&str]] = &[
    &["net"],
    &["config"],
    &["policy"],
    &["ruleset", "gateway"],
    &["plan"],
    &["sys", "wireguard", "dns", "leak"],
    &["control", "link"],
    &["metrics"],
    &["warden", "engine"],
    &["commands"],
    &["cli"],
    &["main"],
];

/// Modules that must not know that an outside world exists.
const PURE: &[&str] = &["net", "config", "policy", "ruleset", "gateway", "plan"];

/// What only the outside may name.
const OUTSIDE: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::process",
    "Instant::now",
    "SystemTime::now",
    "tracing::",
    "rustix::",
];

/// Where the clock is read.
const CLOCK: &[&str] = &["warden", "engine", "wireguard", "commands", "main"];

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &["sys", "wireguard"];

/// Lines a file may have, tests included.
const LONGEST: usize = 500;

#[test]
fn modules_use_inner_layers_only() {
    for file in sources("src") {
        let Some(own) = module(&file.path).and_then(layer) else {
            continue;
        };
        for used in file.imports() {
            let Some(other) = layer(&used) else { continue };
            let same = module(&file.path) == Some(&used);
            assert!(
                same || other < own,
                "{} must not use crate::{used}",
                file.path.display()
            );
        }
    }
}

#[test]
fn every_module_has_a_layer() {
    for file in sources("src") {
        if let Some(module) = module(&file.path) {
            assert!(layer(module).is_some(), "{module} is in no layer");
        }
    }
}

#[test]
fn the_inside_does_no_io() {
    for file in sources("src").iter().filter(|f| f.module_in(PURE)) {
        for word in OUTSIDE {
            assert!(
                !file.code().contains(word),
                "{} must not name {word}",
                file.path.display()
            );
        }
    }
}

#[test]
fn the_clock_is_read_at_the_rim() {
    for file in sources("src").iter().filter(|f| !f.module_in(CLOCK)) {
        for word in ["Instant::now()", "SystemTime::now()"] {
            let path = file.path.display();
            assert!(
                !file.code().contains(word),
                "{path} must not read the clock"
            );
        }
    }
}

#[test]
fn unsafe_stands_in_two_modules() {
    for file in sources("src").iter().filter(|f| !f.module_in(UNSAFE)) {
        let path = file.path.display();
        assert!(
            !file.code().contains("unsafe {"),
            "{path} must not use unsafe"
        );
    }
}

#[test]
fn files_are_short() {
    for folder in ["src", "netns-tests", "benches"] {
        for file in sources(folder) {
            let lines = file.text.lines().count();
            let path = file.path.display();
            assert!(
                lines <= LONGEST,
                "{path} has {lines} lines, {LONGEST} is the most"
            );
        }
    }
}

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The text before the tests at its end, without comments.
    fn code(&self) -> String {
        if self
            .path
            .components()
            .any(|part| ["tests", "tests.rs"].iter().any(|t| part.as_os_str() == *t))
        {
            return String::new();
        }
        let code = self
            .text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap_or_default();
        let lines = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Names after `crate::` in the code.
    fn imports(&self) -> Vec<String> {
        let code = self.code();
        let names = code.split("crate::").skip(1);
        names
            .map(|rest| {
                rest.chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect()
            })
            .collect()
    }

    fn module_in(&self, names: &[&str]) -> bool {
        module(&self.path).is_some_and(|module| names.contains(&module))
    }
}

/// `src/config/file.rs` and `src/config.rs` are both module `config`.
fn module(path: &Path) -> Option<&str> {
    let inner = path
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .ok()?;
    let first = inner.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!["lib", "tidy"].contains(&name)).then_some(name)
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tidy.rs") {
                found.push(Source {
                    text: fs::read_to_string(&path).unwrap(),
                    path,
                });
            }
        }
    }
    found
}

#[test]
fn the_source_is_found() {
    assert!(sources("src").len() > 20);
}
