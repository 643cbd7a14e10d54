//! What the machine and the container offer the gateway: pure.

use std::collections::BTreeSet;

use super::facts::{Facts, Kin};
use super::{Finding, Layout};
use crate::config::Inbound;
use crate::sys::privilege::{ENGINE, NOBODY};

/// What a gateway needs here, and what would make it better.
pub(super) fn all(facts: &Facts, layout: Layout) -> Vec<Finding> {
    let mut all = vec![kernel(facts)];
    let here = match layout {
        Layout::Shared | Layout::Sealed | Layout::NoGateway => true,
        Layout::SealedEngine => false,
    };
    if here {
        all.extend([tun(facts), net_admin(facts, layout), net_raw(facts)]);
        all.extend(sysctls(facts));
    }
    // On an engine's side no rules hold the others.
    if layout == Layout::Shared {
        all.extend(uplinks(facts));
    }
    if layout != Layout::NoGateway {
        all.extend(receive(facts));
    }
    if layout == Layout::Shared || layout == Layout::Sealed {
        all.extend(published(facts));
        all.extend(engine(facts, layout));
    }
    all
}

/// Whether others here are who the engine is, as far as both are visible.
fn engine(facts: &Facts, layout: Layout) -> Option<Finding> {
    const CHECK: &str = "engine's user";
    let engines = &facts.joiners.engines;
    let users: Vec<_> = engines.iter().map(ToString::to_string).collect();
    let users = users.join(", ");
    let kin: Vec<_> = facts.joiners.kin.iter().map(kin).collect();
    if !kin.is_empty() {
        let why = format!(
            "can end the engine, being the same user: {}",
            kin.join(", ")
        );
        let change = "run joined programs as a user of their own: `vpngw exec --user NAME`, `user:`, `User=`";
        return Some(Finding::hint(CHECK, why).change(change));
    }
    if engines.contains(&NOBODY) {
        let change = match layout {
            // It was the first choice; somebody has it, or it does not exist here.
            Layout::Shared => format!("take user {ENGINE} out of /etc/passwd"),
            Layout::Sealed | Layout::SealedEngine | Layout::NoGateway => {
                format!("`[sealed] engine_user = {ENGINE}` for both halves, which nobody else is")
            }
        };
        let why = "is `nobody`: what is joined as that user later could end the engine";
        return Some(Finding::hint(CHECK, why).change(change));
    }
    (!engines.is_empty()).then(|| Finding::holds(CHECK, format!("nobody here is user {users}")))
}

fn kin(kin: &Kin) -> String {
    format!("{} (pid {}, user {})", kin.name, kin.pid, kin.user)
}

fn kernel(facts: &Facts) -> Finding {
    const CHECK: &str = "kernel";
    let release = &facts.kernel;
    match (facts.is_at_least((5, 16)), facts.is_at_least((6, 9))) {
        (Some(true), Some(true)) => Finding::holds(CHECK, format!("Linux {release} has all that is used")),
        (Some(true), _) => Finding::hint(
            CHECK,
            format!("Linux {release} knows no owned tables: a joined program with NET_ADMIN can change the rules"),
        )
        .change("Linux 6.9 or newer"),
        (Some(false), _) => Finding::hint(
            CHECK,
            format!("Linux {release} has no netdev egress hook: in the shared topology raw frames are not held"),
        )
        .change("Linux 5.16 or newer, or the sealed topology"),
        (None, _) => Finding::unknown(CHECK, format!("the release {release:?} cannot be read")).change("mount /proc"),
    }
}

fn tun(facts: &Facts) -> Finding {
    const CHECK: &str = "/dev/net/tun";
    match (facts.tun_node, &facts.tunnel) {
        (true, _) => Finding::holds(CHECK, "is there"),
        (false, Some(tunnel)) => Finding::holds(
            CHECK,
            format!("not in this container, which needs none: {tunnel} is there"),
        ),
        (false, None) => Finding::fails(CHECK, "is missing: there can be no tunnel")
            .change("`devices: [/dev/net/tun]`"),
    }
}

fn net_admin(facts: &Facts, layout: Layout) -> Finding {
    const CHECK: &str = "NET_ADMIN";
    match (facts.net_admin, layout) {
        (true, _) => Finding::holds(CHECK, "this process has it, and sees the rules"),
        (false, Layout::NoGateway) => Finding::fails(
            CHECK,
            "a gateway started like this process could load no rules",
        )
        .change("`cap_add: [NET_ADMIN]`"),
        (false, Layout::Shared | Layout::Sealed | Layout::SealedEngine) => {
            Finding::hint(CHECK, "this process has none, and cannot see the rules")
        }
    }
}

fn net_raw(facts: &Facts) -> Finding {
    const CHECK: &str = "NET_RAW";
    if facts.net_raw {
        Finding::holds(CHECK, "this process has it, and can watch frames")
    } else {
        Finding::hint(
            CHECK,
            "this process has none: `vpngw leaktest` and `vpngw capture` cannot watch frames from it",
        )
    }
}

fn sysctls(facts: &Facts) -> Option<Finding> {
    const CHECK: &str = "/proc/sys";
    match facts.sysctls_writable {
        Some(true) => None,
        Some(false) => Some(
            Finding::hint(CHECK, "is read-only: kernel parameters stay as they are, and the rules alone do the work")
                .change("`sysctls: [net.ipv6.conf.all.disable_ipv6=1, net.ipv4.conf.all.arp_ignore=1, net.ipv4.conf.all.arp_announce=2]`"),
        ),
        None => Some(Finding::hint(CHECK, "is not there: kernel parameters stay as they are")),
    }
}

fn uplinks(facts: &Facts) -> Option<Finding> {
    let names: Vec<_> = facts.uplinks.iter().map(|it| it.name.to_string()).collect();
    (names.len() > 1).then(|| {
        let why = format!(
            "{} lead out; the one of the default route is used, and the others for LAN exceptions of their networks only",
            names.join(", ")
        );
        let change = "one network for the service, or `VPNGW_UPLINK_DEVICE` with the name of one";
        Finding::hint("uplinks", why).change(change)
    })
}

/// LAN exceptions for ports where nobody waits.
fn published(facts: &Facts) -> Option<Finding> {
    const CHECK: &str = "LAN exceptions";
    let inbound = &facts.said()?.lan.inbound;
    let Some(bound) = &facts.bound else {
        return (!inbound.is_empty())
            .then(|| Finding::hint(CHECK, "who listens here cannot be read"));
    };
    let waits = |rule: &&Inbound| {
        let mut same = bound.iter().filter(|it| it.port == rule.to());
        same.any(|it| it.address.is_some_and(|address| !address.is_loopback()))
    };
    // Many networks may be let in at one port.
    let mut ports = BTreeSet::new();
    let each = inbound.iter().filter(|rule| ports.insert(rule.to()));
    let (used, idle): (Vec<&Inbound>, Vec<_>) = each.partition(waits);
    match (used.len(), idle.as_slice()) {
        (0, []) => None,
        (used, []) => Some(Finding::holds(
            CHECK,
            format!("somebody listens at each port that is open to the LAN ({used})"),
        )),
        (_, idle) => {
            let ports: Vec<_> = idle.iter().map(|rule| rule.to().to_string()).collect();
            let ports = ports.join(", ");
            Some(
                Finding::hint(CHECK, format!("nobody listens at {ports} for the LAN"))
                    .change("start the program, let it listen on all addresses, or take the port out of VPNGW_LAN_INBOUND"),
            )
        }
    }
}

/// Receive offload: one packet of many, before they are decrypted one by one.
fn receive(facts: &Facts) -> Option<Finding> {
    let slow = facts
        .uplinks
        .iter()
        .find(|it| it.veth && it.gro == Some(false))?;
    let name = &slow.name;
    Some(
        Finding::hint(
            "speed",
            format!(
                "{name} does not join what it receives (GRO), so each packet costs its full price"
            ),
        )
        .change(format!(
            "`ethtool -K {name} gro on`, by whoever has NET_ADMIN there"
        )),
    )
}
