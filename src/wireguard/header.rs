//! The fields of IPv4, TCP, UDP and virtio headers that offloads touch.

use std::net::Ipv4Addr;

use super::checksum::Sum;

/// Bytes of the virtio header in front of each packet (`struct virtio_net_hdr`, linux/virtio_net.h).
pub(super) const VIRTIO: usize = 10;

/// Bytes of the longest IPv4 packet.
pub(super) const LONGEST_PACKET: usize = 65535;

/// Bytes of the longest headers: IPv4 and TCP, with options.
pub(super) const LONGEST_HEADERS: usize = 60 + 60;

/// Bytes of an IPv4 header without options.
pub(super) const IPV4: usize = 20;

/// Bytes of a UDP header.
pub(super) const UDP: usize = 8;

/// Bytes of a TCP header without options.
pub(super) const TCP: usize = 20;

pub(super) const TCP_FIN: u8 = 0x01;
pub(super) const TCP_PSH: u8 = 0x08;
pub(super) const TCP_ACK: u8 = 0x10;
pub(super) const TCP_CWR: u8 = 0x80;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// A packet that contradicts its own headers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A transport protocol that offloads know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Where the checksum stands in the transport header.
    pub(super) fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// What the virtio header says of the packet after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Virtio {
    /// Segments of this protocol and this many payload bytes; `None` is one packet.
    pub(super) segments: Option<(Protocol, u16)>,
    /// Where the checksummed part begins, and where in it the checksum is: it is yet to be completed.
    pub(super) checksum: Option<(u16, u16)>,
    /// Bytes of the headers.
    pub(super) header_len: u16,
}

impl Virtio {
    /// One packet, complete.
    pub(super) const PLAIN: Self = Self {
        segments: None,
        checksum: None,
        header_len: 0,
    };

    /// Reads the header.
    ///
    /// # Errors
    /// A kind of offload that was not asked for.
    pub(super) fn decode(bytes: &[u8; VIRTIO]) -> Result<Self, Malformed> {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let segments = match bytes[1] & !GSO_ECN {
            GSO_NONE => None,
            GSO_TCPV4 => Some((Protocol::Tcp, word(4))),
            GSO_UDP_L4 => Some((Protocol::Udp, word(4))),
            _ => return Err(Malformed),
        };
        let checksum = (bytes[0] & NEEDS_CSUM != 0).then(|| (word(6), word(8)));
        Ok(Self {
            segments,
            checksum,
            header_len: word(2),
        })
    }

    /// Writes the header.
    pub(super) fn encode(self, bytes: &mut [u8]) {
        let (kind, size) = match self.segments {
            None => (GSO_NONE, 0),
            Some((Protocol::Tcp, size)) => (GSO_TCPV4, size),
            Some((Protocol::Udp, size)) => (GSO_UDP_L4, size),
        };
        let (start, offset) = self.checksum.unwrap_or((0, 0));
        bytes[0] = if self.checksum.is_some() {
            NEEDS_CSUM
        } else {
            0
        };
        bytes[1] = kind;
        for (at, word) in [(2, self.header_len), (4, size), (6, start), (8, offset)] {
            bytes[at..at + 2].copy_from_slice(&word.to_ne_bytes());
        }
    }
}

/// The 16-bit field at `at`.
pub(super) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Writes the 16-bit field at `at`.
pub(super) fn set_word(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The 32-bit field at `at`.
pub(super) fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Source and destination of an IPv4 packet; `None` for what cannot be one.
pub(super) fn addresses(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let valid = packet.len() >= IPV4 && packet[0] >> 4 == 4;
    valid.then(|| (long(packet, 12).into(), long(packet, 16).into()))
}

/// Bytes of the IPv4 header, or of the TCP header, whose length field is in `nibble`.
///
/// # Errors
/// It is shorter than a header without options, or longer than what is there.
pub(super) fn length(nibble: u8, within: usize) -> Result<usize, Malformed> {
    let len = usize::from(nibble) * 4;
    if (IPV4..=within).contains(&len) {
        Ok(len)
    } else {
        Err(Malformed)
    }
}

/// Writes length and checksum of an IPv4 header of `len` bytes.
pub(super) fn finish_ipv4(header: &mut [u8], len: usize, total: usize) {
    // The caller cuts segments out of a packet that was no longer than that itself.
    set_word(header, 2, total as u16);
    set_word(header, 10, 0);
    let sum = Sum::default().bytes(&header[..len]).finish();
    header[10..12].copy_from_slice(&sum);
}

/// The sum of the pseudo-header that TCP and UDP checksums include (RFC 9293, section 3.1).
pub(super) fn pseudo_header(ipv4: &[u8], protocol: Protocol, len: usize) -> Sum {
    let number = u16::from(protocol.number());
    // The length of what is in an IPv4 packet fits 16 bits.
    Sum::default()
        .bytes(&ipv4[12..20])
        .word(number)
        .word(len as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtio_header_reads_as_it_was_written() {
        for header in [
            Virtio::PLAIN,
            Virtio {
                segments: Some((Protocol::Tcp, 1368)),
                checksum: Some((20, 16)),
                header_len: 52,
            },
            Virtio {
                segments: Some((Protocol::Udp, 1200)),
                checksum: Some((20, 6)),
                header_len: 28,
            },
        ] {
            let mut bytes = [0xff; VIRTIO];
            header.encode(&mut bytes);
            assert_eq!(Virtio::decode(&bytes), Ok(header));
        }
    }

    #[test]
    fn an_unknown_offload_is_refused() {
        for kind in [2, 3, 4, 6] {
            let bytes = [0, kind, 0, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(Virtio::decode(&bytes), Err(Malformed));
        }
    }

    #[test]
    fn only_ipv4_has_addresses() {
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 192, 0, 2, 1]);
        let both = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(addresses(&packet), Some(both));
        assert_eq!(addresses(&packet[..19]), None);
        packet[0] = 0x65;
        assert_eq!(addresses(&packet), None);
    }
}
