//! A fault at each message of a transaction, judged by what the kernel holds and by what a frame can do.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;

use socket2::SockRef;
use vpngw::net::IfName;
use vpngw::ruleset::{Batch, Hold, Kernel, Lack, Part, Ruleset};
use vpngw::sys::fault::{Transaction, order};
use vpngw::sys::nft::{self, ApplyError, Armed};

use crate::rules::wire::{Wire, frame, udp};
use crate::rules::{Ns, ip, kernel, name, policy, sh, without_owner};

/// A namespace with an uplink that packets can leave by.
fn uplink() -> Ns {
    let ns = Ns::new();
    ns.run(|| {
        ip("link add eth0 type veth peer name far0");
        ip("address add 172.30.0.2/24 dev eth0");
        ip("link set eth0 up");
        ip("link set far0 up");
        ip("neighbour add 172.30.0.1 lladdr 02:00:00:00:00:01 dev eth0");
    });
    ns
}

/// Both devices, since both ends of the cable are in the namespace.
fn devices() -> [IfName; 2] {
    [name("eth0"), name("far0")]
}

/// What is loaded before anything is known of the kernel.
fn first_transaction() -> Batch {
    Ruleset::deny_all(&devices(), Kernel::FIRST).encode(Hold::Keep)
}

/// What becomes of a datagram and of a raw frame.
#[derive(Debug, PartialEq, Eq)]
struct Leaves {
    datagram: bool,
    frame: bool,
}

const OPEN: Leaves = Leaves {
    datagram: true,
    frame: true,
};
const CLOSED: Leaves = Leaves {
    datagram: false,
    frame: false,
};

fn leaves() -> Leaves {
    let socket = UdpSocket::bind("172.30.0.2:0").unwrap();
    SockRef::from(&socket).bind_device(Some(b"eth0")).unwrap();
    let canary = frame(&udp(("172.30.0.2", 9), ("203.0.113.9", 9), b"canary"));
    Leaves {
        datagram: socket.send_to(b"canary", "172.30.0.1:9").is_ok(),
        frame: Wire::open("eth0").send(&canary).is_ok(),
    }
}

fn rules() -> String {
    without_owner(&sh("nft", &["-s", "list", "ruleset"])).join("\n")
}

fn numbers(batch: &Batch) -> std::ops::Range<usize> {
    assert!(batch.parts.len() > 20, "{}", batch.parts.len());
    0..batch.parts.len()
}

#[test]
fn a_fault_at_any_message_of_the_first_transaction_arms_nothing_and_is_said() {
    uplink().run(|| {
        assert_eq!(leaves(), OPEN, "the control");
        let batch = first_transaction();
        let last = batch.parts.len() - 1;
        for number in numbers(&batch) {
            order(Some(Transaction::Refused(number)));
            let armed = nft::arm();
            order(None);
            let error = armed.expect_err(&format!("message {number}"));
            assert_eq!(rules(), "", "message {number}: part of it is in force");
            if let ApplyError::Refused { part, .. } = &error
                && number > 0
                && number < last
            {
                assert_eq!(*part, batch.parts[number], "message {number}");
            }
        }
        nft::arm().unwrap();
        assert_eq!(leaves(), CLOSED);
    });
}

#[test]
fn a_fault_at_any_message_of_a_replacement_leaves_the_rules_before() {
    let before = Ruleset::deny_all(&devices(), kernel());
    let after = Ruleset::of(&policy(), &devices(), kernel());
    uplink().run(|| {
        let mut armed = nft::arm().unwrap();
        armed.apply(&before).unwrap();
        let held = rules();
        let batch = after.encode(Hold::Keep);
        for number in numbers(&batch) {
            order(Some(Transaction::Refused(number)));
            let error = armed.apply(&after).expect_err(&format!("message {number}"));
            order(None);
            assert!(
                !matches!(error, ApplyError::NoAnswer),
                "message {number}: {error}"
            );
            assert_eq!(rules(), held, "message {number}");
            armed.check(&before).unwrap();
            assert_eq!(leaves(), CLOSED, "message {number}");
        }
        armed.apply(&after).unwrap();
        armed.check(&after).unwrap();
        // And back: a fault on the way to deny-all does not open anything either.
        let held = rules();
        for number in numbers(&before.encode(Hold::Keep)) {
            order(Some(Transaction::Refused(number)));
            armed.apply(&before).unwrap_err();
            order(None);
            assert_eq!(rules(), held, "message {number}");
        }
    });
}

#[test]
fn without_memory_for_a_transaction_nothing_changes_and_without_memory_for_its_answer_it_is_an_error()
 {
    let after = Ruleset::of(&policy(), &devices(), kernel());
    uplink().run(|| {
        order(Some(Transaction::NotTaken));
        let error = nft::arm().unwrap_err();
        assert!(matches!(&error, ApplyError::Netlink(_)), "{error}");
        assert_eq!(rules(), "");
        order(Some(Transaction::AnswerLost));
        nft::arm().unwrap_err();
        assert_eq!(leaves(), CLOSED);
        order(None);
        let mut armed = nft::arm().unwrap();
        order(Some(Transaction::AnswerLost));
        // In force all the same: closed, and taken for open. The warden sets the links down then.
        assert_eq!(leaves(), CLOSED);
        let error = armed.apply(&after).unwrap_err();
        assert!(
            matches!(&error, ApplyError::Netlink(why) if why.raw_os_error() == Some(libc::ENOBUFS))
        );
        order(None);
        armed.check(&after).unwrap();
    });
}

/// The real thing: a receive buffer that the answers to a bad transaction do not fit.
#[test]
fn answers_that_do_not_fit_the_socket_are_no_success() {
    use vpngw::sys::netlink::Netlink;
    uplink().run(|| {
        nft::arm().unwrap();
        let held = rules();
        let mut batch = Ruleset::of(&policy(), &devices(), kernel()).encode(Hold::Keep);
        // Each message from the first table on is refused, each refusal is a message.
        let mut at = 0;
        for number in 0..batch.parts.len() {
            let length = u32::from_ne_bytes(batch.bytes[at..at + 4].try_into().unwrap()) as usize;
            if number > 0 && number < batch.parts.len() - 1 {
                batch.bytes[at + 4..at + 6].fill(0xaa);
            }
            at += length.next_multiple_of(4);
        }
        let mut netlink = Netlink::open(12).unwrap();
        let smallest: libc::c_int = 1;
        #[expect(unsafe_code, reason = "SO_RCVBUF by number")]
        // SAFETY: the pointer and the length are those of `smallest`, which outlives the call.
        let set = unsafe {
            let value = (&raw const smallest).cast();
            libc::setsockopt(
                netlink.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUF,
                value,
                4,
            )
        };
        assert_eq!(set, 0);
        netlink.send(&batch.bytes).unwrap();
        let mut lost = false;
        loop {
            match netlink.receive().map(Iterator::count) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => lost |= error.raw_os_error() == Some(libc::ENOBUFS),
            }
        }
        assert!(lost, "the answers fitted");
        assert_eq!(rules(), held);
    });
}

#[test]
fn a_kernel_without_the_egress_hook_gets_everything_else() {
    let bare = Kernel {
        egress_hook: false,
        ..Kernel::FIRST
    };
    uplink().run(|| {
        order(Some(Transaction::NoEgressHook));
        let mut armed = nft::arm().unwrap();
        assert!(!armed.egress_hook);
        armed.check(&Ruleset::deny_all(&devices(), bare)).unwrap();
        let kernel = nft::probe(&mut armed).unwrap();
        assert!(!kernel.egress_hook && kernel.log && kernel.reject);
        armed
            .apply(&Ruleset::of(&policy(), &devices(), kernel))
            .unwrap();
        order(None);
        // What that means: packets are held, frames are not, and the status and the log say so.
        assert_eq!(
            leaves(),
            Leaves {
                datagram: false,
                frame: true
            }
        );
        let tables = sh("nft", &["list", "tables"]);
        assert_eq!(tables, "table inet vpngw\ntable arp vpngw\n");
    });
}

/// The hook is asked for by a device; without one it is asked for by loopback.
#[test]
fn a_kernel_without_the_egress_hook_is_found_out_without_a_device() {
    let ns = Ns::new();
    ns.run(|| {
        order(Some(Transaction::NoEgressHook));
        let mut armed = nft::arm().unwrap();
        let kernel = nft::probe(&mut armed).unwrap();
        assert_eq!(kernel, armed.kernel());
        assert!(!kernel.egress_hook && !kernel.absent_devices && !armed.egress_hook);
        assert_eq!(kernel.lacks(), [Lack::EgressHook]);
        let tables = || sh("nft", &["list", "tables"]);
        assert_eq!(tables(), "table inet vpngw\ntable arp vpngw\n");
        // A device comes: the rules for it load.
        ip("link add eth0 type veth peer name far0");
        let ruleset = Ruleset::of(&policy(), &devices(), kernel);
        armed.apply(&ruleset).unwrap();
        armed.check(&ruleset).unwrap();
        order(None);
    });
    // The control: this kernel has the hook, and is found to without a device too.
    Ns::new().run(|| {
        let mut armed = nft::arm().unwrap();
        assert_eq!(nft::probe(&mut armed).unwrap(), kernel());
        assert!(armed.egress_hook);
    });
}

#[test]
fn a_kernel_without_log_or_reject_is_told_apart_and_holds_all_the_same() {
    for (fault, missing) in [
        (Transaction::NoLog, Lack::Log),
        (Transaction::NoReject, Lack::Reject),
    ] {
        uplink().run(|| {
            order(Some(fault));
            let mut armed = nft::arm().unwrap();
            let kernel = nft::probe(&mut armed).unwrap();
            assert_eq!(kernel.lacks(), [missing]);
            let ruleset = Ruleset::of(&policy(), &devices(), kernel);
            armed.apply(&ruleset).unwrap();
            order(None);
            armed.check(&ruleset).unwrap();
            assert_eq!(leaves(), CLOSED);
            let listed = rules();
            assert_eq!(listed.contains("log prefix"), missing == Lack::Reject);
            assert_eq!(listed.contains("reject with"), missing == Lack::Log);
        });
    }
}

#[test]
fn a_kernel_without_nf_tables_is_told_and_armed_without_rules_everything_is_taken() {
    uplink().run(|| {
        order(Some(Transaction::NoTables));
        let error = nft::arm().unwrap_err();
        assert!(error.no_rules(), "{error}");
        assert!(nft::ask(&devices()).unwrap_err().no_rules());
        order(None);
        let mut armed = Armed::without_rules();
        let kernel = nft::probe(&mut armed).unwrap();
        assert_eq!(kernel, Kernel::NONE);
        let ruleset = Ruleset::of(&policy(), &devices(), kernel);
        armed.apply(&ruleset).unwrap();
        armed.check(&ruleset).unwrap();
        assert!(armed.counters().unwrap().is_empty());
        assert!(armed.close(&[], kernel).unwrap().uncovered.is_empty());
        assert!(!armed.has_rules() && !armed.owned());
        assert_eq!(sh("nft", &["list", "ruleset"]), "");
    });
}

/// `vpngw plan` asks beside a gateway that owns its tables.
#[test]
fn asking_what_the_kernel_takes_changes_nothing() {
    uplink().run(|| {
        let armed = nft::arm().unwrap();
        let (held, number) = (rules(), nft::generation().unwrap());
        let asked = nft::ask(&devices()).unwrap();
        let wanted = Kernel {
            absent_devices: false,
            ..kernel()
        };
        assert_eq!(asked, wanted);
        order(Some(Transaction::NoEgressHook));
        assert!(!nft::ask(&devices()).unwrap().egress_hook);
        assert!(!nft::ask(&[]).unwrap().egress_hook);
        order(None);
        assert_eq!((rules(), nft::generation().unwrap()), (held, number));
        drop(armed);
        assert_eq!(leaves(), CLOSED);
    });
    // Nor does it close what is open.
    uplink().run(|| {
        nft::ask(&devices()).unwrap();
        assert_eq!((leaves(), rules().as_str()), (OPEN, ""));
    });
}

/// Only the netdev chain may be missing: the same answer to any other part is an error.
#[test]
fn a_kernel_without_anything_else_is_not_armed() {
    uplink().run(|| {
        let batch = first_transaction();
        let arp = batch
            .parts
            .iter()
            .position(|part| matches!(part, Part::Table(family) if family.as_str() == "arp"));
        order(Some(Transaction::Refused(arp.unwrap())));
        let error = nft::arm().unwrap_err().to_string();
        order(None);
        assert!(error.contains("table arp vpngw"), "{error}");
        assert_eq!(rules(), "");
    });
}

/// Without the capability, taken by setpriv(1), a later process changes nothing of what an earlier one loaded.
#[test]
fn without_net_admin_the_rules_before_stay() {
    uplink().run(|| {
        nft::arm().unwrap();
        let held = rules();
        let done = Command::new("setpriv")
            .args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"])
            .args(["nft", "flush", "ruleset"])
            .output()
            .unwrap();
        assert!(!done.status.success(), "the control: nft may not either");
        assert_eq!(rules(), held);
        assert_eq!(leaves(), CLOSED);
    });
}
