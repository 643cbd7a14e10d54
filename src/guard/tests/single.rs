//! The moments that are hard to come by in a namespace.

use std::time::Duration;

use super::*;
use crate::gateway::Command;

fn leak() -> Event {
    let what = "udp by eth0".to_owned();
    let device = "eth0".parse().unwrap();
    Event::Leaked(vec![Leak { device, what }])
}

fn connect(id: u64) -> Event {
    let command = Command::Connect;
    Event::Operator { id, command }
}

fn disconnect(id: u64) -> Event {
    let command = Command::Disconnect;
    Event::Operator { id, command }
}

#[test]
fn a_permission_is_granted_after_the_kernel_confirmed_it() {
    let mut guard = shared(Some(uplink()));
    let now = Instant::now();
    let doing = guard.handle(Event::Look, now);
    confirm(&mut guard, &doing);
    let doing = ask(&mut guard, 7, now);
    assert!(answers(&doing).is_empty(), "nothing is confirmed yet");
    assert!(is_open(&orders(&doing)[0].policy));
    let doing = confirm(&mut guard, &doing);
    assert!(matches!(
        answers(&doing)[..],
        [Answer::Granted { id: 7, .. }]
    ));
}

#[test]
fn a_refused_permission_leads_back_to_what_was_in_force() {
    let mut guard = shared(Some(uplink()));
    let now = Instant::now();
    let doing = guard.handle(Event::Look, now);
    let before = orders(&doing)[0].policy.clone();
    confirm(&mut guard, &doing);
    let doing = ask(&mut guard, 1, now);
    let doing = refuse(&mut guard, &doing);
    assert!(matches!(
        answers(&doing)[..],
        [Answer::Refused { id: 1, .. }]
    ));
    assert_eq!(orders(&doing)[0].policy, before);
    assert_eq!(guard.blocked(), None);
}

#[test]
fn a_second_refusal_in_the_middle_of_a_leak_sets_every_link_down() {
    let mut guard = open();
    let now = Instant::now();
    let doing = guard.handle(leak(), now);
    assert!(matches!(doing[0], Do::Verify));
    assert_eq!(orders(&doing)[0].policy, Policy::default());
    let doing = refuse(&mut guard, &doing);
    assert!(
        doing.iter().any(|it| matches!(it, Do::LinksDown)),
        "{doing:?}"
    );
    assert!(!guard.is_armed());
    let eth0: IfName = "eth0".parse().unwrap();
    assert!(
        guard
            .handle(Event::LinksDown(vec![eth0.clone()]), now)
            .is_empty()
    );
    // It is tried again, and the block stays.
    let doing = guard.handle(Event::Tick, now);
    let doing = confirm(&mut guard, &doing);
    assert!(guard.is_armed() && guard.blocked().is_some());
    assert!(
        !doing.iter().any(|it| matches!(it, Do::SetUp(_))),
        "{doing:?}"
    );
    // An operator's connect brings back what the gateway itself took.
    let doing = guard.handle(connect(3), now);
    assert!(
        !doing.iter().any(|it| matches!(it, Do::SetUp(_))),
        "not before it is confirmed"
    );
    let doing = confirm(&mut guard, &doing);
    assert!(
        matches!(&doing[..], [Do::SetUp(up), Do::Answer(Answer::Done { id: 3 })] if *up == eth0)
    );
}

#[test]
fn an_operator_connects_while_a_new_configuration_is_refused() {
    let mut guard = open();
    let now = Instant::now();
    let doing = guard.handle(disconnect(1), now);
    confirm(&mut guard, &doing);
    let _ = guard.handle(Event::Reloaded(Box::new(elsewhere())), now);
    let doing = guard.handle(connect(2), now);
    let doing = refuse(&mut guard, &doing);
    // The configuration of before is back, and the operator's word stands.
    assert_eq!(guard.config(), &example::config());
    assert!(matches!(
        answers(&doing)[..],
        [Answer::Reloaded(Reload::Refused(_))]
    ));
    let doing = confirm(&mut guard, &doing);
    assert_eq!(answers(&doing), [Answer::Done { id: 2 }]);
    assert_eq!(guard.blocked(), None);
}

#[test]
fn an_engine_that_dies_between_grant_and_use_leaves_nothing_open() {
    let mut guard = open();
    let now = Instant::now();
    let _ = ask(&mut guard, 2, now);
    let doing = guard.handle(Event::EngineGone, now);
    assert!(!is_open(&orders(&doing)[0].policy));
    let doing = confirm(&mut guard, &doing);
    assert!(answers(&doing).is_empty(), "nobody is there to hear");
    let doing = guard.handle(Event::EngineCame, now);
    let doing = confirm(&mut guard, &doing);
    assert_eq!(answers(&doing), [Answer::Welcome { blocked: None }]);
}

/// `docker network disconnect` and `connect` of a network that is not the uplink's.
#[test]
fn a_second_network_goes_and_comes_and_the_way_stays_open() {
    let mut guard = open();
    let alone = Seen {
        links: vec![],
        ..seen(Some(uplink()))
    };
    let doing = guard.handle(Event::Observed(alone), Instant::now());
    let order = orders(&doing)[0];
    assert!(doing.len() == 1 && is_open(&order.policy));
    assert_eq!(order.policy.beside, []);
    let doing = guard.handle(Event::Observed(seen(Some(uplink()))), Instant::now());
    let order = orders(&doing)[0];
    assert!(doing.len() == 1 && is_open(&order.policy));
    let beside = &order.policy.beside[0];
    assert_eq!(beside.device.as_str(), "eth1");
    assert_eq!(beside.inbound, example::config().lan.inbound);
}

#[test]
fn an_uplink_that_vanishes_while_its_socket_is_handed_over_is_not_granted() {
    let mut guard = open();
    let now = Instant::now();
    let _ = ask(&mut guard, 2, now);
    let doing = guard.handle(Event::Observed(Seen::default()), now);
    assert!(!is_open(&orders(&doing)[0].policy));
    let doing = confirm(&mut guard, &doing);
    assert!(matches!(
        answers(&doing)[..],
        [Answer::Refused { id: 2, .. }]
    ));
}

#[test]
fn an_outcome_that_was_overtaken_confirms_nothing() {
    let mut guard = open();
    let now = Instant::now();
    let first = guard.handle(disconnect(1), now);
    let _second = guard.handle(connect(2), now);
    assert!(confirm(&mut guard, &first).is_empty());
    assert!(refuse(&mut guard, &first).is_empty());
}

#[test]
fn no_way_back_leads_to_what_nobody_has_confirmed() {
    let mut guard = open();
    let now = Instant::now();
    // What was open is ordered again, and a new configuration comes before the kernel has answered.
    let _ = guard.handle(Event::Look, now);
    let doing = guard.handle(Event::Reloaded(Box::new(elsewhere())), now);
    let doing = refuse(&mut guard, &doing);
    assert!(!is_open(&orders(&doing)[0].policy));
}

#[test]
fn a_device_that_goes_on_leaking_is_set_down_until_an_operator_connects() {
    let mut guard = open();
    let now = Instant::now();
    let doing = guard.handle(leak(), now);
    confirm(&mut guard, &doing);
    let later = now + Duration::from_millis(501);
    let doing = guard.handle(leak(), later);
    assert!(
        doing.iter().any(|it| matches!(it, Do::SetDown(_))),
        "{doing:?}"
    );
    assert_eq!(guard.held_down().len(), 1);
    let doing = guard.handle(connect(4), later);
    let doing = confirm(&mut guard, &doing);
    assert!(matches!(doing[0], Do::SetUp(_)));
    assert!(guard.held_down().is_empty());
}

#[test]
fn an_uplink_in_another_namespace_is_a_leak() {
    let mut guard = open();
    let doing = guard.handle(Event::Moved("eth0".parse().unwrap()), Instant::now());
    assert_eq!(orders(&doing)[0].policy, Policy::default());
    assert!(matches!(guard.blocked(), Some(BlockReason::Leak(what)) if what.contains("eth0")));
}

#[test]
fn a_leak_stays_the_reason_whatever_the_operator_says_but_connect() {
    let mut guard = open();
    let now = Instant::now();
    let _ = guard.handle(leak(), now);
    let _ = guard.handle(disconnect(1), now);
    let _ = guard.handle(Event::Stopping, now);
    assert!(matches!(guard.blocked(), Some(BlockReason::Leak(_))));
    let _ = guard.handle(connect(2), now);
    assert_eq!(guard.blocked(), None);
}

#[test]
fn a_configuration_that_changes_nothing_is_said_to() {
    let mut guard = open();
    let now = Instant::now();
    let doing = guard.handle(Event::Reloaded(Box::new(example::config())), now);
    let doing = confirm(&mut guard, &doing);
    let kept = Vec::new();
    assert_eq!(
        answers(&doing),
        [Answer::Reloaded(Reload::Unchanged { kept })]
    );
    assert!(!doing.iter().any(|it| matches!(it, Do::Adopt)));
    let mut other = example::config();
    other.tunnel.device = "tun7".parse().unwrap();
    let doing = guard.handle(Event::Reloaded(Box::new(other)), now);
    let doing = confirm(&mut guard, &doing);
    let kept = vec!["[tunnel] device"];
    assert_eq!(
        answers(&doing),
        [Answer::Reloaded(Reload::Unchanged { kept })]
    );
}

#[test]
fn a_server_that_the_configuration_no_longer_names_is_closed_with_it() {
    let mut guard = open();
    let doing = guard.handle(Event::Reloaded(Box::new(elsewhere())), Instant::now());
    assert!(!is_open(&orders(&doing)[0].policy));
    let doing = refuse(&mut guard, &doing);
    assert!(
        is_open(&orders(&doing)[0].policy),
        "the old one is in force again"
    );
}

#[test]
fn devices_that_the_second_layer_does_not_hold_are_set_down_until_it_does() {
    let mut guard = open();
    let now = Instant::now();
    let odd: IfName = "veth299".parse().unwrap();
    let doing = guard.handle(Event::Look, now);
    let number = orders(&doing)[0].number;
    let enforced = |number, bare| {
        let routes = None;
        Event::Enforced(Enforced {
            number,
            routes,
            bare,
        })
    };
    let doing = guard.handle(enforced(number, vec![odd.clone()]), now);
    assert!(matches!(&doing[..], [Do::SetDown(it)] if *it == odd));
    let doing = guard.handle(Event::Look, now);
    let number = orders(&doing)[0].number;
    let doing = guard.handle(enforced(number, Vec::new()), now);
    assert!(matches!(&doing[..], [Do::SetUp(it)] if *it == odd));
}

#[test]
fn a_sealed_engine_is_agreed_with_before_it_is_welcome() {
    let mut guard = sealed();
    let now = Instant::now();
    let doing = guard.handle(Event::Look, now);
    confirm(&mut guard, &doing);
    let offer = Offer::of(&example::config());
    let doing = guard.handle(Event::Offered(Box::new(offer.clone())), now);
    assert!(answers(&doing).is_empty());
    let doing = confirm(&mut guard, &doing);
    assert!(
        matches!(doing[..], [Do::Adopt, Do::Answer(Answer::Agreed)]),
        "{doing:?}"
    );
    let mut more = offer;
    more.forward.push(1);
    let doing = guard.handle(Event::Offered(Box::new(more)), now);
    assert!(matches!(answers(&doing)[..], [Answer::Declined(_)]));
    assert!(orders(&doing).is_empty());
}
