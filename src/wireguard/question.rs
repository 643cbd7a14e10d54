//! A question to the tunnel's resolver, made here and answered to nobody: whether anything comes back from beyond the server
//! can be told without a program that asks.

use std::net::Ipv4Addr;

use super::checksum::Sum;

/// Bytes of an IPv4 header without options (RFC 791, section 3.1), and of a UDP header (RFC 768).
const IPV4: usize = 20;
const UDP: usize = 8;

/// IP protocol number of UDP.
const PROTOCOL: u8 = 17;

/// The port of DNS (RFC 1035, section 4.2.1).
const DNS: u16 = 53;

/// A question for the name servers of the root (RFC 1035, section 4.1): recursion desired, one question. Every resolver
/// knows them, and asking tells it nothing of anybody.
const ROOT: [u8; 17] = [
    0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, // number, flags, counts
    0, 0, 2, 0, 1, // the root, NS, IN
];

/// Bytes of the whole packet.
const LENGTH: usize = IPV4 + UDP + ROOT.len();

/// Who asks whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asks {
    /// Our address in the tunnel.
    pub from: Ipv4Addr,
    /// The tunnel's resolver.
    pub resolver: Ipv4Addr,
}

/// The question that was asked last.
#[derive(Debug)]
pub(super) struct Question {
    asks: Asks,
    /// Our port of that question; `None` while none is open.
    port: Option<u16>,
}

impl Question {
    pub(super) fn new(asks: Asks) -> Self {
        Self { asks, port: None }
    }

    /// The next question as a packet. `random` makes it one that only who sees it can answer.
    pub(super) fn next(&mut self, random: u32) -> [u8; LENGTH] {
        let [high, low, a, b] = random.to_be_bytes();
        // One of the ports that the system hands out to programs too (RFC 6335, section 6).
        let port = u16::from_be_bytes([high, low]) | 0xc000;
        self.port = Some(port);
        let mut packet = [0; LENGTH];
        let (ip, rest) = packet.split_at_mut(IPV4);
        let (udp, dns) = rest.split_at_mut(UDP);
        ip[..2].copy_from_slice(&[0x45, 0]);
        ip[2..4].copy_from_slice(&(LENGTH as u16).to_be_bytes());
        ip[6] = 0x40; // do not fragment
        ip[8..10].copy_from_slice(&[64, PROTOCOL]);
        ip[12..16].copy_from_slice(&self.asks.from.octets());
        ip[16..20].copy_from_slice(&self.asks.resolver.octets());
        let sum = Sum::default().bytes(ip).finish();
        ip[10..12].copy_from_slice(&sum);
        let length = (UDP + ROOT.len()) as u16;
        udp[..2].copy_from_slice(&port.to_be_bytes());
        udp[2..4].copy_from_slice(&DNS.to_be_bytes());
        udp[4..6].copy_from_slice(&length.to_be_bytes());
        dns.copy_from_slice(&ROOT);
        dns[..2].copy_from_slice(&[a, b]);
        // The pseudo header: addresses, protocol, length.
        let pseudo = Sum::default().bytes(&ip[12..20]).word(u16::from(PROTOCOL));
        let sum = pseudo.word(length).bytes(udp).bytes(dns).finish();
        // None at all is written as zero (RFC 768).
        let sum = if sum == [0, 0] { [0xff; 2] } else { sum };
        udp[6..8].copy_from_slice(&sum);
        packet
    }

    /// Whether this packet answers the question. It is for nobody else then.
    pub(super) fn is_answered_by(&mut self, packet: &[u8]) -> bool {
        let Some(port) = self.port else { return false };
        let header = usize::from(packet[0] & 0x0f) * 4;
        let Some(ports) = packet.get(header..header + 4) else {
            return false;
        };
        let answers = packet[9] == PROTOCOL
            && packet[12..16] == self.asks.resolver.octets()
            && packet[16..20] == self.asks.from.octets()
            && ports[..2] == DNS.to_be_bytes()
            && ports[2..] == port.to_be_bytes();
        if answers {
            self.port = None;
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{DnsPacket, DnsQueryType, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr};

    use super::*;

    fn question() -> Question {
        Question::new(Asks {
            from: Ipv4Addr::new(10, 64, 0, 2),
            resolver: Ipv4Addr::new(10, 64, 0, 1),
        })
    }

    /// The same packet the other way round.
    fn answer(packet: &[u8]) -> Vec<u8> {
        let mut answer = packet.to_vec();
        answer[12..16].copy_from_slice(&packet[16..20]);
        answer[16..20].copy_from_slice(&packet[12..16]);
        answer[20..22].copy_from_slice(&packet[22..24]);
        answer[22..24].copy_from_slice(&packet[20..22]);
        answer
    }

    /// smoltcp reads it, checksums included.
    #[test]
    fn a_resolver_understands_the_question() {
        let mut question = question();
        for random in [0, 1, 0xffff_ffff, 0x1234_5678] {
            let packet = question.next(random);
            let ip = Ipv4Packet::new_checked(&packet[..]).unwrap();
            let checked = ChecksumCapabilities::default();
            let header = Ipv4Repr::parse(&ip, &checked).unwrap();
            assert_eq!(header.src_addr, Ipv4Addr::new(10, 64, 0, 2));
            let udp = UdpPacket::new_checked(ip.payload()).unwrap();
            let (from, to) = (header.src_addr.into(), header.dst_addr.into());
            let ports = UdpRepr::parse(&udp, &from, &to, &checked).unwrap();
            assert!(ports.src_port >= 0xc000 && ports.dst_port == 53);
            let dns = DnsPacket::new_checked(udp.payload()).unwrap();
            assert_eq!(dns.transaction_id(), random as u16);
            let (_, asked) = smoltcp::wire::DnsQuestion::parse(dns.payload()).unwrap();
            assert_eq!(asked.type_, DnsQueryType::Ns);
        }
    }

    #[test]
    fn an_answer_is_for_nobody_else_and_taken_once() {
        let mut question = question();
        let packet = question.next(7);
        assert!(!question.is_answered_by(&packet));
        let answer = answer(&packet);
        for (at, what) in [(9, 6), (15, 9), (19, 9), (21, 54), (23, 9)] {
            let mut other = answer.clone();
            other[at] = what;
            assert!(!question.is_answered_by(&other), "{at}");
        }
        assert!(!question.is_answered_by(&answer[..22]));
        assert!(question.is_answered_by(&answer));
        assert!(!question.is_answered_by(&answer));
    }
}
