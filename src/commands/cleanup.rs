//! `vpngw cleanup`: removes the rules and routes that an ended gateway left in force.

use std::path::Path;

use anyhow::Context;

use super::exit::{Code, Failure};
use crate::plan;
use crate::sys::{nft, resolv, route, socket};

/// Opens the namespace again. A running gateway is left alone.
///
/// # Errors
///
/// A gateway answers on the socket, or the kernel refused a step.
pub fn run(control: &Path) -> Result<Code, Failure> {
    if socket::answers(control) {
        return Err(Failure::usage(anyhow::anyhow!(
            "a gateway is running (it answers at {}); stop it first",
            control.display()
        )));
    }
    if tunnel_is_held().context("look at the routes")? {
        return Err(Failure::usage(anyhow::anyhow!(
            "a gateway is running: its tunnel device is there; stop it first, or name its socket"
        )));
    }
    // The rules last: while anything is left to do they hold.
    route::restore().context("give back the routes")?;
    resolv::restore(Path::new("/etc/resolv.conf")).context("give back /etc/resolv.conf")?;
    nft::clear().context("remove the rules")?;
    println!("rules, routes and resolv.conf are as they were: nothing is filtered any more");
    Ok(Code::Ok)
}

/// Whether somebody holds the tunnel device: it goes with the gateway, and its route with it.
fn tunnel_is_held() -> Result<bool, route::RouteError> {
    Ok(route::routes()?.iter().any(|route| {
        let ours = route.protocol == plan::PROTOCOL && route.kind == plan::Kind::Unicast;
        ours && route.is_default()
    }))
}
