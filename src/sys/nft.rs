//! The kernel's packet filter, spoken to in netlink. Whatever is applied is applied whole, in one
//! transaction, or not at all.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::net::IfName;
use crate::ruleset::attribute::{find, find_name, find_str, find_u32};
use crate::ruleset::{self, Batch, Family, Hold, Kernel, Part, Ruleset};
use crate::sys::fault;
use crate::sys::netlink::Netlink;

mod closing;
mod error;
mod known;
mod pace;
mod probing;
mod readback;
mod reading;

use error::hint;
use probing::has_egress_hook;

pub use closing::Closed;
pub use error::ApplyError;
pub use pace::Pace;
pub use probing::{ask, probe};
pub use readback::{CheckError, Counter, Totals, counters, is_there, owner};
use reading::Reading;

/// `NETLINK_ROUTE` and `NETLINK_NETFILTER` (linux/netlink.h).
const ROUTE: isize = 0;
const NETFILTER: isize = 12;

/// `RTM_GETLINK` (linux/rtnetlink.h).
const GETLINK: u16 = 18;
/// Bytes of `ifinfomsg`, and where its type and flags stand.
const IFINFO: usize = 16;
const IFINFO_TYPE: usize = 2;
const IFINFO_FLAGS: usize = 8;
/// `ARPHRD_NONE` (linux/if_arp.h): TUN. TAP is of the same kind and of type Ethernet, and is the uplink
/// of rootless containers.
const NO_HARDWARE: u16 = 0xfffe;
/// `IFF_LOOPBACK` (linux/if.h).
const LOOPBACK: u32 = 0x8;
/// `IFLA_IFNAME`, `IFLA_LINKINFO`, and `IFLA_INFO_KIND` inside the latter (linux/if_link.h).
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;

/// `NFT_MSG_GETGEN`, and `NFTA_GEN_ID` in the answer (linux/netfilter/nf_tables.h).
const GETGEN: u16 = 10 << 8 | 16;
const GEN_ID: u16 = 1;

/// Bytes of `nfgenmsg` (linux/netfilter/nfnetlink.h).
const NFGEN: usize = 4;

/// No room for an answer.
const ENOBUFS: i32 = 105;

/// How often a device may vanish between listing it and hanging a chain on it.
const VANISHED: u32 = 8;

/// How long tables may belong to a process that is ending, and how often that is looked at.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(5);

/// Deny-all is in force, or this is a kernel without rules and the caller knows.
#[derive(Debug)]
pub struct Armed {
    /// Whether the second layer is in force too: the netdev egress hook, which also sees frames by
    /// AF_PACKET. Without it a program with CAP_NET_RAW can send past the rules. Known for certain once
    /// [`probe`] has asked: without a device there is nothing to ask by before.
    pub egress_hook: bool,
    /// The devices other than loopback and TUN.
    pub devices: Vec<IfName>,
    /// What the kernel has, as far as it was asked.
    kernel: Kernel,
    /// Whose the tables are.
    hold: Hold,
    /// What they are known to hold; `None` where there are none. Nothing that holds the lock can panic half-way.
    reading: Option<Mutex<Reading>>,
    /// What the tables belong to; `None` where there are none. Closing it waits until the kernel has freed what the
    /// transaction replaced (nft_rcv_nl_event, net/netfilter/nf_tables_api.c: two RCU grace periods, 8 to 15 ms), so
    /// it is left for later.
    socket: Option<Netlink>,
}

impl Armed {
    /// For a kernel without nf_tables, in a sealed namespace whose operator said so: every ruleset is taken, no rule
    /// is in force, and [`Armed::has_rules`] says it.
    pub fn without_rules() -> Self {
        Self {
            egress_hook: false,
            devices: Vec::new(),
            kernel: Kernel::NONE,
            hold: Hold::Share,
            reading: None,
            socket: None,
        }
    }

    /// Whether rules are in force at all.
    pub fn has_rules(&self) -> bool {
        self.socket.is_some()
    }

    /// What the kernel has, as [`probe`] found it; before that, what deny-all was loaded with.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Makes `ruleset` be in force, replacing whatever our tables held. Without nf_tables nothing happens, and that
    /// is no error.
    ///
    /// # Errors
    ///
    /// The part that the kernel refused; then nothing has changed.
    pub fn apply(&mut self, ruleset: &Ruleset) -> Result<(), ApplyError> {
        let (Some(socket), Some(reading)) = (&mut self.socket, &mut self.reading) else {
            return Ok(());
        };
        let batch = ruleset.encode(self.hold);
        let reading = reading.get_mut();
        let reading = reading.unwrap_or_else(PoisonError::into_inner);
        reading.load(ruleset, || commit(socket, &batch))
    }

    /// Whether nobody but this process may change the tables.
    pub fn owned(&self) -> bool {
        self.hold != Hold::Share
    }

    /// Whether the kernel holds exactly `ruleset` in our tables: every chain with its hook and policy, every
    /// rule with all of its expressions, in order, and none besides. Rules are not read where it is certain that nobody
    /// changed them since this process loaded them: thousands take longer than a change of something else may stand.
    /// Without nf_tables there is nothing to look at.
    ///
    /// # Errors
    ///
    /// [`CheckError::Differs`] with the first difference, or that it could not be told.
    pub fn check(&self, ruleset: &Ruleset) -> Result<(), CheckError> {
        let (Some(socket), Some(reading)) = (&self.socket, &self.reading) else {
            return Ok(());
        };
        let owner = self.owned().then(|| socket.port());
        let reading = reading.lock();
        let mut reading = reading.unwrap_or_else(PoisonError::into_inner);
        reading.check(ruleset, owner)
    }

    /// The counters of our rules, as [`counters`] reads them; none without nf_tables.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn counters(&self) -> io::Result<Vec<Counter>> {
        if self.has_rules() {
            counters()
        } else {
            Ok(Vec::new())
        }
    }
}

/// The first act of the process: denies everything but loopback. Needs no /proc, no configuration
/// and no other program; one dump of the links and one transaction.
///
/// # Errors
///
/// Nothing is in force that was not before. The caller takes all links down.
pub fn arm() -> Result<Armed, ApplyError> {
    let mut nft = Netlink::open(NETFILTER)?;
    let reading = Reading::open()?;
    let mut kernel = Kernel::FIRST;
    let mut hold = Hold::Keep;
    let mut gone = 0;
    let mut waited = Duration::ZERO;
    loop {
        let devices = devices()?;
        let batch = Ruleset::deny_all(&devices, kernel).encode(hold);
        match commit(&mut nft, &batch) {
            Ok(()) => {
                let egress_hook = kernel.egress_hook;
                let hold = match hold {
                    Hold::Keep | Hold::Take => Hold::Keep,
                    Hold::Share => Hold::Share,
                };
                return Ok(Armed {
                    egress_hook,
                    devices,
                    kernel,
                    hold,
                    reading: Some(Mutex::new(reading)),
                    socket: Some(nft),
                });
            }
            // A process that they belonged to has not quite ended.
            Err(error) if error.is_owned() && waited < PATIENCE => {
                std::thread::sleep(PAUSE);
                waited += PAUSE;
            }
            // Tables that an older release left, or a kernel that knows no owner.
            Err(error) if error.wrong_hold() && hold != Hold::Share => {
                hold = match hold {
                    Hold::Keep => Hold::Take,
                    Hold::Take | Hold::Share => Hold::Share,
                };
            }
            Err(error) if error.device_gone() && gone < VANISHED => gone += 1,
            // So many devices do not vanish in a row: the kernel may know no chain of this family, which loopback tells.
            Err(error) if error.device_gone() && kernel.egress_hook => {
                if has_egress_hook(&mut |asking| commit(&mut nft, &asking.encode(hold)))? {
                    return Err(error);
                }
                kernel.egress_hook = false;
            }
            Err(error) if error.no_egress_hook() && kernel.egress_hook => {
                kernel.egress_hook = false;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Removes our tables. After this nothing is filtered: only `vpngw cleanup` calls it.
///
/// # Errors
///
/// The part that the kernel refused. A family that it does not have is no error.
pub fn clear() -> Result<(), ApplyError> {
    for family in Family::ALL {
        clear_family(family)?;
    }
    Ok(())
}

fn clear_family(family: Family) -> Result<(), ApplyError> {
    let clear = |hold| {
        let batch = ruleset::clear(&[family], hold);
        commit(&mut Netlink::open(NETFILTER)?, &batch)
    };
    match clear(Hold::Keep) {
        Err(error) if error.wrong_hold() => match clear(Hold::Share) {
            Err(error) if error.no_egress_hook() => Ok(()),
            other => other,
        },
        Err(error) if error.no_egress_hook() => Ok(()),
        other => other,
    }
}

/// The number of the last change of any table in this namespace, by whomever.
///
/// # Errors
///
/// What the kernel says.
pub fn generation() -> io::Result<u32> {
    generation_by(&mut Netlink::open(NETFILTER)?)
}

fn generation_by(netlink: &mut Netlink) -> io::Result<u32> {
    let answer = netlink.get(GETGEN, &[0; NFGEN])?;
    let attributes = answer.get(NFGEN..).unwrap_or_default();
    find_u32(attributes, GEN_ID).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The devices other than loopback and TUN: those that get an egress chain.
///
/// # Errors
///
/// What the kernel says, or a name that is not one.
pub fn devices() -> io::Result<Vec<IfName>> {
    let mut found = Vec::new();
    let mut unnamed = false;
    Netlink::open(ROUTE)?.dump(GETLINK, &[0; IFINFO], |message| {
        let Some(message) = message else {
            found.clear();
            unnamed = false;
            return;
        };
        if leads_out(message.payload) != Some(false) {
            let attributes = message.payload.get(IFINFO..).unwrap_or_default();
            match find_name(attributes, IFLA_IFNAME).map(IfName::from_bytes) {
                Some(Ok(name)) => found.push(name),
                Some(Err(_)) | None => unnamed = true,
            }
        }
    })?;
    if unnamed {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(found)
}

/// Whether a link is neither loopback nor TUN; `None` if it cannot be read.
pub(super) fn leads_out(link: &[u8]) -> Option<bool> {
    let flags = link.get(IFINFO_FLAGS..IFINFO_FLAGS + 4)?;
    let flags = u32::from_ne_bytes(flags.try_into().ok()?);
    let hardware = link.get(IFINFO_TYPE..IFINFO_TYPE + 2)?;
    let hardware = u16::from_ne_bytes(hardware.try_into().ok()?);
    let info = find(link.get(IFINFO..)?, IFLA_LINKINFO).unwrap_or_default();
    let tun = find_str(info, IFLA_INFO_KIND) == Some("tun") && hardware == NO_HARDWARE;
    Some(flags & LOOPBACK == 0 && !tun)
}

/// Sends a batch and reads the answers: errors of each part, and the acknowledgement of the last. The
/// kernel answers to each message by itself, so all answers are read before one is believed
/// (nfnetlink_rcv_batch, net/netfilter/nfnetlink.c).
fn commit(nft: &mut Netlink, batch: &Batch) -> Result<(), ApplyError> {
    let outcome = answered(nft, batch);
    if outcome.is_err() {
        // A refused transaction leaves answers behind, which would be taken for those of the next.
        drain(nft);
    }
    outcome
}

fn drain(nft: &mut Netlink) {
    loop {
        match nft.receive() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // Answers were lost: the rest is still there.
            Err(error) if error.raw_os_error() == Some(ENOBUFS) => {}
            // A socket that is broken says so to the next transaction.
            Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn answered(nft: &mut Netlink, batch: &Batch) -> Result<(), ApplyError> {
    let (bytes, answer) = fault::spoil(batch)?;
    nft.send(bytes.as_ref())?;
    answer?;
    let mut acknowledged = false;
    loop {
        let messages = match nft.receive() {
            Ok(messages) => messages,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && acknowledged => {
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(ApplyError::NoAnswer);
            }
            Err(error) => return Err(error.into()),
        };
        for ack in messages.filter_map(|message| message.acknowledgement()) {
            let sequence = usize::try_from(ack.sequence).unwrap_or(usize::MAX);
            if ack.errno != 0 {
                let part = batch.parts.get(sequence).copied().unwrap_or(Part::Whole);
                let hint = hint(part, ack.errno).map(str::to_owned);
                return Err(ApplyError::Refused {
                    part,
                    reason: ack.reason.or(hint),
                    source: io::Error::from_raw_os_error(ack.errno),
                });
            }
            acknowledged |= sequence == batch.acknowledged;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::attribute::{put_nested, put_str};

    #[test]
    fn loopback_and_tun_do_not_lead_out() {
        let link = |hardware: u16, flags: u32, kind: Option<&str>| {
            let mut bytes = vec![0; IFINFO];
            bytes[IFINFO_TYPE..IFINFO_TYPE + 2].copy_from_slice(&hardware.to_ne_bytes());
            bytes[IFINFO_FLAGS..IFINFO_FLAGS + 4].copy_from_slice(&flags.to_ne_bytes());
            put_str(&mut bytes, IFLA_IFNAME, "x");
            if let Some(kind) = kind {
                put_nested(&mut bytes, IFLA_LINKINFO, |info| {
                    put_str(info, IFLA_INFO_KIND, kind);
                });
            }
            leads_out(&bytes)
        };
        let ethernet = 1;
        assert_eq!(link(772, LOOPBACK, None), Some(false));
        assert_eq!(link(NO_HARDWARE, 0, Some("tun")), Some(false));
        assert_eq!(link(ethernet, 0, Some("tun")), Some(true), "TAP");
        assert_eq!(link(ethernet, 0, Some("veth")), Some(true));
        assert_eq!(link(NO_HARDWARE, 0, Some("wireguard")), Some(true));
        assert_eq!(link(ethernet, 0, None), Some(true));
        assert_eq!(leads_out(&[0; 4]), None);
    }
}
