//! No IPv6 frame of any kind leaves, even where a router offers a network.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::lab::forge;
use crate::lab::ns::Namespaces;
use crate::lab::raw::{Layer, PacketSocket};
use crate::lab::tunnel::assert_inside;
use crate::lab::{Lab, ROUTER_MAC, wait};
use crate::probes::{self, Family};

#[test]
fn no_ipv6_frame_leaves() {
    let lab = Lab::new();
    probes::control(&lab, Family::Ipv6);
    let _gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    probes::fire(&lab, Family::Ipv6);
    // What the kernel says by itself when a link comes up: solicitations, multicast reports.
    lab.app("ip link set eth0 down");
    lab.app("ip link set eth0 up");
    lab.route_by_the_uplink();
    assert_inside(&lab.ns, 1);
    probes::fire(&lab, Family::Ipv6);
}

/// Anybody on the link may claim to be the IPv6 router.
#[test]
fn cve_2020_13401_a_router_that_advertises_is_not_heard() {
    let lab = Lab::new();
    let before = Advertiser::start(&lab.ns, 0xaa);
    wait(
        "without a gateway an address is made",
        Duration::from_secs(20),
        || has(&lab, "2001:db8:aa:").then_some(()),
    );
    drop(before);
    probes::control(&lab, Family::Ipv6);
    let gateway = lab.connect(&lab.conf());
    let after = Advertiser::start(&lab.ns, 0xbb);
    wait("it has advertised", Duration::from_secs(60), || {
        (after.sent() > 60).then_some(())
    });
    assert!(!has(&lab, "2001:db8:bb:"), "{}", lab.app("ip -6 addr"));
    assert!(!lab.app("ip -6 route").contains("2001:db8:bb:"));
    probes::fire(&lab, Family::Ipv6);
    let status = gateway.status().unwrap();
    println!("IPv6 is {:?}", status.ipv6);
    assert_ne!(status.ipv6, vpngw::control::api::Ipv6::Unknown);
}

#[test]
fn nothing_of_ipv6_leaves_while_a_router_advertises_from_the_start() {
    let lab = Lab::new();
    probes::control(&lab, Family::Ipv6);
    let _advertiser = Advertiser::start(&lab.ns, 0xcc);
    let mut gateway = lab.connect(&lab.conf());
    assert_inside(&lab.ns, 1);
    probes::fire(&lab, Family::Ipv6);
    gateway.kill();
    probes::fire(&lab, Family::Ipv6);
}

fn has(lab: &Lab, prefix: &str) -> bool {
    lab.app("ip -6 -o addr show dev eth0").contains(prefix)
}

/// A router that offers `2001:db8:xx::/64` twenty times a second.
struct Advertiser {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Advertiser {
    fn start(ns: &Namespaces, subnet: u8) -> Self {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, counter) = (stop.clone(), sent.clone());
        let frame = advertisement(subnet);
        let thread = ns.spawn("rtr", move || {
            let socket = PacketSocket::open("toapp", Layer::Frame, 0).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                // The link may be down for a moment.
                if socket.send(&frame).is_ok() {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self {
            stop,
            sent,
            thread: Some(thread),
        }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Advertiser {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A router advertisement with an autonomous prefix (RFC 4861, sections 4.2 and 4.6.2).
fn advertisement(subnet: u8) -> Vec<u8> {
    let mut from = [0; 16];
    from[..2].copy_from_slice(&[0xfe, 0x80]);
    from[11..].copy_from_slice(&[0xff, 0xfe, 0, 0, 1]);
    let mut to = [0; 16];
    to[..2].copy_from_slice(&[0xff, 0x02]);
    to[15] = 1;
    let mut message = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0, 0, 0, 0xe, 0x10, 0, 0, 0xe, 0x10, 0, 0, 0, 0]);
    message.extend([0x20, 1, 0x0d, 0xb8, 0, subnet, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let sum = checksum(&from, &to, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = vec![0x33, 0x33, 0, 0, 0, 1];
    frame.extend(ROUTER_MAC);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, message.len() as u8, 58, 255]);
    frame.extend(from);
    frame.extend(to);
    frame.extend(message);
    frame
}

fn checksum(from: &[u8; 16], to: &[u8; 16], message: &[u8]) -> u16 {
    let mut bytes = from.to_vec();
    bytes.extend(to);
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, 58]);
    bytes.extend(message);
    forge::checksum(&bytes)
}
