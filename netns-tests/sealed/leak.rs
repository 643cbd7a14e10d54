//! A joined program with every capability there is finds nothing to leave by.

use super::{PATIENCE, assert_inside};
use crate::lab::sealed::Sealed;
use crate::lab::tunnel::ifindex;
use crate::lab::{Lab, wait, xdp};
use crate::probes::program::{Persona, Program};
use crate::probes::{self, Family};

/// Fires every probe where joined programs live, and fails if one is seen on the uplink.
fn fire(lab: &Lab) {
    let mut program = Program::start_in(&lab.ns, "box", Persona::Lab);
    let names = Family::ALL.into_iter().flat_map(Family::names);
    let shots = probes::shoot(lab, &mut program, names);
    lab.sensor.drain();
    for shot in &shots {
        assert!(!shot.seen(lab), "leaked: {} ({:?})", shot.name, shot.answer);
    }
    lab.sensor.verdict();
}

#[test]
fn no_probe_leaves_a_sealed_namespace_even_without_rules() {
    let lab = Lab::new();
    lab.tables_belong_to_nobody();
    for family in [Family::Ip, Family::Device, Family::Packet, Family::Endpoint] {
        probes::control(&lab, family);
    }
    let mut sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    fire(&lab);
    // The whole of NET_ADMIN: without rules, without routes, with devices of its own.
    let admin = [
        "nft flush ruleset",
        "ip route flush table main",
        "ip link add veth9 type veth peer name veth8",
        "ip addr add 172.30.0.2/24 dev veth9",
        "ip link set veth9 up",
        "ip link set veth8 up",
        "ip route replace default dev veth9",
    ];
    for line in admin {
        lab.ns.run("box", line);
        fire(&lab);
    }
    // The warden has undone what concerns it.
    wait("the rules are back", PATIENCE, || {
        let rules = lab.ns.run("box", "nft list ruleset");
        rules.contains("table inet vpngw").then_some(())
    });
    lab.ns.run("box", "ip link del veth9");
    lab.ns.run("box", "nft flush ruleset");
    sealed.kill_warden();
    lab.ns.run("box", "nft flush ruleset");
    fire(&lab);
}

/// Other namespaces are reached by a number that the kernel gives a peer's namespace, or by a device there.
#[test]
fn a_sealed_namespace_knows_no_other_one() {
    let lab = Lab::new();
    let known = |name: &str| lab.ns.run(name, "ip netns list-id");
    assert!(known("rtr").contains("nsid"), "the control");
    let _sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    let listed = known("box");
    assert!(!listed.contains("nsid"), "{listed}");
    for number in 0..4 {
        let line = format!("ip link add link eth0 link-netnsid {number} name way type macvlan");
        assert!(!lab.ns.output("box", &line).status.success(), "{line}");
        let line = format!("ip -netns /proc/self/fd/{number} link show");
        assert!(!lab.ns.output("box", &line).status.success(), "{line}");
    }
    assert_inside(&lab);
    lab.sensor.verdict();
}

/// AF_XDP passes no rule and no tap; it needs a device, and there is none but loopback and the tunnel's.
#[test]
fn af_xdp_has_no_device_to_be_bound_to() {
    let lab = Lab::new();
    let uplink = ifindex(&lab.ns, "app", "eth0");
    lab.ns
        .enter("app", || xdp::bind(uplink))
        .expect("the control: it is bound to the uplink where there is one");
    let _sealed = Sealed::connect(&lab, &lab.conf(), &[]);
    let own = ["lo", "tun0"].map(|device| ifindex(&lab.ns, "box", device));
    for index in (1..100).filter(|index| !own.contains(index)) {
        let bound = lab.ns.enter("box", || xdp::bind(index));
        let error = bound.expect_err("there is no such device");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{index}: {error}");
    }
    // What goes by the tunnel's device, however it got there, goes to the engine.
    assert_inside(&lab);
    lab.sensor.verdict();
}
