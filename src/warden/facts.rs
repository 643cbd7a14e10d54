//! What the engine is told of the namespace, made afresh from the parts each time.

use super::hands::Hands;
use crate::guard::Guard;
use crate::link::Facts;

/// What is known now, counters read anew.
pub(super) fn facts(hands: &mut Hands, guard: &Guard) -> Facts {
    hands.count_if_due(guard);
    let (leaks, last_leak) = hands.record.leaks();
    let mut facts = Facts {
        armed: guard.is_armed(),
        armed_in_microseconds: u64::try_from(hands.armed_in.as_micros()).unwrap_or(u64::MAX),
        egress_hook: hands.rules.kernel().egress_hook,
        lacks: hands.rules.kernel().lacks(),
        uplink: guard.uplink().cloned(),
        mtu: hands.tunnel.mtu(),
        mark: (!guard.is_sealed()).then(|| guard.mark()),
        passed: hands.rules.passed(),
        resolver: hands.resolver.fact().clone(),
        ipv6: hands.ipv6,
        devices: hands.rules.devices().to_vec(),
        leaks,
        watched: hands.sensor.is_watching(),
        last_leak,
        found: hands.record.counts(),
        proven: hands.proven,
        unheard: hands.listeners.unheard(),
        accounting: hands.accounting.fact().clone(),
        ..Facts::default()
    };
    facts.note_blocked(hands.rules.blocked());
    facts
}
