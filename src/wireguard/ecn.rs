//! Explicit congestion notification across the tunnel (RFC 6040): what is in the way of the datagrams
//! is told to those who send the packets inside.

use super::header::{set_word, word};

/// The two low bits of the second byte of an IPv4 header (RFC 3168, section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ecn {
    /// The sender does not understand ECN.
    #[default]
    NotEct = 0,
    /// It does (RFC 8311, RFC 9331).
    Ect1 = 1,
    /// It does.
    Ect0 = 2,
    /// A router was congested.
    Ce = 3,
}

/// The part of the byte that is not ECN.
const DSCP: u8 = 0xfc;

impl Ecn {
    /// Of the traffic class or type of service byte.
    pub(super) fn of(byte: u8) -> Self {
        match byte & !DSCP {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            // Two bits have four values.
            3.. => Self::Ce,
        }
    }

    /// What a packet that said `self` says when it arrived in a datagram that says `outer`; `None` where it has to
    /// be dropped, because its sender would not understand (RFC 6040, section 4.2, figure 4).
    pub(super) fn arrived_in(self, outer: Self) -> Option<Self> {
        match (self, outer) {
            (Self::NotEct, Self::Ce) => None,
            (Self::NotEct, Self::NotEct | Self::Ect0 | Self::Ect1) => Some(Self::NotEct),
            (Self::Ce, _) | (_, Self::Ce) => Some(Self::Ce),
            (Self::Ect1, _) | (Self::Ect0, Self::Ect1) => Some(Self::Ect1),
            (Self::Ect0, Self::NotEct | Self::Ect0) => Some(Self::Ect0),
        }
    }
}

/// Passes what the datagram says on to the IPv4 packet that was in it. False: it has to be dropped.
pub(super) fn pass_on(outer: Ecn, packet: &mut [u8]) -> bool {
    let own = Ecn::of(packet[1]);
    let Some(ecn) = own.arrived_in(outer) else {
        return false;
    };
    if ecn != own {
        let before = word(packet, 0);
        packet[1] = packet[1] & DSCP | ecn as u8;
        let after = word(packet, 0);
        // RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
        let sum = u32::from(!word(packet, 10)) + u32::from(!before) + u32::from(after);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        // Two folds leave no more than 16 bits.
        set_word(packet, 10, !(sum as u16));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::packets::{Packet, is_intact};
    use super::Ecn::{Ce, Ect0, Ect1, NotEct};
    use super::*;

    #[test]
    fn the_whole_table_of_rfc_6040_holds() {
        // Figure 4: rows are the arriving inner header, columns the arriving outer one.
        let outer = [NotEct, Ect0, Ect1, Ce];
        let table = [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect0, [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)]),
            (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
            (Ce, [Some(Ce), Some(Ce), Some(Ce), Some(Ce)]),
        ];
        for (inner, row) in table {
            for (outer, wanted) in outer.into_iter().zip(row) {
                assert_eq!(inner.arrived_in(outer), wanted, "{inner:?} in {outer:?}");
                let mut packet = Packet::tcp(1, 100);
                packet.tos = 0xb8 | inner as u8;
                let mut bytes = packet.build();
                assert_eq!(pass_on(outer, &mut bytes), wanted.is_some());
                packet.tos = 0xb8 | wanted.unwrap_or(inner) as u8;
                assert_eq!(bytes, packet.build());
                assert!(is_intact(&bytes));
            }
        }
    }

    #[test]
    fn the_two_bits_are_read_whatever_is_beside_them() {
        for byte in 0..=255 {
            assert_eq!(Ecn::of(byte) as u8, byte & 3);
        }
    }

    #[test]
    fn a_checksum_stays_right_whatever_the_header_holds() {
        for id in 0..=u16::MAX {
            let mut bytes = [
                0x45, 2, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
            ];
            bytes[4..6].copy_from_slice(&id.to_be_bytes());
            let sum = super::super::packets::checksum(&bytes);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            assert!(pass_on(Ce, &mut bytes));
            assert_eq!(super::super::packets::checksum(&bytes), 0);
        }
    }
}
