//! `vpngw healthcheck`: 0 or 1, and one line, for a container's health check.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::timeout;

use super::block_on;
use super::exit::{Code, Failure};
use crate::control::client::{self, Error};
use crate::link::{Health, Link, ToEngine, ToWarden};
use crate::sys::seqpacket;

/// How long a warden may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the gateway once. Docker knows the codes 0 and 1 only. Beside the warden of the sealed topology, where
/// nobody answers on the control socket, the warden is asked, who knows what its engine said.
///
/// # Errors
/// Nothing usable answered; that is code 1, too.
pub fn run(control: &Path, warden: &Path) -> Result<Code, Failure> {
    let health = block_on(async {
        match client::health(control).await {
            Err(Error::NotRunning(_) | Error::Denied(_)) if warden.exists() => {
                timeout(PATIENCE, ask(warden))
                    .await
                    .context("the warden does not answer")?
            }
            Ok(client::Health { ready, line }) => Ok(Health { ready, line }),
            Err(error) => Err(error.into()),
        }
    })?;
    writeln!(io::stdout(), "{}", health.line)?;
    Ok(if health.ready {
        Code::Ok
    } else {
        Code::NotConnected
    })
}

async fn ask(warden: &Path) -> anyhow::Result<Health> {
    let socket = seqpacket::dial(warden).with_context(|| {
        let path = warden.display();
        format!("no warden answers at {path}")
    })?;
    let link = Link::new(socket)?;
    link.send(&ToWarden::AskHealth, &[]).await?;
    match link.receive::<ToEngine>().await? {
        Some((ToEngine::Health(health), _)) => Ok(health),
        Some((ToEngine::Declined(why), _)) => bail!("the warden does not say: {why}"),
        // Any other word is no answer to this question.
        Some(_) | None => bail!(
            "the warden at {} says nothing of its health",
            warden.display()
        ),
    }
}
