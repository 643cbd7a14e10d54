//! The command line.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, value_parser};

use crate::commands::exec::Wanted;
use crate::commands::run::{Meant, Place};
use crate::commands::status::Output;
use crate::commands::{blocked, capture, check, explain, rejoin};
use crate::config::{SEALED_SOCKET, SOCKET};

/// A VPN gateway that fails closed
///
/// Holds the network namespace that a torrent client lives in. The only way out is
/// the WireGuard tunnel: from the first instruction on, and after the gateway's death.
/// Without a command, it runs.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "vpngw", version, verbatim_doc_comment, after_help = CODES)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub shared: Shared,
    /// What to do; [`Command::Run`] when nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

const CODES: &str = "\
Exit codes:
  0  connected, or done
  1  not connected, or not running
  2  wrong usage or configuration
  3  blocked by a leak
  4  blocked otherwise";

/// What every command takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Shared {
    /// Configuration: vpngw.toml, or a wg-quick file
    ///
    /// Unless given, the first one found at the usual places.
    #[arg(long, value_name = "FILE", env = "VPNGW_CONFIG", global = true)]
    config: Option<OsString>,
    /// Control socket [default: /run/vpngw/vpngw.sock]
    #[arg(long, value_name = "PATH", env = "VPNGW_SOCKET", global = true)]
    socket: Option<OsString>,
}

impl Shared {
    /// The configuration that was named. An empty name, as compose files pass it for a variable that is
    /// not set, is none.
    pub fn config(&self) -> Option<&Path> {
        named(self.config.as_deref())
    }

    /// The socket that was named.
    pub fn named_socket(&self) -> Option<&Path> {
        named(self.socket.as_deref())
    }

    /// Where a client finds the gateway. The gateway itself prefers `[control] socket` to the default.
    pub fn socket(&self) -> &Path {
        self.named_socket().unwrap_or_else(|| Path::new(SOCKET))
    }
}

fn named(name: Option<&OsStr>) -> Option<&Path> {
    name.filter(|name| !name.is_empty()).map(Path::new)
}

/// What these arguments, wrong as they are, were meant for.
pub fn meant(arguments: impl Iterator<Item = OsString>) -> Meant {
    let mut commands = Cli::command();
    // `help` is among them only then.
    commands.build();
    let named = |argument: &OsString| {
        let mut all = commands.get_subcommands();
        all.find(|command| argument == command.get_name())
    };
    let arguments: Vec<_> = arguments.collect();
    match arguments.iter().find_map(named) {
        Some(command) if ["run", "warden"].contains(&command.get_name()) => Meant::Closing,
        Some(_) => Meant::Other,
        None => Meant::Unknown,
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Close the namespace, then open the tunnel and keep it open
    Run(Run),
    /// Sealed topology: close a namespace without uplink and hold it for an engine
    Warden(Warden),
    /// Sealed topology: open the tunnel for the warden of another namespace
    Engine(Engine),
    /// Show what the gateway is doing
    Status(Status),
    /// Show what the leak sensors saw; exit 3 if something left
    Leaks {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Try the ways out of this namespace; exit 3 if one is open, 1 if that cannot be told
    ///
    /// Sends to documentation addresses only. Works in a container joined to the gateway, too.
    Leaktest {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
        /// Send a raw frame even where it may leave: a running gateway then blocks everything
        #[arg(long)]
        raw: bool,
    },
    /// Say which guarantees hold here, which do not and why, and what to change; exit 1 if not all
    ///
    /// Looks and changes nothing. Works in a container joined to the gateway, too.
    Doctor {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what the kill switch stopped
    Blocked(Blocked),
    /// Record what crosses the uplink and what is stopped, as a file for Wireshark
    Capture(Capture),
    /// Exit 0 if the tunnel is usable, 1 if not
    Healthcheck(Healthcheck),
    /// Check the configuration and print where each value came from
    Check(Check),
    /// List the servers that the configuration's choice leaves of the provider's list
    Servers {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print every change that `run` would make to the kernel; change nothing
    Plan,
    /// Say whether a packet would pass, and by which rule
    Explain(Explain),
    /// Print the version
    Version,
    /// Leave `blocked`, or start over with the next server
    Connect,
    /// Block everything but loopback until `connect`
    Disconnect,
    /// Remove the rules and routes that an ended gateway left in force
    Cleanup,
    /// Run a program in the namespace of a gateway, with no other way to look up names
    Exec(Exec),
    /// Docker, shared topology: restart programs that lost their network when the gateway was restarted
    Rejoin(Rejoin),
    /// Show it at work between namespaces of this machine
    Demo {
        /// Leave a shell open inside
        #[arg(long)]
        shell: bool,
    },
}

impl Command {
    /// What no command at all means.
    pub fn run() -> Self {
        Self::Run(Run::default())
    }
}

/// Where the gateway may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct Run {
    /// Close this network namespace even if it looks like the machine's own
    #[arg(long)]
    allow_host: bool,
}

impl Run {
    /// Which namespace may be closed.
    pub fn place(self) -> Place {
        if self.allow_host {
            Place::Anywhere
        } else {
            Place::MadeForUs
        }
    }
}

/// The privileged half, by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Warden {
    /// Where it may run.
    #[command(flatten)]
    pub run: Run,
    /// Where it listens [default: `[sealed] socket`, /run/vpngw/warden.sock]
    #[arg(long, value_name = "PATH")]
    socket_of_warden: Option<OsString>,
}

impl Warden {
    /// The socket that was named.
    pub fn socket(&self) -> Option<&Path> {
        named(self.socket_of_warden.as_deref())
    }
}

/// The unprivileged half, by itself or started by `run`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Engine {
    /// Inherited socket to the privileged half
    #[arg(
        long,
        value_name = "N",
        hide = true,
        conflicts_with = "socket_of_warden"
    )]
    pub link_fd: Option<RawFd>,
    /// Where its warden listens [default: `[sealed] socket`, /run/vpngw/warden.sock]
    #[arg(long, value_name = "PATH")]
    socket_of_warden: Option<OsString>,
}

impl Engine {
    /// The socket that was named.
    pub fn socket(&self) -> Option<&Path> {
        named(self.socket_of_warden.as_deref())
    }
}

/// What is run in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Exec {
    /// Network namespace: a name that `ip netns` shows, or the path of a file
    #[arg(long, value_name = "NAME", required_unless_present = "pid")]
    netns: Option<OsString>,
    /// The namespace of this process
    #[arg(long, value_name = "N", conflicts_with = "netns")]
    pid: Option<u32>,
    /// Run it as this user of /etc/passwd; as root it keeps what acts on files
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Exec {
    /// The one form that the flags ask for.
    pub fn wanted(self) -> Wanted {
        let of_process = self.pid.map(|pid| format!("/proc/{pid}/ns/net").into());
        Wanted {
            netns: self.netns.or(of_process).unwrap_or_default(),
            user: self.user,
            command: self.command,
        }
    }
}

/// Whom a health check asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Healthcheck {
    /// Where the warden listens: asked if nobody answers on the control socket
    /// [default: /run/vpngw/warden.sock]
    #[arg(long, value_name = "PATH", env = "VPNGW_SEALED_SOCKET")]
    socket_of_warden: Option<OsString>,
}

impl Healthcheck {
    /// The warden's socket.
    pub fn warden(&self) -> &Path {
        named(self.socket_of_warden.as_deref()).unwrap_or_else(|| Path::new(SEALED_SOCKET))
    }
}

/// How the status is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct Status {
    /// Refresh in place once a second
    #[arg(long, short, conflicts_with = "json")]
    pub watch: bool,
    /// Print the whole state as JSON
    #[arg(long)]
    pub json: bool,
}

impl Status {
    /// The one form that the flags ask for.
    pub fn output(self) -> Output {
        if self.json {
            Output::Json
        } else if self.watch {
            Output::Watch
        } else {
            Output::Page
        }
    }
}

/// What is recorded, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Capture {
    /// Where to: a new file, in pcapng
    #[arg(long, short, value_name = "FILE")]
    write: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    /// Stop after this time
    #[arg(long, default_value = "5", value_name = "N", value_parser = minutes)]
    minutes: Duration,
    /// Stop before the file is larger than this (MiB)
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = value_parser!(u64).range(1..=1 << 20))]
    megabytes: u64,
    /// Keep the encrypted content of WireGuard messages too
    #[arg(long)]
    whole: bool,
}

impl Capture {
    /// What the flags ask for.
    pub fn wanted(self) -> capture::Wanted {
        capture::Wanted {
            file: self.write,
            replace: self.force,
            time: self.minutes,
            bytes: self.megabytes << 20,
            whole: self.whole,
        }
    }
}

fn minutes(text: &str) -> Result<Duration, String> {
    // A week is longer than anybody reads.
    let most = 7.0 * 24.0 * 60.0;
    match text.parse::<f64>() {
        Ok(minutes) if minutes > 0.0 && minutes <= most => {
            Ok(Duration::from_secs_f64(minutes * 60.0))
        }
        Ok(_) | Err(_) => Err(format!(
            "a number of minutes, more than 0 and at most {most}"
        )),
    }
}

/// Whose dependants are restarted.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Rejoin {
    /// The gateway's container, or its service of a compose file
    #[arg(long, value_name = "NAME")]
    gateway: String,
    /// Docker's socket
    #[arg(long, value_name = "PATH", default_value = "/var/run/docker.sock")]
    docker_socket: PathBuf,
}

impl Rejoin {
    /// What the flags ask for.
    pub fn wanted(self) -> rejoin::Wanted {
        rejoin::Wanted {
            gateway: self.gateway,
            docker: self.docker_socket,
        }
    }
}

/// What the configuration is checked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct Check {
    /// For `vpngw engine`, the half of the sealed topology that has the tunnel
    #[arg(long)]
    sealed: bool,
}

impl Check {
    /// What the flags ask for.
    pub fn wanted(self) -> check::For {
        if self.sealed {
            check::For::Engine
        } else {
            check::For::Run
        }
    }
}

/// Which packet is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Explain {
    /// Where it goes: 1.1.1.1:53/udp; with --from, the port here: tcp/8080
    #[arg(value_name = "TARGET")]
    target: String,
    /// From outside: who wants to reach a program here
    #[arg(long, value_name = "ADDR")]
    from: Option<IpAddr>,
}

impl Explain {
    /// What the flags ask.
    pub fn question(self) -> explain::Question {
        match self.from {
            Some(client) => explain::Question::From(client, self.target),
            None => explain::Question::To(self.target),
        }
    }
}

/// How the stopped packets are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct Blocked {
    /// Refresh in place once a second
    #[arg(long, short, conflicts_with = "json")]
    follow: bool,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

impl Blocked {
    /// The one form that the flags ask for.
    pub fn output(self) -> blocked::Output {
        if self.json {
            blocked::Output::Json
        } else if self.follow {
            blocked::Output::Follow
        } else {
            blocked::Output::Table
        }
    }
}

#[cfg(test)]
mod tests;
