//! LAN exceptions without a device: connections that the two halves hand to each other.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use vpngw::control::api::Report;

use super::{PATIENCE, assert_inside};
use crate::lab::classify::LanFlow;
use crate::lab::conf::Conf;
use crate::lab::sealed::{Environment, Sealed};
use crate::lab::services::{Service, Services};
use crate::lab::tunnel::Stream;
use crate::lab::{APP, EVIL, LAN, Lab, at, wait};

/// Long enough for an answer that comes, short enough to wait for one that must not.
const SILENCE: Duration = Duration::from_secs(3);

const INBOUND: Environment<'static> = &[(
    "VPNGW_LAN_INBOUND",
    "172.30.0.50/32=tcp/8080,172.30.0.50/32=tcp/8082",
)];

/// Two exceptions; behind the second one no program listens.
fn inbound(lab: &Lab) -> Conf {
    let mut conf = lab.conf();
    conf.toml = "[lan]\ninbound = [{ from = \"172.30.0.50/32\", to = \"tcp/8080\" }, \
                 { from = \"172.30.0.50/32\", to = \"tcp/8082\" }]"
        .into();
    lab.sensor.permit(|rules| {
        rules.lan = [8080, 8081, 8082]
            .map(|port| flow(Some(port), LAN, None))
            .to_vec();
        // Whom it does not want it resets.
        rules.lan.push(flow(Some(8080), EVIL, None));
        rules.arp.extend([LAN, EVIL]);
    });
    conf
}

fn web(lab: &Lab) -> Services {
    let any = Ipv4Addr::UNSPECIFIED;
    let ports = vec![Service::Tcp(at(any, 8080)), Service::Tcp(at(any, 8081))];
    Services::start(&lab.ns, "box", "web", ports)
}

fn visit(lab: &Lab, from: &str, to: SocketAddr, patience: Duration) -> Option<String> {
    let stream = Stream::open(&lab.ns, from, to, patience);
    stream.ok().map(|stream| stream.greeting)
}

fn flow(local: Option<u16>, remote: Ipv4Addr, remote_port: Option<u16>) -> LanFlow {
    LanFlow {
        protocol: 6,
        local,
        remote,
        remote_port,
    }
}

#[test]
fn a_lan_client_is_handed_in_under_its_own_address() {
    let lab = Lab::new();
    let _web = web(&lab);
    let sealed = Sealed::connect(&lab, &inbound(&lab), INBOUND);
    let greeting = visit(&lab, "lan", at(APP, 8080), PATIENCE);
    assert_eq!(greeting, Some(format!("web {LAN}\n")));
    for (from, port) in [("evil", 8080), ("lan", 8081), ("lan", 8082)] {
        assert_eq!(
            visit(&lab, from, at(APP, port), SILENCE),
            None,
            "{from}, {port}"
        );
    }
    // Blocked is loopback only, for the LAN too.
    let mut open = Stream::open(&lab.ns, "lan", at(APP, 8080), PATIENCE).unwrap();
    open.echo(PATIENCE).unwrap();
    sealed.ctl("app", &["disconnect"]);
    assert!(open.echo(PATIENCE).is_err());
    assert_eq!(visit(&lab, "lan", at(APP, 8080), SILENCE), None);
    sealed.ctl("app", &["connect"]);
    sealed.wait_connected();
    assert!(visit(&lab, "lan", at(APP, 8080), PATIENCE).is_some());
    assert_inside(&lab);
    assert!(lab.sensor.verdict().lan > 0);
}

#[test]
fn both_directions_end_by_themselves_and_no_byte_is_lost() {
    const LENGTH: usize = 8 << 20;
    let lab = Lab::new();
    let _web = web(&lab);
    let _sealed = Sealed::connect(&lab, &inbound(&lab), INBOUND);
    let stream: TcpStream = lab.ns.enter("lan", || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.connect(&at(APP, 8080).into()).unwrap();
        socket.into()
    });
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let sent = std::thread::spawn(move || {
        for block in 0..LENGTH / 4096 {
            sender.write_all(&[block as u8; 4096]).unwrap();
        }
        // The end of what is said is not the end of what is heard.
        sender.shutdown(Shutdown::Write).unwrap();
    });
    // Everything between the two is full before anything is read.
    std::thread::sleep(Duration::from_millis(500));
    let mut answer = Vec::new();
    let mut stream = stream;
    stream.read_to_end(&mut answer).unwrap();
    sent.join().unwrap();
    let greeting = answer.iter().position(|b| *b == b'\n').unwrap() + 1;
    let echo = &answer[greeting..];
    assert_eq!(echo.len(), LENGTH);
    assert!((0..LENGTH / 4096).all(|block| echo[block * 4096] == block as u8));
    lab.sensor.verdict();
}

#[test]
fn a_joined_program_reaches_one_host_and_one_port_on_the_lan() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    conf.toml = "[lan]\noutbound = [{ to = \"172.30.0.50\", port = \"tcp/445\" }]".into();
    lab.sensor.permit(|rules| {
        rules.lan = vec![flow(None, LAN, Some(445))];
        rules.arp.push(LAN);
    });
    let mut sealed = Sealed::connect(
        &lab,
        &conf,
        &[("VPNGW_LAN_OUTBOUND", "172.30.0.50=tcp/445")],
    );
    let mut stream = Stream::open(&lab.ns, "box", at(LAN, 445), PATIENCE).unwrap();
    assert_eq!(stream.greeting, format!("lan {APP}\n"));
    stream.echo(PATIENCE).unwrap();
    for to in [at(LAN, 7), at(EVIL, 445)] {
        assert_eq!(visit(&lab, "box", to, SILENCE), None, "{to}");
    }
    // While there is no engine, a connection waits for the next one.
    sealed.kill_engine();
    sealed.wait_log(0, "the engine ended");
    let ns = lab.ns.clone();
    let waits = std::thread::spawn(move || Stream::open(&ns, "box", at(LAN, 445), PATIENCE));
    sealed.start_engine();
    let stream = waits.join().unwrap().unwrap();
    assert_eq!(stream.greeting, format!("lan {APP}\n"));
    assert!(lab.sensor.verdict().lan > 0);
}

#[test]
fn what_only_one_half_is_told_stays_shut() {
    let lab = Lab::new();
    let _web = web(&lab);
    let mut sealed = Sealed::new(&lab, &inbound(&lab));
    sealed.start_warden(&[("VPNGW_LAN_INBOUND", "172.30.0.50/32=tcp/8080")]);
    sealed.start_engine();
    assert_eq!(sealed.engine_ends().code(), Some(2));
    let line = "the engine's [lan] inbound lets 172.30.0.50/32 reach tcp/8082";
    assert!(sealed.log(0).contains(line), "{}", sealed.log(0));
    assert!(sealed.log(1).contains(line), "{}", sealed.log(1));
    assert_eq!(visit(&lab, "lan", at(APP, 8080), SILENCE), None);
    let addresses = lab.ns.run("box", "ip -4 -o addr show");
    assert!(!addresses.contains("10.64.0.2"), "{addresses}");
    // The operator gives both the same.
    let mut conf = inbound(&lab);
    conf.toml = "[lan]\ninbound = [{ from = \"172.30.0.50/32\", to = \"tcp/8080\" }]".into();
    sealed.configure(&conf);
    sealed.start_engine();
    sealed.wait_connected();
    wait("the web interface answers", PATIENCE, || {
        visit(&lab, "lan", at(APP, 8080), SILENCE)
    });
    lab.sensor.verdict();
}

#[test]
fn an_exception_for_udp_is_refused_by_both_halves() {
    let lab = Lab::new();
    let mut conf = lab.conf();
    conf.toml = "[lan]\ninbound = [{ from = \"172.30.0.50/32\", to = \"udp/27015\" }]".into();
    let mut sealed = Sealed::new(&lab, &conf);
    sealed.spawn_warden(&[("VPNGW_LAN_INBOUND", "172.30.0.50/32=udp/27015")]);
    assert_eq!(sealed.warden_ends().code(), Some(2));
    sealed.start_engine();
    assert_eq!(sealed.engine_ends().code(), Some(2));
    for half in [0, 1] {
        let log = sealed.log(half);
        assert!(log.contains("hands over TCP connections only"), "{log}");
    }
    lab.sensor.verdict();
}

/// The engine takes connections in, so it knows whom it turns away.
#[test]
fn a_client_that_is_turned_away_is_listed_with_the_line_that_lets_it_in() {
    let lab = Lab::new();
    let _web = web(&lab);
    let mut conf = inbound(&lab);
    conf.toml += "\n[log]\nlevel = \"debug\"";
    let sealed = Sealed::connect(&lab, &conf, INBOUND);
    assert_eq!(visit(&lab, "evil", at(APP, 8080), SILENCE), None);
    let line = wait("the client is listed", PATIENCE, || {
        let done = sealed.ctl("app", &["blocked", "--json"]);
        let report: Report = serde_json::from_slice(&done.stdout).ok()?;
        let mut lines = report.lines.into_iter();
        lines.find(|line| line.from == Some(EVIL.into()))
    });
    assert_eq!((line.reason.as_str(), line.port), ("inbound", Some(8080)));
    let said = |words: &[&str]| {
        let done = sealed.ctl("app", words);
        assert!(done.status.success(), "{words:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let evil = EVIL.to_string();
    let refused = said(&["explain", "--from", &evil, "8080/tcp"]);
    assert!(refused.contains("is refused (inbound)"), "{refused}");
    let page = said(&["blocked"]);
    for part in [
        format!("inbound = [{{ from = \"{EVIL}/32\", to = \"tcp/8080\" }}]"),
        format!("VPNGW_LAN_INBOUND={EVIL}/32=tcp/8080"),
    ] {
        for text in [&page, &refused, &sealed.log(1)] {
            assert!(text.contains(&part), "no {part}:\n{text}");
        }
    }
    let lan = LAN.to_string();
    let passes = said(&["explain", "--from", &lan, "tcp/8080"]);
    assert!(
        passes.contains("passes (lan-inbound): the engine"),
        "{passes}"
    );
    lab.sensor.verdict();
}
