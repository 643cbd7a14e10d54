//! More devices than one chain takes (NFT_NETDEVICE_MAX), and a second layer that the kernel refuses.

use vpngw::net::IfName;
use vpngw::ruleset::{Kernel, Ruleset};
use vpngw::sys::fault::{Transaction, order};
use vpngw::sys::nft;

use super::wire::{Wire, frame, udp};
use super::{Ns, assert_listed, kernel, load, name, policy, sh};

/// A namespace with so many pairs of devices, all up.
fn pairs(count: usize) -> Ns {
    let ns = Ns::new();
    let lines: String = (0..count)
        .map(|n| format!("link add d{n} up type veth peer name e{n}\nlink set e{n} up\n"))
        .collect();
    ns.run(|| {
        // What the kernel itself says on a new device would be counted.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines).unwrap();
        sh("ip", &["-batch", file.path().to_str().unwrap()]);
    });
    ns
}

fn leaves(device: &str) -> bool {
    let canary = frame(&udp(("172.30.0.2", 9), ("203.0.113.9", 9), b"canary"));
    Wire::open(device).send(&canary).is_ok()
}

#[test]
fn three_hundred_devices_are_held() {
    pairs(150).run(|| {
        let devices = nft::devices().unwrap();
        assert_eq!(devices.len(), 300);
        let some = ["d0", "e0", "d149", "e149", "d75"];
        assert!(some.iter().all(|device| leaves(device)), "the control");
        let mut armed = nft::arm().unwrap();
        assert!(!some.iter().any(|device| leaves(device)), "armed");
        assert_eq!(nft::probe(&mut armed).unwrap(), kernel());
        let ruleset = Ruleset::of(&policy(), &devices, kernel());
        assert_eq!(ruleset.tables[1].chains.len(), 2);
        armed.apply(&ruleset).unwrap();
        armed.check(&ruleset).unwrap();
        assert_listed(&ruleset);
        let all = devices.iter().map(ToString::to_string);
        let open: Vec<_> = all.filter(|device| leaves(device)).collect();
        assert_eq!(open, Vec::<String>::new());
        // Each refused frame was counted, in whichever chain.
        let counters = nft::counters().unwrap();
        let raw = counters.iter().filter(|it| it.reason.as_str() == "raw");
        assert!(raw.map(|it| it.packets).sum::<u64>() >= 300);
    });
}

/// Deny-all is in force for packets, whatever becomes of the second layer, and says what that does not hold.
#[test]
fn a_second_layer_that_is_refused_costs_the_devices_it_would_have_held_and_no_others() {
    pairs(1).run(|| {
        let devices = [name("d0"), name("e0")];
        let mut armed = load(&Ruleset::of(&policy(), &devices, kernel()));
        // Nothing is refused: nothing is uncovered.
        let closed = armed.close(&devices, kernel()).unwrap();
        assert!(closed.uncovered.is_empty() && closed.why.is_none());
        armed.check(&closed.ruleset).unwrap();
        // A device that is gone is none to be set down.
        let older = Kernel {
            absent_devices: false,
            ..kernel()
        };
        let ghost: Vec<IfName> = vec![name("d0"), name("gone9"), name("e0")];
        let closed = armed.close(&ghost, older).unwrap();
        assert!(closed.uncovered.is_empty(), "{closed:?}");
        armed.check(&closed.ruleset).unwrap();
        assert!(!leaves("d0") && !leaves("e0"));
        // The whole layer is refused.
        order(Some(Transaction::NoEgressHook));
        let closed = armed.close(&devices, kernel()).unwrap();
        order(None);
        assert_eq!(closed.uncovered, devices);
        let why = closed.why.unwrap().to_string();
        assert!(why.contains("chain netdev vpngw egress"), "{why}");
        armed.check(&closed.ruleset).unwrap();
        let listed = sh("nft", &["list", "table", "inet", "vpngw"]);
        assert!(
            listed.contains("policy drop") && !listed.contains("endpoint"),
            "{listed}"
        );
        // And a first layer that is refused is no outcome but an error.
        order(Some(Transaction::NotTaken));
        armed.close(&devices, kernel()).unwrap_err();
        order(None);
    });
}
