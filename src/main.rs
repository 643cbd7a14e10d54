//! The `vpngw` program.

use clap::Parser;
use vpngw::cli::{Cli, Command};
use vpngw::commands::exit::{Code, Failure};
use vpngw::commands::{connect, disconnect, healthcheck, status};

fn main() -> Code {
    match dispatch(Cli::parse()) {
        Ok(code) => code,
        Err(Failure { code, error }) => {
            eprintln!("vpngw: {error:#}");
            code
        }
    }
}

fn dispatch(cli: Cli) -> Result<Code, Failure> {
    let shared = cli.shared;
    match cli.command.unwrap_or(Command::Run) {
        Command::Status(flags) => status::run(shared.socket(), flags.output()),
        Command::Healthcheck => healthcheck::run(shared.socket()),
        Command::Connect => connect::run(shared.socket()),
        Command::Disconnect => disconnect::run(shared.socket()),
        Command::Run
        | Command::Engine { .. }
        | Command::Check
        | Command::Plan
        | Command::Explain { .. }
        | Command::Cleanup
        | Command::Demo { .. } => Err(Failure::usage(anyhow::anyhow!(
            "this build has no such command"
        ))),
    }
}
