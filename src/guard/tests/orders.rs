//! What holds in whatever order things happen: 100,000 random orders of events in each run of the tests.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::Config as Cases;

use super::kernel::{Kernel, Mood};
use super::*;
use crate::gateway::Command;

/// Something that happens, or the kernel takes up an order.
#[derive(Clone, Debug)]
enum Step {
    Kernel(Mood),
    /// The clock goes on by so many milliseconds.
    Later(u64),
    Happens(What),
}

/// An event, in a form that can be drawn.
#[derive(Clone, Copy, Debug)]
enum What {
    Look,
    Tick,
    Uplink,
    OtherUplink,
    NoUplink,
    Unobserved,
    RulesDiffer,
    RulesUnread,
    Leak,
    Moved,
    AskServer,
    AskElsewhere,
    AskIdle,
    NoPort,
    EngineCame,
    EngineGone,
    Connect,
    Disconnect,
    OfferAgain,
    OfferMore,
    Reload,
    ReloadElsewhere,
    ReloadNoLan,
    ReloadImpossible,
    Stopping,
}

const WHAT: &[What] = &[
    What::Look,
    What::Tick,
    What::Uplink,
    What::OtherUplink,
    What::NoUplink,
    What::Unobserved,
    What::RulesDiffer,
    What::RulesUnread,
    What::Leak,
    What::Moved,
    What::AskServer,
    What::AskServer,
    What::AskElsewhere,
    What::AskIdle,
    What::NoPort,
    What::EngineCame,
    What::EngineGone,
    What::Connect,
    What::Connect,
    What::Disconnect,
    What::OfferAgain,
    What::OfferMore,
    What::Reload,
    What::ReloadElsewhere,
    What::ReloadNoLan,
    What::ReloadImpossible,
    What::Stopping,
];

const MOODS: &[Mood] = &[
    Mood::Takes,
    Mood::Takes,
    Mood::Takes,
    Mood::TakesWithoutRoutes,
    Mood::Refuses,
    Mood::TakesInSilence,
    Mood::RefusesInSilence,
];

fn event(what: What, guard: &Guard, id: u64) -> Event {
    let other = || Uplink {
        address: "172.30.0.9/24".parse().unwrap(),
        ..uplink()
    };
    let ask = |permit: Permit| Event::Asked {
        id,
        permit,
        port: Ok(PORT),
    };
    let say = |command| Event::Operator { id, command };
    match what {
        What::Look => Event::Look,
        What::Tick => Event::Tick,
        What::Uplink => Event::Observed(seen(Some(uplink()))),
        What::OtherUplink => Event::Observed(seen(Some(other()))),
        What::NoUplink => Event::Observed(seen(None)),
        What::Unobserved => Event::Unobserved("no memory".to_owned()),
        What::RulesDiffer => Event::RulesDiffer("a rule is gone".to_owned()),
        What::RulesUnread => Event::RulesUnread("no memory".to_owned()),
        What::Leak => Event::Leaked(vec![Leak {
            device: "eth0".parse().unwrap(),
            what: "udp by eth0".to_owned(),
        }]),
        What::Moved => Event::Moved("eth0".parse().unwrap()),
        What::AskServer => ask(server(guard.config())),
        What::AskElsewhere => ask(server(&elsewhere())),
        What::AskIdle => ask(Permit::Idle),
        What::NoPort => Event::Asked {
            id,
            permit: server(guard.config()),
            port: Err("no port is free".to_owned()),
        },
        What::EngineCame => Event::EngineCame,
        What::EngineGone => Event::EngineGone,
        What::Connect => say(Command::Connect),
        What::Disconnect => say(Command::Disconnect),
        What::OfferAgain => Event::Offered(Box::new(Offer::of(&example::config()))),
        What::OfferMore => {
            let mut config = example::config();
            config.forward.push(1);
            Event::Offered(Box::new(Offer::of(&config)))
        }
        What::Reload => Event::Reloaded(Box::new(example::config())),
        What::ReloadElsewhere => Event::Reloaded(Box::new(elsewhere())),
        What::ReloadNoLan => {
            let mut config = example::config();
            config.lan.inbound.clear();
            config.lan.outbound.clear();
            Event::Reloaded(Box::new(config))
        }
        What::ReloadImpossible => {
            // No policy follows from it: the uplink's network is the tunnel's.
            let mut config = example::config();
            config.tunnel.addresses = vec![uplink().address];
            Event::Reloaded(Box::new(config))
        }
        What::Stopping => Event::Stopping,
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => select(MOODS).prop_map(Step::Kernel),
        1 => (0..2000_u64).prop_map(Step::Later),
        6 => select(WHAT).prop_map(Step::Happens),
    ]
}

/// What the kernel holds, once it is still, is no more than the newest configuration has.
fn holds_no_more_than_configured(policy: &Policy, guard: &Guard) {
    let config = guard.config();
    for rule in policy.lans().flat_map(|lan| lan.inbound) {
        let held = config.lan.inbound.iter().any(|it| it.covers(rule));
        assert!(held, "{rule:?}");
    }
    for rule in policy.lans().flat_map(|lan| lan.outbound) {
        assert!(config.lan.outbound.contains(rule), "{rule:?}");
    }
    let Some(uplink) = &policy.uplink else {
        return;
    };
    if let Some(hole) = uplink.endpoint {
        let permit = Permit::Endpoint {
            peer: 0,
            address: hole.remote,
        };
        let held = crate::policy::way::check(config, None, &permit);
        assert!(held.is_ok(), "{hole:?}");
    }
    assert!(uplink.resolver.is_none() || guard.remote().is_some());
}

fn live(mut guard: Guard, steps: Vec<Step>, patient: bool) {
    let (mut kernel, mut now) = (Kernel::default(), Instant::now());
    for (id, step) in (1..).zip(steps) {
        let before = guard.blocked().cloned();
        let mut connected = false;
        match step {
            Step::Later(more) => now += Duration::from_millis(more),
            Step::Kernel(mood) => {
                kernel.step(&mut guard, mood, now);
            }
            Step::Happens(what) => {
                connected = matches!(what, What::Connect);
                let event = event(what, &guard, id);
                let doing = guard.handle(event, now);
                kernel.perform(&mut guard, doing, now);
            }
        }
        if !patient {
            // As it is in the warden: an order is carried out before anything else happens.
            while kernel.step(&mut guard, Mood::Takes, now) {}
            holds_no_more_than_configured(&kernel.policy, &guard);
        }
        if before.is_some() && guard.blocked().is_none() {
            assert!(connected, "{before:?} ended by itself");
        }
        let leak = |reason: &Option<BlockReason>| matches!(reason, Some(BlockReason::Leak(_)));
        if leak(&before) && guard.blocked().is_some() && !connected {
            assert!(leak(&guard.blocked().cloned()), "the leak was forgotten");
        }
    }
    // The kernel takes whatever is left: then it holds what the guard says, and no more than is configured.
    while kernel.step(&mut guard, Mood::Takes, now) {}
    let doing = guard.handle(Event::Look, now);
    kernel.perform(&mut guard, doing, now);
    while kernel.step(&mut guard, Mood::Takes, now) {}
    holds_no_more_than_configured(&kernel.policy, &guard);
    assert!(guard.is_armed());
    if guard.blocked().is_some() {
        assert_eq!(kernel.policy, Policy::default());
    } else {
        assert!(!kernel.down, "links stay down although nothing is blocked");
    }
}

proptest! {
    #![proptest_config(Cases { cases: 50_000, failure_persistence: None, ..Cases::default() })]

    /// A kernel that is late and fails at any time.
    #[test]
    fn in_any_order_the_guard_keeps_what_it_promises(
        is_sealed in any::<bool>(),
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let guard = if is_sealed { sealed() } else { shared(Some(uplink())) };
        live(guard, steps, true);
    }

    /// A kernel that answers at once, as in the warden.
    #[test]
    fn with_a_kernel_that_answers_at_once_nothing_is_open_that_is_not_configured(
        is_sealed in any::<bool>(),
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let guard = if is_sealed { sealed() } else { shared(Some(uplink())) };
        live(guard, steps, false);
    }
}
