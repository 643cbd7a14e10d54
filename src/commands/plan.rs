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
    use crate::config::example;
    use crate::net::Fwmark;
    use crate::policy::Policy;
    use crate::ruleset::{Kernel, Ruleset};

    #[test]
    fn the_text_is_a_script_that_names_no_key() {
        let config = example::config();
        let policy = Policy::without_uplink(&config);
        let preview = Preview {
            uplink: None,
            ruleset: Ruleset::of(&policy, &[], Kernel::FULL),
            policy,
            plan: Plan::of(&config, None, Fwmark::DEFAULT, None),
            config,
        };
        let mut out = Vec::new();
        run(&preview, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for wanted in ["connected to home", "table inet vpngw {", "dev tun0"] {
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
