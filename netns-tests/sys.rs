//! `vpngw::sys` against the kernel.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::thread::{UnshareFlags, unshare_unsafe};
use vpngw::net::{Fwmark, IfName, Uplink};

mod main_table;
mod network;
mod process;
mod routes;
mod tamper;

/// Runs a test on a fresh thread in a network and a mount namespace of its own; /proc/sys/net and netlink are those
/// of the new one. Programs it starts are in there too.
#[expect(unsafe_code, reason = "unshare")]
fn isolated(test: impl FnOnce() + Send + 'static) {
    let body = || {
        // SAFETY: no descriptor table is unshared, and the thread is new.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }
            .expect("needs root, or `unshare -Urnm`");
        ip("link set lo up");
        test();
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` of iproute2, the oracle.
fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_ascii_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("{program} {arguments}: {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An uplink as Docker makes it: a veth with an address and a default route. Its other end is in the same namespace:
/// nothing here needs an answer from there.
fn uplink() -> Uplink {
    ip("link add eth0 type veth peer name far0");
    ip("address add 172.30.0.2/24 dev eth0");
    ip("link set eth0 up");
    ip("link set far0 up");
    ip("route add default via 172.30.0.1 dev eth0");
    Uplink {
        device: name("eth0"),
        address: "172.30.0.2/24".parse().unwrap(),
        gateway: Some(Ipv4Addr::new(172, 30, 0, 1)),
    }
}

fn name(name: &str) -> IfName {
    name.parse().unwrap()
}

fn sysctl_value(path: &str) -> String {
    let path = Path::new("/proc/sys").join(path);
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

const MARK: Fwmark = Fwmark(0x1234);

fn endpoint() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 10), 51820)
}
