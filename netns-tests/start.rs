//! From the first instruction on, and when it cannot start at all, nothing leaves.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::mount::mount_bind;

use crate::lab::flood::Flood;
use crate::lab::gateway::{Gateway, PROGRAM};
use crate::lab::tunnel::assert_inside;
use crate::lab::{Lab, wait};
use crate::probes::{self, Family};

#[test]
fn nothing_leaves_once_the_kill_switch_stands() {
    let lab = Lab::new();
    let flood = Flood::start(&lab);
    wait("the flood is seen", Duration::from_secs(20), || {
        (lab.sensor.tally().frames > 100).then_some(())
    });
    let begun = Instant::now();
    let gateway = lab.start(&lab.conf());
    let status = gateway.wait_connected();
    let connected = begun.elapsed();
    assert_inside(&lab.ns, 1);
    flood.goes_on(2000);
    let tally = lab.sensor.verdict();
    assert!(tally.before > 100 && tally.wireguard > 0, "{tally}");

    let claimed = Duration::from_micros(status.kill_switch.armed_in_microseconds);
    let measured = gateway.armed_after;
    println!(
        "armed {claimed:?} after exec by its own count, refused the first packet after {measured:?}"
    );
    assert!(status.kill_switch.armed);
    // The kernel may refuse before the gateway has read that it will, so there is no order between
    // the two; both lie before the first answer to a question about them.
    assert!(claimed > Duration::ZERO && claimed < connected && measured < connected);
}

#[test]
fn an_unusable_configuration_leaves_everything_blocked() {
    let lab = Lab::new();
    probes::control(&lab, Family::Ip);
    probes::control(&lab, Family::Packet);
    let folder = lab.folder.path().join("broken");
    for (what, config) in broken(&lab, &folder) {
        let mut gateway = Gateway::start_with(&lab, "app", &config, &[]);
        let ended = gateway.wait_exit(Duration::from_secs(20));
        assert_eq!(ended.code(), Some(2), "{what}");
        drop(gateway);
        println!("{what}:");
        probes::fire(&lab, Family::Ip);
        probes::fire(&lab, Family::Packet);
    }
}

#[test]
fn an_unknown_variable_is_refused() {
    let lab = Lab::new();
    let config = lab.conf().write(&lab.folder.path().join("app"));
    let env = [("VPNGW_TUNNEL_MTUU", "1400")];
    let mut gateway = Gateway::start_with(&lab, "app", &config, &env);
    let ended = gateway.wait_exit(Duration::from_secs(20));
    assert_eq!(ended.code(), Some(2));
    lab.sensor.verdict();
}

#[test]
fn without_a_tun_device_everything_stays_blocked() {
    let lab = Lab::new();
    probes::control(&lab, Family::Device);
    mount_bind("/dev/null", "/dev/net/tun").unwrap();
    let mut gateway = lab.start(&lab.conf());
    let ended = gateway.wait_exit(Duration::from_secs(20));
    assert!(!ended.success());
    probes::fire(&lab, Family::Device);
}

fn broken(lab: &Lab, folder: &Path) -> Vec<(&'static str, std::path::PathBuf)> {
    fs::create_dir_all(folder).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let mut conf = lab.conf();
    conf.private_key = "notakey".into();
    let bad_key = conf.write(&folder.join("bad-key"));
    let mut conf = lab.conf();
    conf.peers.clear();
    let no_peer = conf.write(&folder.join("no-peer"));
    let mut conf = lab.conf();
    conf.toml = "[tunnel]\nmtuu = 1400".into();
    let unknown = conf.write(&folder.join("unknown"));
    vec![
        ("a bad key", bad_key),
        ("no peer", no_peer),
        ("an unknown key", unknown),
        ("no file", folder.join("absent.toml")),
        ("not TOML", write("syntax.toml", "wireguard = [")),
        (
            "no private key",
            write("no-key.conf", "[Interface]\nAddress = 10.64.0.2/24\n"),
        ),
        ("not UTF-8", {
            let path = folder.join("bytes.toml");
            fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
            path
        }),
    ]
}

/// Where the rules belong to the gateway, a second one can change nothing; it must not cut the first one off either.
#[test]
fn a_second_gateway_is_refused_and_the_first_one_goes_on() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let before = lab.app("nft -s list ruleset");
    let config = gateway.config.display();
    let second = lab
        .ns
        .output("app", &format!("{PROGRAM} run --config {config}"));
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(2), "{said}");
    assert!(
        said.contains("a gateway runs in this namespace already"),
        "{said}"
    );
    assert_eq!(lab.app("nft -s list ruleset"), before);
    assert_inside(&lab.ns, 1);
    lab.sensor.verdict();
}
