//! What a choice of servers depends on besides the configuration: values, and a function of the caller's, so that this
//! module stays pure.

use std::path::Path;

/// Bytes of the largest list that is read. gluetun's list of all providers and both protocols has about 12 MB, of which
/// NordVPN's servers are the half.
pub const LARGEST_LIST: u64 = 32 << 20;

/// How a list of servers is read: the caller's own function.
pub type ReadList = fn(&Path) -> Result<String, NoList>;

/// Why a list of servers was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoList {
    /// There is no such file.
    Absent,
    /// Others than root and the user who runs can write it, by what this says of the file.
    Writable(String),
    /// It is larger than [`LARGEST_LIST`].
    TooLarge,
    /// The kernel does not give it, for this reason.
    Unreadable(String),
}

/// What a choice of servers depends on besides the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// The time, in seconds since 1970.
    pub now: u64,
    /// Decides every order that is left to chance. The same one as long as the process lives, so that reading the
    /// configuration again changes nothing.
    pub seed: u64,
    /// Reads a list of servers, if nobody can have written it who should not.
    pub list: ReadList,
}

impl Default for Surroundings {
    /// No list.
    fn default() -> Self {
        Self {
            now: 0,
            seed: 0,
            list: |_| Err(NoList::Absent),
        }
    }
}
