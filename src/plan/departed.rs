//! A device that is gone: was it removed, or taken to where our rules do not hold it?

use crate::net::IfName;

/// The other end of a device, where that is in another namespace: of a veth its peer, of a macvlan the device below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FarEnd {
    /// The number that this namespace has for the other one (`ip netns list-id`).
    pub namespace: i32,
    /// The number that the other end has there.
    pub index: u32,
}

/// Where a device is that is not here any more, by what its other end says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// The other end is gone as well, so the device was removed.
    Removed,
    /// In the namespace of its other end. Whoever can put it there has that end anyway.
    Home,
    /// The other end is there and leads to a third namespace.
    Elsewhere,
    /// Nobody says: the device has no other end that is known, or the kernel does not let us look.
    Unknown,
}

/// What the kernel's notifications said since the device was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// All of them came, and none spoke of a move.
    All,
    /// Some were lost, so that a move may have been among them.
    NotAll,
}

/// Whether a way out that is not here any more has to be taken for one that somebody sends by, past the rules.
///
/// Where nobody can tell, it counts as taken if notifications were lost. Only whoever has NET_ADMIN here, or whoever
/// stops the warden, can make the kernel lose any, and a way out that leaves at that very moment is no coincidence.
/// Programs do not lose more by this than they have lost: without a way out they have no network.
pub fn is_taken(whereabouts: Whereabouts, heard: Heard) -> bool {
    match (whereabouts, heard) {
        (Whereabouts::Elsewhere, _) | (Whereabouts::Unknown, Heard::NotAll) => true,
        (Whereabouts::Removed | Whereabouts::Home, _) | (Whereabouts::Unknown, Heard::All) => false,
    }
}

/// What is said of a way out that was taken.
pub fn words(device: &IfName) -> String {
    format!(
        "{device} was taken to another network namespace, where no rule holds it and no sensor sees what leaves by it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_out_that_vanished_counts_as_taken_where_nobody_can_tell() {
        use Whereabouts::{Elsewhere, Home, Removed, Unknown};
        for (whereabouts, all_heard, some_lost) in [
            (Removed, false, false),
            (Home, false, false),
            (Elsewhere, true, true),
            (Unknown, false, true),
        ] {
            assert_eq!(
                is_taken(whereabouts, Heard::All),
                all_heard,
                "{whereabouts:?}"
            );
            assert_eq!(
                is_taken(whereabouts, Heard::NotAll),
                some_lost,
                "{whereabouts:?}"
            );
        }
    }
}
