//! The operator's side of the control API.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::api::{Problem, Report, Status};
use crate::gateway::Command;
use crate::leak::evidence::Evidence;

/// Longer than the server gives its main loop, so its own words arrive.
const SLOWEST: Duration = Duration::from_secs(3);

/// Bytes of the longest answer that is read: a status names every LAN exception.
const LONGEST: usize = 8 << 20;

/// What a health check says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether the tunnel is usable behind confirmed rules.
    pub ready: bool,
    /// One line for a person.
    pub line: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No gateway runs with this socket.
    #[error(
        "no gateway answers at {}; rules of an earlier run stay in force \
         until `vpngw run` replaces them or `vpngw cleanup` removes them",
        .0.display()
    )]
    NotRunning(PathBuf),
    /// The socket belongs to somebody else.
    #[error("{} may not be opened by this user: try again as root", .0.display())]
    Denied(PathBuf),
    /// The socket could not be used for another reason.
    #[error("{}: the control socket cannot be used", .path.display())]
    Socket {
        /// The control socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something listens, and accepts no connection or keeps silent.
    #[error(
        "the gateway at {} does not answer within {} s: it hangs; its rules stay in force",
        .0.display(), SLOWEST.as_secs()
    )]
    Silent(PathBuf),
    /// What answered does not speak HTTP, or the connection broke.
    #[error("what listens at {} does not speak the control protocol of vpngw", .path.display())]
    Protocol {
        /// The control socket.
        path: PathBuf,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The gateway said no, in its own words.
    #[error("the gateway says: {0}")]
    Refused(String),
    /// The answer is in the words of another release.
    #[error(
        "the gateway is release {gateway} and this program is {}: use `vpngw` of the same release",
        env!("CARGO_PKG_VERSION")
    )]
    Release {
        /// What the gateway calls itself; `unknown` if it does not.
        gateway: String,
        /// Where the answer departs from what is known here.
        source: serde_json::Error,
    },
}

/// Asks what the gateway is doing.
///
/// # Errors
/// Nothing usable answered: see [`enum@Error`].
pub async fn status(socket: &Path) -> Result<Status, Error> {
    let (code, body) = request(socket, Method::GET, "/v1/status").await?;
    parse(code, &body)
}

/// Asks what the sensors saw last, the newest at the end.
///
/// # Errors
/// Nothing usable answered: see [`enum@Error`].
pub async fn leaks(socket: &Path) -> Result<Vec<Evidence>, Error> {
    let (code, body) = request(socket, Method::GET, "/v1/leaks").await?;
    parse(code, &body)
}

/// Asks what was stopped.
///
/// # Errors
/// Nothing usable answered: see [`enum@Error`].
pub async fn stopped(socket: &Path) -> Result<Report, Error> {
    let (code, body) = request(socket, Method::GET, "/v1/blocked").await?;
    parse(code, &body)
}

/// Tells the gateway to do something; returns the state that follows from it.
///
/// # Errors
/// Nothing usable answered: see [`enum@Error`].
pub async fn command(socket: &Path, command: Command) -> Result<Status, Error> {
    let path = match command {
        Command::Connect => "/v1/connect",
        Command::Disconnect => "/v1/disconnect",
    };
    let (code, body) = request(socket, Method::POST, path).await?;
    parse(code, &body)
}

/// Asks whether the tunnel is usable.
///
/// # Errors
/// Nothing usable answered: see [`enum@Error`].
pub async fn health(socket: &Path) -> Result<Health, Error> {
    let (code, body) = request(socket, Method::GET, "/v1/health").await?;
    let text = String::from_utf8_lossy(&body);
    Ok(Health {
        ready: code == StatusCode::OK,
        line: text.lines().next().unwrap_or_default().to_owned(),
    })
}

fn parse<T: DeserializeOwned>(code: StatusCode, body: &[u8]) -> Result<T, Error> {
    if code != StatusCode::OK {
        let problem = serde_json::from_slice::<Problem>(body);
        let words = problem.map_or_else(|_| code.to_string(), |problem| problem.error);
        return Err(Error::Refused(words));
    }
    serde_json::from_slice(body).map_err(|source| {
        let json = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
        let gateway = json["version"].as_str().unwrap_or("unknown").to_owned();
        Error::Release { gateway, source }
    })
}

async fn request(socket: &Path, method: Method, path: &str) -> Result<(StatusCode, Bytes), Error> {
    let exchange = exchange(socket, method, path);
    let silent = || Error::Silent(socket.to_owned());
    timeout(SLOWEST, exchange).await.map_err(|_| silent())?
}

async fn exchange(socket: &Path, method: Method, path: &str) -> Result<(StatusCode, Bytes), Error> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| unreachable(socket, error))?;
    let broken = |source: Box<dyn std::error::Error + Send + Sync>| Error::Protocol {
        path: socket.to_owned(),
        source,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(error.into()))?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "vpngw")
        .body(Empty::<Bytes>::new())
        .map_err(|error| broken(error.into()))?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        let code = response.status();
        let body = Limited::new(response.into_body(), LONGEST)
            .collect()
            .await?;
        Ok((code, body.to_bytes()))
    };
    // The connection moves the bytes; its own error, if any, is the answer's too.
    let (answer, _) = tokio::join!(answer, connection);
    answer.map_err(broken)
}

fn unreachable(socket: &Path, error: io::Error) -> Error {
    let path = socket.to_owned();
    let kind = error.kind();
    if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&kind) {
        Error::NotRunning(path)
    } else if kind == io::ErrorKind::PermissionDenied {
        Error::Denied(path)
    } else if kind == io::ErrorKind::WouldBlock {
        // Its queue of connections is full, and it takes none out of it.
        Error::Silent(path)
    } else {
        let source = error;
        Error::Socket { path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::example;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    #[tokio::test]
    async fn no_socket_and_a_dead_socket_are_a_gateway_that_does_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vpngw.sock");
        assert!(matches!(ask(&path).await, Error::NotRunning(_)));
        drop(UnixListener::bind(&path).unwrap());
        let error = ask(&path).await;
        assert!(matches!(error, Error::NotRunning(_)));
        assert!(error.to_string().contains("rules of an earlier run stay"));
    }

    #[tokio::test]
    async fn the_answer_of_another_release_names_it() {
        let mut json = serde_json::to_value(example::connected()).unwrap();
        json["version"] = "9.1.0".into();
        json["state"] = "dreaming".into();
        let error = answered_with("200 OK", &json.to_string()).await;
        assert!(matches!(&error, Error::Release { gateway, .. } if gateway == "9.1.0"));
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_gateways_words() {
        let error = answered_with("503 Service Unavailable", r#"{"error":"main loop gone"}"#).await;
        assert_eq!(error.to_string(), "the gateway says: main loop gone");
        let error = answered_with("404 Not Found", "").await;
        assert_eq!(error.to_string(), "the gateway says: 404 Not Found");
    }

    #[tokio::test]
    async fn a_stranger_on_the_socket_is_told_apart() {
        let error = answer_raw(b"220 smtp ready\r\n".to_vec()).await;
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_read_to_it() {
        let error = answered_with("200 OK", &"x".repeat(LONGEST + 1)).await;
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    }

    async fn answered_with(code: &str, body: &str) -> Error {
        let length = body.len();
        let head = format!("HTTP/1.1 {code}\r\ncontent-length: {length}\r\n\r\n");
        answer_raw([head.as_bytes(), body.as_bytes()].concat()).await
    }

    async fn answer_raw(bytes: Vec<u8>) -> Error {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vpngw.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            // The client may have heard enough before the end.
            let _ = stream.write_all(&bytes);
        });
        ask(&path).await
    }

    async fn ask(path: &Path) -> Error {
        status(path).await.unwrap_err()
    }
}
