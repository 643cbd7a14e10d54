//! What a session does as time passes.

use super::*;

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

#[test]
fn keys_are_of_no_use_after_three_minutes() {
    let (mut a, mut b) = connected();
    let start = Instant::now();
    let mut dst = vec![0; 2000];
    let (_, early) = seal(&mut a, &packet(60, 1));
    let (_, late) = seal(&mut a, &packet(60, 2));
    let opened = b.open(after(start, 179), &early, &mut dst);
    assert_eq!(opened, Opened::Packet(60));
    let opened = b.open(after(start, 181), &late, &mut dst);
    assert_eq!(opened, Opened::Rejected);
    let sealed = a.seal(after(start, 181), &packet(60, 3), MTU, &mut dst);
    assert_eq!(sealed, Sealed::Ask(148));
}

#[test]
fn what_may_not_be_used_is_not_kept() {
    let (mut a, _) = connected();
    let mut dst = vec![0; SMALLEST_BUFFER];
    assert!(a.keypairs.current.is_some());
    a.tick(after(Instant::now(), 181), &mut dst);
    assert!(a.keypairs.current.is_none());
}

#[test]
fn time_asleep_counts() {
    let (mut a, _) = connected();
    let mut dst = vec![0; SMALLEST_BUFFER];
    let now = after(Instant::now(), 1);
    assert_eq!(a.tick_after(asleep(), now, &mut dst), None);
    let slept = asleep() + REKEY_AFTER_TIME;
    assert_eq!(a.tick_after(slept, now, &mut dst), Some(148));
    assert!(a.keypairs.current.is_some());
    a.tick_after(slept + REKEY_AFTER_TIME, now, &mut dst);
    assert!(a.keypairs.current.is_none());
}

#[test]
fn a_peer_that_wants_keepalives_gets_them() {
    let (mut a, mut b) = connected();
    a.timers = timers::Timers::new(Some(25), Instant::now());
    let start = Instant::now();
    let mut dst = vec![0; SMALLEST_BUFFER];
    assert_eq!(a.tick(after(start, 24), &mut dst), None);
    assert_eq!(a.tick(after(start, 26), &mut dst), Some(32));
    assert_eq!(open(&mut b, &dst[..32]).0, Opened::Nothing);
    assert_eq!(a.tick(after(start, 50), &mut dst), None);
    assert_eq!(a.tick(after(start, 52), &mut dst), Some(32));
}

#[test]
fn what_waited_ninety_seconds_is_given_up() {
    let (mut a, mut b) = pair();
    let start = Instant::now();
    let mut dst = vec![0; SMALLEST_BUFFER];
    seal(&mut a, &packet(60, 1));
    seal(&mut a, &packet(60, 2));
    a.tick(after(start, 89), &mut dst);
    assert_eq!(a.take_lost(), 0);
    a.tick(after(start, 91), &mut dst);
    assert_eq!(a.take_lost(), 2);
    let again = initiation(&mut a, after(start, 100));
    shake(&mut a, &mut b, &again);
    assert!(queued(&mut a).is_empty());
}

#[test]
fn a_retry_follows_as_long_as_nobody_answers() {
    for (mut a, kind) in [(pair().0, "new"), (connected().0, "connected")] {
        let start = Instant::now();
        let mut dst = vec![0; SMALLEST_BUFFER];
        initiation(&mut a, start);
        let mut sent = 0;
        for tick in 1..=1200 {
            let now = start + TICK * tick;
            sent += u32::from(a.tick(now, &mut dst) == Some(148));
        }
        // One in 5 s and up to 333 ms of jitter and a tick, for 300 s; a few more before it is a silence.
        assert!((53..=64).contains(&sent), "{kind}: {sent}");
    }
}

#[test]
fn an_initiation_that_must_wait_leaves_when_it_may() {
    let (mut a, _) = connected();
    let start = Instant::now();
    let mut dst = vec![0; SMALLEST_BUFFER];
    assert_eq!(a.begin(start, &mut dst), Some(148));
    a.moved(Ipv4Addr::new(192, 0, 2, 2));
    assert_eq!(a.begin(after(start, 1), &mut dst), None);
    assert!(a.deadline() <= a.timers.retry.unwrap());
    assert_eq!(a.tick(after(start, 2), &mut dst), None);
    assert_eq!(a.tick(after(start, 6), &mut dst), Some(148));
}

#[test]
fn an_answer_that_comes_too_late_is_none() {
    let (mut a, mut b) = pair();
    let start = Instant::now();
    let first = initiation(&mut a, start);
    let (_, response) = open(&mut b, &first);
    let mut dst = vec![0; 2000];
    let opened = a.open(after(start, 91), &response, &mut dst);
    assert_eq!(opened, Opened::Rejected);
    assert!(a.pending.is_some());
    a.tick_after(asleep(), after(start, 91), &mut dst);
    let asked = a.pending.as_ref().unwrap();
    assert!(asked.at > start, "it was asked anew");
}

#[test]
fn keys_that_aged_in_sleep_seal_nothing() {
    let (mut a, _) = connected();
    assert_eq!(seal(&mut a, &packet(60, 1)).0, Sealed::Send(96));
    let slept = asleep() + REJECT_AFTER_TIME;
    a.keypairs.expire(Instant::now(), slept);
    assert_eq!(seal(&mut a, &packet(60, 1)).0, Sealed::Ask(148));
}
