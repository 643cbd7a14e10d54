//! What a test asks of the joined program's container, and of what the LAN and the Internet see of it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use crate::docker::{APP, PATIENCE, text};
use crate::lab::{HOST, wait};
use crate::stage::{GATEWAY, JOINED, MACHINE, Stage};

/// What the greeting behind the VPN server says to whoever comes through the tunnel.
pub const INSIDE: &str = "inside1 10.64.0.2";

/// What makes a joined container's network the one that it had.
#[derive(Debug, PartialEq, Eq)]
pub struct Network {
    /// When the container was started.
    started: String,
    /// Its namespace.
    namespace: u64,
    /// Its tunnel device, with number and address.
    tunnel: String,
}

impl Stage {
    /// The network of the joined container, which must be that of the container that it joined.
    pub fn network(&self, holder: &str) -> Network {
        let inode = |container| self.docker.namespace(container).metadata().unwrap().ino();
        let namespace = inode(JOINED);
        assert_eq!(namespace, inode(holder));
        Network {
            started: self.started(JOINED),
            namespace,
            tunnel: self.docker.run_in(JOINED, "ip -o -4 addr show tun0"),
        }
    }

    /// When a container was started.
    pub fn started(&self, container: &str) -> String {
        self.docker.inspect(container, "{{.State.StartedAt}}")
    }

    /// The names of the joined container's devices that these words of ip(8) select.
    pub fn links(&self, selected: &str) -> Vec<String> {
        let line = format!("ip -o link show {selected}");
        let said = self.docker.run_in(JOINED, &line);
        let names = said.lines().filter_map(|line| line.split(": ").nth(1));
        let names = names.filter_map(|name| name.split('@').next());
        names.map(str::to_owned).collect()
    }

    /// A connection of the joined container through the tunnel, greeted.
    pub fn connection(&self) -> TcpStream {
        let mut connection = self.docker.enter(JOINED, || {
            let stream = TcpStream::connect((HOST, 7)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        });
        expect(&mut connection, &format!("{INSIDE}\n"));
        connection
    }

    /// What the joined program itself is greeted with through the tunnel; `None` if it gets nowhere.
    pub fn greeting(&self) -> Option<String> {
        let line = greeting(HOST, 7);
        self.said(&["exec", JOINED, "timeout", "5", "bash", "-c", &line])
    }

    /// The greeting that another container, joined to this one, gets from a service.
    pub fn greeting_beside(&self, holder: &str, host: Ipv4Addr, port: u16) -> Option<String> {
        let network = format!("--network=container:{holder}");
        let line = greeting(host, port);
        let words = ["run", "--rm", &network, "--entrypoint", "timeout"];
        self.said(&[words.as_slice(), &[APP, "5", "bash", "-c", &line]].concat())
    }

    /// Asserts that the joined program reaches hosts behind the server, and they not its page.
    pub fn assert_inside(&self) {
        assert_eq!(self.greeting().as_deref(), Some(INSIDE));
        let page = "curl --silent --max-time 3 http://10.64.0.2:8080/";
        let refused = self.ns.output("vpn1", page);
        assert!(
            !refused.status.success(),
            "the page is seen from the VPN's side"
        );
    }

    /// Asserts that the joined program looks names up in the tunnel.
    pub fn assert_names(&self) {
        let words = ["exec", JOINED, "getent", "ahostsv4", "tracker.test"];
        let answer = self.docker.run(&words);
        assert!(answer.contains("203.0.113.9"), "{answer}");
    }

    /// The page of the joined program, as the LAN sees it.
    pub fn lan_page(&self) -> String {
        wait("the LAN sees the page", Duration::from_secs(30), || {
            let page = self.lan_curl(&format!("http://{MACHINE}:8080/"));
            page.status.success().then(|| text("curl", &page))
        })
    }

    /// Asserts that the engine cannot change a network, nor gain what would let it.
    pub fn assert_engine_has_nothing(&self, besides: &[&str]) {
        let engine = self.docker.engine_status(GATEWAY);
        let usual = [
            "CapEff:\t0000000000000000",
            "CapPrm:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
        ];
        for line in usual.iter().chain(besides) {
            assert!(engine.contains(line), "{line}: {engine}");
        }
    }

    fn said(&self, words: &[&str]) -> Option<String> {
        let done = self.docker.try_run(words);
        let line = String::from_utf8_lossy(&done.stdout).trim().to_owned();
        done.status.success().then_some(line)
    }
}

/// Asserts that a connection still works.
pub fn echo(connection: &mut TcpStream) {
    connection.write_all(b"still there?\n").unwrap();
    expect(connection, "still there?\n");
}

fn expect(connection: &mut TcpStream, words: &str) {
    let mut bytes = vec![0; words.len()];
    connection.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), words);
}

/// A line of shell that prints the greeting of a service.
fn greeting(host: Ipv4Addr, port: u16) -> String {
    format!("exec 3<>/dev/tcp/{host}/{port} && head -n 1 <&3")
}
