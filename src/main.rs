//! The `vpngw` program.

use std::io::{self, Write as _};
use std::time::Instant;

use clap::Parser;
use vpngw::cli::{self, Cli, Command};
use vpngw::commands::exit::{Code, Failure};
use vpngw::commands::{
    blocked, capture, check, cleanup, connect, demo, disconnect, doctor, engine, exec, explain,
    healthcheck, leaks, leaktest, load, log, plan, preview, rejoin, run, servers, status, warden,
};

fn main() -> Code {
    // Before anything else: how soon the kill switch is armed counts from here.
    let begun = Instant::now();
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        if error.use_stderr() {
            run::close_if_meant(cli::meant(std::env::args_os().skip(1)));
        }
        error.exit()
    });
    let outcome = dispatch(cli, begun);
    log::finish();
    match outcome {
        Ok(code) => code,
        Err(Failure { code, error }) => {
            eprintln!("vpngw: {error:#}");
            code
        }
    }
}

fn dispatch(cli: Cli, begun: Instant) -> Result<Code, Failure> {
    let shared = cli.shared;
    let config = shared.config();
    let mut out = io::stdout().lock();
    match cli.command.unwrap_or_else(Command::run) {
        Command::Run(flags) => run::run(config, shared.named_socket(), flags.place(), begun),
        Command::Warden(flags) => warden::run(config, flags.socket(), flags.run.place(), begun),
        Command::Engine(flags) => match flags.link_fd {
            Some(link_fd) => engine::run(link_fd),
            None => engine::run_sealed(engine::Paths {
                config: config.map(Into::into),
                control: shared.named_socket().map(Into::into),
                warden: flags.socket().map(Into::into),
            }),
        },
        Command::Status(flags) => status::run(shared.socket(), flags.output()),
        Command::Leaks { json } => leaks::run(shared.socket(), json),
        Command::Leaktest { json, raw } => {
            let raw = if raw {
                leaktest::RawFrame::Always
            } else {
                leaktest::RawFrame::WhereHeld
            };
            leaktest::run(json, raw, shared.socket())
        }
        Command::Doctor { json } => doctor::run(shared.socket(), json),
        Command::Blocked(flags) => blocked::run(shared.socket(), flags.output()),
        Command::Capture(flags) => capture::run(&flags.wanted()),
        Command::Healthcheck(flags) => healthcheck::run(shared.socket(), flags.warden()),
        Command::Version => {
            writeln!(out, "vpngw {}", env!("CARGO_PKG_VERSION")).map_err(anyhow::Error::from)?;
            Ok(Code::Ok)
        }
        Command::Connect => connect::run(shared.socket()),
        Command::Disconnect => disconnect::run(shared.socket()),
        Command::Check(flags) => {
            let loaded = check::load(config, flags.wanted());
            Ok(check::run(loaded, &mut out)?)
        }
        Command::Servers { json } => Ok(servers::run(load::servers(config), json, &mut out)?),
        Command::Plan => plan::run(&preview::preview(config)?, &mut out),
        Command::Explain(flags) => {
            explain::run(config, shared.socket(), &flags.question(), &mut out)
        }
        Command::Cleanup => cleanup::run(shared.socket()),
        Command::Exec(flags) => exec::run(shared.socket(), &flags.wanted()),
        Command::Rejoin(flags) => rejoin::run(&flags.wanted()),
        Command::Demo { shell } => match demo::run(demo::Args { shell })? {
            demo::Verdict::Held => Ok(Code::Ok),
            demo::Verdict::Leaked => Ok(Code::Leak),
        },
    }
}
