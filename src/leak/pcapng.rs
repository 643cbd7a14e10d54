//! A capture file as tcpdump and Wireshark read it: blocks of pcapng (draft-ietf-opsawg-pcapng). Pure; the
//! byte order is little-endian, which the file says itself.

use std::time::Duration;

/// Block types (section 4 of the draft): section header, interface description, enhanced packet.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;

/// Tells the byte order (section 4.1).
const MAGIC: u32 = 0x1a2b_3c4d;

/// `LINKTYPE_ETHERNET` (draft-ietf-opsawg-pcaplinktype). All interfaces of a file have it: libpcap reads no
/// file with several.
const ETHERNET: u16 = 1;

/// Options: of all blocks, of a section, of an interface, of a packet.
const COMMENT: u16 = 1;
const APPLICATION: u16 = 4;
const NAME: u16 = 2;
const DESCRIPTION: u16 = 3;
const FLAGS: u16 = 2;

/// Bytes of a packet that a file holds at most: the largest segment that the kernel has yet to split, with its
/// link header.
pub const SNAP: u32 = 65_536 + 64;

/// Bytes of an Ethernet header.
const LINK: usize = 14;

/// What packets are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is recorded there.
    pub description: &'a str,
}

/// Which way a packet went (section 4.3.1, bits 0 and 1 of the flags).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It came in.
    In = 1,
    /// It went out, or would have.
    Out = 2,
}

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Number of its interface in the file, from 0.
    pub interface: u32,
    /// Since 1970 (UTC).
    pub at: Duration,
    /// Its link header, or the EtherType of what has none: it gets one without addresses.
    pub link: Link,
    /// Its first bytes.
    pub bytes: &'a [u8],
    /// How many it had; at least as many as `bytes`.
    pub length: usize,
    /// Which way.
    pub way: Way,
    /// What else is known.
    pub comment: &'a str,
}

/// How the bytes of a packet begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// With an Ethernet header.
    Ethernet,
    /// With what this EtherType says.
    Bare(u16),
}

impl Link {
    /// What a packet of IP begins with, by the version in its first byte.
    pub fn of_ip(bytes: &[u8]) -> Self {
        match bytes.first().map(|byte| byte >> 4) {
            Some(6) => Self::Bare(0x86dd),
            Some(_) | None => Self::Bare(0x0800),
        }
    }
}

/// What a file begins with.
pub fn head(application: &str, interfaces: &[Interface<'_>]) -> Vec<u8> {
    let mut file = Vec::new();
    block(&mut file, SECTION, |body| {
        body.extend(MAGIC.to_le_bytes());
        body.extend(1_u16.to_le_bytes()); // version 1.0
        body.extend(0_u16.to_le_bytes());
        body.extend(u64::MAX.to_le_bytes()); // the length of the section is not known
        option(body, APPLICATION, application.as_bytes());
        end(body);
    });
    for interface in interfaces {
        block(&mut file, INTERFACE, |body| {
            body.extend(ETHERNET.to_le_bytes());
            body.extend([0; 2]);
            body.extend(SNAP.to_le_bytes());
            option(body, NAME, interface.name.as_bytes());
            option(body, DESCRIPTION, interface.description.as_bytes());
            end(body);
        });
    }
    file
}

/// One packet as a block.
pub fn packet(packet: &Packet<'_>) -> Vec<u8> {
    let mut file = Vec::with_capacity(packet.bytes.len() + 128);
    block(&mut file, PACKET, |body| {
        // Microseconds, unless the interface says otherwise.
        let at = u64::try_from(packet.at.as_micros()).unwrap_or(u64::MAX);
        let (high, low) = ((at >> 32) as u32, at as u32);
        let link = match packet.link {
            Link::Ethernet => Vec::new(),
            Link::Bare(kind) => header(kind).to_vec(),
        };
        let snap = SNAP as usize;
        let kept = packet.bytes.len().min(snap - link.len());
        let length = packet.length.max(packet.bytes.len()) + link.len();
        for number in [packet.interface, high, low] {
            body.extend(number.to_le_bytes());
        }
        for bytes in [kept + link.len(), length] {
            body.extend(u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes());
        }
        body.extend(link);
        body.extend(&packet.bytes[..kept]);
        pad(body);
        option(body, FLAGS, &(packet.way as u32).to_le_bytes());
        option(body, COMMENT, packet.comment.as_bytes());
        end(body);
    });
    file
}

fn header(kind: u16) -> [u8; LINK] {
    let mut header = [0; LINK];
    header[LINK - 2..].copy_from_slice(&kind.to_be_bytes());
    header
}

/// Type, length, body, and the length again (section 3.1).
fn block(file: &mut Vec<u8>, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = file.len();
    file.extend(kind.to_le_bytes());
    file.extend([0; 4]);
    fill(file);
    let length = u32::try_from(file.len() - start + 4)
        .unwrap_or(u32::MAX)
        .to_le_bytes();
    file[start + 4..start + 8].copy_from_slice(&length);
    file.extend(length);
}

/// Code, length, value, padding to four bytes (section 3.5). An empty one says nothing.
fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(1024)];
    if value.is_empty() {
        return;
    }
    body.extend(code.to_le_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    body.extend(value);
    pad(body);
}

/// `opt_endofopt`.
fn end(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

/// Blocks begin on a multiple of four and their head has eight bytes, so the length so far tells.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const TWO: [Interface<'_>; 2] = [
        Interface {
            name: "uplink",
            description: "what crossed",
        },
        Interface {
            name: "blocked",
            description: "what was stopped",
        },
    ];

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Type and body of each block; both lengths agree and are a multiple of four.
    fn blocks(mut file: &[u8]) -> Vec<(u32, &[u8])> {
        let mut found = Vec::new();
        while !file.is_empty() {
            let length = word(file, 4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(word(file, length - 4) as usize, length);
            found.push((word(file, 0), &file[8..length - 4]));
            file = &file[length..];
        }
        found
    }

    fn dns() -> Packet<'static> {
        Packet {
            interface: 1,
            at: Duration::from_micros(1_795_507_199_000_042),
            link: Link::Bare(0x0800),
            bytes: &[
                0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 10, 64, 0, 2, 8, 8, 8, 8, 0x9c, 0x40, 0,
                53, 0, 9, 0, 0, 7,
            ],
            length: 29,
            way: Way::Out,
            comment: "dns, by uid 1000",
        }
    }

    #[test]
    fn blocks_are_laid_out_as_the_draft_says() {
        let mut file = head("vpngw 1", &TWO);
        file.extend(packet(&dns()));
        let blocks = blocks(&file);
        let kinds: Vec<_> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [0x0a0d_0d0a, 1, 1, 6]);
        let section = b"\x4d\x3c\x2b\x1a\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x04\0\x07\0vpngw 1\0\0\0\0\0";
        assert_eq!(blocks[0].1, section);
        let interface =
            b"\x01\0\0\0\x40\0\x01\0\x02\0\x06\0uplink\0\0\x03\0\x0c\0what crossed\0\0\0\0";
        assert_eq!(blocks[1].1, interface);
        let body = blocks[3].1;
        let micros = u64::from(word(body, 4)) << 32 | u64::from(word(body, 8));
        assert_eq!((word(body, 0), micros), (1, 1_795_507_199_000_042));
        assert_eq!((word(body, 12), word(body, 16)), (43, 43));
        assert_eq!(body[20..34], *b"\0\0\0\0\0\0\0\0\0\0\0\0\x08\0");
        assert_eq!(body[34..63], *dns().bytes);
        let options = b"\x02\0\x04\0\x02\0\0\0\x01\0\x10\0dns, by uid 1000\0\0\0\0";
        assert_eq!(body[64..], *options);
    }

    #[test]
    fn a_packet_larger_than_the_file_holds_is_cut_and_says_so() {
        let large = Packet {
            bytes: &[0; 70_000],
            length: 80_000,
            link: Link::Ethernet,
            ..dns()
        };
        let file = packet(&large);
        let body = blocks(&file)[0].1;
        assert_eq!((word(body, 12), word(body, 16)), (SNAP, 80_000));
    }

    #[test]
    fn tcpdump_reads_it() {
        let mut file = head("vpngw", &TWO);
        let frame = [&header(0x0800)[..], dns().bytes].concat();
        file.extend(packet(&dns()));
        file.extend(packet(&Packet {
            interface: 0,
            link: Link::Ethernet,
            bytes: &frame,
            length: frame.len(),
            ..dns()
        }));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("two.pcap");
        std::fs::write(&path, file).unwrap();
        let done = Command::new("tcpdump").arg("-nr").arg(&path).output();
        let done = done.expect("tcpdump is installed");
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{done:?}");
        assert_eq!(
            said.matches("IP 10.64.0.2.40000 > 8.8.8.8.53").count(),
            2,
            "{said}"
        );
    }
}
