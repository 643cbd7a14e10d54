//! Composes what `vpngw status` says from what the parts know. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::diagnosis::{Silence, diagnosis};
use crate::config::{Config, Host};
use crate::control::api::{
    Dns, Ipv6, KillSwitch, Lan, Leaks, Served, State as Word, Status, Topology, Tunnel, Unheard,
};
use crate::gateway::{Gateway, State, Step};
use crate::link::{Accounting, Facts, Ipv6Fact, Listener, ResolverFact};
use crate::metrics::{self, Sample};
use crate::wireguard::Snapshot;
use crate::wireguard::uapi::{UapiPeer, UapiState};

/// How long what the warden said is taken for true. It says something each second.
pub(super) const FRESH: Duration = Duration::from_secs(3);

/// Said while a server answers and is of no use.
const FRUITLESS: &str = "nothing comes back through the tunnel, though the server answers: the account may have ended, or \
    the key may have been withdrawn";

/// All that a status is made of.
pub(super) struct Parts<'a> {
    pub(super) config: &'a Config,
    pub(super) facts: &'a Facts,
    /// How long ago the warden said that.
    pub(super) facts_age: Duration,
    pub(super) topology: Topology,
    pub(super) gateway: &'a Gateway,
    pub(super) snapshot: &'a Snapshot,
    pub(super) mtu: u16,
    pub(super) rx_bits_per_second: f64,
    pub(super) tx_bits_per_second: f64,
    /// How long the gateway has been in its state.
    pub(super) elapsed: Duration,
    /// The wall clock.
    pub(super) now: SystemTime,
    /// What came from the server since it was asked first, and was no valid message.
    pub(super) rejected: u64,
    /// Why our own listener for metrics is not there.
    pub(super) no_metrics: Option<String>,
}

pub(super) fn compose(parts: &Parts<'_>) -> Status {
    let Parts {
        config,
        facts,
        gateway,
        snapshot,
        ..
    } = parts;
    let (state, reason, peer, endpoint) = word(parts);
    let peer = peer.and_then(|index| gateway.peers().get(index));
    let tunnel = &config.tunnel;
    let handshake_age = snapshot
        .last_handshake
        .and_then(|at| parts.now.duration_since(at).ok());
    let blocked_by_reason = facts
        .blocked
        .iter()
        .map(|(k, c)| (k.clone(), c.packets))
        .collect();
    let (resolv_conf, problem) = match &facts.resolver {
        ResolverFact::Unknown => (false, Some("not written yet".to_owned())),
        ResolverFact::Written(_) => (true, None),
        ResolverFact::Failed(why) => (false, Some(why.clone())),
    };
    let blocked_by = match gateway.state() {
        State::Blocked(reason) => Some(reason.clone()),
        State::Arming | State::Connecting(_) | State::Connected { .. } => None,
    };
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        topology: parts.topology,
        state,
        reason,
        blocked_by,
        nothing_returns: gateway.is_fruitless(),
        since: rfc3339(parts.now - parts.elapsed),
        since_seconds: parts.elapsed.as_secs_f64(),
        endpoint,
        peer: peer.and_then(|p| match (&p.name, &p.endpoint.host) {
            (Some(name), _) | (None, Host::Name(name)) => Some(name.clone()),
            (None, Host::Address(_)) => None,
        }),
        public_key: peer.map(|p| p.public_key),
        handshake_age_seconds: handshake_age.map(|age| age.as_secs_f64()),
        rx_bytes: snapshot.rx_bytes,
        tx_bytes: snapshot.tx_bytes,
        rx_bits_per_second: parts.rx_bits_per_second,
        tx_bits_per_second: parts.tx_bits_per_second,
        kill_switch: KillSwitch {
            armed: facts.armed && parts.facts_age <= FRESH,
            unconfirmed_seconds: (parts.facts_age > FRESH).then_some(parts.facts_age.as_secs_f64()),
            armed_in_microseconds: facts.armed_in_microseconds,
            raw_frames: facts.egress_hook,
            lacks: facts.lacks.clone(),
            blocked_packets: facts.blocked.values().map(|count| count.packets).sum(),
            blocked_by_reason,
        },
        leaks: leaks(facts, parts.now),
        lan: Lan {
            inbound: config.lan.inbound.clone(),
            outbound: config.lan.outbound.clone(),
        },
        ipv6: match facts.ipv6 {
            Ipv6Fact::Unknown => Ipv6::Unknown,
            Ipv6Fact::Off => Ipv6::Off,
            Ipv6Fact::Dropped => Ipv6::Dropped,
        },
        dns: Dns {
            servers: tunnel.resolvers().to_vec(),
            resolv_conf,
            problem,
        },
        tunnel: Tunnel {
            device: tunnel.device.clone(),
            address: tunnel.addresses.clone(),
            mtu: parts.mtu,
            offload: tunnel.offload,
            forward: config.forward.clone(),
        },
        unheard: unheard(facts, parts.no_metrics.as_deref()),
    }
}

/// What should answer and does not: of the warden's listeners, and of ours.
fn unheard(facts: &Facts, no_metrics: Option<&str>) -> Vec<Unheard> {
    let wardens = facts.unheard.iter().map(|it| Unheard {
        what: match it.listener {
            Listener::Control => Served::Control,
            Listener::Uapi => Served::Wg,
            Listener::Metrics => Served::Metrics,
        },
        why: it.why.clone(),
    });
    let ours = no_metrics.map(|why| Unheard {
        what: Served::Metrics,
        why: why.to_owned(),
    });
    wardens.chain(ours).collect()
}

fn leaks(facts: &Facts, now: SystemTime) -> Leaks {
    let (accounted, not_accounted) = match &facts.accounting {
        Accounting::Unknown => (false, None),
        Accounting::On => (true, None),
        Accounting::Off(why) => (false, Some(why.clone())),
    };
    Leaks {
        watched: facts.watched,
        detected: facts.leaks,
        last: facts.last_leak.clone(),
        accounted,
        not_accounted,
        proof_age_seconds: facts.proven.and_then(|at| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at);
            let age = now.duration_since(at).ok()?;
            Some(age.as_secs_f64())
        }),
        found: facts.found.clone(),
    }
}

/// Everything that is measured, at one moment.
pub(super) fn sample(
    status: Status,
    facts: &Facts,
    gateway: &Gateway,
    snapshot: &Snapshot,
    reconnects: &BTreeMap<String, u64>,
) -> Sample {
    let in_use = match gateway.state() {
        State::Connected { peer, .. } => Some(*peer),
        State::Connecting(attempt) => Some(attempt.peer),
        State::Arming | State::Blocked(_) => None,
    };
    let unix = |at: SystemTime| {
        at.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
    };
    let peer = in_use
        .and_then(|index| gateway.peers().get(index))
        .map(|peer| metrics::Peer {
            public_key: peer.public_key,
            allowed_ips: peer.allowed_ips.clone(),
            name: peer.name.clone(),
            received_bytes: snapshot.rx_bytes,
            sent_bytes: snapshot.tx_bytes,
            latest_handshake: snapshot.last_handshake.map_or(0, |at| unix(at).as_secs()),
        });
    Sample {
        status,
        peers: peer.into_iter().collect(),
        handshakes: snapshot.handshakes,
        reconnects: reconnects.clone(),
        blocked: facts.blocked_by_protocol.clone(),
        dropped: snapshot
            .dropped()
            .map(|(reason, packets)| (reason.as_str().to_owned(), packets))
            .collect(),
        offload_fallbacks: snapshot.offload_fallbacks,
    }
}

/// What `wg show` says: the peer in use, with the counters of this moment.
pub(super) fn shown(state: &UapiState, snapshot: &Snapshot) -> UapiState {
    let peer = state.peer.clone().map(|peer| UapiPeer {
        last_handshake: snapshot.last_handshake,
        rx_bytes: snapshot.rx_bytes,
        tx_bytes: snapshot.tx_bytes,
        ..peer
    });
    UapiState {
        peer,
        ..state.clone()
    }
}

type Words = (Word, String, Option<usize>, Option<std::net::SocketAddrV4>);

fn word(parts: &Parts<'_>) -> Words {
    let gateway = parts.gateway;
    match gateway.state() {
        State::Arming => (Word::Arming, "waiting for the rules".to_owned(), None, None),
        State::Connected { peer, address } => {
            let reason = if gateway.is_fruitless() {
                FRUITLESS
            } else {
                ""
            };
            let reason = reason.to_owned();
            (Word::Connected, reason, Some(*peer), Some(*address))
        }
        State::Blocked(reason) => (Word::Blocked, reason.to_string(), None, None),
        State::Connecting(attempt) => {
            let (reason, endpoint) = match &attempt.step {
                Step::Asking(_) => ("opening the way to the server".to_owned(), None),
                Step::Resolving => ("looking up the server's name".to_owned(), None),
                Step::Shaking(address) => {
                    let silence = Silence {
                        waited: parts.elapsed,
                        rejected: parts.rejected,
                        clock: parts.now,
                    };
                    let yet = || "no answer from the server yet".to_owned();
                    let reason = diagnosis(silence).unwrap_or_else(yet);
                    (reason, Some(*address))
                }
                Step::Waiting(why) => (why.clone(), None),
            };
            (Word::Connecting, reason, Some(attempt.peer), endpoint)
        }
    }
}

/// Seconds precision, UTC. Days to civil date: Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`.
fn rfc3339(time: SystemTime) -> String {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468; // days from 0000-03-01 to 1970-01-01
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_as_rfc_3339() {
        let at = |seconds| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        // From `date -u -d @N +%FT%TZ`.
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(at(1_795_507_199), "2026-11-24T07:59:59Z");
    }

    #[test]
    fn what_does_not_answer_is_named_whoever_should_have_it() {
        let mut facts = Facts::default();
        assert_eq!(unheard(&facts, None), []);
        facts.unheard.push(crate::link::Unheard {
            listener: Listener::Uapi,
            why: "read-only".to_owned(),
        });
        let both = unheard(&facts, Some("taken"));
        let words: Vec<_> = both.iter().map(|it| (it.what, it.why.as_str())).collect();
        assert_eq!(
            words,
            [(Served::Wg, "read-only"), (Served::Metrics, "taken")]
        );
    }
}
