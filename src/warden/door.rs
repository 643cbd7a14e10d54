//! Where an engine of another container comes in. Nothing that comes to the door changes the namespace:
//! who it is and what it says is looked at here, and what does not fit is turned away.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::geteuid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{self, Instant};
use tracing::{debug, warn};

use super::StartError;
use crate::config::Sealed;
use crate::link::{Decline, Link, LinkError, Offer, ToEngine, ToWarden, VERSION};
use crate::sys::{async_fd, seqpacket};

/// How long somebody at the door may take to say what he wants.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long an engine may take to say the rest, once it has said who it is: thousands of LAN exceptions are long.
const OFFER: Duration = Duration::from_secs(5);

/// How often the log says that somebody was turned away: whoever can come can come often.
const QUIET: Duration = Duration::from_secs(10);

/// The listening socket, and who is at it. In the shared topology there is none.
pub(super) struct Door {
    listener: Option<AsyncFd<OwnedFd>>,
    wanted: u32,
    guest: Option<Guest>,
    complained: Option<Instant>,
}

/// Somebody who has not said everything yet.
struct Guest {
    link: Link,
    user: u32,
    until: Instant,
    /// Who it says it is.
    release: Option<String>,
    /// Why it is not taken: what it is told before the link closes.
    farewell: Option<ToEngine>,
}

/// Somebody who may come in.
pub(super) enum Arrival {
    /// An engine.
    Engine {
        /// To it.
        link: Link,
        /// Its release, for the log.
        release: String,
        /// What its configuration says.
        offer: Offer,
    },
    /// A health check.
    Health(Link),
}

impl Door {
    /// No door: engines are started, not awaited.
    pub(super) fn none() -> Self {
        Self {
            listener: None,
            wanted: u32::MAX,
            guest: None,
            complained: None,
        }
    }

    /// Listens for engines.
    pub(super) fn open(sealed: &Sealed) -> Result<Self, StartError> {
        let listener = seqpacket::listener(&sealed.socket)?;
        Ok(Self {
            listener: Some(async_fd::owned(listener).map_err(StartError::Watch)?),
            wanted: sealed.engine_user,
            ..Self::none()
        })
    }

    /// The next one who may come in. Cancelled, nobody is lost.
    pub(super) async fn arrival(&mut self) -> Arrival {
        loop {
            if self.guest.is_none() {
                self.guest = self.admit().await;
                continue;
            }
            if let Some(arrival) = self.hear().await {
                return arrival;
            }
            // A flood at the door must not keep the warden from everything else.
            tokio::task::yield_now().await;
        }
    }

    /// Takes the next connection, if it is of a user who may speak at all.
    async fn admit(&mut self) -> Option<Guest> {
        let Some(listener) = &self.listener else {
            return std::future::pending().await;
        };
        let accepted = listener.async_io(Interest::READABLE, |fd: &OwnedFd| seqpacket::accept(fd));
        let guest = match accepted.await {
            Ok(fd) => Guest::new(fd),
            Err(error) => {
                self.complain(&error.to_string());
                // No descriptor is left, most likely; others end meanwhile.
                time::sleep(PATIENCE).await;
                return None;
            }
        };
        match guest {
            Ok(mut guest) => {
                if ![self.wanted, geteuid().as_raw()].contains(&guest.user) {
                    self.refuse_user(&mut guest);
                }
                Some(guest)
            }
            Err(error) => {
                self.complain(&error.to_string());
                None
            }
        }
    }

    /// Hears the guest's next message, or says the last word to it. `None` when there is more to come, or when
    /// it is gone.
    async fn hear(&mut self) -> Option<Arrival> {
        let guest = self.guest.as_mut()?;
        if let Some(farewell) = &guest.farewell {
            let _ = time::timeout_at(guest.until, guest.link.send(farewell, &[])).await;
            self.guest = None;
            return None;
        }
        let said = time::timeout_at(guest.until, guest.link.receive::<ToWarden>()).await;
        // From here on nothing is awaited before the guest is kept or gone.
        let message = match said {
            // Descriptors that it sends are not wanted: they close here.
            Ok(Ok(Some((message, _)))) => message,
            Ok(Ok(None)) => {
                self.guest = None;
                return None;
            }
            Ok(Err(error)) => {
                self.guest = None;
                self.complain(&error.to_string());
                return None;
            }
            Err(_) => {
                self.guest = None;
                self.complain("somebody connected and said nothing");
                return None;
            }
        };
        match (message, &guest.release) {
            (ToWarden::AskHealth, None) => Some(Arrival::Health(self.guest.take()?.link)),
            (ToWarden::Attach { version, release }, None) => {
                guest.release = Some(release);
                let (mut guest, wanted) = (self.guest.take()?, self.wanted);
                if version != VERSION {
                    // The engine's words for it would have our number in the place of its own.
                    let said = format!(
                        "an engine speaks version {version} of their protocol, and this warden {VERSION}: \
                         run both from the same image"
                    );
                    self.send_away(&mut guest, Decline::Version(VERSION), &said);
                } else if guest.user == wanted {
                    guest.until = Instant::now() + OFFER;
                } else {
                    self.refuse_user(&mut guest);
                }
                self.guest = Some(guest);
                None
            }
            (ToWarden::Offer(offer), Some(release)) => {
                let (release, offer) = (release.clone(), *offer);
                let link = self.guest.take()?.link;
                Some(Arrival::Engine {
                    link,
                    release,
                    offer,
                })
            }
            (
                ToWarden::AskHealth
                | ToWarden::Attach { .. }
                | ToWarden::Offer(_)
                | ToWarden::Connect { .. }
                | ToWarden::Health(_)
                | ToWarden::Ask { .. }
                | ToWarden::PathMtu { .. }
                | ToWarden::Stamp { .. }
                | ToWarden::Stopped
                | ToWarden::Operator { .. },
                _,
            ) => {
                self.guest = None;
                self.complain("somebody spoke out of turn");
                None
            }
        }
    }

    /// Has the guest told that another user is wanted.
    fn refuse_user(&mut self, guest: &mut Guest) {
        let (user, wanted) = (guest.user, self.wanted);
        let why = Decline::User { user, wanted };
        let said = why.to_string();
        self.send_away(guest, why, &said);
    }

    /// Has the guest told why it is not taken, and the log with these words. Nothing is sent here, since whoever
    /// waits for an arrival may be cancelled.
    fn send_away(&mut self, guest: &mut Guest, why: Decline, said: &str) {
        self.complain(said);
        guest.farewell = Some(ToEngine::Declined(why));
    }

    /// Says why, and closes. Nobody waits for it.
    pub(super) fn turn_away(&mut self, link: Link, why: Decline) {
        self.complain(&why.to_string());
        farewell(link, ToEngine::Declined(why));
    }

    fn complain(&mut self, why: &str) {
        let now = Instant::now();
        if self.complained.is_some_and(|last| now - last < QUIET) {
            debug!(why, "turned away");
        } else {
            warn!(why, "somebody at the warden's socket was turned away");
            self.complained = Some(now);
        }
    }
}

/// Says one last thing, beside everything else: somebody who means us harm may not listen.
pub(super) fn farewell(link: Link, message: ToEngine) {
    tokio::spawn(async move {
        // Whoever asked may have hung up.
        let _ = time::timeout(PATIENCE, link.send(&message, &[])).await;
    });
}

impl Guest {
    fn new(fd: OwnedFd) -> Result<Self, LinkError> {
        let user = seqpacket::user(&fd).map_err(LinkError::Socket)?;
        Ok(Self {
            link: Link::new(fd)?,
            user,
            until: Instant::now() + PATIENCE,
            release: None,
            farewell: None,
        })
    }
}
