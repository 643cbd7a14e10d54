//! `vpngw status`: what the gateway is doing, for a person or for a program.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use super::block_on;
use super::exit::{Code, Failure};
use crate::control::client;

mod render;
pub(super) mod screen;

use render::{Style, render};

/// The form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Once, for a person.
    Page,
    /// Again every second, in place.
    Watch,
    /// Once, as JSON: [`Status`](crate::control::api::Status).
    Json,
}

/// Prints what the gateway is doing.
///
/// # Errors
/// Nothing usable answered, or the output cannot be written to. While watching, a gateway that does
/// not answer is part of what is shown.
pub fn run(socket: &Path, output: Output) -> Result<Code, Failure> {
    match output {
        Output::Page => page(socket),
        Output::Watch => block_on(watch(socket)),
        Output::Json => json(socket),
    }
}

fn page(socket: &Path) -> Result<Code, Failure> {
    let status = block_on(client::status(socket))?;
    io::stdout().write_all(render(&status, style()).as_bytes())?;
    Ok(Code::from(&status))
}

fn json(socket: &Path) -> Result<Code, Failure> {
    let status = block_on(client::status(socket))?;
    writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&status)?)?;
    Ok(Code::from(&status))
}

/// Until interrupted; the code is that of the last answer.
async fn watch(socket: &Path) -> Result<Code, Failure> {
    let style = style();
    let mut code = Code::NotConnected;
    let page = |answer| match answer {
        Ok(status) => {
            code = Code::from(&status);
            render(&status, style)
        }
        Err(error) => {
            code = Code::NotConnected;
            let error = anyhow::Error::from(error);
            render::problem(&format!("{error:#}"), style)
        }
    };
    screen::refresh(|| client::status(socket), page).await?;
    Ok(code)
}

/// Coloured on a terminal, unless the person asked for none (<https://no-color.org>).
fn style() -> Style {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    if io::stdout().is_terminal() && !unwanted && !dumb {
        Style::Coloured
    } else {
        Style::Plain
    }
}
