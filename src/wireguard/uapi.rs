//! The socket that wg(8) reads, so that `wg show tun0` works.
//!
//! The protocol is at <https://www.wireguard.com/xplatform/>. Only `get=1` is answered; what the tunnel
//! is, the configuration says. No key but the peer's public one is told: wg(8) computes our public key
//! from the private one, so it shows none.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnetwork::Ipv4Network;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use crate::config::PublicKey;
use crate::net::IfName;

/// Where wg(8) looks for the socket of a userspace implementation (wireguard-tools, ipc-uapi-unix.h).
const FOLDER: &str = "/var/run/wireguard";

/// Bytes of the longest request that is read to its end.
const LONGEST_REQUEST: usize = 64 * 1024;

/// How long one client is served. Others wait meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long nobody is served after the system had no descriptor for a client.
const PAUSE: Duration = Duration::from_secs(1);

/// Where wg(8) looks for the socket of this device.
pub fn path(device: &IfName) -> PathBuf {
    Path::new(FOLDER).join(format!("{device}.sock"))
}

/// What there is to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UapiState {
    /// Source port of the UDP socket.
    pub listen_port: Option<u16>,
    /// Mark of the UDP socket.
    pub fwmark: Option<u32>,
    /// The peer, if there is one.
    pub peer: Option<UapiPeer>,
}

/// The peer and the traffic with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UapiPeer {
    /// Its key.
    pub public_key: PublicKey,
    /// Where it is reached.
    pub endpoint: SocketAddrV4,
    /// Seconds between keepalives; `None` is off.
    pub keepalive: Option<u16>,
    /// Its networks.
    pub allowed_ips: Vec<Ipv4Network>,
    /// When the newest handshake was completed.
    pub last_handshake: Option<SystemTime>,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

/// Answers clients for ever, one after the other, with what `state` returns then.
pub async fn serve(listener: UnixListener, state: impl Fn() -> UapiState) -> Infallible {
    loop {
        match listener.accept().await {
            // A client that is slow or gone is its own affair.
            Ok((client, _)) => drop(timeout(PATIENCE, answer(client, &state)).await),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn answer(mut client: UnixStream, state: impl Fn() -> UapiState) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\n\n") && request.len() < LONGEST_REQUEST {
        if client.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let request = String::from_utf8_lossy(&request);
    client
        .write_all(reply(&request, &state()).as_bytes())
        .await?;
    client.shutdown().await
}

/// The answer to one request: the state for `get=1`, a refusal for anything else.
#[must_use]
pub fn reply(request: &str, state: &UapiState) -> String {
    match request {
        "get=1\n\n" => describe(state),
        _ if request.starts_with("set=1\n") => error(libc::EPERM),
        _ => error(libc::EINVAL),
    }
}

/// Negative, as wireguard-go has it and wg(8) reports it.
fn error(number: libc::c_int) -> String {
    format!("errno=-{number}\n\n")
}

fn describe(state: &UapiState) -> String {
    let UapiState {
        listen_port,
        fwmark,
        peer,
    } = state;
    let mut text = String::new();
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        // A String takes whatever is written.
        let _ = writeln!(text, "{key}={value}");
    };
    if let Some(port) = listen_port {
        line("listen_port", port);
    }
    if let Some(mark) = fwmark {
        line("fwmark", mark);
    }
    if let Some(peer) = peer {
        let UapiPeer {
            public_key,
            endpoint,
            keepalive,
            allowed_ips,
            last_handshake,
            rx_bytes,
            tx_bytes,
        } = peer;
        line("public_key", &hex(public_key.0));
        line("protocol_version", &1);
        line("endpoint", endpoint);
        // Unix time, not the age: zero is never.
        let at = last_handshake.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let at = at.unwrap_or_default();
        line("last_handshake_time_sec", &at.as_secs());
        line("last_handshake_time_nsec", &at.subsec_nanos());
        line("tx_bytes", tx_bytes);
        line("rx_bytes", rx_bytes);
        line("persistent_keepalive_interval", &keepalive.unwrap_or(0));
        for network in allowed_ips {
            line("allowed_ip", network);
        }
    }
    text.push_str("errno=0\n\n");
    text
}

fn hex(key: [u8; 32]) -> String {
    let mut text = String::with_capacity(64);
    for byte in key {
        // A String takes whatever is written.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> UapiState {
        UapiState {
            listen_port: Some(51821),
            fwmark: Some(0x1234),
            peer: Some(UapiPeer {
                public_key: PublicKey([0xab; 32]),
                endpoint: "192.0.2.2:51820".parse().unwrap(),
                keepalive: Some(25),
                allowed_ips: vec!["0.0.0.0/0".parse().unwrap()],
                last_handshake: Some(UNIX_EPOCH + Duration::new(1_700_000_000, 5)),
                rx_bytes: 7,
                tx_bytes: 9,
            }),
        }
    }

    #[test]
    fn get_tells_the_state_in_the_words_of_the_protocol() {
        let expected = format!(
            "listen_port=51821\nfwmark=4660\npublic_key={}\nprotocol_version=1\n\
             endpoint=192.0.2.2:51820\nlast_handshake_time_sec=1700000000\n\
             last_handshake_time_nsec=5\ntx_bytes=9\nrx_bytes=7\n\
             persistent_keepalive_interval=25\nallowed_ip=0.0.0.0/0\nerrno=0\n\n",
            "ab".repeat(32)
        );
        assert_eq!(reply("get=1\n\n", &state()), expected);
    }

    #[test]
    fn no_peer_is_no_error() {
        assert_eq!(reply("get=1\n\n", &UapiState::default()), "errno=0\n\n");
    }

    #[test]
    fn set_is_not_permitted_and_nothing_else_is_understood() {
        let set = "set=1\nlisten_port=1\n\n";
        assert_eq!(reply(set, &state()), "errno=-1\n\n");
        for request in ["", "\n\n", "get=1", "get=2\n\n", "get=1\nset=1\n\n"] {
            assert_eq!(reply(request, &state()), "errno=-22\n\n", "{request:?}");
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    }

    async fn ask(path: &Path, request: &[u8]) -> String {
        let mut client = UnixStream::connect(path).await.unwrap();
        client.write_all(request).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[test]
    fn a_client_that_says_nothing_does_not_shut_out_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tun0.sock");
        runtime().block_on(async {
            let listener = UnixListener::bind(&path).unwrap();
            let clients = async {
                let _silent = UnixStream::connect(&path).await.unwrap();
                ask(&path, b"get=1\n\n").await
            };
            tokio::select! {
                _ = serve(listener, state) => unreachable!("it serves for ever"),
                answer = clients => assert_eq!(answer, reply("get=1\n\n", &state())),
            }
        });
    }

    #[test]
    fn a_request_without_end_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tun0.sock");
        runtime().block_on(async {
            let listener = UnixListener::bind(&path).unwrap();
            let endless = vec![b'x'; LONGEST_REQUEST];
            tokio::select! {
                _ = serve(listener, state) => unreachable!("it serves for ever"),
                answer = ask(&path, &endless) => assert_eq!(answer, "errno=-22\n\n"),
            }
        });
    }
}
