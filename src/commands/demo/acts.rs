//! The demonstration, act by act.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};
use x25519_dalek::{PublicKey, StaticSecret};

use anyhow::{Context, bail};
use rustix::rand::{GetRandomFlags, getrandom};

use super::Verdict;
use super::client::Download;
use super::expected::Expected;
use super::gateway::{self, Gateway};
use super::internet;
use super::probe::{self, Canary, Outcome, Probe};
use super::report::Summary;
use super::screen::{Bytes, Rate, Screen, Tone};
use super::sensor::Sensor;
use super::server::{Keys, Server};
use super::shell;
use super::stage::{self, Stage};
use crate::commands::units::count;

/// How long the transfer is shown before anything happens to it.
const TRANSFER: Duration = Duration::from_secs(5);
/// How long the server stays dead, at least.
const OUTAGE: Duration = Duration::from_secs(6);
/// How long the transfer may take to go on.
const RECOVERY: Duration = Duration::from_secs(30);
/// How long the transfer is shown after it went on.
const AFTERWARDS: Duration = Duration::from_secs(4);
/// How often the live row changes.
const FRAME: Duration = Duration::from_millis(200);
/// Rates are over so many frames: one second.
const SAMPLES: usize = 5;

/// Everything on the stage. Fields are dropped in this order: the gateway ends before the server.
pub(super) struct Demo {
    screen: Screen,
    download: Option<Download>,
    gateway: Option<Gateway>,
    server: Server,
    sensor: Sensor,
    stage: Stage,
    canary: Canary,
    client: StaticSecret,
    server_key: PublicKey,
    tried: u32,
}

impl Demo {
    /// Act 1: the namespaces, the sensor, the server.
    pub(super) fn build() -> anyhow::Result<Self> {
        let rootless = stage::enter()?;
        let mut screen = Screen::new();
        screen.say(&format!(
            "{}  a torrent client, its VPN gateway, and a VPN server that dies",
            screen.bold("vpngw demo")
        ));
        screen.act("Build a network with nothing of this machine in it");
        let canary = Canary::new(u64::from_ne_bytes(random()?));
        let client = StaticSecret::from(random()?);
        let private = StaticSecret::from(random()?);
        let server_key = PublicKey::from(&private);
        let keys = Keys {
            private,
            peer: PublicKey::from(&client),
        };
        let seed = u64::from_ne_bytes(random()?);
        let expected = Expected {
            endpoint: stage::ENDPOINT,
            address: stage::ADDRESS,
            router: stage::ROUTER,
        };
        let (stage, (sensor, server)) = stage::connect(rootless, |router| {
            let sensor = Sensor::start(router, expected, canary).context("starting the sensor")?;
            let server =
                Server::start(stage::ENDPOINT, keys, seed).context("starting the VPN server")?;
            Ok((sensor, server))
        })?;
        describe(&mut screen, stage);
        Ok(Self {
            screen,
            download: None,
            gateway: None,
            server,
            sensor,
            stage,
            canary,
            client,
            server_key,
            tried: 0,
        })
    }

    /// Act 2: without the gateway every probe must be seen.
    pub(super) fn control(&mut self) -> anyhow::Result<()> {
        self.screen
            .act("Positive control: the client without the gateway");
        let probes = Probe::all(self.stage);
        for probe in &probes {
            // What it got does not matter here; what the sensor saw does.
            let _ = probe.run(self.stage, self.canary, gateway::ADDRESS);
        }
        let _ = self.sensor.record();
        let missed: Vec<&str> = probes
            .iter()
            .filter(|probe| !self.seen(**probe))
            .map(|probe| probe.label())
            .collect();
        if !missed.is_empty() {
            bail!(
                "the demo proves nothing here: without the gateway the sensor did not see {}",
                missed.join(", ")
            );
        }
        let text = format!("{0} of {0} seen on the uplink", probes.len());
        self.screen
            .row("its ways out, tried one by one", Tone::Note, &text);
        if !self.stage.ipv6 {
            self.screen.row(
                "IPv6",
                Tone::Faint,
                "this kernel has none, so it was not tried",
            );
        }
        Ok(())
    }

    fn seen(&self, probe: Probe) -> bool {
        match probe.bare_destination() {
            Some((address, port)) => self.sensor.saw_destination(address, port),
            None => self.sensor.saw_probe(probe.number()),
        }
    }

    /// Act 3: the gateway.
    pub(super) fn connect(&mut self) -> anyhow::Result<()> {
        self.sensor.wait_quiet();
        self.screen
            .act("Start the gateway; from here on the capture counts");
        self.sensor.guard();
        let begin = Instant::now();
        let mut gateway = Gateway::start(
            &self.client,
            &self.server_key,
            internet::RESOLVER,
            stage::ENDPOINT,
        )?;
        let status = gateway.wait_connected()?;
        let connected = begin.elapsed().as_secs_f64() * 1000.0;
        self.gateway = Some(gateway);
        let armed = status.kill_switch.armed_in_microseconds as f64 / 1000.0;
        let armed = format!("armed {armed:.1} ms after exec, first of all");
        self.screen.row("kill switch", Tone::Good, &armed);
        let text = format!("connected after {connected:.0} ms");
        self.screen.row("tunnel", Tone::Good, &text);
        let answer = probe::resolve(self.canary, gateway::ADDRESS);
        let tone = if matches!(answer, Outcome::Tunnel(Some(_))) {
            Tone::Good
        } else {
            Tone::Bad
        };
        let label = format!("DNS by the tunnel's {}", internet::RESOLVER);
        self.screen.row(&label, tone, &answer.to_string());
        Ok(())
    }

    /// Acts 4 to 7.
    pub(super) fn perform(&mut self) -> anyhow::Result<()> {
        self.screen
            .act("The client downloads and tries to get around the tunnel");
        let download = Download::start().context("connecting to the seeder through the tunnel")?;
        let text = format!("{} > {}", download.local, internet::SEEDER);
        self.screen.row("TCP connection", Tone::Plain, &text);
        self.download = Some(download);
        self.watch(TRANSFER)?;
        self.attempts();

        self.screen.act("The VPN server dies");
        let died = Instant::now();
        self.server.kill();
        self.watch(Duration::from_secs(2))?;
        self.attempts();
        self.watch(OUTAGE.saturating_sub(died.elapsed()))?;

        self.screen
            .act("The VPN server comes back with no memory of its sessions");
        self.recover(died)?;
        self.watch(AFTERWARDS)
    }

    fn attempts(&mut self) {
        for probe in Probe::all(self.stage) {
            let outcome = probe.run(self.stage, self.canary, gateway::ADDRESS);
            let _ = self.sensor.record();
            // The announce belongs into the tunnel.
            self.tried += u32::from(probe != Probe::Tracker);
            let (tone, text) = if self.seen(probe) {
                (Tone::Bad, "LEFT BY THE UPLINK".to_owned())
            } else {
                let tone = match outcome {
                    Outcome::Refused(_) => Tone::Good,
                    Outcome::Tunnel(_) => Tone::Plain,
                    Outcome::Outside(None) => Tone::Good,
                    Outcome::Outside(Some(_)) => Tone::Bad,
                };
                (tone, outcome.to_string())
            };
            self.screen.row(probe.label(), tone, &text);
        }
        let record = self.sensor.record();
        let (tone, text) = if record.held() {
            (Tone::Good, "WireGuard and nothing else".to_owned())
        } else {
            (
                Tone::Bad,
                format!("not WireGuard: {}", count(record.leaked())),
            )
        };
        self.screen.row("frames on the uplink", tone, &text);
    }

    /// Shows the rate of the download for so long.
    fn watch(&mut self, long: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        let mut samples = VecDeque::from([(begin, self.bytes()?)]);
        while begin.elapsed() < long {
            thread::sleep(FRAME);
            let now = (Instant::now(), self.bytes()?);
            self.show_rate(samples[0], now);
            samples.push_back(now);
            if samples.len() > SAMPLES {
                samples.pop_front();
            }
        }
        self.screen.settle();
        Ok(())
    }

    /// Revives the server and waits for the same connection to go on.
    fn recover(&mut self, died: Instant) -> anyhow::Result<()> {
        let before = self.bytes()?;
        let revived = Instant::now();
        self.server.revive();
        loop {
            thread::sleep(Duration::from_millis(20));
            let bytes = self.bytes()?;
            if bytes > before {
                break;
            }
            let waiting = revived.elapsed();
            if waiting > RECOVERY {
                let log = self.gateway.as_ref().map(Gateway::tail).unwrap_or_default();
                bail!(
                    "the transfer did not go on within {} s:\n{log}",
                    RECOVERY.as_secs()
                );
            }
            let text = format!("waiting, {:.0} s", waiting.as_secs_f64());
            self.screen.live("download", Tone::Note, &text);
        }
        let text = format!(
            "goes on after {:.1} s, {:.1} s after the death",
            revived.elapsed().as_secs_f64(),
            died.elapsed().as_secs_f64()
        );
        self.screen.wipe();
        self.screen.row("same TCP connection", Tone::Good, &text);
        Ok(())
    }

    fn show_rate(&mut self, then: (Instant, u64), now: (Instant, u64)) {
        let bits = (now.1 - then.1) as f64 * 8.0;
        let rate = bits / now.0.duration_since(then.0).as_secs_f64();
        let tone = if bits > 0.0 { Tone::Good } else { Tone::Note };
        let text = format!("{:>12}   {} so far", Rate(rate).to_string(), Bytes(now.1));
        self.screen.live("download", tone, &text);
    }

    fn bytes(&self) -> anyhow::Result<u64> {
        let download = self
            .download
            .as_ref()
            .context("the download is not running")?;
        if download.broken() {
            bail!("the client's TCP connection broke, or brought a wrong byte");
        }
        Ok(download.bytes())
    }

    /// Leaves the user inside until the shell ends.
    pub(super) fn shell(&mut self) -> anyhow::Result<()> {
        self.screen.act("A shell next to the client");
        for (command, what) in shell::HINTS {
            self.screen.row(command, Tone::Faint, what);
        }
        self.screen.say("");
        let folder = self.gateway.as_ref().and_then(Gateway::folder);
        let mut shell = shell::command(folder)?;
        // How the last command in it ended is the user's business.
        shell.status().context("starting the shell")?;
        Ok(())
    }

    /// The last act: what the sensor saw.
    pub(super) fn verdict(&mut self) -> Verdict {
        self.screen.act("The capture on the uplink");
        let stopped = self
            .gateway
            .as_ref()
            .and_then(Gateway::status)
            .map(|status| status.kill_switch.blocked_packets);
        let summary = Summary {
            record: self.sensor.record(),
            stopped,
            tried: self.tried,
            downloaded: self.download.as_ref().map(Download::bytes),
        };
        summary.show(&mut self.screen)
    }
}

fn describe(screen: &mut Screen, stage: Stage) {
    let how = if stage.rootless {
        "two, in a user namespace, without root"
    } else {
        "two, as root"
    };
    screen.row("network namespaces", Tone::Plain, how);
    let uplink = format!(
        "{} {} > router {}",
        stage::UPLINK,
        stage::ADDRESS,
        stage::ROUTER
    );
    screen.row("uplink", Tone::Plain, &uplink);
    let server_text = format!("{}, an Internet behind it", stage::ENDPOINT);
    screen.row("VPN server, built in", Tone::Plain, &server_text);
    screen.row(
        "sensor",
        Tone::Plain,
        "at the router's end, sees every frame",
    );
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled =
        getrandom(&mut bytes[..], GetRandomFlags::empty()).context("reading random bytes")?;
    if filled != N {
        bail!("the kernel gave {filled} random bytes instead of {N}");
    }
    Ok(bytes)
}
