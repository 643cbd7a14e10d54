//! The state machine, event by event.

use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::config::{Endpoint, PublicKey};

const A: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 10), 51820);
const B: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 11), 51820);

fn peer(key: u8, host: Host) -> Peer {
    Peer {
        name: None,
        public_key: PublicKey([key; 32]),
        preshared_key: None,
        endpoint: Endpoint { host, port: 51820 },
        keepalive: None,
        allowed_ips: vec!["0.0.0.0/0".parse().unwrap()],
    }
}

fn two() -> Vec<Peer> {
    vec![
        peer(1, Host::Address(*A.ip())),
        peer(2, Host::Address(*B.ip())),
    ]
}

fn named() -> Vec<Peer> {
    vec![peer(1, Host::Name("vpn.example".to_owned()))]
}

fn start(peers: Vec<Peer>) -> (Gateway, Instant, Vec<Action>) {
    let now = Instant::now();
    let mut gateway = Gateway::new(peers, 7, now);
    let actions = gateway.handle(Event::Attached { blocked: None }, now);
    (gateway, now, actions)
}

fn connected(peers: Vec<Peer>) -> (Gateway, Instant) {
    let (mut gateway, now, _) = start(peers);
    connects(&mut gateway, (0, A), false, now);
    assert_eq!(
        gateway.state(),
        &State::Connected {
            peer: 0,
            address: A
        }
    );
    (gateway, now)
}

/// Grants the way that was asked for, and lets the server answer.
fn connects(gateway: &mut Gateway, server: (usize, SocketAddrV4), prove: bool, now: Instant) {
    let (peer, address) = server;
    let permit = Permit::Endpoint { peer, address };
    let opened = gateway.handle(Event::Granted(permit), now);
    let open = Action::Open {
        peer,
        address,
        prove,
    };
    assert_eq!(opened, [open]);
    assert_eq!(gateway.handle(Event::Handshake, now), []);
}

fn asks(peer: usize, address: SocketAddrV4) -> Vec<Action> {
    vec![Action::Ask(Permit::Endpoint { peer, address })]
}

#[test]
fn the_endpoint_is_asked_for_before_the_tunnel_opens() {
    let (_, _, actions) = start(two());
    assert_eq!(actions, asks(0, A));
    connected(two());
}

#[test]
fn a_name_is_resolved_through_a_permission_of_its_own() {
    let (mut gateway, now, actions) = start(named());
    let resolver = Permit::Resolver { peer: 0 };
    assert_eq!(actions, [Action::Ask(resolver.clone())]);
    let actions = gateway.handle(Event::Granted(resolver), now);
    assert_eq!(actions, [Action::Resolve(named()[0].endpoint.clone())]);
    // Asking for the endpoint replaces the resolver's permission: it is closed before the tunnel opens.
    assert_eq!(
        gateway.handle(Event::Resolved(vec![*A.ip()]), now),
        asks(0, A)
    );
}

#[test]
fn a_name_that_does_not_resolve_closes_the_permission_and_is_tried_again() {
    let (mut gateway, now, _) = start(named());
    let _ = gateway.handle(Event::Granted(Permit::Resolver { peer: 0 }), now);
    let actions = gateway.handle(Event::Unresolved("no answer".to_owned()), now);
    assert_eq!(actions, [Action::Ask(Permit::Idle)]);
    let later = gateway.deadline().unwrap();
    assert!(later > now);
    let actions = gateway.handle(Event::Timeout, later);
    assert_eq!(actions, [Action::Ask(Permit::Resolver { peer: 0 })]);
}

#[test]
fn a_name_with_several_addresses_gives_another_one_each_time() {
    let (mut gateway, mut now, _) = start(named());
    let found = vec![*A.ip(), *B.ip()];
    for address in [A, B, A] {
        let _ = gateway.handle(Event::Granted(Permit::Resolver { peer: 0 }), now);
        assert_eq!(
            gateway.handle(Event::Resolved(found.clone()), now),
            asks(0, address)
        );
        now = gateway.deadline().unwrap();
        let _ = gateway.handle(Event::Timeout, now);
    }
}

#[test]
fn a_server_that_is_silent_for_15_s_gives_way_to_the_next() {
    let (mut gateway, now, _) = start(two());
    let _ = gateway.handle(
        Event::Granted(Permit::Endpoint {
            peer: 0,
            address: A,
        }),
        now,
    );
    let due = gateway.deadline().unwrap();
    assert!(due >= now + FIRST && due <= now + FIRST.mul_f64(1.2));
    assert_eq!(
        gateway.handle(Event::Timeout, due - Duration::from_millis(1)),
        []
    );
    assert_eq!(gateway.handle(Event::Timeout, due), asks(1, B));

    let (mut gateway, now) = connected(two());
    assert_eq!(gateway.handle(Event::Silent, now), asks(1, B));
}

#[test]
fn a_lone_server_is_tried_again_with_a_new_socket() {
    let (mut gateway, now) = connected(vec![two().remove(0)]);
    assert_eq!(gateway.handle(Event::Silent, now), asks(0, A));
}

/// An account that ended: the server answers handshakes, and forwards nothing.
#[test]
fn a_server_through_which_nothing_comes_back_gives_way_to_the_next() {
    let (mut gateway, now) = connected(two());
    assert!(!gateway.is_fruitless());
    assert_eq!(gateway.handle(Event::NothingReturns, now), asks(1, B));
    connects(&mut gateway, (1, B), true, now);
    assert!(
        gateway.is_fruitless(),
        "an answer to a handshake is no proof"
    );
    assert_eq!(gateway.handle(Event::Returns, now), []);
    assert!(!gateway.is_fruitless());
    let _ = gateway.handle(Event::NothingReturns, now);
    let _ = gateway.handle(Event::Command(Command::Disconnect), now);
    assert!(!gateway.is_fruitless());
}

#[test]
fn windows_grow_when_every_server_was_tried_in_vain() {
    let (mut gateway, mut now, _) = start(two());
    let mut windows = vec![];
    for _ in 0..8 {
        let due = gateway.deadline().unwrap();
        windows.push((due - now).as_secs());
        now = due;
        let _ = gateway.handle(Event::Timeout, now);
    }
    assert!(windows[0] < 19 && windows[1] < 19, "{windows:?}");
    assert!(windows[2] >= 30 && windows[3] < 37, "{windows:?}");
    assert_eq!(windows[7], 60, "{windows:?}");
}

#[test]
fn a_refusal_waits_and_says_why() {
    let (mut gateway, now, _) = start(two());
    let permit = Permit::Endpoint {
        peer: 0,
        address: A,
    };
    let refused = Event::Refused {
        permit,
        why: "no uplink".to_owned(),
    };
    assert_eq!(gateway.handle(refused, now), []);
    let State::Connecting(attempt) = gateway.state() else {
        panic!()
    };
    assert_eq!(attempt.step, Step::Waiting("no uplink".to_owned()));
    assert!(gateway.deadline().unwrap() <= now + Duration::from_millis(1200));
}

#[test]
fn an_answer_to_an_old_question_changes_nothing() {
    let (mut gateway, now) = connected(two());
    assert_eq!(
        gateway.handle(
            Event::Granted(Permit::Endpoint {
                peer: 1,
                address: B
            }),
            now
        ),
        []
    );
    let _ = gateway.handle(Event::Silent, now);
    assert_eq!(
        gateway.handle(
            Event::Granted(Permit::Endpoint {
                peer: 0,
                address: A
            }),
            now
        ),
        []
    );
    assert_eq!(
        gateway.handle(Event::Handshake, now),
        [],
        "of a session we no longer want"
    );
    assert!(matches!(gateway.state(), State::Connecting(_)));
}

#[test]
fn an_uplink_that_changes_is_asked_for_again_at_once() {
    let (mut gateway, now) = connected(two());
    assert_eq!(gateway.handle(Event::UplinkChanged, now), asks(0, A));
}

#[test]
fn a_reload_keeps_the_server_in_use_where_it_still_exists() {
    let (mut gateway, now) = connected(two());
    let swapped: Vec<_> = two().into_iter().rev().collect();
    assert_eq!(
        gateway.handle(Event::Reconfigured(swapped), now),
        asks(1, A)
    );

    let (mut gateway, now) = connected(two());
    let other = vec![two().remove(1)];
    assert_eq!(gateway.handle(Event::Reconfigured(other), now), asks(0, B));
}

#[test]
fn a_block_closes_the_tunnel_from_any_state() {
    for (state, mut gateway, now) in every_state() {
        let actions = gateway.handle(Event::Blocked(BlockReason::Leak("x".to_owned())), now);
        assert_eq!(actions, [Action::Close], "{state}");
        assert_eq!(
            gateway.deadline(),
            None,
            "{state}: only an operator ends a block"
        );
    }
}

#[test]
fn an_operator_blocks_and_lifts() {
    for (state, mut gateway, now) in every_state() {
        let actions = gateway.handle(Event::Command(Command::Disconnect), now);
        assert_eq!(actions, [Action::Close], "{state}");
        let actions = gateway.handle(Event::Command(Command::Connect), now);
        assert_eq!(actions, asks(0, A), "{state}");
    }
}

#[test]
fn a_leak_stays_the_reason_of_a_block() {
    let (mut gateway, now) = connected(two());
    let leak = BlockReason::Leak("x".to_owned());
    let _ = gateway.handle(Event::Blocked(leak.clone()), now);
    let _ = gateway.handle(Event::Command(Command::Disconnect), now);
    assert_eq!(gateway.state(), &State::Blocked(leak));
}

#[test]
fn a_new_engine_of_a_blocked_gateway_stays_blocked() {
    let now = Instant::now();
    let mut gateway = Gateway::new(two(), 7, now);
    let blocked = Some(BlockReason::Operator);
    assert_eq!(
        gateway.handle(Event::Attached { blocked }, now),
        [Action::Close]
    );
    assert_eq!(gateway.state(), &State::Blocked(BlockReason::Operator));
}

/// What an event that has no business in a state does there: nothing, and the state stays.
#[test]
fn an_event_out_of_place_changes_nothing() {
    let stray = [
        Event::Granted(Permit::Idle),
        Event::Granted(Permit::Endpoint {
            peer: 9,
            address: B,
        }),
        Event::Refused {
            permit: Permit::Idle,
            why: String::new(),
        },
        Event::Resolved(vec![]),
        Event::Unresolved(String::new()),
        Event::Timeout,
    ];
    for event in stray {
        for (state, mut gateway, now) in every_state() {
            let before = gateway.state().clone();
            assert_eq!(
                gateway.handle(event.clone(), now),
                [],
                "{event:?} in {state}"
            );
            assert_eq!(gateway.state(), &before, "{event:?} in {state}");
        }
    }
}

fn every_state() -> Vec<(&'static str, Gateway, Instant)> {
    let now = Instant::now();
    let arming = Gateway::new(two(), 7, now);
    let (connecting, at, _) = start(two());
    let (connected, then) = connected(two());
    let mut blocked = arming.clone();
    let _ = blocked.handle(Event::Blocked(BlockReason::Operator), now);
    vec![
        ("arming", arming, now),
        ("connecting", connecting, at),
        ("connected", connected, then),
        ("blocked", blocked, now),
    ]
}

fn any_event_but_connect() -> impl Strategy<Value = Event> {
    let peer = 0_usize..3;
    prop_oneof![
        Just(Event::Attached { blocked: None }),
        peer.clone()
            .prop_map(|peer| Event::Granted(Permit::Endpoint { peer, address: A })),
        peer.clone()
            .prop_map(|peer| Event::Granted(Permit::Resolver { peer })),
        peer.prop_map(|peer| Event::Refused {
            permit: Permit::Endpoint { peer, address: A },
            why: String::new()
        }),
        Just(Event::Resolved(vec![*B.ip()])),
        Just(Event::Unresolved(String::new())),
        Just(Event::Handshake),
        Just(Event::Silent),
        Just(Event::NothingReturns),
        Just(Event::Returns),
        Just(Event::Reconfigured(two())),
        Just(Event::Reconfigured(named())),
        Just(Event::UplinkChanged),
        Just(Event::Timeout),
        Just(Event::Blocked(BlockReason::Operator)),
        Just(Event::Command(Command::Disconnect)),
    ]
}

proptest! {
    #[test]
    fn only_an_operator_ends_a_block(events in vec((any_event_but_connect(), 0_u64..90), 0..50)) {
        let (mut gateway, mut now) = connected(two());
        let _ = gateway.handle(Event::Command(Command::Disconnect), now);
        for (event, seconds) in events {
            now += Duration::from_secs(seconds);
            let actions = gateway.handle(event, now);
            prop_assert!(matches!(gateway.state(), State::Blocked(_)));
            let opens = |a: &Action| matches!(a, Action::Open { .. } | Action::Ask(_));
            prop_assert!(!actions.iter().any(opens), "{actions:?}");
        }
    }

    #[test]
    fn nothing_starts_before_the_rules_are_confirmed(events in vec(any_event_but_connect(), 0..50)) {
        let now = Instant::now();
        let mut gateway = Gateway::new(two(), 7, now);
        for event in events {
            if matches!(event, Event::Attached { .. }) {
                break;
            }
            for action in gateway.handle(event, now) {
                prop_assert!(matches!(action, Action::Close), "{action:?}");
            }
        }
    }

    #[test]
    fn the_tunnel_opens_only_where_the_warden_granted_it(
        peers in prop_oneof![Just(two()), Just(named())],
        events in vec((any_event_but_connect(), 0_u64..90), 0..80),
    ) {
        let (mut gateway, mut now, mut actions) = start(peers);
        let mut asked = None;
        for (event, seconds) in events {
            for action in &actions {
                if let Action::Ask(permit) = action {
                    asked = Some(permit.clone());
                }
            }
            now += Duration::from_secs(seconds);
            actions = gateway.handle(event.clone(), now);
            for action in &actions {
                if let Action::Open { peer, address, .. } = action {
                    let permit = Permit::Endpoint { peer: *peer, address: *address };
                    prop_assert_eq!(&event, &Event::Granted(permit.clone()));
                    prop_assert_eq!(asked.as_ref(), Some(&permit));
                }
            }
        }
    }
}
