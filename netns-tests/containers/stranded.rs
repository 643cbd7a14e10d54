//! Joined programs keep their network, whatever happens to the gateway short of a new container.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::docker::PATIENCE;
use crate::joined::echo;
use crate::lab::conf::Conf;
use crate::lab::wait;
use crate::stage::{GATEWAY, Stage};

/// How often the engine is killed. Past the first, each new one comes up to 2 s after the last.
const TIMES: usize = 100;

#[test]
fn a_joined_container_keeps_its_network_and_its_connection() {
    let stage = Stage::new();
    let profile = stage.profile("shared");
    let sensor = stage.gateway(&profile);
    stage.up(&profile, "qbittorrent");
    let before = stage.network(GATEWAY);
    let mut connection = stage.connection();

    let mut last = None;
    for _ in 0..TIMES {
        last = Some(stage.docker.kill_engine(GATEWAY, last));
        echo(&mut connection);
    }

    // A bind mount follows the inode, so the file is written in place.
    let mut conf = Conf::new(&stage.keys, &[&stage.server]);
    conf.peers[0].keepalive = Some(7);
    conf.write(&profile);
    stage.docker.run(&["kill", "--signal", "HUP", GATEWAY]);
    wait("the configuration is read again", PATIENCE, || {
        let logs = stage.docker.logs(GATEWAY);
        logs.contains("configuration reloaded").then_some(())
    });
    echo(&mut connection);

    // One that is wrong changes nothing.
    fs::write(profile.join("wg0.conf"), "[Interface]\nPrivateKey = no\n").unwrap();
    stage.docker.run(&["kill", "--signal", "HUP", GATEWAY]);
    wait("the bad configuration is refused", PATIENCE, || {
        let logs = stage.docker.logs(GATEWAY);
        logs.contains("was not reloaded").then_some(())
    });
    echo(&mut connection);

    // `docker pause` stops every process of the container at once, as a machine that is suspended does.
    stage.docker.run(&["pause", GATEWAY]);
    sleep(Duration::from_secs(2));
    stage.docker.run(&["unpause", GATEWAY]);
    echo(&mut connection);

    stage.wait_healthy(GATEWAY);
    assert_eq!(stage.network(GATEWAY), before);
    sensor.verdict();

    // What is not kept, as README says: a container that is started again has another namespace.
    stage.docker.run(&["restart", GATEWAY]);
    assert_eq!(stage.links(""), ["lo"]);
}
