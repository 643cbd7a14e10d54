//! `vpngw exec`: runs a program in the namespace that a gateway holds, with the resolvers of the tunnel and
//! without the socket files that lead out.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow};

use super::block_on;
use super::exit::{Code, Failure};
use crate::control::client;
use crate::sys::enter::{self, Identity};
use crate::sys::host::NAMES;
use crate::sys::session::{self, Caller};

/// Where the files are that a named network namespace has of its own (ip-netns(8)).
const FILES: &str = "/etc/netns";

/// What is run, where, and as whom.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The network namespace: a name of ip-netns(8), or the path of a file.
    pub netns: OsString,
    /// A user of /etc/passwd, by name or number.
    pub user: Option<String>,
    /// The program and its arguments; never empty.
    pub command: Vec<OsString>,
}

/// Becomes the program, or waits for it and ends as it does.
///
/// # Errors
///
/// What is missing, before anything runs.
pub fn run(control: &Path, wanted: &Wanted) -> Result<Code, Failure> {
    let network = path(&wanted.netns);
    let resolv_conf = resolvers(control, &wanted.netns)?;
    let nsswitch = nsswitch(&fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default());
    let account = wanted.user.as_deref().map(account).transpose()?;
    let files = [
        (Path::new("/etc/resolv.conf"), resolv_conf.as_str()),
        (Path::new("/etc/nsswitch.conf"), nsswitch.as_str()),
    ];
    let identity = account.as_ref().map(|account| &account.identity);
    let caller = Caller::look().map_err(Failure::usage)?;
    enter::enter(&network, &files, identity).map_err(Failure::usage)?;
    session::start(caller, identity).map_err(Failure::usage)?;
    let [program, arguments @ ..] = wanted.command.as_slice() else {
        return Err(Failure::usage(anyhow!("name the program to run")));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(account) = &account {
        command
            .env("USER", &account.name)
            .env("LOGNAME", &account.name);
        command.env("HOME", &account.home);
    }
    // It does not come back unless it fails.
    let error = command.exec();
    Err(Failure::usage(
        anyhow::Error::from(error).context(format!("run {}", program.display())),
    ))
}

fn path(netns: &OsString) -> PathBuf {
    let given = Path::new(netns);
    if given.components().count() > 1 {
        return given.to_owned();
    }
    Path::new(NAMES).join(given)
}

/// What resolv.conf is to say: the file that the namespace has of its own, which the gateway wrote, or what the
/// gateway says.
fn resolvers(control: &Path, netns: &OsString) -> Result<String, Failure> {
    let own = Path::new(FILES).join(netns).join("resolv.conf");
    if let Some(text) = fs::read_to_string(own).ok().filter(|text| !text.is_empty()) {
        return Ok(text);
    }
    let status = block_on(client::status(control))
        .context("which resolvers the tunnel has, only the gateway can say")?;
    let lines = status
        .dns
        .servers
        .iter()
        .map(|ip| format!("nameserver {ip}\n"));
    Ok(lines.collect())
}

/// The same file with names looked up in files and by DNS only: `resolve`, `mdns` and others ask a daemon.
fn nsswitch(text: &str) -> String {
    let is_hosts = |line: &&str| line.trim_start().starts_with("hosts:");
    let kept = text.lines().filter(|line| !is_hosts(line));
    let lines = kept.chain(["hosts: files dns"]);
    lines.map(|line| format!("{line}\n")).collect()
}

/// A line of /etc/passwd, and the groups of /etc/group that name it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    name: String,
    home: String,
    identity: Identity,
}

fn account(user: &str) -> Result<Account, Failure> {
    let passwd = fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    find(user, &passwd, &group)
        .ok_or_else(|| Failure::usage(anyhow!("there is no user `{user}` in /etc/passwd")))
}

/// passwd(5) and group(5).
fn find(user: &str, passwd: &str, group: &str) -> Option<Account> {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let line = passwd
        .lines()
        .map(fields)
        .find(|fields| fields.len() >= 6 && (fields[0] == user || fields[2] == user))?;
    let (name, home) = (line[0].clone(), line[5].clone());
    let gid = line[3].parse().ok()?;
    let named = group
        .lines()
        .map(fields)
        .filter(|fields| fields.len() == 4 && fields[3].split(',').any(|member| member == name));
    let mut groups: Vec<_> = named.filter_map(|fields| fields[2].parse().ok()).collect();
    groups.push(gid);
    let identity = Identity {
        uid: line[2].parse().ok()?,
        gid,
        groups,
    };
    Some(Account {
        name,
        home,
        identity,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_daemon_is_asked_for_names() {
        let text = "passwd: files systemd\nhosts: mymachines resolve [!UNAVAIL=return] files dns\n";
        assert_eq!(nsswitch(text), "passwd: files systemd\nhosts: files dns\n");
        assert_eq!(nsswitch(""), "hosts: files dns\n");
    }

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\ntorrent:x:990:980::/srv/torrent:/bin/false\n";
        let group = "media:x:700:jellyfin,torrent\nother:x:701:torrents\n";
        let found = find("torrent", passwd, group).unwrap();
        assert_eq!(found.home, "/srv/torrent");
        assert_eq!(
            found.identity,
            Identity {
                uid: 990,
                gid: 980,
                groups: vec![700, 980],
            }
        );
        assert_eq!(find("990", passwd, group), Some(found));
        assert_eq!(find("nobody", passwd, group), None);
        assert_eq!(find("x", passwd, group), None);
    }

    #[test]
    fn a_name_is_that_of_a_named_namespace() {
        assert_eq!(path(&"torrent".into()), Path::new("/run/netns/torrent"));
        assert_eq!(path(&"/proc/7/ns/net".into()), Path::new("/proc/7/ns/net"));
    }
}
