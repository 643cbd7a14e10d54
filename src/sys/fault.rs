//! Faults to order, for the namespace tests: SIGUSR2 makes the half that gets it panic, SIGUSR1 makes it try what
//! an engine may not do, a file spoils transactions of nftables, and another one sets the clock of handshakes. Only a build with the feature `netns` has them.

#[cfg(feature = "netns")]
pub(super) use ordered::spoil;
#[cfg(feature = "netns")]
pub use ordered::{Transaction, files, injected, order};

#[cfg(not(feature = "netns"))]
pub(super) use none::spoil;
#[cfg(not(feature = "netns"))]
pub use none::{files, injected};

#[cfg(not(feature = "netns"))]
mod none {
    use std::io;

    /// Pending for ever.
    pub async fn injected() {
        std::future::pending().await
    }

    /// None.
    pub fn files() -> Vec<(&'static str, std::path::PathBuf)> {
        Vec::new()
    }

    /// The batch as it is, and nothing happens to the answer.
    pub(in crate::sys) fn spoil(
        batch: &crate::ruleset::Batch,
    ) -> io::Result<(&[u8], io::Result<()>)> {
        Ok((&batch.bytes, Ok(())))
    }
}

#[cfg(feature = "netns")]
mod ordered {
    use std::cell::Cell;
    use std::io;

    use tokio::signal::unix::{SignalKind, signal};

    use crate::ruleset::{Batch, Family, Hook, Part};

    /// Names a file with the order for the transactions of a process; empty or missing is none. It is read
    /// anew before each transaction; an order that begins with `once` is for one of them.
    const VARIABLE: &str = "NETNS_FAULT";

    /// Names a file with the seconds by which the wall clock of handshakes is wrong; missing is right.
    const CLOCK: &str = "NETNS_CLOCK";

    /// No memory for a message (asm-generic/errno.h).
    const ENOBUFS: i32 = 105;

    /// What goes wrong with transactions of nftables.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Transaction {
        /// The kernel refuses the message of this number.
        Refused(usize),
        /// The kernel says of the egress hook what one before Linux 5.16 says.
        NoEgressHook,
        /// The kernel says of tables that belong to a process what one before Linux 6.9 says.
        NoOwner,
        /// The kernel says of `log` what one without nft_log says.
        NoLog,
        /// The kernel says of `reject` what one without nft_reject_inet says.
        NoReject,
        /// The kernel says of the whole what one without nf_tables says.
        NoTables,
        /// The kernel has no memory to take the transaction.
        NotTaken,
        /// The kernel takes the transaction and has no memory for the answer.
        AnswerLost,
    }

    thread_local! {
        static ORDERED: Cell<Option<Transaction>> = const { Cell::new(None) };
    }

    /// Files with orders that an engine reads, and the variables that name them.
    pub fn files() -> Vec<(&'static str, std::path::PathBuf)> {
        let named = std::env::var_os(CLOCK).map(|path| (CLOCK, path.into()));
        named.into_iter().collect()
    }

    /// Orders a fault for the transactions of this thread.
    pub fn order(fault: Option<Transaction>) {
        ORDERED.set(fault);
    }

    /// Panics when that is ordered, and tries things when that is; pending otherwise.
    pub async fn injected() {
        let (Ok(mut panic), Ok(mut attempt)) = (
            signal(SignalKind::user_defined2()),
            signal(SignalKind::user_defined1()),
        ) else {
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                _ = panic.recv() => panic!("a fault, as ordered"),
                _ = attempt.recv() => for (what, errno) in super::attempts() {
                    tracing::warn!("tried {what}: {errno}");
                },
            }
        }
    }

    /// What is sent in place of the batch, and what becomes of the answer, as ordered.
    pub(in crate::sys) fn spoil(batch: &Batch) -> io::Result<(Vec<u8>, io::Result<()>)> {
        let mut bytes = batch.bytes.clone();
        let no_memory = || io::Error::from_raw_os_error(ENOBUFS);
        match ordered() {
            Some(Transaction::NotTaken) => return Err(no_memory()),
            Some(Transaction::AnswerLost) => return Ok((bytes, Err(no_memory()))),
            Some(Transaction::Refused(number)) => {
                // No message of nf_tables has this type (linux/netfilter/nf_tables.h).
                let kind = message(&mut bytes, number).and_then(|message| message.get_mut(4..6));
                kind.into_iter().for_each(|kind| kind.fill(0xaa));
            }
            Some(Transaction::NoEgressHook) => {
                let egress = Part::Chain(Family::Netdev, Hook::Egress);
                let number = batch.parts.iter().position(|part| *part == egress);
                let chain = number.and_then(|number| message(&mut bytes, number));
                chain.into_iter().for_each(hang_elsewhere);
            }
            Some(Transaction::NoOwner) => owner_unknown(batch, &mut bytes),
            Some(Transaction::NoLog) => unknown(&mut bytes, b"log\0"),
            Some(Transaction::NoReject) => unknown(&mut bytes, b"reject\0"),
            Some(Transaction::NoTables) => {
                // The subsystem in the first message: one that takes no batch (NFNL_SUBSYS_CTNETLINK).
                bytes[18..20].copy_from_slice(&1_u16.to_be_bytes());
            }
            None => {}
        }
        Ok((bytes, Ok(())))
    }

    fn ordered() -> Option<Transaction> {
        ORDERED.get().or_else(|| {
            let path = std::env::var_os(VARIABLE)?;
            let text = std::fs::read_to_string(&path).ok()?;
            let text = match text.strip_prefix("once ") {
                Some(rest) => {
                    let _ = std::fs::remove_file(&path);
                    rest
                }
                None => &text,
            };
            let text = text.trim();
            let (word, number) = text.split_once(' ').unwrap_or((text, ""));
            match word {
                "refused" => number.parse().ok().map(Transaction::Refused),
                "no-egress-hook" => Some(Transaction::NoEgressHook),
                "no-owner" => Some(Transaction::NoOwner),
                "no-log" => Some(Transaction::NoLog),
                "no-reject" => Some(Transaction::NoReject),
                "no-tables" => Some(Transaction::NoTables),
                "not-taken" => Some(Transaction::NotTaken),
                "answer-lost" => Some(Transaction::AnswerLost),
                _ => None,
            }
        })
    }

    /// Expressions of this name get one that no kernel knows: NFTA_EXPR_NAME is type 1, and its length counts its
    /// own header.
    fn unknown(bytes: &mut [u8], name: &[u8]) {
        let length = (name.len() + 4) as u8;
        let attribute = [&[length, 0, 1, 0], name].concat();
        for at in 0..bytes.len().saturating_sub(attribute.len()) {
            if bytes[at..].starts_with(&attribute) {
                bytes[at + 4] = b'_';
            }
        }
    }

    /// Flags of a table that no kernel knows (`NFT_TABLE_F_MASK`).
    fn owner_unknown(batch: &Batch, bytes: &mut [u8]) {
        // NFTA_TABLE_FLAGS: length 8, type 2, owner and persist.
        let flags = [8, 0, 2, 0, 0, 0, 0, 6];
        for (number, part) in batch.parts.iter().enumerate() {
            let table = matches!(part, Part::Table(_));
            let message = message(bytes, number).filter(|_| table);
            if let Some(last) = message.and_then(|it| it.last_chunk_mut::<8>())
                && *last == flags
            {
                last[7] = 0x80;
            }
        }
    }

    /// The message of this number in the batch.
    fn message(bytes: &mut [u8], number: usize) -> Option<&mut [u8]> {
        let mut start = 0;
        for _ in 0..number {
            start += length(bytes.get(start..)?)?.next_multiple_of(4);
        }
        let end = start + length(bytes.get(start..)?)?;
        bytes.get_mut(start..end)
    }

    fn length(message: &[u8]) -> Option<usize> {
        let length = message.first_chunk::<4>()?;
        usize::try_from(u32::from_ne_bytes(*length))
            .ok()
            .filter(|length| *length >= 16)
    }

    /// On a hook of netdev that no kernel has: the kernel looks it up as it would the egress hook, and does
    /// not find it (`nft_chain_parse_hook`, net/netfilter/nf_tables_api.c).
    fn hang_elsewhere(chain: &mut [u8]) {
        // NFTA_HOOK_HOOKNUM: length 8, type 1, the number of egress.
        let hook = [8, 0, 1, 0, 0, 0, 0, 1];
        let at = chain.windows(hook.len()).position(|bytes| bytes == hook);
        if let Some(at) = at {
            chain[at + 7] = 7;
        }
    }
}

/// Tries what an engine may not do: what, and the error number it ended with, 0 where it worked. None of it
/// does harm where it works.
#[cfg(feature = "netns")]
pub fn attempts() -> Vec<(&'static str, i32)> {
    use std::fs::File;
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use rustix::process::{Pid, getppid, test_kill_process};
    use socket2::{Domain, Socket, Type};

    type Attempt = (&'static str, fn() -> std::io::Result<()>);
    let attempts: [Attempt; 11] = [
        ("running a program", || {
            Command::new("/bin/true").status().map(drop)
        }),
        ("a packet socket", || {
            Socket::new(Domain::PACKET, Type::RAW, None).map(drop)
        }),
        ("a netlink socket", || {
            Socket::new(libc::AF_NETLINK.into(), Type::RAW, None).map(drop)
        }),
        ("an IPv6 socket", || {
            Socket::new(Domain::IPV6, Type::DGRAM, None).map(drop)
        }),
        ("reading /etc/passwd", || {
            File::open("/etc/passwd").map(drop)
        }),
        ("listing /", || std::fs::read_dir("/").map(drop)),
        ("writing a file", || {
            File::options().append(true).open("/dev/null").map(drop)
        }),
        ("a signal to its parent", || {
            Ok(test_kill_process(getppid().unwrap_or(Pid::INIT))?)
        }),
        ("a namespace of its own", || {
            use rustix::thread::{UnshareFlags, unshare_unsafe};
            #[expect(unsafe_code, reason = "rustix has no other form")]
            // SAFETY: the table of file descriptors is not unshared.
            Ok(unsafe { unshare_unsafe(UnshareFlags::NEWUTS) }?)
        }),
        ("its limits", || {
            use rustix::process::{Resource, getrlimit, setrlimit};
            Ok(setrlimit(Resource::Stack, getrlimit(Resource::Stack))?)
        }),
        ("a socket file", || {
            let path = std::env::temp_dir().join(format!("vpngw-{}", std::process::id()));
            UnixDatagram::bind(&path)?;
            std::fs::remove_file(path)
        }),
    ];
    let tried = attempts.map(|(what, attempt)| match attempt() {
        Ok(()) => (what, 0),
        Err(error) => (what, error.raw_os_error().unwrap_or(-1)),
    });
    tried.to_vec()
}
