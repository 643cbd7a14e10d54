//! One HTTP request a connection, within bounds: size, time, number. Used by the control socket and
//! by `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

/// Connections served at one moment; more wait in the listener's queue.
const CONNECTIONS: usize = 16;

/// Bytes of a request line with its headers; the least that hyper takes.
const REQUEST: usize = 8 * 1024;

/// Headers in a request.
const HEADERS: usize = 32;

/// How long a client may take to send its request.
const SLOWEST_REQUEST: Duration = Duration::from_secs(2);

/// How long a connection lives, whatever it does.
const LONGEST_CONNECTION: Duration = Duration::from_secs(10);

/// How long the main loop may take to answer. A loop that takes longer hangs.
const SLOWEST_ANSWER: Duration = Duration::from_secs(1);

/// Serves one request on each connection, until it is dropped.
pub async fn serve<L: Listener>(mut listener: L, routes: Router) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    // `acquire_owned` errs on a closed semaphore only, and nobody closes this one.
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let (stream, _) = listener.accept().await;
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(SLOWEST_REQUEST)
            .max_buf_size(REQUEST)
            .max_headers(HEADERS)
            .keep_alive(false)
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(routes.clone()),
            );
        tokio::spawn(async move {
            match timeout(LONGEST_CONNECTION, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "request not served"),
                Err(_) => tracing::debug!("request not served: too slow"),
            }
            drop(slot);
        });
    }
}

/// Asks the main loop. `None` when it has ended, or has not answered for a second.
pub async fn ask<Q, A>(
    questions: &mpsc::Sender<Q>,
    question: impl FnOnce(oneshot::Sender<A>) -> Q,
) -> Option<A> {
    let (answer, answered) = oneshot::channel();
    let asked = async {
        questions.send(question(answer)).await.ok()?;
        answered.await.ok()
    };
    timeout(SLOWEST_ANSWER, asked).await.ok().flatten()
}
