//! Which packets may become one, and the header of what they become.

use super::checksum::Sum;
use super::header::{
    IPV4, LONGEST_PACKET, Protocol, TCP, TCP_ACK, TCP_PSH, UDP, VIRTIO, Virtio, finish_ipv4,
    length, long, pseudo_header, set_word, word,
};

/// What the TUN device takes in one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joins {
    pub(super) tcp: bool,
    pub(super) udp: bool,
}

/// A packet that could be one of several.
#[derive(Clone, Copy)]
pub(super) struct Flow {
    pub(super) protocol: Protocol,
    /// Bytes of all headers.
    pub(super) headers: usize,
    /// Payload bytes of the first packet, which is the size of all but the last.
    pub(super) size: usize,
}

/// A pushed TCP segment is the last of its superpacket.
pub(super) fn pushed(protocol: Protocol, flags: u8) -> bool {
    protocol == Protocol::Tcp && flags & TCP_PSH != 0
}

impl Flow {
    /// What the packet could be part of; `None` if nothing, or if a checksum is wrong.
    pub(super) fn of(packet: &[u8], joins: Joins) -> Option<Self> {
        let plain = packet.len() > IPV4 + UDP
            && packet[0] == 0x45
            && usize::from(word(packet, 2)) == packet.len()
            // Neither MF nor an offset: not a fragment.
            && word(packet, 6) & 0x3fff == 0
            && Sum::default().bytes(&packet[..IPV4]).is_intact();
        if !plain {
            return None;
        }
        let transport = &packet[IPV4..];
        let (protocol, header) = match packet[9] {
            6 if joins.tcp && transport.len() > TCP => {
                let header = length(transport[12] >> 4, transport.len()).ok()?;
                let flags = transport[13] & !TCP_PSH;
                // The low bit of the byte before is a flag too, or reserved.
                (flags == TCP_ACK && transport[12] & 0x0f == 0)
                    .then_some((Protocol::Tcp, header))?
            }
            17 if joins.udp => {
                let whole = usize::from(word(transport, 4)) == transport.len();
                (whole && word(transport, 6) != 0).then_some((Protocol::Udp, UDP))?
            }
            _ => return None,
        };
        let size = transport.len() - header;
        let intact = pseudo_header(packet, protocol, transport.len())
            .bytes(transport)
            .is_intact();
        (size > 0 && intact).then_some(Self {
            protocol,
            headers: IPV4 + header,
            size,
        })
    }

    /// Whether a superpacket of `end - VIRTIO` bytes has room.
    pub(super) fn fits(self, first: Self, end: usize) -> bool {
        self.size <= first.size && end - VIRTIO + self.size <= LONGEST_PACKET
    }

    /// Whether this packet continues a superpacket of `segments` segments whose header is at `a`; its
    /// own header is at `b`.
    pub(super) fn follows(self, first: Self, segments: usize, a: &[u8], b: &[u8]) -> bool {
        if self.protocol != first.protocol || self.headers != first.headers {
            return false;
        }
        // Fewer than 64 Ki segments of at least one byte fit in a packet.
        let nth = segments as u16;
        // Without DF the identification counts; with it, it means nothing (RFC 6864, section 4).
        let numbered = b[6] & 0x40 != 0 || word(b, 4) == word(a, 4).wrapping_add(nth);
        let same_ipv4 =
            a[1] == b[1] && a[6] == b[6] && a[8..10] == b[8..10] && a[12..20] == b[12..20];
        let (ta, tb) = (&a[IPV4..self.headers], &b[IPV4..self.headers]);
        let same_transport = match self.protocol {
            Protocol::Udp => ta[..4] == tb[..4],
            Protocol::Tcp => {
                let offset = u32::from(nth).wrapping_mul(first.size as u32);
                ta[..4] == tb[..4]
                    && long(tb, 4) == long(ta, 4).wrapping_add(offset)
                    && ta[8..13] == tb[8..13]
                    && ta[14..16] == tb[14..16]
                    && ta[18..] == tb[18..]
            }
        };
        numbered && same_ipv4 && same_transport
    }
}

/// Writes the header of a superpacket of segments of `size` bytes.
pub(super) fn finish(packet: &mut [u8], size: usize) -> Virtio {
    let total = packet.len();
    finish_ipv4(packet, IPV4, total);
    let protocol = if packet[9] == Protocol::Tcp.number() {
        Protocol::Tcp
    } else {
        Protocol::Udp
    };
    let header = match protocol {
        Protocol::Tcp => usize::from(packet[IPV4 + 12] >> 4) * 4,
        Protocol::Udp => {
            // Part of an IPv4 packet.
            set_word(packet, IPV4 + 4, (total - IPV4) as u16);
            UDP
        }
    };
    let partial = pseudo_header(packet, protocol, total - IPV4).partial();
    let at = protocol.checksum_offset();
    packet[IPV4 + at..IPV4 + at + 2].copy_from_slice(&partial);
    Virtio {
        // All of these are parts of an IPv4 packet.
        segments: Some((protocol, size as u16)),
        checksum: Some((IPV4 as u16, at as u16)),
        header_len: (IPV4 + header) as u16,
    }
}
