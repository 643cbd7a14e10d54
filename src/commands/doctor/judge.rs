//! Judges what was seen: pure.

use super::facts::{Facts, Rules};
use super::{Finding, Layout, Outcome, Report, holds, suits};
use crate::control::api::{State, Topology};

/// How to ask where a gateway is.
const ELSEWHERE: &str = "run it where the gateway is: `docker-compose exec vpngw vpngw doctor`";

/// What holds here, and what does not.
pub(super) fn judge(facts: &Facts) -> Report {
    let layout = layout(facts);
    let mut checks = vec![topology(facts, layout)];
    match layout {
        Layout::NoGateway => {}
        Layout::Shared | Layout::Sealed => {
            checks.push(connection(facts));
            checks.extend(holds::inside(facts, layout));
        }
        Layout::SealedEngine => {
            checks.push(connection(facts));
            checks.push(holds::said_of_rules(facts));
            checks.extend(holds::modules(facts));
        }
    }
    checks.extend(suits::all(facts, layout));
    Report::of(layout, &facts.kernel, checks)
}

impl Finding {
    /// It holds.
    pub(super) fn holds(check: &'static str, why: impl Into<String>) -> Self {
        Self::new(check, Outcome::Holds, why)
    }

    /// It could be better.
    pub(super) fn hint(check: &'static str, why: impl Into<String>) -> Self {
        Self::new(check, Outcome::Hint, why)
    }

    /// It could not be told.
    pub(super) fn unknown(check: &'static str, why: impl Into<String>) -> Self {
        Self::new(check, Outcome::Unknown, why)
    }

    /// It does not hold.
    pub(super) fn fails(check: &'static str, why: impl Into<String>) -> Self {
        Self::new(check, Outcome::DoesNotHold, why)
    }

    /// What would help.
    pub(super) fn change(mut self, change: impl Into<String>) -> Self {
        self.change = Some(change.into());
        self
    }

    fn new(check: &'static str, outcome: Outcome, why: impl Into<String>) -> Self {
        Self {
            check,
            outcome,
            why: why.into(),
            change: None,
        }
    }
}

/// The gateway says it, or the devices beside our rules.
fn layout(facts: &Facts) -> Layout {
    let leads_out = !facts.uplinks.is_empty();
    match facts.said().map(|status| status.topology) {
        Some(Topology::Sealed) if leads_out && facts.tunnel.is_none() => Layout::SealedEngine,
        Some(Topology::Sealed) => Layout::Sealed,
        Some(Topology::Shared) => Layout::Shared,
        None => {
            let ours = match facts.rules {
                Rules::There(_) => true,
                Rules::Absent => false,
                Rules::Denied | Rules::Unread(_) => facts.tunnel.is_some(),
            };
            match (ours, leads_out) {
                (false, _) => Layout::NoGateway,
                (true, true) => Layout::Shared,
                (true, false) => Layout::Sealed,
            }
        }
    }
}

fn topology(facts: &Facts, layout: Layout) -> Finding {
    const CHECK: &str = "topology";
    let uplinks: Vec<_> = facts.uplinks.iter().map(|it| it.name.to_string()).collect();
    let uplinks = uplinks.join(", ");
    let tunnel = facts.tunnel.as_ref().map(ToString::to_string);
    let by_devices_only = facts.said().is_none() && !matches!(facts.rules, Rules::There(_));
    match (layout, &tunnel) {
        (Layout::NoGateway, _) if facts.machine && !facts.uplinks.is_empty() => Finding::fails(
            CHECK,
            "there is no gateway here, and this may be the machine's own namespace",
        )
        .change(ELSEWHERE),
        (Layout::NoGateway, _) => Finding::fails(
            CHECK,
            "there is no gateway here: no rules, and nobody answers on the control socket",
        )
        .change(ELSEWHERE),
        (Layout::Shared | Layout::Sealed, _) if by_devices_only => Finding::unknown(
            CHECK,
            "there is a TUN device, but nobody answers and the rules cannot be read, so whose it is cannot be told",
        )
        .change("give this container `cap_add: [NET_ADMIN]` for the time of this look, or ask in the gateway's"),
        (Layout::Shared, None) => Finding::fails(
            CHECK,
            format!("shared: {uplinks} is here, and the tunnel device is not"),
        )
        .change("start the gateway: `vpngw run`"),
        (Layout::Shared, Some(tunnel)) => Finding::holds(
            CHECK,
            format!("shared: {uplinks} beside {tunnel}; what joined programs cannot do, the rules keep them from"),
        ),
        (Layout::Sealed, _) if !facts.uplinks.is_empty() => Finding::fails(
            CHECK,
            format!("sealed, and yet {uplinks} is here"),
        )
        .change("`network_mode: none` for the warden's service, and no network of its own for a joined one"),
        (Layout::Sealed, None) => Finding::fails(
            CHECK,
            "sealed: no uplink, and no tunnel device either: no engine has come yet",
        )
        .change("start the engine: `vpngw engine`"),
        (Layout::Sealed, Some(tunnel)) => {
            let host = if facts.named { ", in a namespace with a name (host)" } else { "" };
            Finding::holds(CHECK, format!("sealed{host}: {tunnel} and loopback, nothing else leads out"))
        }
        (Layout::SealedEngine, _) => Finding::holds(
            CHECK,
            format!("sealed, the engine's side: {uplinks} is here, joined programs live elsewhere"),
        ),
    }
}

/// Whether joined programs have their network, and whether it leaked.
fn connection(facts: &Facts) -> Finding {
    const CHECK: &str = "connection";
    let status = match &facts.status {
        Ok(status) => status,
        Err(why) => {
            return Finding::unknown(CHECK, why.clone())
                .change("run it in the gateway's container, or name its socket: `--socket PATH`");
        }
    };
    match status.state {
        State::Blocked if status.leaks.detected > 0 => Finding::fails(CHECK, status.summary())
            .change("look at `vpngw leaks`, end what leaked, then `vpngw connect`"),
        State::Blocked => Finding::fails(CHECK, status.summary()).change("`vpngw connect`"),
        State::Connected if status.ready() => Finding::holds(CHECK, status.summary()),
        State::Connected if status.nothing_returns => Finding::fails(CHECK, status.summary())
            .change("look at the account with the provider, or name another server too"),
        State::Connected | State::Arming | State::Connecting => {
            Finding::fails(CHECK, status.summary())
                .change("wait 15 s: then the line above says what is likely; the log says it, too")
        }
    }
}
