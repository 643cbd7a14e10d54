//! The shell that `--shell` leaves the user in.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::stage::FOLDER;

/// What to try, and what to expect.
pub(super) const HINTS: [(&str, &str); 9] = [
    ("vpngw status", "what the gateway says (--watch, --json)"),
    ("ping 1.1.1.1", "any address answers, through the tunnel"),
    (
        "curl http://203.0.113.80/",
        "a web site behind the VPN server",
    ),
    ("ping -I eth0 192.168.77.1", "around the tunnel: stopped"),
    (
        "curl --interface eth0 1.1.1.1",
        "around the tunnel: stopped",
    ),
    (
        "vpngw blocked",
        "what the kill switch stopped (--follow, --json)",
    ),
    ("nft list ruleset", "the rules, if nft is installed"),
    ("cat /run/vpngw-demo/gateway.log", "the gateway's log"),
    ("exit", "ends the demo with the capture's verdict"),
];

const PROMPT: &str = "[vpngw demo] # ";

/// The user's shell, with a prompt that says where it is and `folder` in front of its PATH.
///
/// # Errors
/// Those of writing the file that bash starts with.
pub(super) fn command(folder: Option<&Path>) -> anyhow::Result<Command> {
    let shell = env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let mut command = Command::new(&shell);
    command.env("PS1", PROMPT);
    if let Some(folder) = folder {
        let path = env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", folder.display()));
    }
    if Path::new(&shell)
        .file_name()
        .is_some_and(|name| name == "bash")
    {
        // bash would read ~/.bashrc and take the prompt from there.
        let file = Path::new(FOLDER).join("bashrc");
        let text = format!("[ -r ~/.bashrc ] && . ~/.bashrc\nPS1='{PROMPT}'\n");
        fs::write(&file, text).context("writing the shell's start file")?;
        command.arg("--rcfile").arg(file);
    }
    Ok(command)
}
