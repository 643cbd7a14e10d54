//! A torrent through the tunnel, whose VPN server dies on the way.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::docker::text;
use crate::lab::sensor::Sensor;
use crate::lab::wait;
use crate::stage::{JOINED, MACHINE, Stage};
use crate::swarm::{FILE, Swarm, first_word};

/// How long a transfer of 200 MB may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn a_torrent_survives_the_death_of_the_server_and_nothing_else_leaves() {
    let stage = Stage::new();
    let profile = stage.profile("shared");
    survives(&stage, &profile, Stage::gateway);
}

/// A torrent in any topology.
pub fn survives(stage: &Stage, profile: &Path, start: fn(&Stage, &Path) -> Sensor) {
    let swarm = Swarm::start(stage);
    let sensor = start(stage, profile);
    stage.up(profile, "qbittorrent");
    let started = stage
        .docker
        .inspect(JOINED, "{{.State.StartedAt}} {{.RestartCount}}");

    let client = Client::log_in(stage);
    client.add(&swarm);
    wait("a quarter has come", PATIENCE, || {
        (client.progress() > 0.25).then_some(())
    });

    stage.server.kill();
    let progress = client.stops();
    assert!((0.25..1.0).contains(&progress), "{progress}");
    // The client looks for other ways meanwhile: it asks its tracker, its peers, other trackers of its own.
    let tried = sensor.handshakes().len();
    wait("the gateway keeps trying", PATIENCE, || {
        (sensor.handshakes().len() > tried).then_some(())
    });
    let now = client.progress();
    assert!(
        now <= progress,
        "data came without a tunnel: {now} after {progress}"
    );
    sensor.verdict();

    stage.server.up();
    wait("the transfer goes on", PATIENCE, || {
        (client.progress() > progress).then_some(())
    });
    wait("all has come", PATIENCE, || {
        (client.progress() >= 1.0).then_some(())
    });
    let path = format!("/downloads/{FILE}");
    let sum = stage.docker.run(&["exec", JOINED, "sha256sum", &path]);
    assert_eq!(first_word(&sum), swarm.sum);
    let now = stage
        .docker
        .inspect(JOINED, "{{.State.StartedAt}} {{.RestartCount}}");
    assert_eq!(now, started, "it was started again");
    let tally = sensor.verdict();
    assert!(tally.wireguard > 1_000, "{tally}");
}

/// The client's web interface, from the LAN.
pub struct Client<'a> {
    stage: &'a Stage,
    jar: String,
}

impl<'a> Client<'a> {
    /// Waits until the client answers; in the place of a user.
    pub fn log_in(stage: &'a Stage) -> Self {
        let jar = stage.folder.path().join("cookies").display().to_string();
        let client = Self { stage, jar };
        wait("the client lets us in", PATIENCE, || {
            let said = client.call("auth/login", "--data username=admin&password=adminadmin")?;
            (said == "Ok.").then_some(())
        });
        client
    }

    fn add(&self, swarm: &Swarm) {
        let arguments = format!("--form torrents=@{}", swarm.torrent.display());
        assert_eq!(
            self.call("torrents/add", &arguments).as_deref(),
            Some("Ok.")
        );
    }

    /// Of the one torrent, 0 to 1.
    fn progress(&self) -> f64 {
        sleep(Duration::from_millis(200));
        let all = self.call("torrents/info", "").unwrap_or_default();
        let all: Value = serde_json::from_str(&all).unwrap_or_default();
        all[0]["progress"].as_f64().unwrap_or(0.0)
    }

    /// Waits until no more comes, and how much has. The client counts anew every 1.5 s and checks what came meanwhile.
    fn stops(&self) -> f64 {
        let (mut last, mut since) = (self.progress(), Instant::now());
        wait("the transfer stops", PATIENCE, || {
            let now = self.progress();
            if now > last {
                (last, since) = (now, Instant::now());
            }
            (since.elapsed() > Duration::from_secs(5)).then_some(now)
        })
    }

    /// A method of its API; `None` when it does not answer or refuses.
    pub fn call(&self, method: &str, arguments: &str) -> Option<String> {
        let jar = &self.jar;
        let url = format!("http://{MACHINE}:8080/api/v2/{method}");
        let done = self.stage.lan_curl(&format!(
            "--cookie {jar} --cookie-jar {jar} {arguments} {url}"
        ));
        done.status.success().then(|| text(method, &done))
    }
}
