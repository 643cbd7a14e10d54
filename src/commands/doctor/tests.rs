//! What is judged of what.

use super::facts::{Bound, Facts, Joiner, Joiners, Kin, Rules, Uplink};
use super::judge::judge;
use super::{Layout, Outcome, Report};
use crate::commands::exit::Code;
use crate::control::api::{Ipv6, Topology};
use crate::control::example;
use crate::ruleset::Lack;
use crate::sys::privilege::{ENGINE, NOBODY};
use crate::warden::Inexact;

/// A connected gateway of the shared topology, seen from its own container, where nothing is amiss.
fn shared() -> Facts {
    Facts {
        uplinks: vec![uplink("eth0")],
        tunnel: Some("tun0".parse().unwrap()),
        machine: false,
        named: false,
        kernel: "6.12.74+deb13-amd64".to_owned(),
        rules: Rules::There(Some(1)),
        tun_node: true,
        net_admin: true,
        net_raw: true,
        sysctls_writable: Some(true),
        ipv6_off: true,
        nameservers: Ok(vec!["10.64.0.1".to_owned()]),
        bound: Some([bound("tcp/8080", [0, 0, 0, 0])].into()),
        joiners: Joiners {
            harmless: 1,
            all_visible: true,
            ..Joiners::default()
        },
        status: Ok(example::connected()),
    }
}

fn sealed() -> Facts {
    let mut facts = shared();
    facts.uplinks.clear();
    said(&mut facts).topology = Topology::Sealed;
    facts
}

/// As any container of the machine.
fn nothing() -> Facts {
    Facts {
        tunnel: None,
        rules: Rules::Absent,
        ipv6_off: false,
        status: Err("no gateway answers at /run/vpngw/vpngw.sock".to_owned()),
        ..shared()
    }
}

fn uplink(name: &str) -> Uplink {
    Uplink {
        name: name.parse().unwrap(),
        inexact: None,
        veth: true,
        gro: Some(true),
    }
}

fn bound(port: &str, address: [u8; 4]) -> Bound {
    Bound {
        port: port.parse().unwrap(),
        address: Some(address.into()),
    }
}

fn joiner(name: &str, net_admin: bool, net_raw: bool) -> Joiner {
    Joiner {
        pid: 812,
        name: name.to_owned(),
        net_admin,
        net_raw,
        may_take_uplink: false,
    }
}

fn kin(name: &str, user: u32) -> Kin {
    Kin {
        pid: 812,
        name: name.to_owned(),
        user,
    }
}

fn said(facts: &mut Facts) -> &mut crate::control::api::Status {
    facts.status.as_mut().unwrap()
}

/// The outcome of one check; `None` where it was not made.
fn outcome(report: &Report, check: &str) -> Option<Outcome> {
    let mut found = report.checks.iter().filter(|it| it.check == check);
    found.next().map(|it| it.outcome)
}

#[test]
fn a_gateway_as_it_should_be_holds() {
    for (facts, layout) in [(shared(), Layout::Shared), (sealed(), Layout::Sealed)] {
        let report = judge(&facts);
        assert_eq!(report.topology, layout);
        assert_eq!(
            (report.verdict, report.code()),
            (Outcome::Holds, Code::Ok),
            "{}",
            report.page()
        );
    }
}

/// What no setting of the uplink can change is not advised.
#[test]
fn accounting_without_the_egress_hook_takes_another_kernel() {
    let mut facts = shared();
    facts.uplinks[0].inexact = Some(Inexact::Off("tx-udp-segmentation"));
    let status = said(&mut facts);
    status.kill_switch.raw_frames = false;
    status.leaks.accounted = false;
    status.leaks.not_accounted = Some("the kernel has no egress hook".to_owned());
    let advice = |facts: &Facts| {
        let checks = judge(facts).checks;
        let found = checks.into_iter().find(|it| it.check == "accounting");
        found.unwrap().change.unwrap()
    };
    assert_eq!(
        advice(&facts),
        "Linux 5.16 or newer, or the sealed topology"
    );
    // The control: with the hook, it is the uplink's setting.
    said(&mut facts).kill_switch.raw_frames = true;
    assert!(advice(&facts).contains("ethtool -K eth0 tx-udp-segmentation on"));
}

/// A check, how it comes out, and what spoils it.
type Case = (&'static str, Outcome, fn(&mut Facts));

/// Every fact that can be wrong makes one check fail, and whatever does not hold says what to change.
#[test]
fn what_is_wrong_is_named_with_what_to_change() {
    use Outcome::{DoesNotHold, Hint, Unknown};
    let cases: [Case; 24] = [
        ("topology", DoesNotHold, |it| it.tunnel = None),
        ("connection", DoesNotHold, |it| {
            it.status = Ok(example::blocked_by_operator())
        }),
        ("connection", DoesNotHold, |it| {
            it.status = Ok(example::connecting())
        }),
        ("connection", Unknown, |it| {
            it.status = Err("nobody".to_owned())
        }),
        ("kill switch", DoesNotHold, |it| it.rules = Rules::Absent),
        ("kill switch", DoesNotHold, |it| {
            it.rules = Rules::Unread("no such thing".to_owned())
        }),
        ("kill switch", DoesNotHold, |it| {
            said(it).kill_switch.lacks = vec![Lack::Rules]
        }),
        ("nft_log", Hint, |it| {
            said(it).kill_switch.lacks = vec![Lack::Log]
        }),
        ("nft_reject_inet", Hint, |it| {
            said(it).kill_switch.lacks = vec![Lack::Reject]
        }),
        ("raw frames", DoesNotHold, |it| {
            said(it).kill_switch.raw_frames = false
        }),
        ("owned tables", DoesNotHold, |it| {
            it.rules = Rules::There(None)
        }),
        ("owned tables", Unknown, |it| it.rules = Rules::Denied),
        ("frame sensor", DoesNotHold, |it| {
            said(it).leaks.watched = false
        }),
        ("accounting", DoesNotHold, |it| {
            let leaks = &mut said(it).leaks;
            (leaks.accounted, leaks.not_accounted) =
                (false, Some("eth0: it has a queue".to_owned()));
        }),
        ("leaks", DoesNotHold, |it| said(it).leaks.detected = 1),
        ("joined programs", DoesNotHold, |it| {
            it.joiners.capable = vec![joiner("sh", true, true)]
        }),
        ("joined programs", Unknown, |it| {
            it.joiners.all_visible = false
        }),
        ("joined programs", Unknown, |it| it.joiners.unread = 2),
        ("DNS", DoesNotHold, |it| {
            it.nameservers = Ok(vec!["192.168.1.1".to_owned()])
        }),
        ("uplinks", Hint, |it| it.uplinks.push(uplink("eth1"))),
        ("speed", Hint, |it| it.uplinks[0].gro = Some(false)),
        ("LAN exceptions", Hint, |it| {
            it.bound = Some([bound("tcp/8080", [127, 0, 0, 1])].into())
        }),
        ("engine's user", Hint, |it| {
            it.joiners.engines = [ENGINE].into();
            it.joiners.kin = vec![kin("sh", ENGINE)];
        }),
        ("engine's user", Hint, |it| {
            it.joiners.engines = [NOBODY].into()
        }),
    ];
    for (check, expected, spoil) in cases {
        let mut facts = shared();
        spoil(&mut facts);
        let report = judge(&facts);
        let page = report.page();
        assert_eq!(outcome(&report, check), Some(expected), "{check}: {page}");
        let code = if expected == Hint {
            Code::Ok
        } else {
            Code::NotConnected
        };
        assert_eq!(report.code(), code, "{check}: {page}");
        for finding in report.checks {
            let is_bad = [DoesNotHold, Unknown].contains(&finding.outcome);
            assert!(!is_bad || finding.change.is_some(), "{finding:?}");
        }
    }
}

#[test]
fn what_keeps_frames_from_being_counted_can_be_changed() {
    for (why, change) in [
        (
            Inexact::Queue("fq_codel".to_owned()),
            "`tc qdisc replace dev eth0 root noqueue`",
        ),
        (
            Inexact::Off("tx-udp-segmentation"),
            "`ethtool -K eth0 tx-udp-segmentation on`",
        ),
        (
            Inexact::Unread("EPERM".to_owned()),
            "the uplink of a container, which is a veth, is counted exactly",
        ),
    ] {
        let mut facts = shared();
        facts.uplinks[0].inexact = Some(why);
        facts.status = Err(String::new());
        let report = judge(&facts);
        let found = report.checks.iter().find(|it| it.check == "accounting");
        assert_eq!(found.unwrap().outcome, Outcome::DoesNotHold);
        assert_eq!(found.unwrap().change.as_deref(), Some(change));
    }
}

#[test]
fn who_could_take_the_uplink_away_is_named() {
    let why = |may_take_uplink| {
        let mut facts = shared();
        let sh = Joiner {
            may_take_uplink,
            ..joiner("sh", true, false)
        };
        facts.joiners.capable = vec![sh, joiner("tcpdump", false, true)];
        let report = judge(&facts);
        let mut found = report.checks.into_iter();
        found.find(|it| it.check == "joined programs").unwrap().why
    };
    let (free, held) = (why(true), why(false));
    assert!(
        free.ends_with("keeps them from making one: sh (pid 812)"),
        "{free}"
    );
    assert!(
        held.ends_with("can cut the network of all: sh (pid 812)"),
        "{held}"
    );
}

#[test]
fn in_a_sealed_namespace_capabilities_lead_nowhere() {
    let mut facts = sealed();
    facts.joiners.capable = vec![joiner("sh", true, true)];
    said(&mut facts).leaks.watched = false;
    assert_eq!(judge(&facts).verdict, Outcome::Holds);
    facts.uplinks = vec![uplink("eth0")];
    let report = judge(&facts);
    for check in ["topology", "joined programs", "frame sensor"] {
        assert_eq!(
            outcome(&report, check),
            Some(Outcome::DoesNotHold),
            "{check}"
        );
    }
}

#[test]
fn the_engines_side_of_a_sealed_gateway_is_told_apart() {
    let mut facts = sealed();
    (facts.uplinks, facts.tunnel) = (vec![uplink("eth0")], None);
    (facts.rules, facts.tun_node) = (Rules::Denied, false);
    let report = judge(&facts);
    assert_eq!(
        (report.topology, report.code()),
        (Layout::SealedEngine, Code::Ok)
    );
    // No rules hold any device here, so none is said to be held.
    facts.uplinks.push(uplink("eth1"));
    assert_eq!(outcome(&judge(&facts), "uplinks"), None);
    said(&mut facts).kill_switch.armed = false;
    assert_eq!(
        outcome(&judge(&facts), "kill switch"),
        Some(Outcome::DoesNotHold)
    );
}

#[test]
fn who_is_the_engines_user_is_named() {
    let mut facts = shared();
    let found = |facts: &Facts| {
        let mut checks = judge(facts).checks.into_iter();
        checks.find(|it| it.check == "engine's user")
    };
    assert_eq!(found(&facts), None, "no engine is visible");
    facts.joiners.engines = [ENGINE].into();
    assert_eq!(found(&facts).unwrap().outcome, Outcome::Holds);
    facts.joiners.kin = vec![kin("sh", ENGINE), kin("python3", ENGINE)];
    let why = found(&facts).unwrap().why;
    assert!(
        why.ends_with("sh (pid 812, user 65530), python3 (pid 812, user 65530)"),
        "{why}"
    );
    // In the sealed topology the operator names the user.
    facts = sealed();
    facts.joiners.engines = [NOBODY].into();
    let change = found(&facts).unwrap().change.unwrap();
    assert!(change.contains("engine_user = 65530"), "{change}");
}

/// A dead gateway's rules, a gateway that nobody can see, and none at all.
#[test]
fn without_an_answer_the_topology_is_told_by_rules_and_devices() {
    let silent = |rules, tunnel: bool, uplink: bool| {
        let mut facts = Facts { rules, ..nothing() };
        facts.tunnel = tunnel.then(|| "tun0".parse().unwrap());
        facts.uplinks.truncate(usize::from(uplink));
        judge(&facts)
    };
    let there = Rules::There(None);
    for (rules, tunnel, uplink, layout, topology) in [
        (there.clone(), true, true, Layout::Shared, Outcome::Holds),
        (there.clone(), true, false, Layout::Sealed, Outcome::Holds),
        (there, false, false, Layout::Sealed, Outcome::DoesNotHold),
        (Rules::Denied, true, true, Layout::Shared, Outcome::Unknown),
        (
            Rules::Denied,
            false,
            true,
            Layout::NoGateway,
            Outcome::DoesNotHold,
        ),
        (
            Rules::Absent,
            true,
            true,
            Layout::NoGateway,
            Outcome::DoesNotHold,
        ),
    ] {
        let report = silent(rules, tunnel, uplink);
        assert_eq!(report.topology, layout);
        assert_eq!(
            outcome(&report, "topology"),
            Some(topology),
            "{}",
            report.page()
        );
        assert_eq!(report.code(), Code::NotConnected);
    }
}

#[test]
fn ipv6_and_dockers_resolver_are_held_by_rules_or_not_at_all() {
    let with = |rules: Rules, armed: bool| {
        let mut facts = Facts {
            rules,
            ipv6_off: false,
            ..shared()
        };
        let docker = bound("udp/41821", [127, 0, 0, 11]);
        facts.bound.as_mut().unwrap().insert(docker);
        let status = said(&mut facts);
        (status.kill_switch.armed, status.ipv6) = (armed, Ipv6::Dropped);
        let mut report = judge(&facts);
        let of = |check| outcome(&report, check).unwrap();
        let found = (of("IPv6"), of("Docker's resolver"));
        facts.status = Err(String::new());
        report = judge(&facts);
        (found, outcome(&report, "IPv6"))
    };
    use Outcome::{DoesNotHold, Holds, Unknown};
    assert_eq!(
        with(Rules::There(Some(1)), true),
        ((Holds, Holds), Some(Holds))
    );
    assert_eq!(with(Rules::Denied, true), ((Holds, Holds), Some(Unknown)));
    assert_eq!(with(Rules::Absent, true).0, (DoesNotHold, DoesNotHold));
}

#[test]
fn an_old_kernel_is_told_by_its_release() {
    let at_least = |kernel: &str| {
        let kernel = kernel.to_owned();
        Facts { kernel, ..shared() }.is_at_least((5, 16))
    };
    assert_eq!(at_least("5.15.0-91-generic"), Some(false));
    assert_eq!(at_least("5.16.0"), Some(true));
    assert_eq!(at_least("6.1"), Some(true));
    assert_eq!(at_least("10.0-rc1"), Some(true));
    assert_eq!(at_least("odd"), None);
}

#[test]
fn a_person_reads_what_to_change() {
    let mut facts = shared();
    facts.joiners.capable = vec![joiner("qbittorrent-nox", false, true)];
    facts.sysctls_writable = Some(false);
    facts.ipv6_off = false;
    facts.bound = Some([bound("udp/41821", [127, 0, 0, 11])].into());
    facts.uplinks[0].gro = Some(false);
    insta::assert_snapshot!(judge(&facts).page());
}

#[test]
fn without_a_gateway_a_person_reads_where_to_ask() {
    let facts = Facts {
        machine: true,
        net_admin: false,
        tun_node: false,
        ..nothing()
    };
    insta::assert_snapshot!(judge(&facts).page());
}
