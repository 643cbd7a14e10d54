//! Whoever comes to the warden's socket: nobody there opens or closes the namespace.

use std::io::pipe;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::Uid;
use rustix::process::Signal;
use rustix::thread::set_thread_uid;
use vpngw::config::{Lan, Outbound, Resolvers};
use vpngw::link::{Decline, Offer, ToEngine, ToWarden, VERSION};
use vpngw::policy::Permit;
use vpngw::sys::{fdpass, seqpacket};

use super::{PATIENCE, assert_inside};
use crate::lab::sealed::{NOBODY, Sealed, nobody_is_mapped};
use crate::lab::tunnel::Stream;
use crate::lab::{HOST, LAN, Lab, TUNNEL, at, wait};

/// Connects to the warden as another user; a thread of its own becomes that user.
pub(super) fn knock(door: &Path, user: u32) -> OwnedFd {
    let door = door.to_owned();
    let knock = std::thread::spawn(move || {
        if nobody_is_mapped() {
            set_thread_uid(Uid::from_raw(user)).unwrap();
        }
        wait("there is room at the door", PATIENCE, || {
            seqpacket::dial(&door).ok()
        })
    });
    knock.join().unwrap()
}

pub(super) fn say(link: &OwnedFd, message: &ToWarden) {
    // It may have been sent away already.
    let _ = fdpass::send(link, &serde_json::to_vec(message).unwrap(), &[]);
}

/// The next message; `None` when the link is closed.
fn hear(link: &OwnedFd) -> Option<(ToEngine, Vec<OwnedFd>)> {
    let mut buffer = vec![0; fdpass::LONGEST];
    wait("the warden answers or closes", PATIENCE, || {
        match fdpass::receive(link, &mut buffer) {
            Ok(Some((length, fds))) => Some(Some((
                serde_json::from_slice(&buffer[..length]).unwrap(),
                fds,
            ))),
            Ok(None) => Some(None),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            // What was said last comes after it.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(_) => Some(None),
        }
    })
}

/// The answer to a question, past what the warden says unasked.
pub(super) fn answer(link: &OwnedFd) -> Option<ToEngine> {
    loop {
        let (message, _) = hear(link)?;
        if !matches!(message, ToEngine::Facts(_) | ToEngine::Evidence(_)) {
            return Some(message);
        }
    }
}

pub(super) fn attach(version: u32) -> ToWarden {
    ToWarden::Attach {
        version,
        release: "hostile".to_owned(),
    }
}

fn offer() -> Offer {
    Offer {
        device: "tun0".parse().unwrap(),
        addresses: vec![format!("{TUNNEL}/24").parse().unwrap()],
        mtu: 1420,
        dns: Resolvers::new(vec![[10, 64, 0, 1].into()]),
        private: vec![],
        lan: Lan::default(),
        forward: vec![],
    }
}

/// The rules without what they have counted.
fn rules(lab: &Lab) -> String {
    let text = lab.ns.run("box", "nft -s list ruleset");
    assert!(text.contains("table inet vpngw"), "{text}");
    text
}

#[test]
fn a_hostile_peer_neither_opens_nor_closes_the_namespace() {
    let lab = Lab::new();
    let sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    let mut stream = Stream::open(&lab.ns, "box", at(HOST, 7), PATIENCE).unwrap();
    let before = rules(&lab);
    let engine = if nobody_is_mapped() { NOBODY } else { 0 };
    for round in 0..30 {
        // Words that are none, too many descriptors, an engine out of turn, one that is silent.
        let garbage = knock(&sealed.door, engine);
        let _ = fdpass::send(&garbage, &[0x80 | round; 60_000], &[]);
        assert!(hear(&garbage).is_none());
        let (reader, _writer) = pipe().unwrap();
        let spam = knock(&sealed.door, engine);
        let _ = fdpass::send(&spam, b"{}", &[reader.as_fd(); fdpass::MOST_FDS]);
        assert!(hear(&spam).is_none());
        for turn in [ToWarden::Stopped, ToWarden::Offer(Box::new(offer()))] {
            let early = knock(&sealed.door, engine);
            say(&early, &turn);
            assert!(hear(&early).is_none());
        }
    }
    // Many at once, who say nothing.
    let silent: Vec<_> = (0..12).map(|_| seqpacket::dial(&sealed.door)).collect();
    stream.echo(PATIENCE).unwrap();
    drop(silent);
    let old = knock(&sealed.door, engine);
    say(&old, &attach(VERSION + 1));
    assert_eq!(
        answer(&old),
        Some(ToEngine::Declined(Decline::Version(VERSION)))
    );
    if nobody_is_mapped() {
        for user in [1000, 0] {
            let stranger = knock(&sealed.door, user);
            say(&stranger, &attach(VERSION));
            say(&stranger, &ToWarden::Offer(Box::new(offer())));
            let wanted = NOBODY;
            let declined = ToEngine::Declined(Decline::User { user, wanted });
            assert_eq!(answer(&stranger), Some(declined));
        }
    }
    stream.echo(PATIENCE).unwrap();
    assert_eq!(rules(&lab), before);
    sealed.wait_connected();
    lab.sensor.verdict();
}

#[test]
fn a_second_engine_is_refused_while_the_first_one_lives() {
    let lab = Lab::new();
    let mut sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    let user = if nobody_is_mapped() { NOBODY } else { 0 };
    let second = || {
        let link = knock(&sealed.door, user);
        say(&link, &attach(VERSION));
        say(&link, &ToWarden::Offer(Box::new(offer())));
        link
    };
    assert_eq!(answer(&second()), Some(ToEngine::Declined(Decline::Busy)));
    assert_inside(&lab);
    // One that takes no message does not live.
    sealed.signal(sealed.engine(), Signal::STOP);
    let start = Instant::now();
    wait("the place is free", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(200));
        matches!(answer(&second()), Some(ToEngine::Welcome { .. })).then_some(())
    });
    println!(
        "an engine that hangs is replaced after {:?}",
        start.elapsed()
    );
    sealed.kill_engine();
    sealed.start_engine();
    sealed.wait_connected();
    assert_inside(&lab);
    lab.sensor.verdict();
}

/// An engine that was taken over, with all that an engine has.
#[test]
fn a_sealed_engine_gets_no_more_than_the_configuration_holds() {
    let lab = Lab::new();
    let mut sealed = Sealed::new(&lab, &lab.conf());
    sealed.start_warden(&[("VPNGW_LAN_INBOUND", "172.30.0.50/32=tcp/8080")]);
    let link = knock(&sealed.door, if nobody_is_mapped() { NOBODY } else { 0 });
    say(&link, &attach(VERSION));
    say(&link, &ToWarden::Offer(Box::new(offer())));
    let Some((ToEngine::Welcome { config, .. }, fds)) = hear(&link) else {
        panic!("no welcome");
    };
    // The TUN device and nothing else; no configuration, which would be the warden's.
    assert_eq!((config, fds.len()), (None, 1));
    let before = rules(&lab);
    let connect = |port, client| ToWarden::Connect {
        id: 1,
        port,
        client,
    };
    // What the warden's configuration holds, and the engine did not offer, is not in force either.
    for (port, client) in [(8080, LAN), (22, LAN), (8080, HOST)] {
        say(&link, &connect(port, client));
        let refused = answer(&link);
        assert!(
            matches!(refused, Some(ToEngine::NotConnected { .. })),
            "{refused:?}"
        );
    }
    let mut wider = offer();
    let outbound = Outbound::new(LAN, "tcp/445".parse().unwrap()).unwrap();
    wider.lan.outbound.push(outbound);
    say(&link, &ToWarden::Offer(Box::new(wider)));
    let declined = answer(&link);
    assert!(
        matches!(&declined, Some(ToEngine::Declined(Decline::Offer(why))) if why.contains("172.30.0.50 tcp/445")),
        "{declined:?}"
    );
    let address = lab.servers[0].endpoint;
    for permit in [
        Permit::Endpoint { peer: 0, address },
        Permit::Resolver { peer: 0 },
    ] {
        say(&link, &ToWarden::Ask { id: 1, permit });
        let refused = answer(&link);
        assert!(
            matches!(refused, Some(ToEngine::Refused { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(rules(&lab), before);
    // Garbage ends the engine, and nothing else.
    fdpass::send(&link, b"\xff\xff", &[]).unwrap();
    while hear(&link).is_some() {}
    assert_eq!(rules(&lab), before);
    sealed.start_engine();
    sealed.wait_connected();
    assert_inside(&lab);
    lab.sensor.verdict();
}
