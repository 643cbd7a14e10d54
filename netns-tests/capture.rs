//! A recording holds what crossed the uplink and what was stopped, and nothing else; it is bounded and
//! private, and disturbs nobody.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::blocked::{as_user, user};
use crate::lab::canary::{self, Canary};
use crate::lab::gateway::PROGRAM;
use crate::lab::tunnel::assert_inside;
use crate::lab::{HOST, INNER, Lab, at, wait};
use crate::probes::program::{Persona, Program};

const PATIENCE: Duration = Duration::from_secs(20);

/// A recording under way, in `app`.
struct Recording {
    child: Child,
    path: PathBuf,
}

fn record(lab: &Lab, name: &str, words: &[&str]) -> Recording {
    let path = lab.folder.path().join(name);
    let mut command = Command::new(PROGRAM);
    command.args(["capture", "-w"]).arg(&path).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::piped());
    let child = lab.ns.start("app", &mut command);
    wait("the recording has begun", PATIENCE, || {
        fs::metadata(&path)
            .is_ok_and(|file| file.len() > 0)
            .then_some(())
    });
    Recording { child, path }
}

impl Recording {
    /// Waits for its end, by SIGINT if it is told to; what it said, and what the file holds.
    fn end(self, interrupt: Option<Signal>) -> (String, Vec<Packet>) {
        if let Some(signal) = interrupt {
            kill_process(Pid::from_child(&self.child), signal).unwrap();
        }
        let done: Output = self.child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{done:?}");
        (said, packets(&fs::read(&self.path).unwrap()))
    }

    /// Waits until the file holds these bytes.
    fn holds(&self, token: &Canary) {
        wait("it is recorded", PATIENCE, || {
            let bytes = fs::read(&self.path).unwrap();
            bytes.windows(token.len()).any(|b| b == token).then_some(())
        });
    }
}

/// A packet in a file.
#[derive(Debug)]
struct Packet {
    blocked: bool,
    bytes: Vec<u8>,
    length: usize,
    comment: String,
}

impl Packet {
    fn has(&self, bytes: &[u8]) -> bool {
        self.bytes.windows(bytes.len()).any(|b| b == bytes)
    }
}

/// Reads the file by the draft of pcapng; it must be whole.
fn packets(mut file: &[u8]) -> Vec<Packet> {
    let word = |bytes: &[u8], at: usize| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    };
    let mut found = Vec::new();
    while !file.is_empty() {
        let (kind, length) = (word(file, 0), word(file, 4));
        assert_eq!(word(file, length - 4), length, "a block is cut");
        if kind == 6 {
            let size = word(file, 20);
            let options = &file[28 + size.next_multiple_of(4)..length - 4];
            // Flags, then the comment: code, length, text.
            let length = usize::from(u16::from_le_bytes([options[10], options[11]]));
            let comment = String::from_utf8_lossy(&options[12..12 + length]);
            found.push(Packet {
                blocked: word(file, 8) == 1,
                bytes: file[28..28 + size].to_vec(),
                length: word(file, 24),
                comment: comment.into_owned(),
            });
        }
        file = &file[length..];
    }
    found
}

/// As nobody in particular: as root it would become another user, whom `unshare -Ur` does not have.
fn tcpdump(path: &Path) -> String {
    let done = Command::new("unshare")
        .args(["-U", "tcpdump", "-nnr"])
        .arg(path)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn a_recording_holds_what_crossed_and_what_was_stopped_and_nothing_of_the_programs() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let recording = record(&lab, "out.pcap", &[]);
    let mode = fs::metadata(&recording.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let [local, inner, frame] = [canary::fresh(), canary::fresh(), canary::fresh()];
    lab.ns.enter("app", || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(&local, at(Ipv4Addr::LOCALHOST, 9)).unwrap();
        socket.send_to(&inner, at(INNER, 9)).unwrap();
    });
    assert_inside(&lab.ns, 1);
    as_user(&lab, "echo stopped > /dev/udp/8.8.8.8/53");
    Program::start(&lab.ns, Persona::Lab).fire("packet/frame", &frame);
    recording.holds(&frame);
    // The gateway's own copies are not taken away.
    let list = gateway.ctl(&["blocked"]);
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("udp 8.8.8.8:53"), "{list}");

    let path = recording.path.clone();
    let (said, packets) = recording.end(Some(Signal::INT));
    assert!(
        said.contains("eth0") && said.contains("interrupted"),
        "{said}"
    );
    let dns: Vec<_> = packets.iter().filter(|p| p.has(b"stopped\n")).collect();
    let [dns] = dns.as_slice() else {
        panic!("once: {dns:?}");
    };
    let expected = format!("blocked: dns, by uid {}, to tun0", user());
    assert_eq!(
        (dns.blocked, dns.comment.as_str()),
        (true, expected.as_str())
    );
    assert_eq!(dns.bytes[12..15], [8, 0, 0x45], "a link header before it");
    let raw: Vec<_> = packets.iter().filter(|p| p.has(&frame)).collect();
    assert!(
        raw.len() == 1 && raw[0].blocked,
        "a frame that was stopped did not cross: {raw:?}"
    );
    assert_eq!(raw[0].comment, "blocked: raw, by uid 0, to eth0");
    let wireguard = packets
        .iter()
        .filter(|p| !p.blocked && p.has(&51820_u16.to_be_bytes()));
    assert!(wireguard.count() > 2, "WireGuard of both directions");
    for token in [&local, &inner] {
        assert!(!packets.iter().any(|p| p.has(token)), "what a program said");
    }
    let text = tcpdump(&path);
    assert!(
        text.contains("> 8.8.8.8.53") && text.contains("198.51.100.10.51820 >"),
        "{text}"
    );

    let again = gateway.ctl(&["capture", "-w", path.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("--force"),
        "{again:?}"
    );
    lab.sensor.verdict();
}

#[test]
fn a_recording_ends_by_itself_when_the_file_is_large_or_the_time_is_over() {
    let lab = Lab::new();
    let _gateway = lab.connect(&lab.conf());
    let short = record(&lab, "short.pcap", &["--minutes", "0.02"]);
    let (said, _) = short.end(None);
    assert!(said.contains("the time is over"), "{said}");
    let mut small = record(&lab, "small.pcap", &["--megabytes", "1"]);
    wait("it is full", PATIENCE, || {
        lab.ns.enter("app", || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for _ in 0..500 {
                let _ = socket.send_to(&[7; 1000], at(Ipv4Addr::new(10, 7, 7, 7), 9));
            }
        });
        small.child.try_wait().unwrap()
    });
    let path = small.path.clone();
    let (said, packets) = small.end(None);
    assert!(said.contains("as large as it may be"), "{said}");
    let length = fs::metadata(&path).unwrap().len();
    assert!((900_000..=1 << 20).contains(&length), "{length}");
    assert!(packets.len() > 500);
    tcpdump(&path);
}

#[test]
fn encrypted_content_is_cut_unless_wanted_and_its_length_is_told() {
    let lab = Lab::new();
    let _gateway = lab.connect(&lab.conf());
    for (name, words) in [("cut", &[][..]), ("whole", &["--whole"][..])] {
        let recording = record(&lab, &format!("{name}.pcap"), words);
        lab.ns.enter("app", || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(&[7; 1001], at(INNER, 9)).unwrap();
        });
        // An answer by the same way: it has left.
        assert_inside(&lab.ns, 1);
        let end = canary::fresh();
        lab.ns.enter("app", || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket2::SockRef::from(&socket)
                .bind_device(Some(b"eth0"))
                .unwrap();
            let _ = socket.send_to(&end, at(HOST, 9));
        });
        recording.holds(&end);
        let (_, packets) = recording.end(Some(Signal::INT));
        // 1001 bytes and headers of 28, padded to 1040, in a message of 32 more behind headers of 42; the
        // kernel may have yet to split the next message from it.
        let data = packets.iter().find(|p| !p.blocked && p.length >= 1114);
        let data = data.unwrap();
        let kept = if name == "cut" { 128 } else { data.length };
        assert_eq!(data.bytes.len(), kept, "{name}");
    }
}

#[test]
fn a_recording_goes_on_after_the_gateway_ended_and_is_one_at_a_time() {
    let lab = Lab::new();
    let mut gateway = lab.connect(&lab.conf());
    let recording = record(&lab, "after.pcap", &[]);
    let second = lab.folder.path().join("second.pcap");
    let refused = gateway.ctl(&["capture", "-w", second.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        why.contains("another recording") && !second.exists(),
        "{why}"
    );
    gateway.stop();
    let token = canary::fresh();
    lab.ns.enter("app", || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket2::SockRef::from(&socket)
            .bind_device(Some(b"eth0"))
            .unwrap();
        assert!(socket.send_to(&token, at(HOST, 9)).is_err());
    });
    recording.holds(&token);
    let (_, packets) = recording.end(Some(Signal::TERM));
    let found = packets.iter().find(|p| p.has(&token)).unwrap();
    assert!(
        found.blocked && found.comment.starts_with("blocked: other"),
        "{found:?}"
    );
    lab.sensor.verdict();
}

#[test]
fn without_the_capability_nothing_is_recorded_and_the_error_says_so() {
    let lab = Lab::new();
    let path = lab.folder.path().join("none.pcap");
    let drop = "setpriv --bounding-set=-net_admin --inh-caps=-net_admin";
    let line = format!("{drop} {PROGRAM} capture -w {}", path.display());
    let done = lab.ns.output("app", &line);
    let why = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(2), "{why}");
    assert!(why.contains("CAP_NET_ADMIN") && !path.exists(), "{why}");
}
