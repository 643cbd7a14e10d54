//! `vpngw demo`: shows on one machine what the gateway does, and whether it holds.

mod acts;
mod client;
mod expected;
mod gateway;
mod internet;
mod probe;
mod report;
mod screen;
mod sensor;
mod server;
mod shell;
mod stage;

use self::acts::Demo;

/// The arguments of `vpngw demo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Args {
    /// Leave me in a shell next to the client, with the gateway running
    #[arg(long)]
    pub shell: bool,
}

/// What the demo found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing but WireGuard left.
    Held,
    /// Something else did, or might have.
    Leaked,
}

/// Runs the demo. Must be called while the process has one thread: a user namespace can be entered
/// only then. The calling thread stays in the namespaces it makes.
///
/// # Errors
/// What this machine lacks and what to do about it; what part of the demonstration did not work.
pub fn run(args: Args) -> anyhow::Result<Verdict> {
    let mut demo = Demo::build()?;
    demo.control()?;
    demo.connect()?;
    if args.shell {
        demo.shell()?;
    } else {
        demo.perform()?;
    }
    Ok(demo.verdict())
}
