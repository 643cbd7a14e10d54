//! What Prometheus reads: `GET /metrics` on the configured address.
//!
//! Nothing is counted here. Each scrape asks the main loop for one [`Sample`] and renders it, so no
//! series outlives what it describes. The `wireguard_*` names and labels are those of
//! prometheus_wireguard_exporter, which dashboards know.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ipnetwork::Ipv4Network;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::config::PublicKey;
use crate::control::api::Status;
use crate::control::http;
use crate::link::Count;

mod family;
mod process;

pub use family::render;
pub use process::Process;

/// Everything that is measured, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What the gateway is doing.
    pub status: Status,
    /// The VPN servers that have been used, by key.
    pub peers: Vec<Peer>,
    /// Handshakes completed since start.
    pub handshakes: u64,
    /// Sessions opened after the first one, by what ended the one before.
    pub reconnects: BTreeMap<String, u64>,
    /// Packets stopped since start, by reason and protocol.
    pub blocked: BTreeMap<String, BTreeMap<String, Count>>,
    /// Packets that the data plane dropped since start, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// How often an offload was given up at run time.
    pub offload_fallbacks: u64,
}

/// One VPN server, as `wg show` would list it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its key.
    pub public_key: PublicKey,
    /// Inner addresses it may send from and be sent to.
    pub allowed_ips: Vec<Ipv4Network>,
    /// `# name` in the configuration.
    pub name: Option<String>,
    /// Bytes received from it.
    pub received_bytes: u64,
    /// Bytes sent to it.
    pub sent_bytes: u64,
    /// Unix time of the last handshake; 0 is never.
    pub latest_handshake: u64,
}

/// A question to the main loop: where to send the sample.
pub type Question = oneshot::Sender<Sample>;

/// The configured address cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "`[metrics] listen = \"{address}\"`: nothing can listen there; use an address of this host and a free port"
)]
pub struct Error {
    address: SocketAddr,
    source: io::Error,
}

impl Error {
    /// What keeps anything from listening there, and the cure.
    pub fn reason(&self) -> String {
        let (address, source) = (self.address, &self.source);
        let kind = source.kind();
        if kind == io::ErrorKind::AddrInUse {
            format!(
                "another program listens at {address}; stop it, or let `[metrics] listen` name a free port"
            )
        } else if kind == io::ErrorKind::AddrNotAvailable {
            format!("{address} is no address of this host; let `[metrics] listen` name one that is")
        } else {
            format!("nothing can listen at {address}: {source}")
        }
    }
}

/// Listens for scrapes.
///
/// # Errors
/// The address is in use, or not one of this host.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| Error { address, source })
}

/// Answers scrapes until it is dropped.
pub async fn serve(listener: TcpListener, questions: mpsc::Sender<Question>) {
    http::serve(listener, routes(questions)).await;
}

fn routes(questions: mpsc::Sender<Question>) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .with_state(questions)
}

async fn scrape(State(questions): State<mpsc::Sender<Question>>) -> Response {
    // No answer is an error, so `up` becomes 0 and an alert fires; old values would hide it.
    let Some(sample) = http::ask(&questions, |answer| answer).await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let text = render(&sample, Process::read().as_ref());
    ([(header::CONTENT_TYPE, TEXT)], text).into_response()
}

/// Prometheus exposition format 0.0.4.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::example;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn a_scrape_is_answered_with_a_fresh_sample() {
        let (questions, mut asked) = mpsc::channel::<Question>(1);
        tokio::spawn(async move {
            for status in [example::connecting(), example::connected()] {
                let sample = Sample {
                    status,
                    ..family::example()
                };
                asked.recv().await.unwrap().send(sample).unwrap();
            }
        });
        let address = start(questions).await;
        let first = scrape(address).await;
        assert!(first.starts_with("HTTP/1.1 200"), "{first}");
        assert!(first.contains("content-type: text/plain; version=0.0.4"));
        assert!(first.contains("\nvpngw_tunnel_up 0\n"), "{first}");
        assert!(scrape(address).await.contains("\nvpngw_tunnel_up 1\n"));
    }

    #[tokio::test]
    async fn a_main_loop_that_ended_makes_the_scrape_fail() {
        let (questions, asked) = mpsc::channel(1);
        drop(asked);
        let address = start(questions).await;
        assert!(scrape(address).await.starts_with("HTTP/1.1 503"));
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let taken = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(address).await.unwrap_err();
        assert!(error.to_string().contains(&address.to_string()));
    }

    async fn start(questions: mpsc::Sender<Question>) -> SocketAddr {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, questions));
        address
    }

    async fn scrape(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nhost: test\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}
