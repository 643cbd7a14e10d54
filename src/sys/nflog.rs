//! Copies of packets that a rule logs (NFLOG): the kernel hands each with the rule's prefix to whoever
//! holds the group. Numbers are those of linux/netfilter/nfnetlink_log.h.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};

use super::nft;
use crate::ruleset::attribute::{find, find_str, find_u32, put};

/// `NFNL_SUBSYS_ULOG << 8`, with `NFULNL_MSG_PACKET` and `NFULNL_MSG_CONFIG`.
const PACKET: u16 = 4 << 8;
const CONFIG: u16 = 4 << 8 | 1;

/// Attributes of a configuration (`enum nfulnl_attr_config`).
const CONFIG_COMMAND: u16 = 1;
const CONFIG_MODE: u16 = 2;
const CONFIG_BUFFER: u16 = 3;
const CONFIG_TIMEOUT: u16 = 4;
const CONFIG_QUEUE: u16 = 5;
const CONFIG_FLAGS: u16 = 6;

/// `NFULNL_CFG_CMD_BIND`, `NFULNL_COPY_PACKET`, `NFULNL_CFG_F_SEQ`.
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const NUMBERED: u16 = 1;

/// Attributes of a packet (`enum nfulnl_attr_type`).
const OUT_DEVICE: u16 = 5;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;
const UID: u16 = 11;
const SEQUENCE: u16 = 12;

/// `NFPROTO_NETDEV` (linux/netfilter.h): copied at `egress`, where a packet begins with its link header.
const NETDEV: u8 = 5;

/// linux/netlink.h: bytes of a header, `NLMSG_ERROR`, `NLM_F_REQUEST | NLM_F_ACK`.
const HEADER: usize = 16;
const ERROR: u16 = 2;
const REQUEST: u16 = 0x1 | 0x4;

/// Bytes of `nfgenmsg` (linux/netfilter/nfnetlink.h).
const NFGEN: usize = 4;

/// How long the kernel may wait for more packets, in hundredths of a second, and for how many at most:
/// what a person asks for must be there at once.
const TIMEOUT: u32 = 1;
const QUEUE: u32 = 64;

/// What is copied, and how much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of each packet.
    pub copy: u32,
    /// Bytes of packets handed over in one piece; the kernel takes 128 KiB at most
    /// (`nfulnl_set_nlbufsiz`, net/netfilter/nfnetlink_log.c).
    pub batch: u32,
    /// Bytes that may wait to be read; what does not fit is lost.
    pub waiting: usize,
}

/// The reader of some groups. Non-blocking.
pub struct Nflog {
    socket: Socket,
    buffer: Vec<u8>,
    /// The number that the next packet of a group carries if none is lost.
    next: BTreeMap<u16, u32>,
    lost: u64,
}

/// A packet that a rule logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy<'a> {
    /// The prefix of the rule: its reason.
    pub prefix: &'a str,
    /// The user whose program sent it; `None` for what the kernel sends by itself.
    pub uid: Option<u32>,
    /// Index of the device it was about to leave by.
    pub device: Option<u32>,
    /// Whether it begins with a link header; otherwise with that of IP.
    pub frame: bool,
    /// Its first bytes.
    pub bytes: &'a [u8],
}

impl Nflog {
    /// Reads these groups of the calling thread's network namespace from now on. Takes NET_ADMIN.
    ///
    /// # Errors
    /// EPERM without the capability, EBUSY where another program reads a group: the kernel gives it to one.
    pub fn open(groups: &[u16], limits: Limits) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        // Connected, it takes nothing from other programs.
        socket.connect(&SocketAddr::new(0, 0))?;
        // Past `net.core.rmem_max` it takes a capability that a container may lack; then less may wait.
        if set_socket_recv_buffer_size_force(&socket, limits.waiting).is_err() {
            set_socket_recv_buffer_size(&socket, limits.waiting)?;
        }
        socket.set_non_blocking(true)?;
        let mut nflog = Self {
            socket,
            buffer: Vec::with_capacity(256 * 1024),
            next: BTreeMap::new(),
            lost: 0,
        };
        for group in groups {
            nflog.bind(*group, limits)?;
            nflog.next.insert(*group, 0);
        }
        Ok(nflog)
    }

    /// Hands what the kernel has in one piece to `each`; says whether there was something. Packets before
    /// these may be [`Self::lost`].
    ///
    /// # Errors
    /// The socket is broken.
    pub fn read(&mut self, mut each: impl FnMut(Copy<'_>)) -> io::Result<bool> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, 0) {
            Ok(_) => {}
            // Some did not fit. How many is told by the number of the next one that did.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        for (kind, body) in messages(&self.buffer) {
            if kind == PACKET
                && let Some((group, sequence, copy)) = packet(body)
            {
                self.lost += u64::from(missed(&mut self.next, group, sequence));
                each(copy);
            }
        }
        Ok(true)
    }

    /// Packets that were logged and could not be read since the socket was opened: they came too fast.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn bind(&mut self, group: u16, limits: Limits) -> io::Result<()> {
        self.socket.send(&configuration(group, limits), 0)?;
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            // Packets of a group before may come first; they are found missing.
            let mut answers = messages(&self.buffer).filter(|(kind, _)| *kind == ERROR);
            if let Some((_, body)) = answers.next() {
                let code = body.get(..4).and_then(|code| code.try_into().ok());
                let errno = code.map_or(libc::EPROTO, |code| -i32::from_ne_bytes(code));
                return match errno {
                    0 => Ok(()),
                    // It says the same of a group that is taken (`nfulnl_recv_config`) as of a missing
                    // capability, which no other subsystem would answer without.
                    libc::EPERM if nft::generation().is_ok() => {
                        Err(io::Error::from_raw_os_error(libc::EBUSY))
                    }
                    errno => Err(io::Error::from_raw_os_error(errno)),
                };
            }
        }
    }
}

impl AsRawFd for Nflog {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Nflog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One message that binds a group and says what is wanted of it.
fn configuration(group: u16, limits: Limits) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend(group.to_be_bytes());
    put(&mut body, CONFIG_COMMAND, &[BIND]);
    let [a, b, c, d] = limits.copy.to_be_bytes();
    put(&mut body, CONFIG_MODE, &[a, b, c, d, COPY_PACKET, 0]);
    put(&mut body, CONFIG_BUFFER, &limits.batch.to_be_bytes());
    put(&mut body, CONFIG_TIMEOUT, &TIMEOUT.to_be_bytes());
    put(&mut body, CONFIG_QUEUE, &QUEUE.to_be_bytes());
    put(&mut body, CONFIG_FLAGS, &NUMBERED.to_be_bytes());
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(CONFIG.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// Type and body of each message. Ends at the first one that is cut short.
fn messages(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?);
        let length = usize::try_from(length).ok()?;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let body = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// Group, number and content of a logged packet.
fn packet(body: &[u8]) -> Option<(u16, u32, Copy<'_>)> {
    let group = u16::from_be_bytes(body.get(2..4)?.try_into().ok()?);
    let attributes = body.get(NFGEN..)?;
    let copy = Copy {
        prefix: find_str(attributes, PREFIX).unwrap_or_default(),
        uid: find_u32(attributes, UID),
        device: find_u32(attributes, OUT_DEVICE),
        frame: body.first() == Some(&NETDEV),
        bytes: find(attributes, PAYLOAD).unwrap_or_default(),
    };
    Some((group, find_u32(attributes, SEQUENCE)?, copy))
}

/// How many packets of the group came before this one and were not seen.
fn missed(next: &mut BTreeMap<u16, u32>, group: u16, sequence: u32) -> u32 {
    let expected = next.entry(group).or_insert(sequence);
    let missed = sequence.wrapping_sub(*expected);
    *expected = sequence.wrapping_add(1);
    missed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::attribute::put_str;

    fn logged(family: u8, number: u32) -> Vec<u8> {
        let mut body = vec![family, 0, 0, 5];
        put_str(&mut body, PREFIX, "dns");
        put(&mut body, OUT_DEVICE, &7_u32.to_be_bytes());
        put(&mut body, UID, &1000_u32.to_be_bytes());
        put(&mut body, SEQUENCE, &number.to_be_bytes());
        put(&mut body, PAYLOAD, &[0x45, 0, 0]);
        body
    }

    #[test]
    fn a_logged_packet_is_read() {
        let body = logged(2, 3);
        let (group, number, copy) = packet(&body).unwrap();
        assert_eq!((group, number), (5, 3));
        let expected = Copy {
            prefix: "dns",
            uid: Some(1000),
            device: Some(7),
            frame: false,
            bytes: &[0x45, 0, 0],
        };
        assert_eq!(copy, expected);
        assert!(packet(&logged(NETDEV, 0)).unwrap().2.frame);
    }

    #[test]
    fn a_message_that_is_cut_short_is_no_packet() {
        let body = logged(2, 3);
        for length in 0..body.len() {
            // What is left may be a packet with less in it; it may not be a panic.
            let _ = packet(&body[..length]);
            assert_eq!(messages(&body[..length]).count(), 0);
        }
        assert!(packet(&body[..NFGEN]).is_none());
        assert_eq!(
            messages(&[0; 64]).count(),
            0,
            "a length of zero does not loop"
        );
    }

    #[test]
    fn a_gap_in_the_numbers_is_what_was_lost() {
        let mut next = BTreeMap::from([(5, 0), (6, 0)]);
        assert_eq!(missed(&mut next, 5, 0), 0);
        assert_eq!(missed(&mut next, 5, 4), 3);
        assert_eq!(missed(&mut next, 6, 1), 1, "each group counts for itself");
        assert_eq!(missed(&mut next, 5, 5), 0);
        next.insert(5, u32::MAX);
        assert_eq!(missed(&mut next, 5, 0), 1, "numbers wrap around");
    }
}
