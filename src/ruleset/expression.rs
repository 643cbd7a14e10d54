//! A rule as the list of expressions that the kernel runs: loads into a register, comparisons,
//! statements. Numbers are those of linux/netfilter/nf_tables.h.

use std::net::SocketAddrV4;

use ipnetwork::Ipv4Network;

use super::attribute::{put, put_nested, put_str, put_u32};
use super::{End, Family, LOG_BYTES, LOG_CAPTURE, LOG_INPUT, Match, Rule};
use crate::net::{IfName, Transport};

/// Type of each element of an expression list (`NFTA_LIST_ELEM`).
const ELEMENT: u16 = 1;
/// Name of an expression (`NFTA_EXPR_NAME`).
pub const NAME: u16 = 1;
/// Attributes of an expression (`NFTA_EXPR_DATA`).
pub const DATA: u16 = 2;

/// Bytes of a device name in a register (`IFNAMSIZ`).
const NAME_BYTES: usize = 16;

/// Keys of `meta` (`enum nft_meta_keys`).
#[derive(Clone, Copy)]
enum Meta {
    Length = 0,
    Protocol = 1,
    Mark = 3,
    IifName = 6,
    OifName = 7,
    NfProto = 15,
    L4Proto = 16,
    IifKind = 26,
    OifKind = 27,
}

/// Keys of `ct` (`enum nft_ct_keys`).
#[derive(Clone, Copy)]
enum Ct {
    State = 0,
    Direction = 1,
    ProtoDst = 12,
}

/// Comparisons (`enum nft_cmp_ops`).
#[derive(Clone, Copy)]
enum Cmp {
    Eq = 0,
    Neq = 1,
    Lte = 3,
    Gte = 5,
}

/// Where a payload load starts (`enum nft_payload_bases`).
#[derive(Clone, Copy)]
enum Base {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// `NFPROTO_IPV4` and `NFPROTO_IPV6` (linux/netfilter.h).
const IPV4: u8 = 2;
pub(super) const IPV6: u8 = 10;

/// `ETH_P_IP` and `ETH_P_ARP` (linux/if_ether.h).
const ETHER_IP: u16 = 0x0800;
const ETHER_ARP: u16 = 0x0806;

/// `IPPROTO_ICMP`
const ICMP: u8 = 1;

/// `NF_CT_STATE_BIT` of established, related and new (linux/netfilter/nf_conntrack_common.h; the low bit is
/// invalid).
const ESTABLISHED: u32 = 1 << 1;
const RELATED: u32 = 1 << 2;
const NEW: u32 = 1 << 3;

/// `IP_CT_DIR_ORIGINAL` and `IP_CT_DIR_REPLY`.
const ORIGINAL: u8 = 0;
const REPLY: u8 = 1;

/// Appends the expressions of a rule in a table of this family.
pub(super) fn put_rule(buffer: &mut Vec<u8>, family: Family, rule: &Rule) {
    let mut list = List {
        buffer,
        family,
        protocol: None,
        transport: None,
    };
    for condition in &rule.matches {
        list.condition(condition);
    }
    if rule.counted {
        list.expression("counter", |_| {});
    }
    if let Some(group) = rule.log {
        list.expression("log", |data| {
            put(data, 1, &group.to_be_bytes());
            put_str(data, 2, rule.reason.as_str());
            put_u32(data, 3, LOG_BYTES);
        });
        if group != LOG_INPUT {
            list.expression("log", |data| {
                put(data, 1, &LOG_CAPTURE.to_be_bytes());
                put_str(data, 2, rule.reason.as_str());
            });
        }
    }
    if rule.untracked {
        list.bare("notrack");
    }
    list.end(rule.end);
}

/// An expression list under construction, with what it has established so far: the kernel may read an
/// address only after it is known that the packet is IPv4, and a port only after it is known to be TCP
/// or UDP.
struct List<'a> {
    buffer: &'a mut Vec<u8>,
    family: Family,
    protocol: Option<u16>,
    transport: Option<Transport>,
}

impl List<'_> {
    fn condition(&mut self, condition: &Match) {
        match condition {
            Match::In(name) => self.device(Meta::IifName, Cmp::Eq, name),
            Match::NotIn(name) => self.device(Meta::IifName, Cmp::Neq, name),
            Match::Out(name) => self.device(Meta::OifName, Cmp::Eq, name),
            Match::NotOut(name) => self.device(Meta::OifName, Cmp::Neq, name),
            Match::InKindTun => self.name(Meta::IifKind, Cmp::Eq, b"tun"),
            Match::OutKindTun => self.name(Meta::OifKind, Cmp::Eq, b"tun"),
            Match::Ipv4 => self.ethertype(ETHER_IP),
            Match::Ipv6 => self.meta(Meta::NfProto, Cmp::Eq, &[IPV6]),
            Match::Mark(mark) => self.meta(Meta::Mark, Cmp::Eq, &mark.0.to_ne_bytes()),
            Match::Source(net) => self.address(12, *net),
            Match::Destination(net) => self.address(16, *net),
            Match::Fragment => self.fragment(),
            Match::NoOptions => self.no_options(),
            Match::Carries(number) => self.meta(Meta::L4Proto, Cmp::Eq, &[*number]),
            Match::Opening => self.opening(),
            Match::SourcePort(transport, port) => self.port(*transport, 0, *port),
            Match::DestinationPort(transport, port) => self.port(*transport, 2, *port),
            Match::WireGuard => self.wireguard(),
            Match::TooBig {
                source_port,
                remote,
            } => self.too_big(*source_port, *remote),
            Match::New => self.state(NEW),
            Match::Reply => self.direction_reply(),
            Match::OriginalDestinationPort(port) => self.original_port(*port),
            Match::Established => self.state(ESTABLISHED),
            Match::EstablishedOrRelated => self.state(ESTABLISHED | RELATED),
            Match::NoWayBack => self.no_way_back(),
            Match::Ipv4Frame => self.frame(ETHER_IP),
            Match::Length(bytes) => self.meta(Meta::Length, Cmp::Eq, &bytes.to_ne_bytes()),
            Match::ArpFrame => self.frame(ETHER_ARP),
            Match::ArpSource(ip) => self.arp(14, ip.octets()),
            Match::ArpDestination(ip) => self.arp(24, ip.octets()),
        }
    }

    fn end(&mut self, end: End) {
        match end {
            End::Accept => self.verdict(1),
            End::Drop => self.verdict(0),
            End::RejectProhibited => self.expression("reject", |data| {
                put_u32(data, 1, 2); // NFT_REJECT_ICMPX_UNREACH
                put(data, 2, &[3]); // NFT_REJECT_ICMPX_ADMIN_PROHIBITED
            }),
            End::RejectReset => self.expression("reject", |data| {
                put_u32(data, 1, 1); // NFT_REJECT_TCP_RST
            }),
        }
    }

    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Vec<u8>)) {
        put_nested(self.buffer, ELEMENT, |element| {
            put_str(element, NAME, name);
            put_nested(element, DATA, fill);
        });
    }

    /// An expression without attributes. The kernel prints it without an empty list of them, so none is sent.
    fn bare(&mut self, name: &str) {
        put_nested(self.buffer, ELEMENT, |element| put_str(element, NAME, name));
    }

    /// Sets the verdict register: `NF_DROP` or `NF_ACCEPT` (linux/netfilter.h).
    fn verdict(&mut self, code: u32) {
        self.expression("immediate", |data| {
            put_u32(data, 1, 0);
            put_nested(data, 2, |value| {
                put_nested(value, 2, |verdict| put_u32(verdict, 1, code));
            });
        });
    }

    fn compare(&mut self, cmp: Cmp, value: &[u8]) {
        self.expression("cmp", |data| {
            put_u32(data, 1, 1);
            put_u32(data, 2, cmp as u32);
            put_nested(data, 3, |inner| put(inner, 1, value));
        });
    }

    fn meta(&mut self, key: Meta, cmp: Cmp, value: &[u8]) {
        self.expression("meta", |data| {
            put_u32(data, 2, key as u32);
            put_u32(data, 1, 1);
        });
        self.compare(cmp, value);
    }

    fn device(&mut self, key: Meta, cmp: Cmp, name: &IfName) {
        self.name(key, cmp, &name.bytes());
    }

    fn name(&mut self, key: Meta, cmp: Cmp, name: &[u8]) {
        let mut padded = [0; NAME_BYTES];
        let length = name.len().min(NAME_BYTES);
        padded[..length].copy_from_slice(&name[..length]);
        self.meta(key, cmp, &padded);
    }

    /// Establishes that the packet is of this ethertype, by what the family knows it by.
    fn ethertype(&mut self, ethertype: u16) {
        if self.protocol == Some(ethertype) {
            return;
        }
        self.protocol = Some(ethertype);
        match self.family {
            Family::Inet => self.meta(Meta::NfProto, Cmp::Eq, &[IPV4]),
            Family::Netdev => self.meta(Meta::Protocol, Cmp::Eq, &ethertype.to_be_bytes()),
            Family::Arp => {}
        }
    }

    fn transport(&mut self, transport: Transport) {
        if self.transport != Some(transport) {
            self.transport = Some(transport);
            self.meta(Meta::L4Proto, Cmp::Eq, &[transport.number()]);
        }
    }

    fn payload(&mut self, base: Base, offset: u32, length: u32) {
        self.expression("payload", |data| {
            put_u32(data, 1, 1);
            put_u32(data, 2, base as u32);
            put_u32(data, 3, offset);
            put_u32(data, 4, length);
        });
    }

    /// A prefix on a byte boundary is a shorter load, any other a mask, as nft does it.
    fn address(&mut self, offset: u32, net: Ipv4Network) {
        self.ethertype(ETHER_IP);
        let bytes = net.network().octets();
        let prefix = net.prefix();
        if prefix > 0 && prefix.is_multiple_of(8) {
            let length = prefix / 8;
            self.payload(Base::Network, offset, u32::from(length));
            self.compare(Cmp::Eq, &bytes[..usize::from(length)]);
        } else {
            self.payload(Base::Network, offset, 4);
            self.mask(net.mask().octets());
            self.compare(Cmp::Eq, &bytes);
        }
    }

    fn mask<const N: usize>(&mut self, mask: [u8; N]) {
        self.expression("bitwise", |data| {
            put_u32(data, 1, 1);
            put_u32(data, 2, 1);
            put_u32(data, 3, u32::try_from(N).unwrap_or(u32::MAX));
            put_nested(data, 4, |inner| put(inner, 1, &mask));
            put_nested(data, 5, |inner| put(inner, 1, &[0; N]));
        });
    }

    /// "More fragments" and the offset (RFC 791 section 3.1).
    fn fragment(&mut self) {
        self.ethertype(ETHER_IP);
        self.payload(Base::Network, 6, 2);
        self.mask([0x3f, 0xff]);
        self.compare(Cmp::Neq, &[0; 2]);
    }

    /// A header of 5 words of 4 bytes, the shortest (RFC 791 section 3.1).
    fn no_options(&mut self) {
        self.ethertype(ETHER_IP);
        self.payload(Base::Network, 0, 1);
        self.mask([0x0f]);
        self.compare(Cmp::Eq, &[5]);
    }

    /// SYN without ACK in the flags of the TCP header (RFC 9293 section 3.1).
    fn opening(&mut self) {
        let (syn, ack) = (0x02, 0x10);
        self.transport(Transport::Tcp);
        self.payload(Base::Transport, 13, 1);
        self.mask([syn | ack]);
        self.compare(Cmp::Eq, &[syn]);
    }

    fn port(&mut self, transport: Transport, offset: u32, port: u16) {
        self.transport(transport);
        self.payload(Base::Transport, offset, 2);
        self.compare(Cmp::Eq, &port.to_be_bytes());
    }

    /// Type and reserved bytes stand behind the 8 bytes of the UDP header.
    fn wireguard(&mut self) {
        self.payload(Base::Transport, 8, 1);
        self.compare(Cmp::Gte, &[1]);
        self.compare(Cmp::Lte, &[4]);
        self.payload(Base::Transport, 9, 3);
        self.compare(Cmp::Eq, &[0; 3]);
    }

    /// Type 3, code 4, and what stands in the quoted packet at 9 (protocol), 16 (destination), 20 and 22
    /// (ports), behind 8 bytes of ICMP.
    fn too_big(&mut self, source_port: u16, remote: SocketAddrV4) {
        self.meta(Meta::L4Proto, Cmp::Eq, &[ICMP]);
        let udp = [Transport::Udp.number()];
        let (ip, port) = (remote.ip().octets(), remote.port().to_be_bytes());
        let quoted: [(u32, &[u8]); 5] = [
            (0, &[3, 4]),
            (17, &udp),
            (24, &ip),
            (28, &source_port.to_be_bytes()),
            (30, &port),
        ];
        for (offset, value) in quoted {
            // At most four bytes.
            self.payload(Base::Transport, offset, value.len() as u32);
            self.compare(Cmp::Eq, value);
        }
    }

    fn ct(&mut self, key: Ct, direction: Option<u8>) {
        self.expression("ct", |data| {
            put_u32(data, 2, key as u32);
            put_u32(data, 1, 1);
            if let Some(direction) = direction {
                put(data, 3, &[direction]);
            }
        });
    }

    fn direction_reply(&mut self) {
        self.ct(Ct::Direction, None);
        self.compare(Cmp::Eq, &[REPLY]);
    }

    fn original_port(&mut self, port: u16) {
        self.ct(Ct::ProtoDst, Some(ORIGINAL));
        self.compare(Cmp::Eq, &port.to_be_bytes());
    }

    fn state(&mut self, bits: u32) {
        self.ct(Ct::State, None);
        self.mask(bits.to_ne_bytes());
        self.compare(Cmp::Neq, &[0; 4]);
    }

    /// `NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF | NFTA_FIB_F_PRESENT`, result `NFT_FIB_RESULT_OIF`: the register
    /// is 0 if there is none.
    fn no_way_back(&mut self) {
        self.expression("fib", |data| {
            put_u32(data, 3, 1 | 8 | 32);
            put_u32(data, 2, 1);
            put_u32(data, 1, 1);
        });
        self.compare(Cmp::Eq, &[0; 4]);
    }

    /// The ethertype stands behind two hardware addresses of 6 bytes.
    fn frame(&mut self, ethertype: u16) {
        self.payload(Base::Link, 12, 2);
        self.compare(Cmp::Eq, &ethertype.to_be_bytes());
    }

    /// The addresses stand behind hardware addresses of 6 bytes (RFC 826, Ethernet).
    fn arp(&mut self, offset: u32, address: [u8; 4]) {
        self.ethertype(ETHER_ARP);
        self.payload(Base::Network, offset, 4);
        self.compare(Cmp::Eq, &address);
    }
}
