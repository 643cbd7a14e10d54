//! `vpngw plan`: prints every change of the kernel, and makes none.

use std::io::Write;

use anyhow::Context as _;

use super::exit::{Code, Failure};
use super::kernel::release;
use super::preview::{Asked, Preview};
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
        kernel,
        plan,
        ..
    } = preview;
    let kernel = about(kernel, &release());
    let text = text(
        config,
        uplink.as_ref(),
        (&ruleset.to_string(), &kernel),
        plan,
    );
    out.write_all(text.as_bytes()).context("standard output")?;
    Ok(Code::Ok)
}

/// For which kernel the rules are, as comments.
fn about(asked: &Asked, release: &str) -> String {
    match asked {
        Asked::This(lacks) => {
            let mut text =
                format!("# This kernel (Linux {release}) takes these rules: it was asked.\n");
            for lack in lacks {
                text += &format!("# {lack}.\n");
            }
            text
        }
        Asked::Another(why) => format!(
            "# These rules are for Linux 5.16 or newer with nft_log and nft_reject_inet. This kernel\n\
             # (Linux {release}) could not be asked: {why}.\n"
        ),
    }
}

fn text(
    config: &Config,
    uplink: Option<&Uplink>,
    (ruleset, kernel): (&str, &str),
    plan: &Plan,
) -> String {
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
{kernel}
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
    use crate::ruleset::{Kernel, Lack, Ruleset};

    #[test]
    fn the_text_is_a_script_that_names_no_key() {
        let config = example::config();
        let policy = Policy::without_uplink(&config);
        let preview = Preview {
            uplink: None,
            ruleset: Ruleset::of(&policy, &[], Kernel::FULL),
            policy,
            kernel: Asked::This(vec![Lack::EgressHook]),
            plan: Plan::of(&config, None, Fwmark::DEFAULT, None),
            config,
        };
        let mut out = Vec::new();
        run(&preview, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for wanted in [
            "connected to home",
            "it was asked",
            "no netdev egress hook",
            "table inet vpngw {",
            "dev tun0",
        ] {
            assert!(text.contains(wanted), "{text}");
        }
        let other = about(
            &Asked::Another("CAP_NET_ADMIN is needed".to_owned()),
            "5.10.0",
        );
        assert!(other.contains("Linux 5.16 or newer"), "{other}");
        assert!(
            other.contains("(Linux 5.10.0) could not be asked: CAP_NET_ADMIN"),
            "{other}"
        );
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
