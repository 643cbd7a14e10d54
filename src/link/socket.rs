//! One end of the link: messages as JSON, with file descriptors.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys::{async_fd, fdpass, seqpacket};

/// One end of the socket between warden and engine.
pub struct Link {
    fd: AsyncFd<OwnedFd>,
}

/// The link is of no further use, or the message is not.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The other half is gone.
    #[error("the other half is gone")]
    Closed,
    /// The socket.
    #[error("the socket between the two halves")]
    Socket(#[source] io::Error),
    /// Not a message we know.
    #[error("a message between the two halves; are both of the same release?")]
    Message(#[source] serde_json::Error),
}

impl Link {
    /// Wraps one end of [`fdpass::pair`] or of a connection by [`seqpacket`], inside a tokio runtime.
    ///
    /// # Errors
    /// Where it cannot be made non-blocking or watched.
    pub fn new(fd: OwnedFd) -> Result<Self, LinkError> {
        // An inherited one may have lost the flag.
        rustix::io::ioctl_fionbio(&fd, true).map_err(|errno| LinkError::Socket(errno.into()))?;
        let fd = async_fd::owned(fd).map_err(LinkError::Socket)?;
        Ok(Self { fd })
    }

    /// Ends the link for both: each finds it closed.
    pub fn shut(&self) {
        // One that is closed already is as good.
        let _ = rustix::net::shutdown(self.fd.get_ref(), rustix::net::Shutdown::Both);
    }

    /// Bytes that the other half has not read yet.
    pub fn unread(&self) -> usize {
        seqpacket::unread(self.fd.get_ref())
    }

    /// Sends one message with its descriptors. Cancelled, it was sent whole or not at all.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the other half is gone.
    pub async fn send(
        &self,
        message: &impl Serialize,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), LinkError> {
        let bytes = serde_json::to_vec(message).map_err(LinkError::Message)?;
        let send = |fd: &OwnedFd| fdpass::send(fd, &bytes, fds);
        let sent = self.fd.async_io(Interest::WRITABLE, send).await;
        sent.map_err(|error| {
            if is_closed(&error) {
                LinkError::Closed
            } else {
                LinkError::Socket(error)
            }
        })
    }

    /// Receives one message with its descriptors; `None` when the other half is gone. Cancelled, no
    /// message is lost.
    ///
    /// # Errors
    /// [`LinkError::Message`] for one that cannot be read: its descriptors are closed, the link goes on.
    pub async fn receive<T: DeserializeOwned>(
        &self,
    ) -> Result<Option<(T, Vec<OwnedFd>)>, LinkError> {
        let receive = |fd: &OwnedFd| {
            let mut buffer = vec![0; fdpass::LONGEST];
            let received = match fdpass::receive(fd, &mut buffer) {
                // Told once, and before what the other half said last (`__skb_try_recv_datagram`,
                // net/core/datagram.c).
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    fdpass::receive(fd, &mut buffer)?
                }
                other => other?,
            };
            Ok(received.map(|(length, fds)| {
                buffer.truncate(length);
                (buffer, fds)
            }))
        };
        match self.fd.async_io(Interest::READABLE, receive).await {
            Ok(Some((bytes, fds))) => {
                let message = serde_json::from_slice(&bytes).map_err(LinkError::Message)?;
                Ok(Some((message, fds)))
            }
            Ok(None) => Ok(None),
            Err(error) if is_closed(&error) => Ok(None),
            Err(error) => Err(LinkError::Socket(error)),
        }
    }
}

/// What the kernel says when the other end is gone; reset, when it left messages unread.
fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;
    use crate::link::{ToWarden, VERSION};
    use crate::policy::Permit;

    fn links() -> (Link, Link) {
        let (one, other) = fdpass::pair().unwrap();
        (Link::new(one).unwrap(), Link::new(other).unwrap())
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(test);
    }

    #[test]
    fn a_message_crosses_with_its_descriptors() {
        run(async {
            let (one, other) = links();
            let (reader, _writer) = io::pipe().unwrap();
            let attach = ToWarden::Attach {
                version: VERSION,
                release: "1".to_owned(),
            };
            one.send(&attach, &[reader.as_fd()]).await.unwrap();
            let (message, fds) = other.receive::<ToWarden>().await.unwrap().unwrap();
            assert_eq!((message, fds.len()), (attach, 1));
        });
    }

    #[test]
    fn a_cancelled_receive_loses_nothing() {
        run(async {
            let (one, other) = links();
            let wait = other.receive::<ToWarden>();
            let cancelled = tokio::time::timeout(Duration::from_millis(5), wait).await;
            assert!(cancelled.is_err());
            let ask = ToWarden::Ask {
                id: 1,
                permit: Permit::Idle,
            };
            one.send(&ask, &[]).await.unwrap();
            let (message, _) = other.receive::<ToWarden>().await.unwrap().unwrap();
            assert_eq!(message, ask);
        });
    }

    #[test]
    fn a_full_queue_waits_and_keeps_the_order() {
        run(async {
            let (one, other) = links();
            let send = async {
                for id in 0..2000 {
                    let permit = Permit::Idle;
                    one.send(&ToWarden::Ask { id, permit }, &[]).await.unwrap();
                }
            };
            let receive = async {
                for expected in 0..2000 {
                    let (message, _) = other.receive::<ToWarden>().await.unwrap().unwrap();
                    let permit = Permit::Idle;
                    let id = expected;
                    assert_eq!(message, ToWarden::Ask { id, permit });
                }
            };
            tokio::join!(send, receive);
        });
    }

    #[test]
    fn both_directions_tell_that_the_other_half_is_gone() {
        run(async {
            let (one, other) = links();
            one.send(&ToWarden::Stopped, &[]).await.unwrap();
            drop(other);
            assert!(one.receive::<ToWarden>().await.unwrap().is_none());
            let sent = one.send(&ToWarden::Stopped, &[]).await;
            assert!(matches!(sent, Err(LinkError::Closed)));
        });
    }

    #[test]
    fn the_last_word_of_one_who_did_not_listen_is_heard() {
        run(async {
            let (one, other) = links();
            one.send(&ToWarden::Stopped, &[]).await.unwrap();
            other.send(&ToWarden::AskHealth, &[]).await.unwrap();
            drop(other);
            let (last, _) = one.receive::<ToWarden>().await.unwrap().unwrap();
            assert_eq!(last, ToWarden::AskHealth);
            assert!(one.receive::<ToWarden>().await.unwrap().is_none());
        });
    }

    #[test]
    fn a_message_nobody_knows_leaves_the_link_usable() {
        run(async {
            let (one, other) = links();
            one.send(&"what?", &[]).await.unwrap();
            one.send(&ToWarden::Stopped, &[]).await.unwrap();
            let unknown = other.receive::<ToWarden>().await;
            assert!(matches!(unknown, Err(LinkError::Message(_))));
            let known = other.receive::<ToWarden>().await.unwrap().unwrap();
            assert_eq!(known.0, ToWarden::Stopped);
        });
    }
}
