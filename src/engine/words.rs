//! What the engine calls what happens: in the log, and in metrics.

use std::time::Duration;

use tracing::{info, warn};

use crate::control::api::printable;
use crate::gateway::{Attempt, BlockReason, Event, Gateway, State, Step};

/// Why a tunnel is opened anew, as metrics call it; `None` for events that only carry on what another
/// began.
pub(super) fn cause(event: &Event) -> Option<&'static str> {
    match event {
        Event::Silent => Some("silent"),
        Event::NothingReturns => Some("nothing-returns"),
        Event::Timeout => Some("timeout"),
        Event::UplinkChanged => Some("uplink"),
        Event::Reconfigured(_) => Some("reload"),
        Event::Command(_) => Some("operator"),
        Event::Attached { .. }
        | Event::Granted(_)
        | Event::Refused { .. }
        | Event::Resolved(_)
        | Event::Unresolved(_)
        | Event::Handshake
        | Event::Returns
        | Event::Blocked(_) => None,
    }
}

/// Says each state change once: what a person who reads the log wants to know.
pub(super) fn log_change(before: &State, gateway: &Gateway) {
    let after = gateway.state();
    if before == after {
        return;
    }
    match after {
        State::Arming => info!("waiting for the rules"),
        State::Connecting(attempt) => {
            let Attempt {
                peer, tries, step, ..
            } = attempt;
            let server = server(gateway, *peer);
            match step {
                Step::Waiting(why) => {
                    warn!(server, tries, why, "cannot try the server now");
                }
                Step::Asking(_) => info!(server, tries, "connecting"),
                Step::Resolving => info!(server, "looking up the server's name"),
                Step::Shaking(_) => info!(server, "handshake sent"),
            }
        }
        State::Connected { peer, .. } => info!(server = server(gateway, *peer), "connected"),
        // What leaked is in the status: its destination is the user's affair.
        State::Blocked(BlockReason::Leak(_)) => warn!("blocked: loopback only, because of a leak"),
        State::Blocked(reason) => warn!(%reason, "blocked: loopback only"),
    }
}

/// A server as a person knows it: what the file calls it, and where it is.
pub(super) fn server(gateway: &Gateway, peer: usize) -> String {
    let Some(peer) = gateway.peers().get(peer) else {
        return "none".to_owned();
    };
    let at = &peer.endpoint;
    let named = peer.name.as_ref().map(|name| format!("{name} ({at})"));
    printable(&named.unwrap_or_else(|| at.to_string()))
}

/// A time in the one unit that a person would take.
pub(super) fn coarse(time: Duration) -> String {
    // Rounded: what is told is less than the clock was set back by, by the age of the last handshake.
    let rounded = |unit: u64| (time.as_secs() + unit / 2) / unit;
    match time.as_secs() {
        0..=119 => format!("{} s", time.as_secs()),
        120..=5399 => format!("{} min", rounded(60)),
        5400..=172_799 => format!("{} h", rounded(3600)),
        172_800.. => format!("{} d", rounded(86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_the_unit_that_a_person_would_take() {
        let told = [30, 600, 7195, 86_400 * 3].map(|secs| coarse(Duration::from_secs(secs)));
        assert_eq!(told, ["30 s", "10 min", "2 h", "3 d"]);
    }
}
