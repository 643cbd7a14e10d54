//! Starts the servers of the engine. Each asks the main loop for what it serves, so a loop that hangs
//! is never reported as healthy.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time;
use tracing::{info, warn};

use crate::control::server::{self, Request};
use crate::link::{Listener, Unheard};
use crate::metrics::{self, Question};

/// Questions that may wait; a server answers "busy" past that.
const WAITING: usize = 16;

/// How often a listener that could not be had is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What the servers ask of the main loop.
pub(super) struct Questions {
    pub(super) control: mpsc::Receiver<Request>,
    pub(super) metrics: mpsc::Receiver<Question>,
}

/// What answers operators, and what serves metrics: at most one, moved when its address changes.
pub(super) struct Servers {
    control: mpsc::Sender<Request>,
    metrics: mpsc::Sender<Question>,
    /// The listener that the warden holds, and where it listens.
    given: Option<(TcpListener, SocketAddr)>,
    way: Way,
    task: Option<JoinHandle<()>>,
    trouble: watch::Sender<Option<String>>,
}

/// How metrics are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Way {
    /// Not at all.
    #[default]
    Off,
    /// On the listener that the warden holds.
    Given,
    /// On one of our own, here.
    Own(SocketAddr),
    /// Not yet: the warden tries to get one, and in its place nobody else must.
    Awaited,
}

impl Way {
    /// From what is wanted, where the warden's listener is, and what the warden could not have.
    fn of(wanted: Option<SocketAddr>, given: Option<SocketAddr>, unheard: &[Unheard]) -> Self {
        match wanted {
            None => Self::Off,
            Some(address) if given == Some(address) => Self::Given,
            Some(_) if unheard.iter().any(|it| it.listener == Listener::Metrics) => Self::Awaited,
            Some(address) => Self::Own(address),
        }
    }
}

impl Servers {
    /// Nothing is served yet.
    pub(super) fn new() -> (Self, Questions) {
        let (ask, asked) = mpsc::channel(WAITING);
        let (scrape, scraped) = mpsc::channel(WAITING);
        let servers = Self {
            control: ask,
            metrics: scrape,
            given: None,
            way: Way::Off,
            task: None,
            trouble: watch::channel(None).0,
        };
        (
            servers,
            Questions {
                control: asked,
                metrics: scraped,
            },
        )
    }

    /// Answers operators on this listener.
    pub(super) fn control_on(&self, listener: UnixListener) {
        let ask = self.control.clone();
        tokio::spawn(async move {
            if let Err(error) = server::serve(listener, ask).await {
                warn!(%error, "the control socket cannot be served");
            }
        });
    }

    /// Why metrics are not served although they shall be, as long as they are not.
    pub(super) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// Takes the listener that the warden holds for metrics, in the place of one before.
    pub(super) fn metrics_given(&mut self, listener: TcpListener) {
        match listener.local_addr() {
            Ok(address) => {
                self.given = Some((listener, address));
                // The one before is served no longer, whatever it was.
                self.stop();
            }
            Err(error) => warn!(%error, "the warden's listener for metrics is none"),
        }
    }

    /// Serves metrics at this address and no other. What the warden could not have is awaited.
    pub(super) fn metrics_at(&mut self, address: Option<SocketAddr>, unheard: &[Unheard]) {
        let given = self.given.as_ref().map(|(_, address)| *address);
        let way = Way::of(address, given, unheard);
        if way == self.way {
            return;
        }
        self.stop();
        self.way = way;
        self.task = match way {
            Way::Off | Way::Awaited => None,
            Way::Given => self.serve_given(),
            Way::Own(address) => Some(self.serve_own(address)),
        };
    }

    fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.way = Way::Off;
        self.trouble.send_replace(None);
    }

    fn serve_given(&self) -> Option<JoinHandle<()>> {
        let (listener, address) = self.given.as_ref()?;
        let listener = listener.try_clone().and_then(|listener| {
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)
        });
        match listener {
            Ok(listener) => {
                info!(%address, "metrics");
                Some(tokio::spawn(metrics::serve(listener, self.metrics.clone())))
            }
            Err(error) => {
                warn!(%error, "no metrics");
                self.trouble.send_replace(Some(error.to_string()));
                None
            }
        }
    }

    fn serve_own(&self, address: SocketAddr) -> JoinHandle<()> {
        let (questions, trouble) = (self.metrics.clone(), self.trouble.clone());
        tokio::spawn(async move {
            let listener = loop {
                match metrics::bind(address).await {
                    Ok(listener) => break listener,
                    Err(error) => {
                        let why = error.reason();
                        if trouble.borrow().as_ref() != Some(&why) {
                            warn!(%error, why, "no metrics; they are tried again each second");
                            trouble.send_replace(Some(why));
                        }
                    }
                }
                time::sleep(RETRY).await;
            };
            info!(%address, "metrics");
            trouble.send_replace(None);
            metrics::serve(listener, questions).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unheard(listener: Listener) -> [Unheard; 1] {
        let why = "taken".to_owned();
        [Unheard { listener, why }]
    }

    #[test]
    fn the_wardens_listener_comes_first_and_its_place_is_left_to_it() {
        let (here, there) = ("127.0.0.1:9586".parse().ok(), "127.0.0.1:1".parse().ok());
        assert_eq!(Way::of(None, here, &[]), Way::Off);
        assert_eq!(Way::of(here, here, &[]), Way::Given);
        assert_eq!(Way::of(here, there, &[]), Way::Own(here.unwrap()));
        assert_eq!(Way::of(here, None, &[]), Way::Own(here.unwrap()));
        let taken = unheard(Listener::Metrics);
        assert_eq!(Way::of(here, None, &taken), Way::Awaited);
        assert_eq!(Way::of(here, here, &taken), Way::Given);
        let other = unheard(Listener::Uapi);
        assert_eq!(Way::of(here, None, &other), Way::Own(here.unwrap()));
    }

    #[tokio::test]
    async fn a_port_that_was_taken_is_had_once_it_is_free_and_said_meanwhile() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let (mut servers, _questions) = Servers::new();
        let mut trouble = servers.trouble();
        servers.metrics_at(Some(address), &[]);
        trouble.wait_for(Option::is_some).await.unwrap();
        drop(taken);
        let patience = Duration::from_secs(20);
        let had = time::timeout(patience, trouble.wait_for(Option::is_none)).await;
        assert!(had.is_ok());
        drop(had);
        tokio::net::TcpStream::connect(address).await.unwrap();
        servers.metrics_at(None, &[]);
        assert_eq!(*trouble.borrow(), None);
    }

    #[tokio::test]
    async fn metrics_are_served_where_the_warden_listens() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let (mut servers, mut questions) = Servers::new();
        servers.metrics_given(held.try_clone().unwrap());
        servers.metrics_at(Some(address), &[]);
        let client = async {
            use tokio::io::AsyncWriteExt as _;
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = b"GET /metrics HTTP/1.1\r\nhost: test\r\n\r\n";
            stream.write_all(request).await.unwrap();
            stream
        };
        let _stream = client.await;
        assert!(questions.metrics.recv().await.is_some(), "it is scraped");
    }
}
