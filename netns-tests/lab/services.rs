//! Programs on the other side: echo, a resolver, and a list of who talked to them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;

use super::ns::Namespaces;

/// What is offered, where.
#[derive(Clone, Copy, Debug)]
pub enum Service {
    /// Says `tag peer-address` on a line, then echoes.
    Tcp(SocketAddr),
    /// Answers `tag peer-address `, then what it was sent.
    Udp(SocketAddr),
    /// Answers every question with this address.
    Dns(SocketAddr, Ipv4Addr),
    /// Sends without end to whoever connects.
    Source(SocketAddr),
}

/// Someone talked to a service.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Which service.
    pub service: SocketAddr,
    /// Who.
    pub peer: SocketAddr,
    /// The datagram; empty for a connection.
    pub bytes: Vec<u8>,
}

type Visits = Arc<Mutex<Vec<Visit>>>;

/// Running services; end when dropped.
pub struct Services {
    visits: Visits,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Services {
    /// Returns once all of them listen.
    pub fn start(
        namespaces: &Namespaces,
        namespace: &str,
        tag: &'static str,
        wanted: Vec<Service>,
    ) -> Self {
        let visits = Visits::default();
        let (stop, stopped) = oneshot::channel();
        let (ready, listening) = std::sync::mpsc::channel();
        let shared = visits.clone();
        let thread = namespaces.spawn(namespace, move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                for service in wanted {
                    let started = start(service, tag, shared.clone()).await;
                    started.unwrap_or_else(|why| panic!("{tag}: {service:?}: {why}"));
                }
                ready.send(()).unwrap();
                let _ = stopped.await;
            });
        });
        listening.recv().expect("the services listen");
        Self {
            visits,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Who talked to them so far.
    pub fn visits(&self) -> Vec<Visit> {
        self.visits.lock().unwrap().clone()
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn start(service: Service, tag: &'static str, visits: Visits) -> io::Result<()> {
    match service {
        Service::Tcp(at) => accept(
            TcpListener::bind(at).await?,
            at,
            visits,
            move |stream, peer| {
                tokio::spawn(echo(stream, format!("{tag} {peer}\n")));
            },
        ),
        Service::Source(at) => accept(TcpListener::bind(at).await?, at, visits, |stream, _| {
            tokio::spawn(pour(stream));
        }),
        Service::Udp(at) => {
            let answer = move |peer: SocketAddr, bytes: &[u8]| {
                let mut answer = format!("{tag} {} ", peer.ip()).into_bytes();
                answer.extend(bytes);
                Some(answer)
            };
            tokio::spawn(datagrams(UdpSocket::bind(at).await?, at, visits, answer));
        }
        Service::Dns(at, address) => {
            let answer = move |_: SocketAddr, bytes: &[u8]| resolve(bytes, address);
            tokio::spawn(datagrams(UdpSocket::bind(at).await?, at, visits, answer));
        }
    }
    Ok(())
}

fn accept(
    listener: TcpListener,
    service: SocketAddr,
    visits: Visits,
    serve: impl Fn(TcpStream, std::net::IpAddr) + Send + 'static,
) {
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            visits.lock().unwrap().push(Visit {
                service,
                peer,
                bytes: Vec::new(),
            });
            serve(stream, peer.ip());
        }
    });
}

async fn echo(mut stream: TcpStream, greeting: String) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(greeting.as_bytes()).await?;
    let mut buffer = vec![0; 1 << 14];
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..len]).await?;
    }
}

/// About 20 Mbit/s.
async fn pour(mut stream: TcpStream) -> io::Result<()> {
    let block = vec![0x5a; 50_000];
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
    loop {
        tick.tick().await;
        stream.write_all(&block).await?;
    }
}

async fn datagrams(
    socket: UdpSocket,
    service: SocketAddr,
    visits: Visits,
    answer: impl Fn(SocketAddr, &[u8]) -> Option<Vec<u8>>,
) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        // An ICMP error of an earlier answer is reported here and means nothing to a server.
        let Ok((len, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let bytes = &buffer[..len];
        visits.lock().unwrap().push(Visit {
            service,
            peer,
            bytes: bytes[..len.min(128)].to_vec(),
        });
        if let Some(answer) = answer(peer, bytes) {
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

/// One A record for a question of one name (RFC 1035, section 4.1); an empty answer for other types.
fn resolve(question: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let mut at = 12;
    while *question.get(at)? != 0 {
        at += usize::from(question[at]) + 1;
    }
    let end = at + 5;
    let kind = question.get(at + 1..at + 3)?;
    let is_a = kind == [0, 1];
    let mut answer = question.get(..2)?.to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(question.get(12..end)?);
    if is_a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

/// A question for the A record of a name, with an identity of its own.
pub fn question(name: &str, id: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

#[test]
fn the_resolver_answers_with_its_address() {
    let question = question("vpn.test", 7);
    let answer = resolve(&question, Ipv4Addr::new(198, 51, 100, 10)).unwrap();
    assert_eq!(answer[..2], [0, 7]);
    assert!(answer.ends_with(&[198, 51, 100, 10]));
    assert_eq!(resolve(&question[..20], Ipv4Addr::LOCALHOST), None);
}
