//! The metric families: a sample becomes text. Pure.

use std::collections::BTreeMap;

use metrics::{Label, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::{Peer, Process, Sample};
use crate::control::api::{State, Status};
use crate::link::Count;

/// Seconds for which a probe proves something: two missed ones are none.
const PROVEN: f64 = 150.0;

/// The sample as Prometheus text, families in the order of their names.
pub fn render(sample: &Sample, process: Option<&Process>) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        wireguard(sample);
        gateway(&sample.status);
        events(sample);
        if let Some(process) = process {
            own(process);
        }
    });
    sorted(&recorder.handle().render())
}

fn wireguard(sample: &Sample) {
    for peer in &sample.peers {
        let labels = peer_labels(sample.status.tunnel.device.as_str(), peer);
        counter(
            "wireguard_received_bytes_total",
            "Bytes received from the VPN server",
            peer.received_bytes,
            &labels,
        );
        counter(
            "wireguard_sent_bytes_total",
            "Bytes sent to the VPN server",
            peer.sent_bytes,
            &labels,
        );
        gauge(
            "wireguard_latest_handshake_seconds",
            "Unix time of the last handshake; 0 is never",
            peer.latest_handshake as f64,
            &labels,
        );
    }
}

fn peer_labels(interface: &str, peer: &Peer) -> Vec<Label> {
    let allowed: Vec<_> = peer.allowed_ips.iter().map(ToString::to_string).collect();
    let mut labels = vec![
        Label::new("interface", interface.to_owned()),
        Label::new("public_key", peer.public_key.to_string()),
        Label::new("allowed_ips", allowed.join(",")),
    ];
    let name = peer.name.clone();
    labels.extend(name.map(|name| Label::new("friendly_name", name)));
    labels
}

fn gateway(status: &Status) {
    let version = [Label::new("version", status.version.clone())];
    gauge("vpngw_build_info", "Release of the gateway", 1.0, &version);
    for state in State::ALL {
        gauge(
            "vpngw_state",
            "1 for the state the gateway is in, 0 for the others",
            flag(status.state == state),
            &[Label::new("state", state.to_string())],
        );
    }
    gauge(
        "vpngw_tunnel_up",
        "Whether the VPN server answers",
        flag(status.state == State::Connected),
        &[],
    );
    gauge(
        "vpngw_kill_switch_active",
        "Whether the kernel has confirmed the rules",
        flag(status.kill_switch.armed),
        &[],
    );
    gauge(
        "vpngw_ready",
        "Whether the tunnel is usable behind confirmed rules",
        flag(status.ready()),
        &[],
    );
    gauge(
        "vpngw_arm_duration_seconds",
        "Time from the start of the program to the first rules in force",
        status.kill_switch.armed_in_microseconds as f64 / 1e6,
        &[],
    );
    gauge(
        "vpngw_tunnel_mtu_bytes",
        "Largest packet that the tunnel takes now",
        f64::from(status.tunnel.mtu),
        &[],
    );
    gauge(
        // promtool wants bytes; the status page has bits.
        "vpngw_receive_bytes_per_second",
        "Inner traffic received over the last seconds",
        status.rx_bits_per_second / 8.0,
        &[],
    );
    gauge(
        "vpngw_transmit_bytes_per_second",
        "Inner traffic sent over the last seconds",
        status.tx_bits_per_second / 8.0,
        &[],
    );
    counter(
        "vpngw_leaks_detected_total",
        "Frames that left outside the tunnel without permission",
        status.leaks.detected,
        &[],
    );
    for found in &status.leaks.found {
        let (name, help) = if found.leaked {
            (
                "vpngw_leaks_total",
                "Frames that left without permission, by what saw them",
            )
        } else {
            (
                "vpngw_changes_undone_total",
                "Changes by other programs to what guards the way out, each undone",
            )
        };
        let labels = [
            Label::new("sensor", found.sensor.as_str()),
            Label::new("kind", found.kind.clone()),
        ];
        counter(name, help, found.count, &labels);
    }
    let watching = [
        ("frame", status.leaks.watched),
        ("accounting", status.leaks.accounted),
        (
            "probe",
            status
                .leaks
                .proof_age_seconds
                .is_some_and(|age| age < PROVEN),
        ),
    ];
    for (sensor, on) in watching {
        gauge(
            "vpngw_leak_sensor_active",
            "Whether a leak sensor can see; 0 is not \"no leak\"",
            flag(on),
            &[Label::new("sensor", sensor)],
        );
    }
}

fn events(sample: &Sample) {
    counter(
        "vpngw_handshakes_total",
        "Handshakes completed",
        sample.handshakes,
        &[],
    );
    counter(
        "vpngw_offload_fallbacks_total",
        "Times a segmentation offload was given up at run time",
        sample.offload_fallbacks,
        &[],
    );
    by_reason(
        "vpngw_reconnects_total",
        "Sessions opened after the first one, by what ended the one before",
        &sample.reconnects,
        |count| *count,
    );
    blocked(
        "vpngw_blocked_packets_total",
        "Packets that the kill switch stopped",
        sample,
        |count| count.packets,
    );
    blocked(
        "vpngw_blocked_bytes_total",
        "Bytes of packets that the kill switch stopped",
        sample,
        |count| count.bytes,
    );
    by_reason(
        "vpngw_dropped_packets_total",
        "Packets that the tunnel could not carry",
        &sample.dropped,
        |count| *count,
    );
}

/// From counters of the rules, so exact; the protocol `rest` is what the rules of a reason do not tell
/// apart.
fn blocked(
    name: &'static str,
    help: &'static str,
    sample: &Sample,
    number: impl Fn(&Count) -> u64,
) {
    for (reason, protocols) in &sample.blocked {
        for (protocol, count) in protocols {
            let labels = [
                Label::new("reason", reason.clone()),
                Label::new("protocol", protocol.clone()),
            ];
            counter(name, help, number(count), &labels);
        }
    }
}

fn by_reason<T>(
    name: &'static str,
    help: &'static str,
    counts: &BTreeMap<String, T>,
    number: impl Fn(&T) -> u64,
) {
    for (reason, count) in counts {
        let reason = [Label::new("reason", reason.clone())];
        counter(name, help, number(count), &reason);
    }
}

fn own(process: &Process) {
    counter(
        "process_cpu_seconds_total",
        "Processor time, user and system",
        process.cpu_seconds,
        &[],
    );
    let gauges = [
        (
            "process_resident_memory_bytes",
            "Memory in use",
            Some(process.resident_bytes),
        ),
        (
            "process_virtual_memory_bytes",
            "Address space",
            Some(process.virtual_bytes),
        ),
        (
            "process_open_fds",
            "Open file descriptors",
            Some(process.open_fds),
        ),
        (
            "process_max_fds",
            "The most file descriptors there may be",
            process.max_fds,
        ),
        (
            "process_start_time_seconds",
            "Unix time of the start",
            Some(process.started),
        ),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            gauge(name, help, value as f64, &[]);
        }
    }
}

fn counter(name: &'static str, help: &'static str, value: u64, labels: &[Label]) {
    metrics::describe_counter!(name, help);
    metrics::counter!(name, labels.to_vec()).absolute(value);
}

fn gauge(name: &'static str, help: &'static str, value: f64, labels: &[Label]) {
    metrics::describe_gauge!(name, help);
    metrics::gauge!(name, labels.to_vec()).set(value);
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

/// The recorder keeps hash maps; a person who reads the text wants an order.
fn sorted(text: &str) -> String {
    let mut families: Vec<Vec<&str>> = text
        .split("\n\n")
        .map(|family| family.lines().collect())
        .filter(|family: &Vec<_>| !family.is_empty())
        .collect();
    for family in &mut families {
        // `# HELP` and `# TYPE` are in order already, and sort before any name.
        family.sort_unstable();
    }
    families.sort_unstable();
    let mut text = String::new();
    for family in families {
        text += &family.join("\n");
        text.push('\n');
    }
    text
}

#[cfg(test)]
pub(super) fn example() -> Sample {
    use crate::config::PublicKey;
    use crate::control::example;

    let peer = |key, name: Option<&str>, latest_handshake| Peer {
        public_key: PublicKey([key; 32]),
        allowed_ips: vec!["0.0.0.0/0".parse().unwrap(), "10.0.0.0/8".parse().unwrap()],
        name: name.map(str::to_owned),
        received_bytes: 13_314_398_617,
        sent_bytes: 9_007_199_254_740_993,
        latest_handshake,
    };
    let by_protocol = |counts: &[(&str, u64)]| {
        let count = |(protocol, packets): &(&str, u64)| {
            let (packets, bytes) = (*packets, packets * 60);
            ((*protocol).to_owned(), Count { packets, bytes })
        };
        counts.iter().map(count).collect::<BTreeMap<_, _>>()
    };
    Sample {
        status: example::connected(),
        peers: vec![
            peer(7, Some("a \"quoted\\ name\""), 1_795_508_000),
            peer(8, None, 0),
        ],
        handshakes: 71,
        reconnects: [("silent".to_owned(), 2), ("uplink".to_owned(), 1)].into(),
        blocked: [
            ("dns".to_owned(), by_protocol(&[("tcp", 31), ("udp", 1000)])),
            ("ipv6".to_owned(), by_protocol(&[("ipv6", 201)])),
        ]
        .into(),
        dropped: [("too_long".to_owned(), 12), ("rejected".to_owned(), 0)].into(),
        offload_fallbacks: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let process = Process {
            cpu_seconds: 12,
            resident_bytes: 9_437_184,
            virtual_bytes: 80_000_000,
            open_fds: 14,
            max_fds: Some(1024),
            started: 1_795_500_000,
        };
        insta::assert_snapshot!(render(&example(), Some(&process)));
    }

    #[test]
    fn every_series_has_one_help_and_one_type_before_it() {
        let text = render(&example(), Process::read().as_ref());
        let mut family = "";
        let mut seen = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                (family, _) = rest.split_once(' ').unwrap();
                assert!(!seen.contains(&family), "{family} twice");
                seen.push(family);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, family);
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            } else {
                let name = line.split(['{', ' ']).next().unwrap();
                assert_eq!(name, family, "{line}");
            }
        }
        assert!(seen.len() > 20);
    }

    #[test]
    fn a_counter_is_exact_past_the_precision_of_a_float() {
        let text = render(&example(), None);
        assert!(text.contains(" 9007199254740993\n"), "{text}");
    }

    #[test]
    fn no_address_stands_in_a_label_besides_allowed_ips() {
        let mut sample = example();
        sample.peers[0].allowed_ips = Vec::new();
        sample.peers[1].allowed_ips = Vec::new();
        let text = render(&sample, None);
        for address in ["198.51.100.10", "10.64.0", "192.168.1"] {
            assert!(!text.contains(address), "{address}");
        }
    }

    #[test]
    fn exactly_one_state_is_set() {
        for status in crate::control::example::all() {
            let sample = Sample {
                status,
                ..example()
            };
            let text = render(&sample, None);
            let states = text.lines().filter(|line| line.starts_with("vpngw_state{"));
            let set: Vec<_> = states.filter(|line| line.ends_with(" 1")).collect();
            let state = sample.status.state;
            assert_eq!(set, [format!("vpngw_state{{state=\"{state}\"}} 1")]);
        }
    }
}
