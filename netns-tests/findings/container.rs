//! What containers are known to get wrong.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use vpngw::sys::socket::uninterrupted;

use crate::lab::services::question;
use crate::lab::{Lab, ONES, ROUTER, at, settled, wait};

const PATIENCE: Duration = Duration::from_secs(20);

/// Docker's resolver as dockerd runs it: a socket that it opened inside the namespace, on a port of its own
/// to which port 53 of 127.0.0.11 is translated, answered by a process outside. It asks either from
/// outside or, since the fix, by a socket that it dials inside as root.
struct Dockerd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dials {
    Outside,
    Inside,
}

impl Dockerd {
    fn start(lab: &Lab, dials: Dials) -> Self {
        let any = at(Ipv4Addr::UNSPECIFIED, 0);
        let inside = lab
            .ns
            .enter("app", || UdpSocket::bind("127.0.0.11:0").unwrap());
        let (home, upstream) = match dials {
            Dials::Outside => ("rtr", at(ONES, 53)),
            Dials::Inside => ("app", at(ROUTER, 53)),
        };
        let asking = lab.ns.enter(home, || UdpSocket::bind(any).unwrap());
        let port = inside.local_addr().unwrap().port();
        let rules = format!(
            "table ip docker {{\nchain output {{\ntype nat hook output priority -100;\n\
             ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:{port}\n\
             ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:{port}\n}}\n\
             chain post {{\ntype nat hook postrouting priority 100;\n\
             ip saddr 127.0.0.11 udp sport {port} snat to :53\n}}\n}}\n"
        );
        lab.ns.feed("app", "nft -f -", &rules);
        let stop = Arc::<AtomicBool>::default();
        let client = Arc::new(std::sync::Mutex::new(None::<SocketAddr>));
        for socket in [&inside, &asking] {
            socket
                .set_read_timeout(Some(Duration::from_millis(100)))
                .unwrap();
        }
        let (to, from) = (inside.try_clone().unwrap(), asking.try_clone().unwrap());
        let (asker, stopped) = (client.clone(), stop.clone());
        let questions = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, who)) = inside.recv_from(&mut buffer) {
                    *asker.lock().unwrap() = Some(who);
                    let _ = asking.send_to(&buffer[..length], upstream);
                }
            }
        });
        let stopped = stop.clone();
        let answers = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(length) = from.recv(&mut buffer)
                    && let Some(who) = *client.lock().unwrap()
                {
                    let _ = to.send_to(&buffer[..length], who);
                }
            }
        });
        Self {
            stop,
            threads: vec![questions, answers],
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Asks Docker's resolver once; whether an answer came.
fn answered(lab: &Lab) -> bool {
    lab.ns.enter("app", || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let to = SocketAddr::from(([127, 0, 0, 11], 53));
        socket.send_to(&question("secret.example", 7), to).is_ok()
            && uninterrupted(|| socket.recv(&mut [0; 512])).is_ok()
    })
}

/// Names that a container asks of 127.0.0.11 are looked up outside its namespace.
#[test]
fn cve_2024_29018_dockers_resolver_carries_no_name_out() {
    no_name_leaves_by(Dials::Outside);
}

/// Since the fix dockerd looks them up inside, as root.
#[test]
fn cve_2024_29018_what_dockers_resolver_dials_inside_is_held() {
    no_name_leaves_by(Dials::Inside);
}

fn no_name_leaves_by(dials: Dials) {
    let lab = Lab::new();
    let dockerd = Dockerd::start(&lab, dials);
    wait("without a gateway it answers", PATIENCE, || {
        answered(&lab).then_some(())
    });
    let asked = || (lab.inet.visits().len(), lab.router.visits().len());
    let before = settled(asked);
    assert_ne!(before, (0, 0));
    let mut gateway = lab.connect(&lab.conf());
    for _ in 0..10 {
        assert!(!answered(&lab));
    }
    let connected = lab.ns.enter("app", || {
        let to = SocketAddr::from(([127, 0, 0, 11], 53));
        TcpStream::connect_timeout(&to, Duration::from_secs(2))
    });
    // By the rule, not because nobody listens.
    let refused = connected.unwrap_err().kind();
    assert_eq!(refused, ErrorKind::HostUnreachable);
    assert_eq!(settled(asked), before, "a name left the namespace");
    // Also when the gateway is gone, and when the question was under way already: what dockerd
    // dials inside is held like anybody's.
    gateway.kill();
    let dialled = lab.ns.enter("app", || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket
            .send_to(&question("secret.example", 7), at(ROUTER, 53))
            .is_ok()
    });
    assert!(!answered(&lab) && !dialled);
    assert_eq!(settled(asked), before, "a name left the namespace");
    lab.sensor.verdict();
    drop(dockerd);
}
