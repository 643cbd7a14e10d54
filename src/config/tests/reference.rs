//! profiles/reference.toml says what is true.

use super::*;
use crate::config::keys::Key;

const REFERENCE: &str = include_str!("../../../profiles/reference.toml");

/// Takes the `#` away from each line that `wanted` picks by what follows it.
fn uncommented(wanted: impl Fn(&str) -> bool) -> String {
    let line = |line: &'static str| match line.strip_prefix('#') {
        Some(rest) if wanted(rest) => rest,
        _ => line,
    };
    REFERENCE.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn is_default(rest: &str) -> bool {
    rest.starts_with(|c: char| c.is_ascii_lowercase())
}

fn is_example(rest: &str) -> bool {
    rest.starts_with("     ")
}

#[test]
fn the_reference_is_valid_and_sets_nothing() {
    let loaded = load_toml(REFERENCE).unwrap();
    assert_eq!(loaded.config, load_toml("").unwrap().config);
    assert_eq!(loaded.warnings, []);
}

#[test]
fn its_commented_values_are_the_defaults() {
    let text = uncommented(is_default);
    let loaded = load_toml(&text).unwrap();
    assert_eq!(loaded.config, load_toml("").unwrap().config);
    let written = loaded
        .origins
        .iter()
        .filter(|origin| origin.source.contains("vpngw.toml"));
    let lines = REFERENCE.lines().filter_map(|line| line.strip_prefix('#'));
    assert_eq!(
        written.count(),
        lines.filter(|rest| is_default(rest)).count()
    );
}

#[test]
fn its_examples_are_valid() {
    let text = uncommented(is_example).replace("wireguard = \"wg0.conf\"", "");
    let loaded = load_from(&[("/c/vpngw.toml", &text)], &[]).unwrap();
    assert_eq!(loaded.config.peers[0].name.as_deref(), Some("NL 1"));
    assert_eq!(loaded.config.tunnel.fwmark, Some(0xca6c));
    assert_eq!(loaded.config.lan.outbound.len(), 1);
    assert_eq!(loaded.config.metrics.unwrap().port(), 9586);
}

#[test]
fn every_key_stands_in_the_reference() {
    for key in Key::ALL {
        let name = key.path().rsplit('.').next().unwrap();
        let stands = |line: &str| {
            line.trim_start_matches(['#', ' '])
                .starts_with(&format!("{name} = "))
        };
        assert!(REFERENCE.lines().any(stands), "{}", key.path());
    }
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let config = load_toml("").unwrap().config;
    assert_eq!(config.tunnel.device.as_str(), "tun0");
    assert_eq!(config.tunnel.mtu, 1420);
    assert_eq!(config.tunnel.offload, Offload::Auto);
    assert_eq!(config.control, Path::new("/run/vpngw/vpngw.sock"));
    assert_eq!(
        config.log,
        Log {
            level: LogLevel::Info,
            format: LogFormat::Text
        }
    );
    assert_eq!(
        (config.uplink, config.resolver, config.metrics),
        (None, None, None)
    );
    assert_eq!((config.lan, config.forward), (Lan::default(), vec![]));
}
