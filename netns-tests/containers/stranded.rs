//! Joined programs keep their network, whatever happens to the gateway short of a new container.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::thread::sleep;
use std::time::Duration;

use crate::lab::conf::Conf;
use crate::lab::{HOST, wait};
use crate::stage::{GATEWAY, JOINED, Stage};

/// How often the engine is killed. Past the first, each new one comes up to 2 s after the last.
const TIMES: usize = 10;

/// How long a pause a connection may have on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_joined_container_keeps_its_network_and_its_connection() {
    let stage = Stage::new();
    let profile = stage.profile("shared");
    let sensor = stage.gateway(&profile);
    stage.up(&profile, "qbittorrent");
    let before = network(&stage);
    let mut connection = stage.docker.enter(JOINED, || {
        let stream = TcpStream::connect((HOST, 7)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    });
    expect(&mut connection, "inside1 10.64.0.2\n");

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
    assert_eq!(network(&stage), before);
    sensor.verdict();

    // What is not kept, as README says: a container that is started again has another namespace.
    stage.docker.run(&["restart", GATEWAY]);
    let left = stage.docker.run_in(JOINED, "ip -o link show");
    let names: Vec<_> = left.lines().map(|line| line.split(": ").nth(1)).collect();
    assert_eq!(names, [Some("lo")]);
}

/// The container's start, its namespace, and its tunnel device with number and address.
fn network(stage: &Stage) -> (String, u64, String) {
    let namespace = stage.docker.namespace(JOINED).metadata().unwrap().ino();
    let gateway = stage.docker.namespace(GATEWAY).metadata().unwrap().ino();
    assert_eq!(namespace, gateway);
    (
        stage.docker.inspect(JOINED, "{{.State.StartedAt}}"),
        namespace,
        stage.docker.run_in(JOINED, "ip -o -4 addr show tun0"),
    )
}

pub fn echo(connection: &mut TcpStream) {
    connection.write_all(b"still there?\n").unwrap();
    expect(connection, "still there?\n");
}

pub fn expect(connection: &mut TcpStream, words: &str) {
    let mut bytes = vec![0; words.len()];
    connection.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), words);
}
