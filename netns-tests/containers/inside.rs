//! What a joined container with root and Docker's default capabilities can send: the probes of the namespace tests,
//! fired by their program as a process of the container.
//!
//! The lab's Docker hands out the addresses that the probes are written for: 172.30.0.2 to the gateway's container,
//! 172.30.0.1 to its bridge.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use crate::docker::APP;
use crate::lab::canary;
use crate::lab::sensor::Sensor;
use crate::lab::{EVIL, LAN};
use crate::probes::Family;
use crate::probes::program::{Answer, PROGRAM, Persona, Program};
use crate::stage::{GATEWAY, Stage};

/// A container in the place of the gateway's, without a gateway.
const PLAIN: &str = "plain";

/// Each probe is sent so often: address resolution may swallow the first packets.
const TIMES: usize = 3;

const FAMILIES: [Family; 6] = [
    Family::Ip,
    Family::Device,
    Family::Endpoint,
    Family::Dns,
    Family::Multicast,
    Family::Packet,
];

#[test]
fn a_joined_root_container_gets_nothing_out() {
    let stage = Stage::new();
    let profile = stage.profile("shared");
    control(&stage);

    stage.up(&profile, "vpngw");
    let sensor = watch(&stage, GATEWAY);
    sensor.arm(SystemTime::now());
    stage.wait_healthy(GATEWAY);
    let seen = fire(&stage, GATEWAY, &sensor, &[]);
    assert_eq!(seen, BTreeSet::new(), "left by the uplink");
    sensor.verdict();
    stage.docker.run(&["exec", GATEWAY, "vpngw", "healthcheck"]);
}

/// The probes where no gateway is.
pub fn control(stage: &Stage) {
    stage.docker.run(&["network", "create", PLAIN]);
    let plain = ["run", "--detach", "--name", PLAIN, "--network", PLAIN];
    let sleeps = ["--entrypoint", "sleep", APP, "1000"];
    stage.docker.run(&[plain.as_slice(), &sleeps].concat());
    let sensor = watch(stage, PLAIN);
    let seen = fire(stage, PLAIN, &sensor, &[]);
    // One that is not seen here proves nothing by not being seen behind the gateway.
    assert!(seen.len() >= 70, "seen without a gateway: {seen:?}");
    drop(sensor);
    stage.docker.run(&["rm", "--force", PLAIN]);
    stage.docker.run(&["network", "rm", PLAIN]);
}

/// Runs the probes in a container that joined this one, with these options of `docker run` besides; the names of
/// those that the sensor saw.
pub fn fire(
    stage: &Stage,
    container: &str,
    sensor: &Sensor,
    options: &[&str],
) -> BTreeSet<&'static str> {
    let mount = format!("--volume={PROGRAM}:/probe:ro");
    let network = format!("--network=container:{container}");
    let mut command = stage.docker.command("docker");
    command.args(["run", "--rm", "--interactive", &network, &mount]);
    command.args(options);
    command.args(["--entrypoint=/probe", APP, Persona::Lab.name()]);
    let mut program = Program::started(&mut command, |command| command.spawn().unwrap());
    let mut shots = Vec::new();
    for name in FAMILIES.into_iter().flat_map(Family::names) {
        for _ in 0..TIMES {
            let token = canary::fresh();
            shots.push((name, token, program.fire(name, &token)));
            std::thread::sleep(Duration::from_millis(30));
        }
    }
    sensor.drain();
    let seen = shots.iter().filter(|(_, token, answer)| {
        let flow = match answer {
            Answer::Sent(flow) => flow.as_ref(),
            Answer::Refused { .. } => None,
        };
        sensor.saw(token) || flow.is_some_and(|flow| sensor.saw_flow(flow))
    });
    let seen: BTreeSet<_> = seen.map(|(name, _, _)| *name).collect();
    println!(
        "{container}: {} shots, {} probes seen",
        shots.len(),
        seen.len()
    );
    seen
}

/// A sensor on a container's cable; the bridge also answers for the hosts that the probes look for on the link.
pub fn watch(stage: &Stage, container: &str) -> Sensor {
    let (_, bridge) = stage.cable(container);
    for host in [LAN, EVIL] {
        stage
            .ns
            .run("machine", &format!("ip addr add {host}/32 dev {bridge}"));
    }
    stage.watch(container)
}
