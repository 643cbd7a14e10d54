//! What `run` would do here, without doing it: for `plan` and `explain`.

use std::net::SocketAddrV4;
use std::path::Path;

use anyhow::Context;

use super::exit::Failure;
use super::load;
use crate::config::{Config, Host};
use crate::net::{Fwmark, IfName, Uplink};
use crate::plan::Plan;
use crate::policy::{Hole, Holes, Policy};
use crate::ruleset::{Kernel, Lack, Ruleset};
use crate::sys::{link, nft, route};

/// Stands for the source port of our socket, which is picked at random when it opens.
const SOME_PORT: u16 = 40000;

/// Everything that follows from the configuration in this namespace, connected to the first server.
pub struct Preview {
    /// The configuration.
    pub config: Config,
    /// The uplink as it is now.
    pub uplink: Option<Uplink>,
    /// What may flow.
    pub policy: Policy,
    /// The same in nftables terms, for `kernel`.
    pub ruleset: Ruleset,
    /// What the rules are for.
    pub kernel: Asked,
    /// The rest of what changes.
    pub plan: Plan,
}

/// For which kernel rules are composed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// This one, which said that it takes them; and what they have to do without.
    This(Vec<Lack>),
    /// One with all that is used: this one was not asked, for this reason.
    Another(String),
}

/// Looks at configuration and namespace; changes nothing.
///
/// # Errors
///
/// What is wrong with the configuration, or why the kernel cannot be asked.
pub fn preview(config: Option<&Path>) -> Result<Preview, Failure> {
    let config = load::load(config).map_err(Failure::usage)?.config;
    let links = link::addresses().context("look at the addresses of this namespace")?;
    let uplink = route::observe(&links, config.uplink.as_ref(), &config.tunnel.device)
        .context("look at the routes of this namespace")?;
    let devices = nft::devices().context("look at the devices of this namespace")?;
    let mark = config.tunnel.fwmark.map_or(Fwmark::DEFAULT, Fwmark);
    let hole = first_endpoint(&config).map(|remote| {
        let source_port = config.tunnel.listen_port.unwrap_or(SOME_PORT);
        Hole {
            mark,
            source_port,
            remote,
        }
    });
    let holes = Holes {
        endpoint: hole,
        resolver: None,
    };
    let shares = config.shares(uplink.as_ref(), &links);
    let policy = match &uplink {
        Some(uplink) => Policy::of(&config, uplink, holes).map_err(Failure::usage)?,
        None => Policy::without_uplink(&config),
    };
    let policy = policy.shared_out(&shares);
    let (kernel, asked) = ask(&devices);
    let ruleset = Ruleset::of(&policy, &devices, kernel);
    let plan = Plan::of(&config, uplink.as_ref(), mark, hole.as_ref()).shared_out(&shares);
    Ok(Preview {
        config,
        uplink,
        policy,
        ruleset,
        kernel: asked,
        plan,
    })
}

/// What this kernel takes. Names of devices to come are left out: they are of no use to a reader.
fn ask(devices: &[IfName]) -> (Kernel, Asked) {
    match nft::ask(devices) {
        Ok(kernel) => (kernel, Asked::This(kernel.lacks())),
        Err(error) => {
            let all = Kernel {
                absent_devices: false,
                ..Kernel::FULL
            };
            (all, Asked::Another(error.to_string()))
        }
    }
}

/// The first server that is known by address. A name is looked up only when the gateway runs.
fn first_endpoint(config: &Config) -> Option<SocketAddrV4> {
    config
        .peers
        .iter()
        .find_map(|peer| match peer.endpoint.host {
            Host::Address(ip) => Some(SocketAddrV4::new(ip, peer.endpoint.port)),
            Host::Name(_) => None,
        })
}
