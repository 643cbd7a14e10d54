//! An ordinary user takes every port that he can get. What is the gateway's own was never let go.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::UdpSocket;

use rustix::process::{Resource, Signal, getrlimit, kill_process, setrlimit};

use crate::lab::conf::Conf;
use crate::lab::gateway::PATIENCE;
use crate::lab::tunnel::assert_inside;
use crate::lab::{Lab, wait};

/// All ports that a socket without a wish may get; as few as the gateway takes for no attack on its network.
const PORTS: std::ops::RangeInclusive<u16> = 41000..=42100;

/// Takes all that are free, and tries the others again and again until it is dropped.
struct Taker {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<usize>>,
}

impl Taker {
    fn start(lab: &Lab) -> Self {
        let stop = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
        let told = stop.clone();
        let thread = lab.ns.spawn("app", move || {
            let mut taken = BTreeMap::new();
            while !told.load(std::sync::atomic::Ordering::Relaxed) {
                for port in PORTS {
                    if let Entry::Vacant(entry) = taken.entry(port)
                        && let Ok(socket) = UdpSocket::bind(("0.0.0.0", port))
                    {
                        entry.insert(socket);
                    }
                }
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            taken.len()
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    fn end(mut self) -> usize {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn with_every_port_taken_it_comes_back_after_a_flap_and_after_an_engine() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let lab = Lab::new();
    let (first, last) = (PORTS.start(), PORTS.end());
    lab.ns.enter("app", || {
        let range = "/proc/sys/net/ipv4/ip_local_port_range";
        std::fs::write(range, format!("{first} {last}")).unwrap();
    });
    let conf = Conf {
        listen_port: None,
        ..lab.conf()
    };
    let gateway = lab.connect(&conf);
    let taker = Taker::start(&lab);
    wait("no port is left", PATIENCE, || {
        let bound = lab.ns.enter("app", || UdpSocket::bind("0.0.0.0:0"));
        bound.err().map(|_| ())
    });
    lab.app("ip link set eth0 down");
    wait("the uplink is gone", PATIENCE, || {
        let status = gateway.status()?;
        status.endpoint.is_none().then_some(())
    });
    lab.app("ip link set eth0 up");
    gateway.wait_connected();
    let before = gateway.engine();
    kill_process(before, Signal::KILL).unwrap();
    wait("another engine", PATIENCE, || {
        (gateway.engine() != before).then_some(())
    });
    gateway.wait_connected();
    // The gateway's two are missing, and no other.
    assert_eq!(taker.end() + 2, PORTS.count());
    assert_inside(&lab.ns, 1);
    lab.sensor.verdict();
}
