//! NETLINK_ROUTE, blocking: one request, its answer.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enums of netlink are not ours and not exhaustive"
)]

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// Messages (linux/rtnetlink.h).
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const NEWRULE: u16 = 32;
const DELRULE: u16 = 33;

/// How often an interrupted dump is asked for again.
const ATTEMPTS: u32 = 10;

/// The kernel's table of links, addresses, routes or rules did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum RtnlError {
    /// No socket.
    #[error("netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel said no.
    #[error("the kernel refused `{what}`{}", needs(source))]
    Refused {
        /// What was asked, in the notation of `ip`.
        what: String,
        /// Its errno.
        source: io::Error,
    },
    /// An answer that is none.
    #[error("the kernel's answer to `{what}` cannot be read: {why}")]
    Answer {
        /// What was asked, in the notation of `ip`.
        what: String,
        /// What is wrong with the answer.
        why: String,
    },
}

impl RtnlError {
    /// The errno, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Socket(source) | Self::Refused { source, .. } => source.raw_os_error(),
            Self::Answer { .. } => None,
        }
    }

    /// Whether the device that was named is not there any more.
    pub fn is_gone(&self) -> bool {
        self.errno() == Some(libc::ENODEV)
    }
}

/// What would help, where that is known.
fn needs(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::PermissionDenied {
        "; it takes the capability NET_ADMIN in this network namespace"
    } else {
        ""
    }
}

/// One NETLINK_ROUTE socket in the network namespace of the thread that opened it.
pub struct Rtnl {
    socket: Socket,
    sequence: u32,
}

impl Rtnl {
    /// Opens the socket.
    ///
    /// # Errors
    /// Where the kernel gives none.
    pub fn open() -> Result<Self, RtnlError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(RtnlError::Socket)?;
        socket.bind_auto().map_err(RtnlError::Socket)?;
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(RtnlError::Socket)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sends one change and waits until the kernel has made it. `what` names it in errors.
    ///
    /// # Errors
    /// [`RtnlError::Refused`] with the kernel's errno.
    pub fn change(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: &str,
    ) -> Result<(), RtnlError> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags, what)?;
        loop {
            for answer in self.receive(what)? {
                if let NetlinkPayload::Error(error) = answer.payload {
                    return match error.code {
                        None => Ok(()),
                        Some(_) => Err(refused(what, error.to_io())),
                    };
                }
            }
        }
    }

    /// Reads a whole table.
    ///
    /// # Errors
    /// Where the kernel refuses, or its answer cannot be read.
    pub fn dump(
        &mut self,
        message: &RouteNetlinkMessage,
        what: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, RtnlError> {
        for _ in 0..ATTEMPTS {
            self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP, what)?;
            if let Some(entries) = self.entries(what)? {
                return Ok(entries);
            }
        }
        Err(answer(what, "it kept changing while it was read"))
    }

    /// `None` if the table changed meanwhile.
    fn entries(&mut self, what: &str) -> Result<Option<Vec<RouteNetlinkMessage>>, RtnlError> {
        let mut entries = Vec::new();
        let mut whole = true;
        loop {
            for message in self.receive(what)? {
                whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(whole.then_some(entries)),
                    NetlinkPayload::Error(error) => return Err(refused(what, error.to_io())),
                    NetlinkPayload::InnerMessage(entry) => entries.push(entry),
                    // Foreign enum, non-exhaustive: nothing else is an entry.
                    _ => {}
                }
            }
        }
    }

    fn send(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: &str,
    ) -> Result<(), RtnlError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let sent = self.socket.send(&bytes, 0);
        sent.map_err(|source| refused(what, source))?;
        Ok(())
    }

    /// The messages of one datagram that answer the last request.
    fn receive(
        &mut self,
        what: &str,
    ) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, RtnlError> {
        let received = self.socket.recv_from_full();
        let (bytes, _) = received.map_err(|source| refused(what, source))?;
        let messages = decode(&bytes).map_err(|why| answer(what, &why))?;
        let ours = |message: &NetlinkMessage<_>| message.header.sequence_number == self.sequence;
        Ok(messages.into_iter().filter(ours).collect())
    }
}

/// The netlink messages of one datagram, each padded to four bytes (`NLMSG_ALIGN`, linux/netlink.h).
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, String> {
    let mut bytes = bytes.to_vec();
    let (mut messages, mut start) = (Vec::new(), 0);
    while let Some(rest) = bytes.get_mut(start..).filter(|rest| !rest.is_empty()) {
        make_legible(rest);
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
            .map_err(|error| error.to_string())?;
        start += (message.header.length as usize).next_multiple_of(4).max(16);
        messages.push(message);
    }
    Ok(messages)
}

/// Names of devices need not be UTF-8, and the decoder takes no others: one device would hide every
/// address and rule. Nobody reads these attributes: `IFA_LABEL` (linux/if_addr.h), and
/// `FRA_IIFNAME` and `FRA_OIFNAME` (linux/fib_rules.h).
fn make_legible(message: &mut [u8]) {
    let kind = message
        .get(4..6)
        .map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    let (header, names): (usize, &[u16]) = match kind {
        Some(NEWADDR | DELADDR) => (16 + 8, &[3]),
        Some(NEWRULE | DELRULE) => (16 + 12, &[3, 17]),
        Some(_) | None => return,
    };
    let length = message
        .get(..4)
        .map(|length| u32::from_ne_bytes([length[0], length[1], length[2], length[3]]));
    let end = length
        .map_or(0, |length| length as usize)
        .min(message.len());
    let mut at = header;
    while at + 4 <= end {
        let length = usize::from(u16::from_ne_bytes([message[at], message[at + 1]]));
        if length < 4 || at + length > end {
            return;
        }
        if names.contains(&u16::from_ne_bytes([message[at + 2], message[at + 3]])) {
            for byte in &mut message[at + 4..at + length] {
                *byte = if byte.is_ascii() { *byte } else { b'?' };
            }
        }
        at += length.next_multiple_of(4);
    }
}

fn refused(what: &str, source: io::Error) -> RtnlError {
    RtnlError::Refused {
        what: what.to_owned(),
        source,
    }
}

fn answer(what: &str, why: &str) -> RtnlError {
    RtnlError::Answer {
        what: what.to_owned(),
        why: why.to_owned(),
    }
}
