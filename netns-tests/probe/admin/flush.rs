//! `flush ruleset` without starting a program: as fast as an attacker can be.

use std::io;

use netlink_sys::{Socket, SocketAddr};

use crate::canary::Canary;
use crate::socket::Sent;

/// Types and flags of linux/netfilter/nfnetlink.h and nf_tables.h.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NFTABLES: u16 = 10;
const DELTABLE: u16 = 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;

/// Deletes every table, and shoots as soon as the kernel has said that it is done.
pub(super) fn flush_at_once(token: &Canary, shots: fn(&Canary)) -> Sent {
    let socket = Socket::new(netlink_sys::protocols::NETLINK_NETFILTER)?;
    let mut batch = message(BATCH_BEGIN, REQUEST, NFTABLES);
    batch.extend(message(NFTABLES << 8 | DELTABLE, REQUEST | ACK, 0));
    batch.extend(message(BATCH_END, REQUEST, NFTABLES));
    socket.send_to(&batch, &SocketAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    // struct nlmsgerr: the error stands behind the header.
    let code = answer.get(16..20).and_then(|b| b.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => {}
        Some(code) => return Err(io::Error::from_raw_os_error(-code)),
        None => return Err(io::Error::other("a short answer of nftables")),
    }
    // Faster than once a millisecond: the first moments count.
    for _ in 0..200 {
        shots(token);
    }
    super::volleys(token, shots);
    Ok(None)
}

/// A message without attributes: all families, all tables.
fn message(kind: u16, flags: u16, resource: u16) -> Vec<u8> {
    let mut bytes = 20_u32.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([0, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes
}
