//! What a kernel has of all that the rules use, and what is different where it lacks something.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What this kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Rules at all: nf_tables, with tables of the family `inet`.
    pub rules: bool,
    /// The netdev egress hook (Linux 5.16).
    pub egress_hook: bool,
    /// A chain takes names of devices that are not there yet, and is on them when they come (Linux 6.16).
    pub absent_devices: bool,
    /// `log group`: the modules nft_log and nfnetlink_log. Without them nobody hears what was refused.
    pub log: bool,
    /// `reject`: the module nft_reject_inet. Without it what is refused is dropped, and its sender waits.
    pub reject: bool,
}

impl Kernel {
    /// All that is used.
    pub const FULL: Self = Self {
        rules: true,
        egress_hook: true,
        absent_devices: true,
        log: true,
        reject: true,
    };

    /// What the first act of the process asks for.
    pub const FIRST: Self = Self {
        rules: true,
        egress_hook: true,
        absent_devices: false,
        log: false,
        reject: false,
    };

    /// No nf_tables, so no rule: the ruleset for it has no table.
    pub const NONE: Self = Self {
        rules: false,
        egress_hook: false,
        absent_devices: false,
        log: false,
        reject: false,
    };

    /// What an operator has to know that it lacks. Without rules nothing else is worth a word.
    pub fn lacks(self) -> Vec<Lack> {
        if !self.rules {
            return vec![Lack::Rules];
        }
        let all = [
            (self.egress_hook, Lack::EgressHook),
            (self.log, Lack::Log),
            (self.reject, Lack::Reject),
        ];
        let missing = all.into_iter().filter(|(there, _)| !there);
        missing.map(|(_, lack)| lack).collect()
    }
}

/// Something that the rules use and this kernel does not have. Its text says what is different without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// nf_tables.
    Rules,
    /// The netdev egress hook.
    EgressHook,
    /// nft_log or nfnetlink_log.
    Log,
    /// nft_reject_inet.
    Reject,
}

impl Lack {
    /// What an operator can do about it.
    pub fn cure(self) -> &'static str {
        match self {
            Self::Rules => {
                "`modprobe nf_tables` on the machine, or a kernel with CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET"
            }
            Self::EgressHook => {
                "Linux 5.16 or newer; or no NET_RAW for joined services (`cap_drop: [NET_RAW]`)"
            }
            Self::Log => {
                "`modprobe -a nft_log nfnetlink_log` on the machine, then start the gateway again"
            }
            Self::Reject => {
                "`modprobe nft_reject_inet` on the machine, then start the gateway again"
            }
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rules => {
                "this kernel has no nf_tables, so no rule is in force: DNS to foreign resolvers (G7), IPv6 (G9), \
                 unasked connections from the tunnel (G11) and private networks (G12) are not held back"
            }
            Self::EgressHook => {
                "this kernel has no netdev egress hook (Linux 5.16): a program with CAP_NET_RAW can send raw frames \
                 past the rules"
            }
            Self::Log => {
                "this kernel lacks nft_log or nfnetlink_log: the rules hold, but `vpngw blocked` and `vpngw capture` \
                 do not hear what they stop"
            }
            Self::Reject => {
                "this kernel lacks nft_reject_inet: what the rules stop is dropped in silence, so programs wait \
                 instead of being told"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_that_is_missing_is_told_apart() {
        assert_eq!(Kernel::FULL.lacks(), []);
        assert_eq!(Kernel::NONE.lacks(), [Lack::Rules]);
        let all = [Lack::EgressHook, Lack::Log, Lack::Reject];
        let bare = Kernel {
            egress_hook: false,
            ..Kernel::FIRST
        };
        assert_eq!(bare.lacks(), all);
        let silent = Kernel {
            reject: false,
            ..Kernel::FULL
        };
        assert_eq!(silent.lacks(), [Lack::Reject]);
        // Names of devices to come are nothing that an operator would have to know of.
        let older = Kernel {
            absent_devices: false,
            ..Kernel::FULL
        };
        assert_eq!(older.lacks(), []);
    }
}
