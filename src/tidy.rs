//! Checks the shape of the code base: who may use whom, what the inside may not name, how long a
//! file may be; and that the documents name what is there. Runs with `cargo test`, like any other test.

use std::fs;
use std::path::{Path, PathBuf};

/// Layers, innermost first. A module may use modules of earlier layers only, never its own.
const LAYERS: &[&[&str]] = &[
    &["net"],
    &["config"],
    &["policy"],
    &["ruleset", "gateway"],
    &["plan"],
    &["guard"],
    &["sys", "wireguard", "dns", "leak"],
    &["control", "link"],
    &["metrics"],
    &["warden", "engine"],
    &["commands"],
    &["cli"],
    &["main"],
];

/// Modules that must not know that an outside world exists.
const PURE: &[&str] = &[
    "net", "config", "policy", "ruleset", "gateway", "plan", "guard",
];

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

/// The documents at the root that name what is in the tree.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "docs/from-gluetun.md",
];

/// How the path of a file of ours begins, as the documents write it.
const OURS: &[&str] = &[
    "src/",
    "netns-tests/",
    "benches/",
    "scripts/",
    "profiles/",
    "docs/",
    ".ci/",
    "Cargo.",
    "deny.toml",
];

#[test]
fn guarantees_name_tests_that_exist() {
    let text = document("SECURITY.md");
    let rows: Vec<_> = text.lines().filter(|l| l.starts_with("| G")).collect();
    for (number, row) in (1..).zip(&rows) {
        let cells: Vec<_> = row.split(" | ").collect();
        let [name, _guarantee, _how, tests] = cells.as_slice() else {
            panic!("a guarantee has four columns: {row}");
        };
        assert_eq!(*name, format!("| G{number}"), "guarantees are numbered");
        let tests = quoted(tests);
        assert!(!tests.is_empty(), "no test holds G{number}");
        assert_tests_exist(&format!("G{number}"), &tests);
    }
    assert!(rows.len() > 10, "the guarantees are found");
}

#[test]
fn invariants_name_tests_that_exist() {
    let text = document("ARCHITECTURE.md");
    let (_, rest) = text.split_once("## Invariants").unwrap();
    let table = rest.split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| "));
    let rows: Vec<_> = rows.skip(1).collect();
    for row in &rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let tests = quoted(tests);
        assert!(!tests.is_empty(), "nothing holds: {row}");
        assert_tests_exist(row, &tests);
    }
    assert!(rows.len() > 5, "the invariants are found");
}

#[test]
fn documents_name_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in DOCUMENTS {
        let text = document(name);
        let paths = text.lines().flat_map(quoted).filter_map(path);
        let links = links(&text).map(str::to_owned);
        for path in paths.chain(links) {
            assert!(
                root.join(&path).exists(),
                "{name} names {path}, which is not there"
            );
        }
    }
}

#[test]
fn the_map_has_every_module() {
    let (documented, map) = (document("src/lib.rs"), document("ARCHITECTURE.md"));
    let modules = LAYERS.iter().zip(1..);
    for (module, row) in modules.flat_map(|(row, n)| row.iter().map(move |module| (module, n))) {
        if *module == "main" {
            continue;
        }
        let (short, long) = (
            format!("//! | {row} | [`{module}`] |"),
            format!("| {row} | `{module}` |"),
        );
        assert!(documented.contains(&short), "src/lib.rs lacks `{short}`");
        assert!(map.contains(&long), "ARCHITECTURE.md lacks `{long}`");
    }
}

#[test]
fn the_readme_has_every_command() {
    use clap::CommandFactory as _;
    let (readme, cli) = (document("README.md"), crate::cli::Cli::command());
    for command in cli.get_subcommands().filter(|c| !c.is_hide_set()) {
        let row = format!("| `vpngw {}", command.get_name());
        assert!(readme.contains(&row), "README.md lacks a row `{row}`");
    }
}

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// What stands between backticks on one line.
fn quoted(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// The path in `./scripts/test quick`, if these words begin with one of ours.
fn path(words: &str) -> Option<String> {
    let first = words.split_whitespace().next()?;
    let path = first.strip_prefix("./").unwrap_or(first);
    let ours = OURS.iter().any(|start| path.starts_with(start));
    ours.then(|| path.to_owned())
}

/// Where links lead that stay in the tree.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.starts_with('#'))
}

fn assert_tests_exist(what: &str, tests: &[&str]) {
    let mut files = sources("src");
    files.extend(sources("netns-tests"));
    files.extend([Source {
        path: "src/tidy.rs".into(),
        text: document("src/tidy.rs"),
    }]);
    for test in tests {
        assert!(
            files.iter().any(|file| file.has_test(test)),
            "{what}: there is no test `{test}`"
        );
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

    /// Whether a function of this name stands below `#[test]`.
    fn has_test(&self, name: &str) -> bool {
        let mut lines = self.text.lines().map(str::trim_start);
        let mut marked = false;
        lines.any(|line| {
            let found = marked && line.starts_with(&format!("fn {name}("));
            // Attributes and comments may stand between the two.
            marked =
                line == "#[test]" || marked && (line.starts_with("#[") || line.starts_with("//"));
            found
        })
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
