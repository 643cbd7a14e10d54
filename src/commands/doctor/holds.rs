//! The guarantees, in the namespace of the joined programs: pure.

use std::net::Ipv4Addr;

use super::facts::{Facts, Joiner, Rules};
use super::{Finding, Layout};
use crate::control::api::Ipv6;
use crate::ruleset::Lack;
use crate::warden::Inexact;

/// Where Docker's own resolver listens in the namespaces of its networks.
const DOCKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// What is promised to and about joined programs.
pub(super) fn inside(facts: &Facts, layout: Layout) -> Vec<Finding> {
    // Without an uplink there is nothing that rules would have to hold back.
    let sealed = layout == Layout::Sealed && facts.uplinks.is_empty();
    let mut all = vec![rules(facts), frames(facts, sealed), owner(facts, sealed)];
    all.extend(modules(facts));
    all.extend([
        sensors(facts, sealed),
        accounting(facts, sealed),
        leaks(facts),
    ]);
    all.extend([joiners(facts, sealed), ipv6(facts), names(facts)]);
    all.extend(docker(facts));
    all
}

/// What the gateway says of rules that cannot be seen from here.
pub(super) fn said_of_rules(facts: &Facts) -> Finding {
    const CHECK: &str = "kill switch";
    if lacks(facts, Lack::Rules) {
        return without_rules();
    }
    match facts.said().map(|status| status.kill_switch.armed) {
        Some(true) => Finding::holds(CHECK, "the warden says that its rules are in force"),
        Some(false) => Finding::fails(CHECK, "the warden has not confirmed its rules")
            .change("is `vpngw warden` running? Look at its log"),
        None => Finding::unknown(CHECK, "nobody says whether the rules are in force")
            .change("run it in the gateway's container"),
    }
}

/// Whether the gateway says that the kernel does not have this.
fn lacks(facts: &Facts, lack: Lack) -> bool {
    let said = facts.said();
    said.is_some_and(|status| status.kill_switch.lacks.contains(&lack))
}

/// The operator has said that the sealed namespace alone is enough; what rests on rules does not hold all the same.
fn without_rules() -> Finding {
    Finding::fails("kill switch", Lack::Rules.to_string()).change(Lack::Rules.cure())
}

/// Modules without which the rules hold, and somebody is not told.
pub(super) fn modules(facts: &Facts) -> impl Iterator<Item = Finding> {
    let missing = [("nft_log", Lack::Log), ("nft_reject_inet", Lack::Reject)]
        .into_iter()
        .filter(|(_, lack)| lacks(facts, *lack));
    missing.map(|(check, lack)| Finding::hint(check, lack.to_string()).change(lack.cure()))
}

fn rules(facts: &Facts) -> Finding {
    const CHECK: &str = "kill switch";
    if lacks(facts, Lack::Rules) {
        return without_rules();
    }
    if let Some(age) = facts
        .said()
        .and_then(|it| it.kill_switch.unconfirmed_seconds)
    {
        let why = format!("the warden, which guards the rules, has been silent for {age:.0} s");
        return Finding::fails(CHECK, why).change("start the gateway again, and look at its log");
    }
    match &facts.rules {
        Rules::There(_) => Finding::holds(CHECK, "the rules are in the kernel"),
        Rules::Absent => Finding::fails(CHECK, "there are no rules: nothing is held back")
            .change("start the gateway; until then stop what is joined"),
        Rules::Denied => said_of_rules(facts),
        Rules::Unread(error) => Finding::fails(
            CHECK,
            format!("the kernel shows no rules: {error}"),
        )
        .change(
            "a kernel with nf_tables (CONFIG_NF_TABLES, or `modprobe nf_tables` on the machine)",
        ),
    }
}

fn frames(facts: &Facts, sealed: bool) -> Finding {
    const CHECK: &str = "raw frames";
    let kernel = "Linux 5.16 or newer; or no NET_RAW for joined services (`cap_drop: [NET_RAW]`)";
    if sealed {
        return Finding::holds(CHECK, "there is no device they could leave by");
    }
    match facts.said().filter(|it| it.kill_switch.armed) {
        Some(status) if status.kill_switch.raw_frames => {
            Finding::holds(CHECK, "held at the netdev egress hook")
        }
        Some(_) => Finding::fails(
            CHECK,
            "the kernel has no netdev egress hook: they pass the rules",
        )
        .change(kernel),
        None if facts.is_at_least((5, 16)) == Some(false) => {
            Finding::fails(CHECK, "this kernel has no netdev egress hook (Linux 5.16)")
                .change(kernel)
        }
        None => Finding::unknown(
            CHECK,
            "whether the egress hook is used is known while the gateway runs",
        )
        .change("start the gateway, or run this where its socket is"),
    }
}

fn owner(facts: &Facts, sealed: bool) -> Finding {
    const CHECK: &str = "owned tables";
    let why = match &facts.rules {
        Rules::There(Some(_)) => {
            return Finding::holds(CHECK, "nobody but the gateway can change the rules");
        }
        Rules::There(None) if facts.is_at_least((6, 9)) == Some(false) => {
            "this kernel lets whoever has NET_ADMIN change the rules (before Linux 6.9)"
        }
        Rules::There(None) => "the rules belong to no running gateway",
        Rules::Absent => "there are no rules",
        Rules::Denied | Rules::Unread(_) => {
            let finding = "it takes NET_ADMIN to see whose the rules are";
            return if sealed {
                Finding::hint(CHECK, finding)
            } else {
                Finding::unknown(CHECK, finding)
                    .change("run it in the gateway's container, which has NET_ADMIN")
            };
        }
    };
    if sealed {
        // Whoever removes them is still where nothing leads out.
        return Finding::hint(CHECK, why);
    }
    Finding::fails(CHECK, why)
        .change("start the gateway on Linux 6.9 or newer; or give no joined service NET_ADMIN")
}

fn sensors(facts: &Facts, sealed: bool) -> Finding {
    const CHECK: &str = "frame sensor";
    match facts.said() {
        _ if sealed => Finding::holds(CHECK, "there is no device to watch"),
        Some(status) if status.leaks.watched => {
            Finding::holds(CHECK, "every frame that leaves is looked at")
        }
        Some(_) => Finding::fails(
            CHECK,
            "the gateway lacks NET_RAW: nobody looks at what leaves",
        )
        .change("the gateway's service: `cap_add: [NET_ADMIN, NET_RAW]`"),
        None => Finding::unknown(CHECK, "no gateway answers that would watch")
            .change("start the gateway, or run this where its socket is"),
    }
}

fn accounting(facts: &Facts, sealed: bool) -> Finding {
    const CHECK: &str = "accounting";
    let inexact = facts
        .uplinks
        .iter()
        .find_map(|it| Some((&it.name, it.inexact.as_ref()?)));
    let no_hook = facts.said().map(|it| it.kill_switch.raw_frames) == Some(false);
    let advice = |finding: Finding| match inexact {
        // Without the hook nothing counts frames, whatever the uplink does.
        _ if no_hook => finding.change("Linux 5.16 or newer, or the sealed topology"),
        Some((name, Inexact::Queue(_))) => {
            finding.change(format!("`tc qdisc replace dev {name} root noqueue`"))
        }
        Some((name, Inexact::Off(feature))) => {
            finding.change(format!("`ethtool -K {name} {feature} on`"))
        }
        Some((_, Inexact::Cut(..) | Inexact::Unread(_))) | None => {
            finding.change("the uplink of a container, which is a veth, is counted exactly")
        }
    };
    match facts.said().map(|status| &status.leaks) {
        _ if sealed => Finding::holds(CHECK, "there is no device to count at"),
        Some(leaks) if leaks.accounted => Finding::holds(
            CHECK,
            "what the uplink sent is held against what the rules let leave",
        ),
        Some(leaks) => match &leaks.not_accounted {
            Some(why) => advice(Finding::fails(
                CHECK,
                format!("AF_XDP frames would not be noticed: {why}"),
            )),
            None => {
                Finding::unknown(CHECK, "it has not begun yet").change("look again in some seconds")
            }
        },
        None => match inexact {
            Some((name, why)) => advice(Finding::fails(
                CHECK,
                format!("AF_XDP frames would not be noticed: {name}: {why}"),
            )),
            None => Finding::unknown(CHECK, "no gateway answers that would count")
                .change("start the gateway, or run this where its socket is"),
        },
    }
}

fn leaks(facts: &Facts) -> Finding {
    const CHECK: &str = "leaks";
    let Some(leaks) = facts.said().map(|status| &status.leaks) else {
        return Finding::unknown(CHECK, "no gateway answers that would have seen any")
            .change("try the ways out: `vpngw leaktest`");
    };
    match leaks.detected {
        0 => Finding::holds(CHECK, "none seen since the gateway started"),
        seen => {
            let last = leaks.last.as_deref().unwrap_or("see `vpngw leaks`");
            Finding::fails(CHECK, format!("{seen} seen; last: {last}"))
                .change("look at `vpngw leaks`, and end what leaked")
        }
    }
}

fn joiners(facts: &Facts, sealed: bool) -> Finding {
    const CHECK: &str = "joined programs";
    let joiners = &facts.joiners;
    if sealed {
        return Finding::holds(
            CHECK,
            "whatever capabilities they have lead nowhere: there is no uplink",
        );
    }
    let advice = "each joined service: `cap_drop: [NET_RAW]`, better `cap_drop: [ALL]`, and no `cap_add: [NET_ADMIN]`";
    if !joiners.capable.is_empty() {
        return Finding::fails(CHECK, harm(&joiners.capable)).change(advice);
    }
    if joiners.all_visible && joiners.unread == 0 {
        let why = format!(
            "{} live here, and none has NET_ADMIN or NET_RAW",
            joiners.harmless
        );
        return Finding::holds(CHECK, why);
    }
    let why = if joiners.unread > 0 {
        format!(
            "{} processes with NET_ADMIN or NET_RAW do not let us see where they live",
            joiners.unread
        )
    } else {
        "other containers are not visible from here (another PID namespace), nor whether they could take the uplink \
         away or cut the network"
            .to_owned()
    };
    let seen = "`docker run --rm --privileged --pid host --network container:vpngw vpngw doctor` sees them";
    Finding::unknown(CHECK, why).change(format!("{seen}; or be sure: {advice}"))
}

/// What those who have a capability could do with it.
fn harm(capable: &[Joiner]) -> String {
    let list = |names: Vec<String>| names.join(", ");
    let mut why = format!(
        "can forge what the rules permit, or change them: {}",
        list(capable.iter().map(named).collect())
    );
    let name = |joiner: &Joiner| format!("{} (pid {})", joiner.name, joiner.pid);
    let admins = capable.iter().filter(|it| it.net_admin);
    let takers = capable.iter().filter(|it| it.may_take_uplink);
    let (admins, takers) = (admins.map(name), takers.map(name));
    for (harm, names) in [
        ("can cut the network of all", admins.collect::<Vec<_>>()),
        (
            "can take the uplink to a namespace where nothing is held, as no seccomp filter keeps them from making one",
            takers.collect(),
        ),
    ] {
        if !names.is_empty() {
            why += &format!("; {harm}: {}", list(names));
        }
    }
    why
}

fn named(joiner: &Joiner) -> String {
    let capabilities = match (joiner.net_admin, joiner.net_raw) {
        (true, true) => "NET_ADMIN and NET_RAW",
        (true, false) => "NET_ADMIN",
        (false, _) => "NET_RAW",
    };
    format!("{} (pid {}) has {capabilities}", joiner.name, joiner.pid)
}

fn ipv6(facts: &Facts) -> Finding {
    const CHECK: &str = "IPv6";
    let said_off = facts.said().map(|status| status.ipv6);
    match (facts.in_force(), facts.ipv6_off) {
        (Some(true), true) => Finding::holds(CHECK, "off, and dropped by the rules"),
        (Some(true), false) => {
            let why = match said_off {
                Some(Ipv6::Off) => "dropped by the rules; a device here has it on",
                Some(Ipv6::Dropped | Ipv6::Unknown) | None => "dropped by the rules; it is not off",
            };
            Finding::holds(CHECK, why).change("`sysctls: [net.ipv6.conf.all.disable_ipv6=1]`")
        }
        (Some(false) | None, true) => Finding::holds(CHECK, "off (net.ipv6.conf.*.disable_ipv6)"),
        (Some(false), false) => Finding::fails(CHECK, "on, and no rules drop it")
            .change("`sysctls: [net.ipv6.conf.all.disable_ipv6=1]`, and start the gateway"),
        (None, false) => Finding::unknown(CHECK, "on, and whether rules drop it cannot be told")
            .change("`sysctls: [net.ipv6.conf.all.disable_ipv6=1]`"),
    }
}

fn names(facts: &Facts) -> Finding {
    const CHECK: &str = "DNS";
    let named = match &facts.nameservers {
        Ok(named) => named,
        Err(error) => {
            return Finding::unknown(CHECK, format!("cannot be read: {error}"))
                .change("make it readable for this user");
        }
    };
    let Some(dns) = facts.said().map(|status| &status.dns) else {
        let why = format!(
            "/etc/resolv.conf names {}; the tunnel's resolvers are not known here",
            list(named)
        );
        return Finding::unknown(CHECK, why).change("run this where the gateway's socket is");
    };
    let wanted: Vec<_> = dns.servers.iter().map(ToString::to_string).collect();
    if wanted.is_empty() {
        return Finding::fails(CHECK, "the tunnel has no resolver: no name resolves")
            .change("`DNS = ADDRESS` in the provider's file");
    }
    if *named == wanted {
        return Finding::holds(
            CHECK,
            format!("/etc/resolv.conf names {}, through the tunnel", list(named)),
        );
    }
    let mut why = format!(
        "/etc/resolv.conf names {}, not {}",
        list(named),
        list(&wanted)
    );
    if let Some(problem) = &dns.problem {
        why += &format!("; {problem}");
    }
    let change = format!(
        "`dns: [{}]` in the service, or leave out `read_only: true`",
        wanted.join(", ")
    );
    Finding::fails(CHECK, why).change(change)
}

fn docker(facts: &Facts) -> Option<Finding> {
    const CHECK: &str = "Docker's resolver";
    let listens = facts
        .bound
        .as_ref()
        .is_some_and(|bound| bound.iter().any(|it| it.address == Some(DOCKER)));
    let named = facts
        .nameservers
        .as_ref()
        .is_ok_and(|named| named.contains(&DOCKER.to_string()));
    if !listens && !named {
        return None;
    }
    let what = if listens {
        "listens here"
    } else {
        "is named in /etc/resolv.conf"
    };
    let change = "`network_mode: bridge`, where Docker has no resolver of its own";
    Some(match facts.in_force() {
        Some(true) => Finding::holds(CHECK, format!("127.0.0.11 {what}, and the rules refuse it")),
        Some(false) => Finding::fails(
            CHECK,
            format!("127.0.0.11 {what}: it asks outside the tunnel"),
        )
        .change(change),
        None => Finding::unknown(
            CHECK,
            format!("127.0.0.11 {what}; whether rules refuse it cannot be told"),
        )
        .change(change),
    })
}

fn list(addresses: &[String]) -> String {
    if addresses.is_empty() {
        "nobody".to_owned()
    } else {
        addresses.join(", ")
    }
}
