//! The gateway's side of the control API.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/health` | 200 or 503, one line of text |
//! | `GET /v1/leaks` | a list of [`Evidence`], the newest at the end |
//! | `GET /v1/blocked` | [`Report`]: what was stopped, with its destinations |
//! | `POST /v1/connect` | [`Status`] once the command is in force, else a [`Problem`]: 409 why not, 504 not confirmed |
//! | `POST /v1/disconnect` | the same |
//!
//! 503 with a [`Problem`] when the main loop does not answer: each request asks it afresh, so a loop
//! that hangs is never reported as healthy. `GET` changes nothing.

use std::io;
use std::os::unix::net::UnixListener;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::api::{Problem, Report, Status};
use super::http;
use crate::gateway::Command;
use crate::leak::evidence::Evidence;

/// What a client wants of the main loop.
#[derive(Debug)]
pub enum Request {
    /// The state of the gateway.
    Status(oneshot::Sender<Status>),
    /// What the sensors saw last, the newest at the end.
    Leaks(oneshot::Sender<Vec<Evidence>>),
    /// Carry this out; answer with the state that follows, once it is confirmed, or with why it is not.
    Command(Command, oneshot::Sender<Result<Status, String>>),
    /// What was stopped.
    Stopped(oneshot::Sender<Report>),
}

/// Serves the control API on a socket that listens already, until it is dropped.
///
/// # Errors
/// The listener is not one that tokio takes.
pub async fn serve(listener: UnixListener, requests: mpsc::Sender<Request>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    http::serve(listener, routes(requests)).await;
    Ok(())
}

fn routes(requests: mpsc::Sender<Request>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/health", get(health))
        .route("/v1/leaks", get(leaks))
        .route("/v1/blocked", get(blocked))
        .route("/v1/connect", post(connect))
        .route("/v1/disconnect", post(disconnect))
        .fallback(unknown)
        .with_state(requests)
}

async fn status(State(requests): State<mpsc::Sender<Request>>) -> Response {
    answer(http::ask(&requests, Request::Status).await)
}

async fn leaks(State(requests): State<mpsc::Sender<Request>>) -> Response {
    answer(http::ask(&requests, Request::Leaks).await)
}

async fn blocked(State(requests): State<mpsc::Sender<Request>>) -> Response {
    answer(http::ask(&requests, Request::Stopped).await)
}

async fn connect(State(requests): State<mpsc::Sender<Request>>) -> Response {
    command(&requests, Command::Connect).await
}

async fn disconnect(State(requests): State<mpsc::Sender<Request>>) -> Response {
    command(&requests, Command::Disconnect).await
}

async fn command(requests: &mpsc::Sender<Request>, command: Command) -> Response {
    match http::ask(requests, |reply| Request::Command(command, reply)).await {
        Some(Ok(status)) => Json(status).into_response(),
        Some(Err(why)) => {
            let error = format!("{} is not in force: {why}", words(command));
            problem(StatusCode::CONFLICT, &error)
        }
        None => {
            let error = format!(
                "{} is not confirmed: the warden has not said within a second that it is in force; \
                 until it does, take nothing for blocked or open",
                words(command)
            );
            problem(StatusCode::GATEWAY_TIMEOUT, &error)
        }
    }
}

fn words(command: Command) -> &'static str {
    match command {
        Command::Connect => "`connect`",
        Command::Disconnect => "`disconnect`",
    }
}

async fn health(State(requests): State<mpsc::Sender<Request>>) -> Response {
    let Some(status) = http::ask(&requests, Request::Status).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{HANGS}\n")).into_response();
    };
    let code = if status.ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, format!("{}\n", status.summary())).into_response()
}

async fn unknown() -> Response {
    problem(
        StatusCode::NOT_FOUND,
        "no such path: there are /v1/status, /v1/health, /v1/leaks, /v1/blocked, /v1/connect and /v1/disconnect",
    )
}

const HANGS: &str = "the gateway's main loop does not answer";

fn answer(answer: Option<impl Serialize>) -> Response {
    match answer {
        Some(answer) => Json(answer).into_response(),
        None => problem(StatusCode::SERVICE_UNAVAILABLE, HANGS),
    }
}

fn problem(code: StatusCode, error: &str) -> Response {
    let error = error.to_owned();
    (code, Json(Problem { error })).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{client, example};
    use std::path::{Path, PathBuf};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn a_client_reads_what_the_main_loop_says() {
        let gateway = Gateway::start(example::connected());
        let status = client::status(&gateway.socket).await.unwrap();
        assert_eq!(status, example::connected());
        let health = client::health(&gateway.socket).await.unwrap();
        assert!(health.ready);
        assert_eq!(health.line, example::connected().summary());
    }

    #[tokio::test]
    async fn a_client_reads_what_the_sensors_saw() {
        let gateway = Gateway::start(example::connected());
        let leaks = client::leaks(&gateway.socket).await.unwrap();
        assert_eq!(leaks, example::evidence());
    }

    #[tokio::test]
    async fn a_client_reads_what_was_stopped() {
        let gateway = Gateway::start(example::connected());
        let report = client::stopped(&gateway.socket).await.unwrap();
        assert_eq!(report, example::stopped());
    }

    #[tokio::test]
    async fn health_is_red_when_not_connected() {
        for status in [example::connecting(), example::blocked_by_leak()] {
            let gateway = Gateway::start(status.clone());
            let health = client::health(&gateway.socket).await.unwrap();
            assert!(!health.ready);
            assert_eq!(health.line, status.summary());
        }
    }

    #[tokio::test]
    async fn a_command_arrives_and_its_effect_is_answered() {
        let gateway = Gateway::start(example::connected());
        let after = client::command(&gateway.socket, Command::Disconnect).await;
        assert_eq!(after.unwrap(), example::blocked_by_operator());
        let after = client::command(&gateway.socket, Command::Connect).await;
        assert_eq!(after.unwrap(), example::connecting());
    }

    #[tokio::test]
    async fn get_never_changes_state() {
        let gateway = Gateway::start(example::connected());
        for path in ["/v1/connect", "/v1/disconnect"] {
            let answer = raw(&gateway.socket, &format!("GET {path} HTTP/1.1\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
        }
        let status = client::status(&gateway.socket).await.unwrap();
        assert_eq!(status, example::connected());
    }

    #[tokio::test]
    async fn a_main_loop_that_hangs_or_ended_is_not_healthy() {
        let (requests, mut unanswered) = mpsc::channel(1);
        let gateway = Gateway::listen(requests);
        let health = client::health(&gateway.socket).await.unwrap();
        assert_eq!((health.ready, health.line.as_str()), (false, HANGS));
        unanswered.close();
        let error = client::status(&gateway.socket).await.unwrap_err();
        assert_eq!(error.to_string(), format!("the gateway says: {HANGS}"));
    }

    #[tokio::test]
    async fn a_request_that_is_too_long_is_cut_off() {
        let gateway = Gateway::start(example::connected());
        let cookie = "x".repeat(64 * 1024);
        let request = format!("GET /v1/status HTTP/1.1\r\ncookie: {cookie}\r\n\r\n");
        let answer = raw(&gateway.socket, &request).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }

    #[tokio::test]
    async fn many_silent_clients_do_not_keep_others_out_for_long() {
        let gateway = Gateway::start(example::connected());
        let mut silent = Vec::new();
        for _ in 0..40 {
            silent.push(UnixStream::connect(&gateway.socket).await.unwrap());
        }
        drop(silent.split_off(16));
        assert!(client::status(&gateway.socket).await.is_ok());
    }

    /// A main loop that follows commands, behind a socket.
    struct Gateway {
        socket: PathBuf,
        _folder: tempfile::TempDir,
    }

    impl Gateway {
        fn start(status: Status) -> Self {
            let (requests, incoming) = mpsc::channel(4);
            tokio::spawn(main_loop(status, incoming));
            Self::listen(requests)
        }

        fn listen(requests: mpsc::Sender<Request>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("vpngw.sock");
            let listener = UnixListener::bind(&socket).unwrap();
            tokio::spawn(serve(listener, requests));
            Self {
                socket,
                _folder: folder,
            }
        }
    }

    async fn main_loop(mut status: Status, mut incoming: mpsc::Receiver<Request>) {
        while let Some(request) = incoming.recv().await {
            let reply = match request {
                Request::Status(reply) => reply,
                Request::Leaks(reply) => {
                    reply.send(example::evidence()).unwrap();
                    continue;
                }
                Request::Stopped(reply) => {
                    let _ = reply.send(example::stopped());
                    continue;
                }
                Request::Command(command, reply) => {
                    status = match command {
                        Command::Connect => example::connecting(),
                        Command::Disconnect => example::blocked_by_operator(),
                    };
                    reply.send(Ok(status.clone())).unwrap();
                    continue;
                }
            };
            reply.send(status.clone()).unwrap();
        }
    }

    async fn raw(socket: &Path, request: &str) -> String {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        // The server may hang up before it has read everything.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}
