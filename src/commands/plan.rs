//! `vpngw plan`: prints every change of the kernel, and makes none.

use std::io::Write;

use anyhow::Context as _;

use super::exit::{Code, Failure};
use super::preview::Preview;
use crate::config::Config;
use crate::net::Uplink;
use crate::plan::Plan;

/// Prints the firewall and the plan as one commented text.
///
/// # Errors
/// Where `out` cannot be written.
pub fn run(preview: &Preview, out: &mut impl Write) -> Result<Code, Failure> {
    let Preview {
        config,
        uplink,
        ruleset,
        plan,
        ..
    } = preview;
    let text = text(config, uplink.as_ref(), &ruleset.to_string(), plan);
    out.write_all(text.as_bytes()).context("standard output")?;
    Ok(Code::Ok)
}

fn text(config: &Config, uplink: Option<&Uplink>, ruleset: &str, plan: &Plan) -> String {
    let seen = uplink.map_or_else(
        || "no uplink at the moment".to_owned(),
        |uplink| format!("uplink {} as it is now", uplink.device),
    );
    let peer = config.peers.first().map_or_else(String::new, |peer| {
        let name = peer.name.as_deref().unwrap_or("the first peer");
        format!(", connected to {name}")
    });
    let ruleset = ruleset.trim_end();
    format!(
        "\
# What `vpngw run` sets up: {seen}{peer}.
# Nothing was changed. vpngw speaks to the kernel directly; the commands say the same.

# --- firewall: loaded first, in one transaction, before anything below

nft -f - <<'RULES'
{ruleset}
RULES

# --- network

{plan}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Endpoint, Host, Lan, Log, LogFormat, LogLevel, Offload, Peer};
    use crate::config::{PublicKey, Secret, Tunnel};
    use crate::net::Fwmark;

    #[test]
    fn the_text_is_a_script_that_names_no_key() {
        let config = Config {
            tunnel: Tunnel {
                device: "tun0".parse().unwrap(),
                addresses: vec!["10.64.0.2/32".parse().unwrap()],
                mtu: 1420,
                dns: Vec::new(),
                private: Vec::new(),
                offload: Offload::Auto,
                private_key: Secret::new([7; 32]),
                listen_port: None,
                fwmark: None,
            },
            peers: vec![Peer {
                name: Some("se-mma".to_owned()),
                public_key: PublicKey([2; 32]),
                preshared_key: None,
                endpoint: Endpoint {
                    host: Host::Name("vpn.example.net".to_owned()),
                    port: 51820,
                },
                keepalive: None,
                allowed_ips: Vec::new(),
            }],
            uplink: None,
            lan: Lan::default(),
            forward: Vec::new(),
            metrics: None,
            control: "/run/vpngw/vpngw.sock".into(),
            log: Log {
                level: LogLevel::Info,
                format: LogFormat::Text,
            },
        };
        let plan = Plan::of(&config, None, Fwmark(1), None);
        let mut out = Vec::new();
        run(&config, None, "table inet vpngw {\n}\n", &plan, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for wanted in ["connected to se-mma", "table inet vpngw {", "dev tun0"] {
            assert!(text.contains(wanted), "{text}");
        }
        let command = |line: &str| {
            let first = line.split(' ').next().unwrap_or_default();
            ["", "#", "ip", "sysctl", "nft"].contains(&first)
        };
        let (script, rest) = text.split_once("<<'RULES'\n").unwrap();
        let after = rest.split_once("\nRULES\n").unwrap().1;
        for line in script.lines().chain(after.lines()) {
            assert!(command(line), "{line}");
        }
    }
}
