//! The units of `profiles/host` under a real systemd.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use crate::docker::text;
use crate::lab::sealed::watch_uplink;
use crate::lab::{HOST, INNER, Lab, wait};
use crate::probes::program::Program;
use crate::probes::{self, Family, shoot};
use crate::profiles::tool;
use crate::systemd::Machine;

const PATIENCE: Duration = Duration::from_secs(60);

const WARDEN: &str = "vpngw-warden.service";
const ENGINE: &str = "vpngw-engine.service";
const NETNS: &str = "vpngw-netns.service";
const PROGRAM: &str = "program.service";

/// More than systemd starts a unit again within 10 s unless it is told otherwise (DefaultStartLimitBurst=).
const OFTEN: usize = 6;

/// A service that has one connection to an echo on the Internet, and counts what comes back.
const UNIT: &str = r#"
[Unit]
Description=Program behind the VPN
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/bin/bash /etc/program
Restart=always
RestartSec=200ms
RuntimeDirectory=program

[Install]
WantedBy=multi-user.target
"#;

/// A service that says what the kernel answers.
const CALLS: &str = "
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/bin/vpngw-probe calls
StandardOutput=file:/var/tmp/calls

[Install]
WantedBy=multi-user.target
";

const SCRIPT: &str = r#"
exec 3<>/dev/tcp/203.0.113.9/7 || exit 1
read -r greeting <&3
echo "$greeting" >/run/program/greeting
for ((n = 1; ; n++)); do
    echo "$n" >&3
    read -r back <&3 || exit 1
    [[ $back == "$n" ]] || exit 1
    echo "$n" >/run/program/count
    sleep 0.05
done
"#;

/// A machine with the units and the program behind them; everything runs.
fn machine(lab: &Lab) -> Machine {
    let machine = Machine::boot(lab);
    install(lab, &machine);
    machine
}

fn install(lab: &Lab, machine: &Machine) {
    let conf = lab.conf();
    watch_uplink(lab, &conf);
    machine.install(&conf);
    fs::write(machine.path("etc/program"), SCRIPT).unwrap();
    machine.install_behind(PROGRAM, UNIT);
    goes_on(machine);
}

/// How often the program's connection has answered.
fn count(machine: &Machine) -> u64 {
    let text = fs::read_to_string(machine.path("run/program/count"));
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// Waits until the program's connection has answered again.
fn goes_on(machine: &Machine) {
    let before = count(machine);
    wait("the program's connection goes on", PATIENCE, || {
        let now = count(machine);
        (now != before && now > 0).then_some(())
    });
}

/// Tries every way out there is; panics if one is seen outside.
fn fire(lab: &Lab, program: &mut Program) {
    let shots = shoot(
        lab,
        program,
        Family::ALL.into_iter().flat_map(Family::names),
    );
    lab.sensor.drain();
    for shot in &shots {
        assert!(!shot.seen(lab), "leaked: {} ({:?})", shot.name, shot.answer);
    }
    println!("{} ways out tried", shots.len());
    lab.sensor.verdict();
}

fn devices(machine: &Machine) -> Vec<String> {
    let links = machine.run(&["ip", "-netns", "torrent", "-o", "link", "show"]);
    let names = links.lines().filter_map(|line| line.split(": ").nth(1));
    names.map(str::to_owned).collect()
}

fn words(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

#[test]
fn a_service_behind_the_units_has_the_tunnel_and_nothing_else() {
    let lab = Lab::new();
    for family in Family::ALL {
        probes::control(&lab, family);
    }
    let machine = machine(&lab);
    for unit in [WARDEN, ENGINE, NETNS, PROGRAM] {
        assert_eq!(machine.property(unit, "ActiveState"), "active", "{unit}");
    }
    for unit in [WARDEN, ENGINE] {
        assert_eq!(machine.property(unit, "Type"), "notify", "{unit}");
        assert_eq!(machine.property(unit, "NRestarts"), "0", "{unit}");
    }
    // Nothing that a half does for itself is taken from it.
    let log = machine.run(&["journalctl", "--no-pager", "--unit", "vpngw-*"]);
    assert!(log.contains("connected server="), "{log}");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    assert_eq!(devices(&machine), ["lo", "tun0"]);
    let greeting = fs::read_to_string(machine.path("run/program/greeting")).unwrap();
    assert!(greeting.starts_with("inside1 10.64.0.2"), "{greeting}");
    looks_names_up(&machine);
    let within = machine.within(PROGRAM);
    fire(&lab, &mut machine.probe(&words(&within)));
    // The machine's own resolv.conf is as it was.
    let own = fs::read_to_string(machine.path("etc/resolv.conf")).unwrap();
    assert!(
        own.starts_with("search home\nnameserver 172.30.0.1\n"),
        "{own}"
    );
    exec(&machine);
    calls(&machine);
    lab.sensor.verdict();
}

/// What the kernel answers a service to calls that lead out without a packet.
fn calls(machine: &Machine) {
    machine.install_behind("calls.service", CALLS);
    let said = fs::read_to_string(machine.path("var/tmp/calls")).unwrap();
    let (refused, absent) = (libc::EPERM, libc::EAFNOSUPPORT);
    let rest = format!("key: {refused}\nring: {refused}\nvsock: {absent}\ninet: 0\n");
    assert!(said.ends_with(&rest), "{said}");
    // The control: without the drop-in there is no filter.
    let said = machine.run(&["vpngw-probe", "calls"]);
    assert!(
        said.contains(&format!("ring: {}\n", libc::EFAULT)),
        "{said}"
    );
}

/// What a command says among the program's files and in its network.
fn beside_the_program(machine: &Machine, command: &[&str]) -> String {
    let within = machine.within(PROGRAM);
    let said = machine.try_run(&[&words(&within)[..], command].concat());
    String::from_utf8_lossy(&said.stdout).into_owned()
}

/// Waits until the program gets names from the tunnel's resolver.
fn looks_names_up(machine: &Machine) {
    wait("a name is found", PATIENCE, || {
        let said = beside_the_program(machine, &["getent", "ahostsv4", "example.org"]);
        said.starts_with(&HOST.to_string()).then_some(())
    });
}

#[test]
fn a_service_behind_the_units_sees_no_daemon_that_looks_names_up_outside() {
    let lab = Lab::new();
    let machine = Machine::boot(&lab);
    let stub = "nameserver 127.0.0.53\n";
    let _daemons = ["nscd/socket", "systemd/resolve/io.systemd.Resolve"].map(|socket| {
        let path = machine.path("run").join(socket);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        UnixListener::bind(path).unwrap()
    });
    // As systemd-resolved has it: the file is in the folder that is hidden.
    let target = "../run/systemd/resolve/stub-resolv.conf";
    fs::write(machine.path("etc").join(target), stub).unwrap();
    machine.run(&["ln", "-sf", target, "/etc/resolv.conf"]);
    install(&lab, &machine);
    looks_names_up(&machine);
    let shown = beside_the_program(&machine, &["cat", "/etc/resolv.conf"]);
    assert!(shown.contains(&format!("nameserver {INNER}\n")), "{shown}");
    let find = ["find", "/run/nscd", "/run/systemd/resolve", "-type", "s"];
    assert_eq!(machine.run(&find).lines().count(), 2, "the control");
    assert_eq!(beside_the_program(&machine, &find), "");
    // The machine's own is as it was.
    assert_eq!(machine.run(&["cat", "/etc/resolv.conf"]), stub);
    lab.sensor.verdict();
}

/// `vpngw exec` and the commands of an operator.
fn exec(machine: &Machine) {
    let run = [
        "vpngw", "exec", "--netns", "torrent", "--user", "nobody", "--",
    ];
    let looked_up = [&run[..], &["getent", "ahostsv4", "example.org"]].concat();
    let said = machine.run(&looked_up);
    assert!(said.starts_with(&HOST.to_string()), "{said}");
    let script = "exec 3<>/dev/tcp/203.0.113.9/7 && read -r line <&3 && echo $line";
    let said = machine.run(&[&run[..], &["bash", "-c", script]].concat());
    assert!(said.starts_with("inside1 10.64.0.2"), "{said}");
    machine.run(&["vpngw", "healthcheck"]);
    let doctor = beside_the_program(machine, &["vpngw", "doctor"]);
    assert!(
        doctor.contains("sealed, in a namespace with a name"),
        "{doctor}"
    );
    assert!(doctor.contains("\nALL HOLDS"), "{doctor}");
    println!("{}", doctor.lines().last().unwrap_or_default());
    let status = machine.run(&["vpngw", "status"]);
    assert!(status.contains("connected"), "{status}");
}

#[test]
fn systemd_starts_a_killed_half_again_and_the_program_keeps_its_network() {
    let lab = Lab::new();
    let machine = machine(&lab);
    let namespace = ["nsenter", "--net=/run/netns/torrent", "--"];
    let mut probe = machine.probe(&namespace);
    let network = |unit: &str| {
        let process = machine.property(unit, "MainPID");
        machine.run(&["readlink", &format!("/proc/{process}/ns/net")])
    };
    let before = (network(PROGRAM), machine.property(PROGRAM, "MainPID"));

    machine.kill(ENGINE);
    fire(&lab, &mut probe);
    machine.wait_for(ENGINE, "NRestarts", |n| n == "1");
    machine.wait_for(ENGINE, "ActiveState", |state| state == "active");
    goes_on(&machine);
    assert_eq!(machine.property(PROGRAM, "MainPID"), before.1);
    assert_eq!(machine.property(PROGRAM, "NRestarts"), "0");

    machine.run(&["systemctl", "restart", ENGINE]);
    machine.run(&["systemctl", "reload", WARDEN]);
    goes_on(&machine);
    assert_eq!(machine.property(PROGRAM, "MainPID"), before.1);
    assert_eq!(machine.property(PROGRAM, "NRestarts"), "0");

    machine.kill(WARDEN);
    fire(&lab, &mut probe);
    machine.wait_for(WARDEN, "NRestarts", |n| n == "1");
    machine.wait_for(WARDEN, "ActiveState", |state| state == "active");
    goes_on(&machine);
    looks_names_up(&machine);
    fire(&lab, &mut probe);
    // One that hangs does not say that its loop goes round.
    machine.run(&["systemctl", "kill", "--signal=STOP", WARDEN]);
    machine.wait_for(WARDEN, "NRestarts", |n| n == "2");
    machine.wait_for(WARDEN, "ActiveState", |state| state == "active");
    goes_on(&machine);
    fire(&lab, &mut probe);
    assert_eq!(
        (network(PROGRAM), machine.property(PROGRAM, "MainPID")),
        before
    );
    assert_eq!(network(WARDEN), before.0);
    lab.sensor.verdict();
}

#[test]
fn systemd_starts_both_halves_again_however_often_they_end() {
    let lab = Lab::new();
    let machine = machine(&lab);
    for round in 1..=OFTEN {
        for unit in [WARDEN, ENGINE] {
            machine.kill(unit);
        }
        for unit in [WARDEN, ENGINE] {
            machine.wait_for(unit, "NRestarts", |n| n == round.to_string());
            machine.wait_for(unit, "SubState", |state| state == "running");
        }
    }
    goes_on(&machine);
    // A stop by hand is one, and leaves the namespace closed.
    machine.run(&["systemctl", "stop", "vpngw-warden", "vpngw-engine"]);
    assert_eq!(machine.property(PROGRAM, "ActiveState"), "active");
    assert_eq!(devices(&machine), ["lo"]);
    let namespace = ["nsenter", "--net=/run/netns/torrent", "--"];
    fire(&lab, &mut machine.probe(&namespace));
    machine.run(&["systemctl", "start", "vpngw-warden", "vpngw-engine"]);
    goes_on(&machine);
    // With the namespace everything in it is made anew.
    machine.run(&["systemctl", "restart", NETNS]);
    goes_on(&machine);
    looks_names_up(&machine);
    assert_eq!(devices(&machine), ["lo", "tun0"]);
    lab.sensor.verdict();
}

#[test]
fn systemd_takes_the_units() {
    let lab = Lab::new();
    let machine = machine(&lab);
    let verify = |unit: &str| -> Output { machine.try_run(&["systemd-analyze", "verify", unit]) };
    for unit in [NETNS, WARDEN, ENGINE, PROGRAM] {
        let said = verify(unit);
        text(unit, &said);
        assert_eq!(String::from_utf8_lossy(&said.stderr), "", "{unit}");
    }
    // 10 is a service without any limit; what is not needed should not come back.
    for (unit, most) in [(WARDEN, "30"), (ENGINE, "30"), (PROGRAM, "70")] {
        let words = [
            "systemd-analyze",
            "security",
            "--no-pager",
            "--threshold",
            most,
            unit,
        ];
        let said = machine.run(&words);
        // Shown in any case: println! would be kept back when the test passes.
        let score = said.trim_end().lines().last().unwrap_or_default();
        writeln!(io::stderr(), "{score}").unwrap();
    }
    // The control: a mistake is refused.
    let broken = machine.path("etc/systemd/system/broken.service");
    fs::write(
        broken,
        "[Service]\nExecStart=nothing-of-that-name\nProtectEverything=yes\n",
    )
    .unwrap();
    let said = verify("broken.service");
    let complaint = String::from_utf8_lossy(&said.stderr);
    assert!(!said.status.success(), "{complaint}");
    assert!(complaint.contains("ProtectEverything"), "{complaint}");
}

/// Podman itself is not here: what its generator makes of the quadlets is loaded, not started.
#[test]
fn systemd_takes_the_units_that_podman_makes_of_the_quadlets() {
    let lab = Lab::new();
    let machine = Machine::boot(&lab);
    let quadlets = machine.path("etc/containers/systemd");
    let generators = machine.path("etc/systemd/system-generators");
    for folder in [&quadlets, &generators] {
        fs::create_dir_all(folder).unwrap();
    }
    let generator = generators.join("podman-system-generator");
    fs::copy(tool("quadlet"), generator).unwrap();
    for name in ["vpngw", "qbittorrent"] {
        let file = format!("{name}.container");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/podman");
        fs::copy(source.join(&file), quadlets.join(&file)).unwrap();
    }
    machine.run(&["systemctl", "daemon-reload"]);
    for name in ["vpngw", "qbittorrent"] {
        let unit = format!("{name}.service");
        let made = format!("/run/systemd/generator/{unit}");
        assert_eq!(machine.property(&unit, "FragmentPath"), made);
        assert_eq!(machine.property(&unit, "LoadState"), "loaded");
        let said = machine.try_run(&["systemd-analyze", "verify", &made]);
        let complaints = String::from_utf8_lossy(&said.stderr).into_owned();
        let mut others = complaints
            .lines()
            .filter(|line| !line.contains("/usr/bin/podman is not executable"));
        assert_eq!(others.next(), None, "{complaints}");
    }
    assert_eq!(
        machine.property("qbittorrent.service", "BindsTo"),
        "vpngw.service"
    );
}
