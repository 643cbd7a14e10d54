//! The ruleset against the kernel: what we load is what `nft` prints, and what was changed behind our
//! back is noticed.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of tests are not seen as tests"
)]

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, UnshareFlags, capabilities, move_into_link_name_space,
    set_capabilities, unshare_unsafe,
};
use vpngw::config::{Inbound, Outbound};
use vpngw::net::{Fwmark, IfName};
use vpngw::policy::{Hole, Policy, TunnelPolicy, UplinkPolicy};
use vpngw::ruleset::{Hold, Hook, Kernel, Part, Ruleset};
use vpngw::sys::fault::{Transaction, order};
use vpngw::sys::nft::{self, ApplyError, Armed, CheckError};

mod frames;
mod many;
mod packets;
mod verdicts;
pub(crate) mod wire;

/// A network namespace of its own, gone with the value.
pub(crate) struct Ns(File);

impl Ns {
    pub(crate) fn new() -> Self {
        let made = thread::spawn(|| {
            #[expect(unsafe_code, reason = "a namespace for this thread alone")]
            // SAFETY: no descriptor table is unshared, so no descriptor means two things.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("root");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let ns = Self(made.join().unwrap());
        ns.run(|| ip("link set lo up"));
        ns
    }

    /// Runs `act` on a thread inside.
    pub(crate) fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.0.as_fd(), kind).unwrap();
                act()
            });
            inside.join().unwrap()
        })
    }

    /// The path by which `ip` finds it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Runs a program in the namespace of this thread and returns what it printed.
pub(crate) fn sh(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn ip(arguments: &str) {
    sh("ip", &arguments.split(' ').collect::<Vec<_>>());
}

pub(crate) fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

/// Everything that a policy can hold.
pub(crate) fn policy() -> Policy {
    let hole = |port: u16, remote: &str| Hole {
        mark: Fwmark(0x1234),
        source_port: port,
        remote: remote.parse().unwrap(),
    };
    Policy {
        uplink: Some(UplinkPolicy {
            device: name("eth0"),
            address: "172.30.0.2".parse().unwrap(),
            endpoint: Some(hole(40000, "198.51.100.10:51820")),
            resolver: Some(hole(40001, "172.30.0.1:53")),
            inbound: vec![
                inbound("172.30.0.0/24", "tcp/8080"),
                inbound("192.168.16.0/20", "udp/9000"),
                inbound("10.0.0.0/8", "tcp/443"),
                inbound("192.168.7.9/32", "tcp/443"),
            ],
            outbound: vec![
                outbound("172.30.0.20", "tcp/445"),
                outbound("172.30.0.21", "udp/514"),
            ],
        }),
        beside: Vec::new(),
        tunnel: Some(TunnelPolicy {
            device: name("tun0"),
            addresses: vec![
                "10.64.0.2/32".parse().unwrap(),
                "10.65.0.2/16".parse().unwrap(),
            ],
            dns: vec!["10.64.0.1".parse().unwrap()],
            private: vec!["10.99.0.0/23".parse().unwrap()],
            forward: vec![6881],
        }),
    }
}

fn inbound(from: &str, to: &str) -> Inbound {
    Inbound::new(from.parse().unwrap(), to.parse().unwrap()).unwrap()
}

fn outbound(to: &str, port: &str) -> Outbound {
    Outbound::new(to.parse().unwrap(), port.parse().unwrap()).unwrap()
}

/// Loads it as a gateway does. The tables belong to what is returned, and outlive it.
pub(crate) fn load(ruleset: &Ruleset) -> Armed {
    let mut armed = once_free(nft::arm);
    armed.apply(ruleset).unwrap();
    armed
}

/// Tables may belong a moment longer to a value that is gone: a test beside this one that starts a program has a
/// copy of every descriptor from fork to exec.
fn once_free<T>(act: impl Fn() -> Result<T, ApplyError>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match act() {
            Err(error) if error.is_owned() && Instant::now() < until => thread::yield_now(),
            done => return done.unwrap(),
        }
    }
}

/// What the kernel of this machine has.
pub(crate) fn kernel() -> Kernel {
    static KERNEL: OnceLock<Kernel> = OnceLock::new();
    let found = || Ns::new().run(|| nft::probe(&mut nft::arm().unwrap()).unwrap());
    *KERNEL.get_or_init(found)
}

/// The same as on a kernel whose tables belong to nobody (before Linux 6.9).
pub(crate) fn load_shared(ruleset: &Ruleset) -> Armed {
    order(Some(Transaction::NoOwner));
    let armed = load(ruleset);
    order(None);
    assert!(!armed.owned());
    armed
}

/// The lines of a listing without whose the tables are, which nft says beside them as far as it knows the flags. A test
/// beside this one that starts a program owns for a moment what this one has let go of, by a copy of the socket.
pub(crate) fn without_owner(listed: &str) -> Vec<&str> {
    let lines = listed
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("\tflags "));
    // Invariant: splitting gives one piece at least.
    lines
        .map(|line| line.split(" # progname ").next().unwrap())
        .collect()
}

/// Line by line, so that a difference can be read.
pub(crate) fn assert_listed(ruleset: &Ruleset) {
    let (listed, ours) = (sh("nft", &["list", "ruleset"]), ruleset.to_string());
    let listed = without_owner(&listed);
    let ours: Vec<_> = ours.lines().filter(|line| !line.is_empty()).collect();
    for (listed, ours) in listed.iter().zip(&ours) {
        assert_eq!(&uncounted(listed), ours);
    }
    assert_eq!(listed.len(), ours.len());
}

/// As if nothing had been counted: the kernel itself sends now and then (MLD, router solicitations).
fn uncounted(line: &str) -> String {
    let Some((before, counts)) = line.split_once("counter packets ") else {
        return line.to_owned();
    };
    let mut words = counts.splitn(4, ' ');
    let rest = words.nth(3).map(|rest| format!(" {rest}"));
    let rest = rest.unwrap_or_default();
    format!("{before}counter packets 0 bytes 0{rest}")
}

/// A namespace with two devices that lead out.
fn two_devices() -> Ns {
    let ns = Ns::new();
    ns.run(|| ip("link add eth1 type veth peer name eth0"));
    ns
}

#[test]
fn nft_prints_what_we_loaded() {
    let devices = [name("eth0"), name("eth1")];
    let bare = Kernel {
        log: false,
        reject: false,
        ..kernel()
    };
    let no_hook = Kernel {
        egress_hook: false,
        absent_devices: false,
        ..Kernel::FULL
    };
    let older = Kernel {
        absent_devices: false,
        ..kernel()
    };
    let full = policy();
    let mut idle = policy();
    if let Some(uplink) = &mut idle.uplink {
        (uplink.endpoint, uplink.resolver) = (None, None);
        (uplink.inbound, uplink.outbound) = (Vec::new(), Vec::new());
    }
    two_devices().run(|| {
        for ruleset in [
            Ruleset::deny_all(&devices, bare),
            Ruleset::of(&full, &devices, older),
            Ruleset::deny_all(&devices[..1], kernel()),
            Ruleset::of(&full, &devices, kernel()),
            Ruleset::of(&idle, &devices[..1], kernel()),
            Ruleset::of(&full, &devices, bare),
            Ruleset::of(&full, &[], kernel()),
        ] {
            let armed = load(&ruleset);
            assert_listed(&ruleset);
            armed.check(&ruleset).unwrap();
        }
    });
    two_devices().run(|| {
        let ruleset = Ruleset::of(&full, &devices, no_hook);
        order(Some(Transaction::NoEgressHook));
        load(&ruleset);
        order(None);
        assert_listed(&ruleset);
    });
}

#[test]
fn five_hundred_exceptions_load_in_one_transaction() {
    let mut policy = policy();
    let uplink = policy.uplink.as_mut().unwrap();
    uplink.inbound = (0..=255)
        .map(|n| inbound(&format!("192.168.{n}.0/24"), "tcp/8080"))
        .collect();
    uplink.outbound = (1..=250)
        .map(|n| outbound(&format!("192.168.1.{n}"), "tcp/445"))
        .collect();
    let ruleset = Ruleset::of(&policy, &[name("eth0")], kernel());
    let bytes = ruleset.encode(Hold::Keep).bytes.len();
    assert!(bytes > 256 * 1024, "{bytes}");
    two_devices().run(|| {
        load(&ruleset).check(&ruleset).unwrap();
    });
}

/// Where the kernel has it, nobody but the gateway can change its rules, and they outlive it.
#[test]
fn nobody_else_changes_the_rules_while_the_gateway_lives_and_they_outlive_it() {
    let ruleset = Ruleset::of(&policy(), &[name("eth0"), name("eth1")], kernel());
    two_devices().run(|| {
        let mut armed = load(&ruleset);
        assert!(armed.owned());
        let changes = [
            "delete table inet vpngw",
            "flush table netdev vpngw",
            "flush chain inet vpngw output",
            "insert rule inet vpngw output accept",
            "add chain inet vpngw output { policy accept; }",
            "add table inet vpngw { flags dormant; }",
        ];
        let nft = |change: &str| Command::new("nft").arg(change).output().unwrap();
        for change in changes {
            assert!(!nft(change).status.success(), "{change}");
        }
        // No error, and no effect on ours.
        sh("nft", &["add table ip another"]);
        sh("nft", &["flush ruleset"]);
        assert!(!sh("nft", &["list", "tables"]).contains("another"));
        armed.check(&ruleset).unwrap();
        armed.apply(&ruleset).unwrap();
        armed.check(&ruleset).unwrap();
        // A second gateway is told, and changes nothing.
        let second = nft::arm().unwrap_err();
        assert!(second.to_string().contains("another process"), "{second}");
        armed.check(&ruleset).unwrap();
        drop(armed);
        assert_listed(&ruleset);
        // The next one takes them over; what it leaves can be removed.
        load(&ruleset).check(&ruleset).unwrap();
        once_free(nft::clear);
        assert_eq!(sh("nft", &["list", "tables"]), "");
    });
}

#[test]
fn what_somebody_else_changes_is_noticed() {
    let ruleset = Ruleset::of(&policy(), &[name("eth0"), name("eth1")], kernel());
    two_devices().run(|| {
        for change in [
            "flush ruleset",
            "delete table arp vpngw",
            "flush chain inet vpngw output",
            "add rule inet vpngw output accept",
            "insert rule inet vpngw output accept comment \"other\"",
            "add chain inet vpngw output { policy accept; }",
            "add chain inet vpngw mine { type filter hook output priority -500; }",
            "add table inet vpngw { flags dormant; }",
            "add rule netdev vpngw egress accept",
        ] {
            let armed = load_shared(&ruleset);
            armed.check(&ruleset).unwrap();
            let before = nft::generation().unwrap();
            sh("nft", &[change]);
            assert_ne!(nft::generation().unwrap(), before, "{change}");
            let found = armed.check(&ruleset);
            assert!(matches!(found, Err(CheckError::Differs(_))), "{change}");
        }
    });
}

#[test]
fn a_rule_replaced_by_one_like_it_is_noticed() {
    let ruleset = Ruleset::of(&policy(), &[name("eth0"), name("eth1")], kernel());
    two_devices().run(|| {
        let armed = load_shared(&ruleset);
        let listed = sh("nft", &["-a", "list", "chain", "inet", "vpngw", "output"]);
        let line = listed.lines().find(|l| l.contains("\"endpoint\"")).unwrap();
        let (rule, handle) = line.trim().split_once(" # handle ").unwrap();
        let other = rule.replace("198.51.100.10", "198.51.100.11");
        sh(
            "nft",
            &[&format!(
                "replace rule inet vpngw output handle {handle} {other}"
            )],
        );
        let error = armed.check(&ruleset).unwrap_err().to_string();
        assert!(error.contains("output: rule 4 is not `oifname"), "{error}");
    });
}

#[test]
fn arming_takes_under_five_milliseconds_and_covers_every_device() {
    let ns = two_devices();
    ns.run(|| {
        ip("tuntap add dev tun0 mode tun");
        // Whatever runs beside it can only make it longer.
        let mut least = Duration::MAX;
        for _ in 0..20 {
            let started = Instant::now();
            let armed = once_free(nft::arm);
            least = least.min(started.elapsed());
            drop(armed);
        }
        println!("armed in {least:?}");
        assert!(least < Duration::from_millis(5), "{least:?}");
        let mut armed = once_free(nft::arm);
        assert_eq!(nft::probe(&mut armed).unwrap(), kernel());
        assert!(armed.egress_hook && kernel().log && kernel().reject);
        let mut devices = armed.devices.clone();
        devices.sort();
        assert_eq!(devices, [name("eth0"), name("eth1")]);
        let deny_all = Ruleset::deny_all(&devices, kernel());
        armed.check(&deny_all).unwrap();
    });
}

#[test]
fn stale_tables_of_our_name_are_replaced_and_others_are_left() {
    two_devices().run(|| {
        sh("nft", &["add table inet vpngw; add chain inet vpngw mine; add table ip docker-dns"]);
        sh("nft", &["add table ip vpngw; add table netdev vpngw; add set inet vpngw s { type ipv4_addr; }"]);
        drop(nft::arm().unwrap());
        let listed = sh("nft", &["list", "tables"]);
        assert!(listed.contains("table ip docker-dns"), "{listed}");
        assert!(!sh("nft", &["list", "table", "inet", "vpngw"]).contains("mine"));
        once_free(nft::clear);
        once_free(nft::clear);
        let listed = sh("nft", &["list", "tables"]);
        assert_eq!(listed, "table ip docker-dns\ntable ip vpngw\n");
    });
}

#[test]
fn without_the_capability_nothing_is_armed_and_the_error_says_so() {
    two_devices().run(|| {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, sets).unwrap();
        let error = nft::arm().unwrap_err();
        let text = error.to_string();
        assert_eq!(
            text,
            "the kernel refused the transaction: CAP_NET_ADMIN is needed"
        );
        let ApplyError::Refused { part, source, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(
            (part, source.kind()),
            (Part::Whole, ErrorKind::PermissionDenied)
        );
    });
}

#[test]
fn a_refused_part_is_named_and_nothing_changes() {
    two_devices().run(|| {
        let mut armed = nft::arm().unwrap();
        let before = sh("nft", &["list", "ruleset"]);
        let mut bad = Ruleset::of(&policy(), &[name("eth0")], kernel());
        let chain = bad.tables[0]
            .chains
            .iter_mut()
            .find(|c| c.hook == Hook::Output);
        let rule = chain.unwrap().rules[3].clone();
        // Connection tracking does not exist at egress.
        bad.tables[1].chains[0].rules.push(vpngw::ruleset::Rule {
            matches: vec![vpngw::ruleset::Match::Reply],
            ..rule
        });
        let error = armed.apply(&bad).unwrap_err().to_string();
        assert!(error.starts_with("the kernel refused rule"), "{error}");
        assert!(
            error.contains("(`endpoint`) of chain netdev vpngw egress"),
            "{error}"
        );
        assert_eq!(sh("nft", &["list", "ruleset"]), before);
    });
}
