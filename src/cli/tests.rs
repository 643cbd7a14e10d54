//! What the command line takes.

use super::*;
use clap::CommandFactory;
use clap::error::ErrorKind;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn without_a_command_it_runs() {
    assert_eq!(parse("vpngw").command, None);
    assert_eq!(
        parse("vpngw run").command,
        Some(Command::Run(Run::default()))
    );
}

#[test]
fn shared_flags_stand_before_or_after_the_command() {
    for line in [
        "vpngw --socket /a --config b status",
        "vpngw status --config b --socket /a",
        "vpngw --config b status --socket /a",
    ] {
        let shared = parse(line).shared;
        assert_eq!(shared.socket(), Path::new("/a"), "{line}");
        assert_eq!(shared.config(), Some(Path::new("b")), "{line}");
    }
}

#[test]
fn the_socket_has_a_default_that_can_be_told_from_a_wish() {
    assert_eq!(Shared::default().socket(), Path::new(SOCKET));
    assert_eq!(Shared::default().named_socket(), None);
}

#[test]
fn an_empty_name_is_none() {
    let shared = Cli::try_parse_from(["vpngw", "--config", "", "--socket", ""])
        .unwrap()
        .shared;
    assert_eq!((shared.config(), shared.named_socket()), (None, None));
}

#[test]
fn wrong_arguments_close_a_namespace_only_where_they_were_meant_to() {
    let meant = |line: &str| meant(line.split(' ').map(OsString::from));
    for line in ["run --bogus", "--bogus run", "warden --bogus"] {
        assert_eq!(meant(line), Meant::Closing, "{line}");
    }
    for line in ["--bogus", "rnu", "stauts", "-x"] {
        assert_eq!(meant(line), Meant::Unknown, "{line}");
    }
    for line in [
        "status --bogus",
        "--bogus check",
        "engine --bogus",
        "help runn",
    ] {
        assert_eq!(meant(line), Meant::Other, "{line}");
    }
}

#[test]
fn help_and_version_are_commands_too() {
    for (line, kind) in [
        ("vpngw help", ErrorKind::DisplayHelp),
        ("vpngw help status", ErrorKind::DisplayHelp),
        ("vpngw -V", ErrorKind::DisplayVersion),
    ] {
        let said = Cli::try_parse_from(line.split(' ')).unwrap_err();
        assert_eq!(said.kind(), kind, "{line}");
        assert!(!said.use_stderr(), "{line}");
    }
    let slip = Cli::try_parse_from(["vpngw", "stauts"])
        .unwrap_err()
        .to_string();
    assert!(slip.contains("'status'"), "{slip}");
}

#[test]
fn watch_and_json_exclude_each_other() {
    assert_eq!(status("vpngw status").output(), Output::Page);
    assert_eq!(status("vpngw status --watch").output(), Output::Watch);
    assert_eq!(status("vpngw status --json").output(), Output::Json);
    let both = "vpngw status --watch --json".split(' ');
    assert_eq!(Cli::try_parse_from(both).unwrap_err().exit_code(), 2);
}

#[test]
fn every_command_parses() {
    for line in [
        "engine --link-fd 3",
        "engine",
        "engine --socket-of-warden /a",
        "warden",
        "warden --socket-of-warden /a --allow-host",
        "healthcheck",
        "doctor",
        "doctor --json",
        "blocked",
        "blocked --json",
        "blocked --follow",
        "capture -w a.pcap",
        "capture --minutes 0.5 --megabytes 8 --whole --force --write a.pcap",
        "check",
        "check --sealed",
        "plan",
        "explain 1.1.1.1:53/udp",
        "explain --from 172.30.0.50 tcp/8080",
        "connect",
        "disconnect",
        "cleanup",
        "exec --netns torrent -- qbittorrent-nox --profile=/srv",
        "exec --pid 7 --user torrent -- sh",
        "demo",
        "demo --shell",
        "rejoin --gateway vpngw",
        "rejoin --gateway vpngw --docker-socket /a",
    ] {
        assert!(parse(&format!("vpngw {line}")).command.is_some(), "{line}");
    }
}

#[test]
fn the_units_of_the_profile_run_commands_that_exist() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles/host");
    let mut found = 0;
    for unit in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(unit.unwrap().path()).unwrap();
        for line in text.lines() {
            if let Some(words) = line.strip_prefix("ExecStart=/usr/local/bin/") {
                assert!(parse(words).command.is_some(), "{words}");
                found += 1;
            }
        }
    }
    assert_eq!(found, 2);
}

fn status(line: &str) -> Status {
    match parse(line).command {
        Some(Command::Status(status)) => status,
        other => panic!("{other:?}"),
    }
}

fn parse(line: &str) -> Cli {
    Cli::try_parse_from(line.split(' ')).unwrap()
}
