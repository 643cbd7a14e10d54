//! What a joined container with root and Docker's default capabilities can send: the probes of the namespace tests,
//! fired by this very program as a process of the container.
//!
//! The lab's Docker hands out the addresses that the probes are written for: 172.30.0.2 to the gateway's container,
//! 172.30.0.1 to its bridge.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, SystemTime};

use crate::docker::APP;
use crate::lab::canary::{self, Canary};
use crate::lab::classify::Flow;
use crate::lab::sensor::Sensor;
use crate::lab::{EVIL, LAN};
use crate::probes::{Probe, device, dns, endpoint, ip, multicast, packet};
use crate::stage::{GATEWAY, Stage};

/// Set inside the container, where [`fires_each_probe`] is no test but the program.
const INSIDE: &str = "VPNGW_PROBES";

/// Marks a line for the test in the output.
const MARK: &str = "PROBE ";

/// A container in the place of the gateway's, without a gateway.
const PLAIN: &str = "plain";

/// Each probe is sent so often: address resolution may swallow the first packets.
const TIMES: usize = 3;

fn probes() -> impl Iterator<Item = &'static Probe> {
    let all = [
        device::PROBES,
        dns::PROBES,
        endpoint::PROBES,
        ip::PROBES,
        multicast::PROBES,
        packet::PROBES,
    ];
    all.into_iter().flatten()
}

#[test]
fn a_joined_root_container_gets_nothing_out() {
    let stage = Stage::new();
    let profile = stage.profile("shared");

    stage.docker.run(&["network", "create", PLAIN]);
    let plain = ["run", "--detach", "--name", PLAIN, "--network", PLAIN];
    let sleeps = ["--entrypoint", "sleep", APP, "1000"];
    stage.docker.run(&[plain.as_slice(), &sleeps].concat());
    let sensor = watch(&stage, PLAIN);
    let seen = fire(&stage, PLAIN, &sensor);
    let missing = probes().map(|probe| probe.name);
    let missing: Vec<_> = missing.filter(|name| !seen.contains(*name)).collect();
    assert!(
        missing.is_empty(),
        "not seen without a gateway: {missing:?}"
    );
    drop(sensor);
    stage.docker.run(&["rm", "--force", PLAIN]);
    stage.docker.run(&["network", "rm", PLAIN]);

    stage.up(&profile, "vpngw");
    let sensor = watch(&stage, GATEWAY);
    sensor.arm(SystemTime::now());
    stage.wait_healthy(GATEWAY);
    let seen = fire(&stage, GATEWAY, &sensor);
    assert_eq!(seen, BTreeSet::new(), "left by the uplink");
    sensor.verdict();
    stage.docker.run(&["exec", GATEWAY, "vpngw", "healthcheck"]);
}

/// The program inside the container: fires each probe and says which token or flow it was.
#[test]
#[ignore = "started in a container by the test above"]
fn fires_each_probe() {
    assert!(
        std::env::var_os(INSIDE).is_some(),
        "outside a container it would probe the machine"
    );
    for probe in probes() {
        for _ in 0..TIMES {
            let token = canary::fresh();
            let sent = (probe.send)(&token);
            let sent: Result<_, String> = sent.map_err(|error: io::Error| error.to_string());
            let line = (probe.name, token, sent);
            println!("{MARK}{}", serde_json::to_string(&line).unwrap());
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

/// Runs the probes in a container that joined this one; the names of those that the sensor saw.
fn fire(stage: &Stage, container: &str, sensor: &Sensor) -> BTreeSet<String> {
    let program = std::env::current_exe().unwrap();
    let mount = format!("--volume={}:/probe:ro", program.display());
    let network = format!("--network=container:{container}");
    let inside = format!("--env={INSIDE}=1");
    let run = [
        "run",
        "--rm",
        &network,
        &mount,
        &inside,
        "--entrypoint=/probe",
        APP,
    ];
    let test = [
        "--exact",
        "inside::fires_each_probe",
        "--ignored",
        "--nocapture",
    ];
    let said = stage.docker.run(&[run.as_slice(), &test].concat());
    sensor.drain();
    let lines = said.lines().filter_map(|line| line.split_once(MARK));
    let shots: Vec<Shot> = lines
        .map(|(_, line)| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(shots.len(), probes().count() * TIMES);
    let was_seen = |(_, token, sent): &Shot| {
        let flow = sent.as_ref().ok().copied().flatten();
        sensor.saw(token) || flow.is_some_and(|flow| sensor.saw_flow(&flow))
    };
    let refused = shots.iter().filter(|(_, _, sent)| sent.is_err()).count();
    println!("{container}: {} shots, {refused} refused", shots.len());
    let seen = shots.into_iter().filter(|shot| was_seen(shot));
    seen.map(|(name, _, _)| name).collect()
}

/// A line of the program inside.
type Shot = (String, Canary, Result<Option<Flow>, String>);

/// A sensor on a container's cable; the bridge also answers for the hosts that the probes look for on the link.
fn watch(stage: &Stage, container: &str) -> Sensor {
    let (_, bridge) = stage.cable(container);
    for host in [LAN, EVIL] {
        stage
            .ns
            .run("machine", &format!("ip addr add {host}/32 dev {bridge}"));
    }
    stage.watch(container)
}
