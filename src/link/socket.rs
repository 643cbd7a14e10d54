//! One end of the link: messages as JSON, with file descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::message::{Long, Message};
use super::wire::{self, Misfit, Packet, Parts};
use crate::sys::{async_fd, fdpass, memfd, seqpacket};

/// One end of the socket between warden and engine.
pub struct Link {
    fd: AsyncFd<OwnedFd>,
    inbox: Mutex<Inbox>,
    /// Whether a message in parts is under way; one that was cut off leaves the link of no use.
    torn: AtomicBool,
}

/// What receives packets, made once.
struct Inbox {
    buffer: Box<[u8]>,
    parts: Parts,
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
    /// It has a form that none of ours has.
    #[error("a message between the two halves was refused: {0}")]
    Misfit(String),
    /// More than the other half takes.
    #[error(
        "a message between the two halves would have {length} bytes, and {longest} is the most: the \
         configuration names too much"
    )]
    TooLong {
        /// Bytes that it would have.
        length: usize,
        /// Bytes that it may have.
        longest: usize,
    },
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
        Ok(Self {
            fd,
            inbox: Mutex::new(Inbox {
                buffer: vec![0; fdpass::LONGEST].into(),
                parts: Parts::default(),
            }),
            torn: AtomicBool::new(false),
        })
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

    /// Sends one message with its descriptors. Cancelled, it was sent whole or not at all; a long one of the
    /// engine, which travels in parts, leaves the link closed then.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the other half is gone, [`LinkError::TooLong`] for what it would not take.
    pub async fn send<M: Message>(
        &self,
        message: &M,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), LinkError> {
        let bytes = serde_json::to_vec(message).map_err(LinkError::Message)?;
        let (length, longest) = (bytes.len(), M::LONGEST);
        if self.torn.load(Ordering::Relaxed) {
            return Err(LinkError::Closed);
        }
        if length > longest {
            return Err(LinkError::TooLong { length, longest });
        }
        if length <= fdpass::LONGEST {
            return self.send_packet(&bytes, fds).await;
        }
        match M::LONG {
            Long::File => {
                let file = memfd::sealed(&bytes).map_err(LinkError::Socket)?;
                let fds: Vec<_> = [file.as_fd()].iter().chain(fds).copied().collect();
                self.send_packet(&wire::file(length), &fds).await
            }
            Long::Parts => {
                self.torn.store(true, Ordering::Relaxed);
                for part in wire::parts(&bytes, fdpass::LONGEST) {
                    self.send_packet(&part, &[]).await?;
                }
                self.torn.store(false, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    async fn send_packet(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        let send = |fd: &OwnedFd| fdpass::send(fd, bytes, fds);
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
    /// [`LinkError::Message`] or [`LinkError::Misfit`] for one that cannot be read: its descriptors are closed, the
    /// link goes on.
    pub async fn receive<M: Message>(&self) -> Result<Option<(M, Vec<OwnedFd>)>, LinkError> {
        let receive = |fd: &OwnedFd| {
            // Nothing that holds it can panic half-way.
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            match inbox.receive::<M>(fd) {
                // Told once, and before what the other half said last (`__skb_try_recv_datagram`,
                // net/core/datagram.c).
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    inbox.receive::<M>(fd)
                }
                other => other,
            }
        };
        loop {
            match self.fd.async_io(Interest::READABLE, receive).await {
                Ok(Received::Message(bytes, fds)) => {
                    let message = serde_json::from_slice(&bytes).map_err(LinkError::Message)?;
                    return Ok(Some((message, fds)));
                }
                Ok(Received::Part) => {}
                Ok(Received::Misfit(why)) => return Err(LinkError::Misfit(why)),
                Ok(Received::End) => return Ok(None),
                Err(error) if is_closed(&error) => return Ok(None),
                Err(error) => return Err(LinkError::Socket(error)),
            }
        }
    }
}

/// What a packet came to.
enum Received {
    Message(Vec<u8>, Vec<OwnedFd>),
    /// There is more to come.
    Part,
    Misfit(String),
    /// The other half is gone.
    End,
}

impl Inbox {
    /// Takes the next packet, if there is one. Nothing here waits, whoever sent it.
    fn receive<M: Message>(&mut self, socket: &OwnedFd) -> io::Result<Received> {
        let received = match M::LONG {
            Long::File => fdpass::receive(socket, &mut self.buffer)?,
            Long::Parts => {
                let length = fdpass::receive_bytes(socket, &mut self.buffer)?;
                length.map(|length| (length, Vec::new()))
            }
        };
        let Some((length, mut fds)) = received else {
            return Ok(Received::End);
        };
        let bytes = self.buffer.get(..length).unwrap_or_default();
        let taken = match (Packet::read(bytes), M::LONG) {
            (Some(Packet::File(length)), Long::File) => {
                return Ok(match unfolded(length, M::LONGEST, &mut fds) {
                    Ok(bytes) => Received::Message(bytes, fds),
                    Err(why) => Received::Misfit(why),
                });
            }
            (Some(packet), Long::File | Long::Parts) => self.parts.take(packet, M::LONGEST),
            (None, Long::File | Long::Parts) => Err(Misfit::Unknown),
        };
        Ok(match taken {
            Ok(Some(bytes)) => Received::Message(bytes, fds),
            Ok(None) => Received::Part,
            Err(misfit) => Received::Misfit(misfit.to_string()),
        })
    }
}

/// What the first descriptor holds, which is no part of the message.
fn unfolded(length: usize, longest: usize, fds: &mut Vec<OwnedFd>) -> Result<Vec<u8>, String> {
    if length > longest {
        return Err(Misfit::TooLong(longest).to_string());
    }
    if fds.is_empty() {
        return Err("the file that holds a long message is missing".to_owned());
    }
    memfd::read(fds.remove(0), length).map_err(|error| error.to_string())
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
    use crate::link::{Decline, ToEngine, ToWarden};
    use crate::policy::Permit;

    /// The warden's end, then the engine's.
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

    fn declined(length: usize) -> ToEngine {
        ToEngine::Declined(Decline::Offer("x".repeat(length)))
    }

    fn attach(length: usize) -> ToWarden {
        let release = "y".repeat(length);
        ToWarden::Attach {
            version: 1,
            release,
        }
    }

    #[test]
    fn a_message_crosses_with_its_descriptors_whatever_its_length() {
        run(async {
            let (warden, engine) = links();
            for length in [1, fdpass::LONGEST - 30, fdpass::LONGEST, 5_000_000] {
                let (mut reader, writer) = io::pipe().unwrap();
                let message = declined(length);
                let fds = [writer.as_fd(); fdpass::MOST_FDS - 1];
                warden.send(&message, &fds).await.unwrap();
                drop(writer);
                let (heard, fds) = engine.receive::<ToEngine>().await.unwrap().unwrap();
                assert!(heard == message);
                assert_eq!(fds.len(), fdpass::MOST_FDS - 1);
                rustix::io::write(fds.last().unwrap(), b"x").unwrap();
                drop(fds);
                let mut rest = String::new();
                io::Read::read_to_string(&mut reader, &mut rest).unwrap();
                assert_eq!(rest, "x", "and no other descriptor is left");
            }
        });
    }

    #[test]
    fn a_long_word_of_the_engine_arrives_and_keeps_its_place() {
        run(async {
            let (warden, engine) = links();
            let send = async {
                for length in [10, 3_000_000, 7] {
                    engine.send(&attach(length), &[]).await.unwrap();
                }
            };
            let receive = async {
                for length in [10, 3_000_000, 7] {
                    let (heard, _) = warden.receive::<ToWarden>().await.unwrap().unwrap();
                    assert!(heard == attach(length));
                }
            };
            tokio::join!(send, receive);
        });
    }

    #[test]
    fn what_the_other_half_would_not_take_is_not_sent() {
        run(async {
            let (warden, engine) = links();
            let sent = engine.send(&attach(ToWarden::LONGEST), &[]).await;
            assert!(matches!(sent, Err(LinkError::TooLong { .. })));
            engine.send(&ToWarden::Stopped, &[]).await.unwrap();
            let (heard, _) = warden.receive::<ToWarden>().await.unwrap().unwrap();
            assert_eq!(heard, ToWarden::Stopped);
        });
    }

    #[test]
    fn a_message_in_parts_that_was_cut_off_closes_the_link() {
        run(async {
            let (_warden, engine) = links();
            let long = attach(3_000_000);
            let send = engine.send(&long, &[]);
            let cancelled = tokio::time::timeout(Duration::from_millis(5), send).await;
            assert!(cancelled.is_err(), "nobody reads");
            let next = engine.send(&ToWarden::Stopped, &[]).await;
            assert!(matches!(next, Err(LinkError::Closed)));
        });
    }

    /// Whoever sends these, the one who receives them neither waits nor ends.
    #[test]
    fn a_file_that_is_none_is_refused_and_the_link_goes_on() {
        run(async {
            let (warden, engine) = links();
            let (pipe, _writer) = io::pipe().unwrap();
            let short = memfd::sealed(b"{}").unwrap();
            let cases: [(&[u8], &[BorrowedFd<'_>]); 6] = [
                (b"@5", &[]),
                (b"@5", &[pipe.as_fd()]),
                (b"@5", &[short.as_fd()]),
                (b"@99999999999", &[short.as_fd()]),
                (b"@-1", &[short.as_fd()]),
                (b"@", &[short.as_fd()]),
            ];
            for (packet, fds) in cases {
                fdpass::send(warden.fd.get_ref(), packet, fds).unwrap();
                let refused = engine.receive::<ToEngine>().await;
                assert!(
                    matches!(refused, Err(LinkError::Misfit(_) | LinkError::Message(_))),
                    "{packet:?}"
                );
            }
            warden.send(&ToEngine::Agreed, &[]).await.unwrap();
            let (heard, _) = engine.receive::<ToEngine>().await.unwrap().unwrap();
            assert_eq!(heard, ToEngine::Agreed);
        });
    }

    #[test]
    fn the_warden_takes_neither_files_nor_words_without_end() {
        run(async {
            let (warden, engine) = links();
            let part = [&b"+"[..], &vec![b'x'; fdpass::LONGEST - 1]].concat();
            let flood = async {
                for _ in 0..ToWarden::LONGEST / part.len() + 1 {
                    engine.send_packet(&part, &[]).await.unwrap();
                }
                engine.send_packet(b"@2", &[]).await.unwrap();
                engine.send(&ToWarden::Stopped, &[]).await.unwrap();
            };
            let hear = async {
                for _ in 0..2 {
                    let refused = warden.receive::<ToWarden>().await;
                    assert!(matches!(refused, Err(LinkError::Misfit(_))));
                }
                let (heard, _) = warden.receive::<ToWarden>().await.unwrap().unwrap();
                assert_eq!(heard, ToWarden::Stopped);
            };
            tokio::join!(flood, hear);
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
            one.send(&ToEngine::Agreed, &[]).await.unwrap();
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
            fdpass::send(one.fd.get_ref(), b"\"what?\"", &[]).unwrap();
            one.send(&ToWarden::Stopped, &[]).await.unwrap();
            let unknown = other.receive::<ToWarden>().await;
            assert!(matches!(unknown, Err(LinkError::Message(_))));
            let known = other.receive::<ToWarden>().await.unwrap().unwrap();
            assert_eq!(known.0, ToWarden::Stopped);
        });
    }
}
