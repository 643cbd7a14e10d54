//! A joined program: sockets in `app` that talk through the tunnel.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use vpngw::sys::socket::uninterrupted;

use super::ns::Namespaces;
use super::services::question;
use super::{HOST, at};

/// Sends a datagram to an echo service from the namespace and returns the answer.
pub fn ask(ns: &Namespaces, namespace: &str, to: SocketAddr, patience: Duration) -> Option<String> {
    ns.enter(namespace, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        ask_on(&socket, to, patience)
    })
}

/// Asks a resolver for an address from `app`; whether there was an answer.
pub fn resolves(ns: &Namespaces, resolver: SocketAddr, patience: Duration) -> bool {
    ns.enter("app", || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        exchange(&socket, &question("example.org", 7), resolver, patience).is_some()
    })
}

/// Sends a datagram and waits for an answer, again each half second.
pub fn ask_on(socket: &UdpSocket, to: SocketAddr, patience: Duration) -> Option<String> {
    let answer = exchange(socket, b"hello", to, patience)?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

fn exchange(
    socket: &UdpSocket,
    what: &[u8],
    to: SocketAddr,
    patience: Duration,
) -> Option<Vec<u8>> {
    let mut buffer = [0; 2048];
    let start = Instant::now();
    let slice = Duration::from_millis(500).min(patience);
    socket.set_read_timeout(Some(slice)).unwrap();
    while start.elapsed() < patience {
        let began = Instant::now();
        let _ = socket.send_to(what, to);
        match uninterrupted(|| socket.recv_from(&mut buffer)) {
            Ok((len, from)) if from == to => {
                return Some(buffer[..len].to_vec());
            }
            // An error that was reported at once must not turn this into a busy loop.
            _ => std::thread::sleep(slice.saturating_sub(began.elapsed())),
        }
    }
    None
}

/// Asserts that a datagram to the public host goes through the tunnel of server `n`.
pub fn assert_inside(ns: &Namespaces, n: u8) {
    let answer = ask(ns, "app", at(HOST, 7), Duration::from_secs(20));
    let answer = answer.expect("an echo through the tunnel");
    assert!(
        answer.starts_with(&format!("inside{n} 10.64.0.2 ")),
        "{answer}"
    );
}

/// A TCP connection to an echo service.
pub struct Stream {
    stream: TcpStream,
    /// What the service said first: its tag and our address as it sees it.
    pub greeting: String,
}

impl Stream {
    /// Connects from the namespace.
    ///
    /// # Errors
    ///
    /// Whatever the kernel says, or no greeting within `patience`.
    pub fn open(
        ns: &Namespaces,
        namespace: &str,
        to: SocketAddr,
        patience: Duration,
    ) -> io::Result<Self> {
        let any = at(Ipv4Addr::UNSPECIFIED, 0);
        Self::open_from(ns, namespace, any, to, patience)
    }

    /// As [`Self::open`], from a source address.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_from(
        ns: &Namespaces,
        namespace: &str,
        from: SocketAddr,
        to: SocketAddr,
        patience: Duration,
    ) -> io::Result<Self> {
        let stream: TcpStream = ns.enter(namespace, || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&from.into())?;
            socket.connect_timeout(&to.into(), patience)?;
            io::Result::Ok(socket.into())
        })?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        let mut opened = Self {
            stream,
            greeting: String::new(),
        };
        let mut byte = [0];
        while !opened.greeting.ends_with('\n') {
            opened.stream.read_exact(&mut byte)?;
            opened.greeting.push(byte[0].into());
        }
        Ok(opened)
    }

    /// Sends a line and expects it back.
    ///
    /// # Errors
    ///
    /// The connection broke, or no echo came within `patience`.
    pub fn echo(&mut self, patience: Duration) -> io::Result<Duration> {
        let start = Instant::now();
        self.stream.set_read_timeout(Some(patience))?;
        self.stream.write_all(b"0123456789abcdef")?;
        let mut back = [0; 16];
        self.stream.read_exact(&mut back)?;
        if &back != b"0123456789abcdef" {
            return Err(io::Error::other("other bytes came back"));
        }
        Ok(start.elapsed())
    }
}

/// The number the kernel knows the device by; a device made anew has another.
pub fn ifindex(ns: &Namespaces, namespace: &str, device: &str) -> u32 {
    let said = ns.run(namespace, &format!("ip -o link show dev {device}"));
    said.split(':').next().and_then(|n| n.parse().ok()).unwrap()
}
