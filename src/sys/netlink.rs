//! A netlink socket to the kernel. The kernel handles a request inside `send`, so every answer is there
//! when `send` returns and nothing here waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{set_socket_send_buffer_size, set_socket_send_buffer_size_force};

use crate::ruleset::attribute;

/// Bytes of `nlmsghdr` (linux/netlink.h).
const HEADER: usize = 16;

/// Bytes of the receive buffer. The kernel prints dumps in pieces of at most 32 KiB (`netlink_dump`,
/// net/netlink/af_netlink.c).
const BUFFER: usize = 64 * 1024;

/// Messages up to this length fit the send buffer as it comes (`net.core.wmem_default`, 208 KiB). Longer
/// ones, which many LAN exceptions make, need a larger one.
const ROOMY: usize = 128 * 1024;

/// Message types and flags (linux/netlink.h).
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x300;
const DUMP_INTERRUPTED: u16 = 0x10;
const CAPPED: u16 = 0x100;
const TLVS: u16 = 0x200;

/// `NLMSGERR_ATTR_MSG`: the reason in words.
const MESSAGE: u16 = 1;

/// How often a dump that somebody else's change has torn is taken again.
const DUMP_TRIES: usize = 8;

/// A netlink socket, bound and connected to the kernel.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    port: u32,
    buffer: Vec<u8>,
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One message of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its type.
    pub kind: u16,
    /// The sequence number of the request it answers.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
    flags: u16,
}

/// What the kernel says to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The sequence number of the request.
    pub sequence: u32,
    /// 0, or the error number (errno.h).
    pub errno: i32,
    /// The reason in words, where the kernel has some.
    pub reason: Option<String>,
}

impl Netlink {
    /// Opens a socket in the network namespace of this thread.
    ///
    /// # Errors
    ///
    /// The kernel lacks the protocol, or there is no descriptor left.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        let port = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        Ok(Self {
            socket,
            port,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// The number by which the kernel knows this socket.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends one or more messages in one piece.
    ///
    /// # Errors
    ///
    /// They do not fit the send buffer and it could not be made larger.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > ROOMY {
            let roomy = bytes.len().saturating_mul(2);
            // Past `net.core.wmem_max` it takes the machine's CAP_NET_ADMIN, which root of a user namespace lacks.
            set_socket_send_buffer_size_force(&self.socket, roomy)
                .or_else(|_| set_socket_send_buffer_size(&self.socket, roomy))?;
        }
        let sent = self.socket.send(bytes, 0)?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// Reads the messages that are there. Ends with `WouldBlock` when there are none.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if answers were lost.
    pub fn receive(&mut self) -> io::Result<impl Iterator<Item = Message<'_>>> {
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, 0)?;
        Ok(messages(&self.buffer))
    }

    /// Asks for a list and hands each of its entries to `each`. A list that changed while it was printed
    /// is asked for again, after `each` was told by `None` to forget what it had.
    ///
    /// # Errors
    ///
    /// What the kernel says, or `Interrupted` if the list never stands still.
    pub fn dump(
        &mut self,
        kind: u16,
        body: &[u8],
        mut each: impl FnMut(Option<Message<'_>>),
    ) -> io::Result<()> {
        for sequence in 1..=DUMP_TRIES {
            each(None);
            let sequence = u32::try_from(sequence).unwrap_or(u32::MAX);
            self.send(&request(kind, DUMP, sequence, body))?;
            if self.dump_once(&mut each)? {
                return Ok(());
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Reads one dump to its end; says whether it is whole.
    fn dump_once(&mut self, each: &mut impl FnMut(Option<Message<'_>>)) -> io::Result<bool> {
        let mut whole = true;
        loop {
            for message in self.receive()? {
                whole &= message.flags & DUMP_INTERRUPTED == 0;
                match message.kind {
                    DONE => return Ok(whole),
                    ERROR => {
                        let errno = message.acknowledgement().map_or(0, |ack| ack.errno);
                        return Err(io::Error::from_raw_os_error(errno));
                    }
                    _ => each(Some(message)),
                }
            }
        }
    }

    /// Asks for one object and returns the payload of the answer.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn get(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
        self.send(&request(kind, 0, 1, body))?;
        let first = self.receive()?.next();
        let message = first.ok_or(io::ErrorKind::UnexpectedEof)?;
        match message.acknowledgement() {
            Some(ack) => Err(io::Error::from_raw_os_error(ack.errno)),
            None => Ok(message.payload.to_vec()),
        }
    }
}

impl Message<'_> {
    /// What it says to a request, if it is an acknowledgement (`nlmsgerr`: error number, header of the
    /// request, then attributes).
    pub fn acknowledgement(&self) -> Option<Acknowledgement> {
        if self.kind != ERROR {
            return None;
        }
        let code = i32::from_ne_bytes(self.payload.get(..4)?.try_into().ok()?);
        let words = (self.flags & (CAPPED | TLVS) == CAPPED | TLVS)
            .then(|| self.payload.get(4 + HEADER..))
            .flatten()
            .and_then(|attributes| attribute::find_str(attributes, MESSAGE));
        Some(Acknowledgement {
            sequence: self.sequence,
            errno: code.saturating_neg(),
            reason: words.map(str::to_owned),
        })
    }
}

/// One message with this body.
fn request(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(body);
    bytes
}

/// The messages of one datagram. Ends at the first one that is cut short.
fn messages(bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let word = |at: usize| Some(u32::from_ne_bytes(rest.get(at..at + 4)?.try_into().ok()?));
        let half = |at: usize| Some(u16::from_ne_bytes(rest.get(at..at + 2)?.try_into().ok()?));
        let length = usize::try_from(word(0)?).ok()?;
        let message = Message {
            kind: half(4)?,
            flags: half(6)?,
            sequence: word(8)?,
            payload: rest.get(HEADER..length)?,
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_to_the_first_that_is_cut_short() {
        let mut bytes = request(20, DUMP, 7, &[1, 2, 3, 4]);
        bytes.extend(request(21, 0, 8, &[]));
        let read: Vec<_> = messages(&bytes).map(|m| (m.kind, m.sequence)).collect();
        assert_eq!(read, [(20, 7), (21, 8)]);
        assert_eq!(messages(&bytes[..bytes.len() - 1]).count(), 1);
        assert_eq!(
            messages(&[0; 16]).count(),
            0,
            "a length of zero does not loop"
        );
    }
}
