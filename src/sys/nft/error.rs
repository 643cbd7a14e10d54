//! Why a transaction is not known to be in force, and what that says of the kernel.

use std::io;

use crate::ruleset::{Family, Hook, Part};

/// Not permitted (asm-generic/errno-base.h).
const EPERM: i32 = 1;

/// Error numbers by which a kernel says that it has no such thing (asm-generic/errno.h).
const ENOENT: i32 = 2;
const EINVAL: i32 = 22;
const EPROTONOSUPPORT: i32 = 93;
const EOPNOTSUPP: i32 = 95;
const EAFNOSUPPORT: i32 = 97;

/// A transaction that is not known to be in force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The socket. If the answer was lost, the transaction may be in force.
    #[error(
        "netlink: the kernel's packet filter cannot be reached; CAP_NET_ADMIN and nf_tables are needed"
    )]
    Netlink(#[from] io::Error),
    /// The kernel refused a part, and with it the whole: what was in force before is in force still.
    #[error("the kernel refused {part}{}", .reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default())]
    Refused {
        /// Which part.
        part: Part,
        /// The reason in words, where the kernel has some.
        reason: Option<String>,
        /// The error number.
        source: io::Error,
    },
    /// The kernel did not say whether it took it; it may be in force.
    #[error("the kernel gave no answer to the ruleset")]
    NoAnswer,
}

impl ApplyError {
    pub(super) fn refused(&self) -> Option<(Part, i32)> {
        match self {
            Self::Refused { part, source, .. } => Some((*part, source.raw_os_error()?)),
            Self::Netlink(_) | Self::NoAnswer => None,
        }
    }

    /// Whether the rules before are in force for certain. Without an answer either may be.
    pub fn changed_nothing(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Netlink(_) | Self::NoAnswer => false,
        }
    }

    /// Whether the kernel says that it has no netdev egress hook (or no netdev tables at all). ENOENT says nothing of
    /// it: that is what a device gives that is gone.
    pub(super) fn no_egress_hook(&self) -> bool {
        match self.refused() {
            Some((
                Part::Table(Family::Netdev) | Part::Chain(Family::Netdev, Hook::Egress),
                errno,
            )) => [EOPNOTSUPP, EAFNOSUPPORT].contains(&errno),
            Some(_) | None => false,
        }
    }

    /// Whether the tables belong to another process, which nobody but the kernel can make it give up.
    pub fn is_owned(&self) -> bool {
        matches!(self.refused(), Some((Part::Table(_), EPERM)))
    }

    /// Whether the kernel will not have tables of this kind: it knows no owner, or those that are there have
    /// none (nf_tables_newtable, nf_tables_updtable).
    pub(super) fn wrong_hold(&self) -> bool {
        matches!(self.refused(), Some((Part::Table(_), EOPNOTSUPP | EINVAL)))
    }

    /// Whether the kernel has no nf_tables, or none for IP: nothing can be put in force here, now or later. One
    /// without nfnetlink has no socket for it (EPROTONOSUPPORT), one without nf_tables takes no batch for it.
    pub fn no_rules(&self) -> bool {
        match self {
            Self::Netlink(error) => error.raw_os_error() == Some(EPROTONOSUPPORT),
            Self::Refused { .. } => matches!(
                self.refused(),
                Some((Part::Whole, EOPNOTSUPP))
                    | Some((Part::Table(Family::Inet), EOPNOTSUPP | EAFNOSUPPORT))
            ),
            Self::NoAnswer => false,
        }
    }

    /// Whether it is the second layer alone that the kernel refused.
    pub(super) fn is_about_egress(&self) -> bool {
        matches!(
            self.refused(),
            Some((
                Part::Table(Family::Netdev)
                    | Part::Chain(Family::Netdev, _)
                    | Part::Rule(Family::Netdev, ..),
                _
            ))
        )
    }

    /// Whether a rule failed for an expression that the kernel does not have (nft_expr_type_get,
    /// net/netfilter/nf_tables_api.c).
    pub(super) fn lacks_expression(&self) -> bool {
        matches!(self.refused(), Some((Part::Rule(..), ENOENT)))
    }

    /// Whether the egress chain may have failed for a device that is gone: list [`devices`](super::devices) and try again.
    /// Since Linux 6.16 a chain waits for its devices instead.
    pub fn device_gone(&self) -> bool {
        self.refused() == Some((Part::Chain(Family::Netdev, Hook::Egress), ENOENT))
    }
}

/// What the operator can do about an error for which the kernel has no words.
pub(super) fn hint(part: Part, errno: i32) -> Option<&'static str> {
    match (part, errno) {
        (Part::Table(_), EPERM) => {
            Some("the rules belong to another process; is a gateway running here?")
        }
        (_, EPERM) => Some("CAP_NET_ADMIN is needed"),
        (Part::Table(_), EOPNOTSUPP | EAFNOSUPPORT) => {
            Some("this kernel has no such tables; nf_tables with inet and arp is needed")
        }
        (Part::Rule(..), ENOENT) => Some("a module is missing; nft_ct and nft_fib_inet are needed"),
        (Part::Whole | Part::Table(_) | Part::Chain(..) | Part::Rule(..), _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(part: Part, errno: i32) -> ApplyError {
        ApplyError::Refused {
            part,
            reason: None,
            source: io::Error::from_raw_os_error(errno),
        }
    }

    #[test]
    fn only_the_egress_hook_may_be_missing_and_only_if_the_kernel_says_so() {
        let chain = Part::Chain(Family::Netdev, Hook::Egress);
        let table = Part::Table(Family::Netdev);
        for errno in [EOPNOTSUPP, EAFNOSUPPORT] {
            assert!(refused(chain, errno).no_egress_hook());
        }
        let gone = refused(chain, ENOENT);
        assert!(gone.device_gone() && !gone.no_egress_hook());
        assert!(refused(table, EOPNOTSUPP).no_egress_hook());
        let enomem = 12;
        assert!(!refused(chain, EPERM).no_egress_hook());
        assert!(!refused(chain, enomem).no_egress_hook());
        assert!(!refused(Part::Whole, EOPNOTSUPP).no_egress_hook());
        assert!(!refused(Part::Table(Family::Arp), EOPNOTSUPP).no_egress_hook());
        let output = Part::Chain(Family::Inet, Hook::Output);
        assert!(!refused(output, EOPNOTSUPP).no_egress_hook());
        assert!(!ApplyError::NoAnswer.no_egress_hook());
    }

    #[test]
    fn a_kernel_without_rules_is_told_apart_from_one_that_refuses_them() {
        let inet = Part::Table(Family::Inet);
        assert!(refused(Part::Whole, EOPNOTSUPP).no_rules());
        assert!(refused(inet, EAFNOSUPPORT).no_rules());
        let socket = |errno| ApplyError::Netlink(io::Error::from_raw_os_error(errno));
        assert!(socket(EPROTONOSUPPORT).no_rules());
        let enobufs = 105;
        for other in [
            refused(Part::Whole, EPERM),
            refused(inet, EPERM),
            refused(Part::Table(Family::Arp), EOPNOTSUPP),
            refused(Part::Chain(Family::Inet, Hook::Output), EOPNOTSUPP),
            socket(enobufs),
            socket(EPERM),
            ApplyError::NoAnswer,
        ] {
            assert!(!other.no_rules(), "{other:?}");
        }
    }
}
