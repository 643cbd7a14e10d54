//! Looks up the name of an endpoint over one granted socket: one question, type A, by UDP.
//!
//! No cache, no TCP, no search list: the permission is for one resolver, and is closed afterwards.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use smoltcp::wire::{
    DnsFlags, DnsOpcode, DnsPacket, DnsQueryType, DnsQuestion, DnsRcode, DnsRecord, DnsRecordData,
    DnsRepr,
};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Aliases that are followed; a longer chain is a mistake or a trap.
const MOST_ALIASES: usize = 16;

/// The name has no address that could be found.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// Not a host name.
    #[error("`{0}` is not a host name: labels of 1 to 63 bytes with dots between, 253 in all")]
    Name(String),
    /// The socket.
    #[error("ask the resolver {server}")]
    Socket {
        /// The resolver.
        server: SocketAddrV4,
        /// Why.
        source: io::Error,
    },
    /// No answer.
    #[error("the resolver {server} did not answer {attempts} questions for `{name}`")]
    Silent {
        /// The resolver.
        server: SocketAddrV4,
        /// How often it was asked.
        attempts: u32,
        /// The name.
        name: String,
    },
    /// The name is not in the DNS.
    #[error("`{0}` does not exist")]
    NoName(String),
    /// The name has no IPv4 address.
    #[error("`{0}` has no IPv4 address")]
    NoAddress(String),
    /// The answer did not fit a datagram and what fitted held no address.
    #[error("the answer for `{0}` is too long for UDP")]
    Truncated(String),
    /// The resolver could not or would not.
    #[error("the resolver {server} answered {code} for `{name}`")]
    Refused {
        /// The resolver.
        server: SocketAddrV4,
        /// Its code.
        code: String,
        /// The name.
        name: String,
    },
}

/// How long to wait for an answer, and how often to ask.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one answer.
    pub each: Duration,
    /// Questions in all, at least one.
    pub attempts: u32,
}

impl Default for Patience {
    /// What resolv.conf(5) gives a resolver: 5 s is its timeout, 2 its attempts; here 2 s and 4.
    fn default() -> Self {
        Self {
            each: Duration::from_secs(2),
            attempts: 4,
        }
    }
}

/// The IPv4 addresses of `name`, in the order of the answer.
///
/// # Errors
/// Where the resolver is silent, or says that there are none.
pub async fn lookup(
    socket: &UdpSocket,
    server: SocketAddrV4,
    name: &str,
    patience: Patience,
) -> Result<Vec<Ipv4Addr>, DnsError> {
    let broken = |source| DnsError::Socket { server, source };
    let mut id = [0_u8; 2];
    getrandom(&mut id, GetRandomFlags::empty()).map_err(|errno| broken(errno.into()))?;
    let id = u16::from_be_bytes(id);
    let question = encode_name(name).ok_or_else(|| DnsError::Name(name.to_owned()))?;
    let query = query(id, &question);
    let attempts = patience.attempts.max(1);
    for _ in 0..attempts {
        socket.send_to(&query, server).await.map_err(broken)?;
        let waited = timeout(patience.each, answer(socket, server, id, &question)).await;
        match waited {
            Ok(answered) => return conclude(answered.map_err(broken)?, server, name),
            Err(_elapsed) => {}
        }
    }
    Err(DnsError::Silent {
        server,
        attempts,
        name: name.to_owned(),
    })
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    code: DnsRcode,
    truncated: bool,
    addresses: Vec<Ipv4Addr>,
}

/// The first datagram that answers the question; others are passed over, as anyone can send them.
async fn answer(
    socket: &UdpSocket,
    server: SocketAddrV4,
    id: u16,
    question: &[u8],
) -> io::Result<Answer> {
    // RFC 1035 section 4.2.1: 512 bytes without EDNS, which is not asked for. Room for who ignores that.
    let mut buffer = [0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await?;
        if from == SocketAddr::V4(server)
            && let Some(answer) = parse(&buffer[..length], id, question)
        {
            return Ok(answer);
        }
    }
}

fn conclude(answer: Answer, server: SocketAddrV4, name: &str) -> Result<Vec<Ipv4Addr>, DnsError> {
    let Answer {
        code,
        truncated,
        addresses,
    } = answer;
    let name = name.to_owned();
    if code == DnsRcode::NXDomain {
        return Err(DnsError::NoName(name));
    }
    if code != DnsRcode::NoError {
        let code = format!("{code:?}");
        return Err(DnsError::Refused { server, code, name });
    }
    // Some of the addresses are as good as all of them.
    match (addresses.is_empty(), truncated) {
        (false, _) => Ok(addresses),
        (true, true) => Err(DnsError::Truncated(name)),
        (true, false) => Err(DnsError::NoAddress(name)),
    }
}

/// A name as labels with their lengths, in lower case, with the empty label at the end (RFC 1035
/// section 3.1).
fn encode_name(name: &str) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok()?;
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !(1..=63).contains(&length) || !label.bytes().all(valid) {
            return None;
        }
        bytes.push(length);
        bytes.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    bytes.push(0);
    (bytes.len() <= 255).then_some(bytes)
}

fn query(id: u16, question: &[u8]) -> Vec<u8> {
    let repr = DnsRepr {
        transaction_id: id,
        opcode: DnsOpcode::Query,
        flags: DnsFlags::RECURSION_DESIRED,
        question: DnsQuestion {
            name: question,
            type_: DnsQueryType::A,
        },
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut DnsPacket::new_unchecked(&mut bytes[..]));
    bytes
}

/// `None` for what is no answer to this question.
fn parse(bytes: &[u8], id: u16, question: &[u8]) -> Option<Answer> {
    let packet = DnsPacket::new_checked(bytes).ok()?;
    let flags = packet.flags();
    let answers = packet.transaction_id() == id
        && flags.contains(DnsFlags::RESPONSE)
        && packet.opcode() == DnsOpcode::Query
        && packet.question_count() == 1;
    if !answers {
        return None;
    }
    let (mut rest, asked) = DnsQuestion::parse(packet.payload()).ok()?;
    if asked.type_ != DnsQueryType::A || plain(&packet, asked.name)? != question {
        return None;
    }
    let (mut aliases, mut hosts) = (Vec::new(), Vec::new());
    for _ in 0..packet.answer_record_count() {
        // A truncated packet may end inside a record; another class is none of ours.
        let Ok((after, record)) = DnsRecord::parse(rest) else {
            break;
        };
        rest = after;
        let owner = plain(&packet, record.name)?;
        match record.data {
            DnsRecordData::A(address) => hosts.push((owner, address)),
            DnsRecordData::Cname(target) => aliases.push((owner, plain(&packet, target)?)),
            DnsRecordData::Aaaa(_) | DnsRecordData::Other(..) => {}
        }
    }
    let name = follow(question, &aliases);
    let of_name = hosts.into_iter().filter(|(owner, _)| owner == name);
    Some(Answer {
        code: packet.rcode(),
        truncated: flags.contains(DnsFlags::TRUNCATED),
        addresses: of_name.map(|(_, address)| address).collect(),
    })
}

/// The end of the chain of aliases that starts at `name`, in whatever order they came.
fn follow<'a>(name: &'a [u8], aliases: &'a [(Vec<u8>, Vec<u8>)]) -> &'a [u8] {
    let mut name = name;
    for _ in 0..MOST_ALIASES {
        match aliases.iter().find(|(owner, _)| owner == name) {
            Some((_, target)) => name = target,
            None => break,
        }
    }
    name
}

/// A name without compression, in lower case: names compare without case (RFC 1035 section 2.3.3).
fn plain(packet: &DnsPacket<&[u8]>, name: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for label in packet.parse_name(name) {
        let label = label.ok()?;
        bytes.push(u8::try_from(label.len()).ok()?);
        bytes.extend(label.iter().map(u8::to_ascii_lowercase));
    }
    bytes.push(0);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "vpn.example.net";
    const ID: u16 = 0x1234;

    /// Header, question, then records: owner, type, data.
    fn response(name: &str, flags: u16, records: &[(&str, u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = ID.to_be_bytes().to_vec();
        let count = u16::try_from(records.len()).unwrap();
        for field in [0x8180 | flags, 1, count, 0, 0] {
            bytes.extend(field.to_be_bytes());
        }
        bytes.extend(encode_name(name).unwrap());
        bytes.extend([0, 1, 0, 1]);
        for (owner, kind, data) in records {
            match *owner {
                // A pointer to the question.
                "" => bytes.extend([0xc0, 12]),
                owner => bytes.extend(encode_name(owner).unwrap()),
            }
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 60]);
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(data);
        }
        bytes
    }

    fn a(last: u8) -> Vec<u8> {
        vec![192, 0, 2, last]
    }

    fn parsed(bytes: &[u8]) -> Option<Answer> {
        parse(bytes, ID, &encode_name(NAME).unwrap())
    }

    fn addresses(bytes: &[u8]) -> Vec<u8> {
        let answer = parsed(bytes).unwrap();
        answer.addresses.iter().map(|ip| ip.octets()[3]).collect()
    }

    #[test]
    fn the_addresses_come_in_the_order_of_the_answer() {
        let bytes = response(NAME, 0, &[("", 1, a(7)), ("VPN.example.net", 1, a(3))]);
        assert_eq!(addresses(&bytes), [7, 3]);
    }

    #[test]
    fn a_chain_of_aliases_is_followed_in_any_order() {
        let alias = |target: &str| encode_name(target).unwrap();
        let records = [
            ("c.example.net", 1, a(9)),
            ("b.example.net", 5, alias("c.example.net")),
            ("", 5, alias("b.example.net")),
            ("elsewhere.example.net", 1, a(66)),
        ];
        assert_eq!(addresses(&response(NAME, 0, &records)), [9]);
    }

    #[test]
    fn a_circle_of_aliases_has_no_address() {
        let alias = |target: &str| encode_name(target).unwrap();
        let records = [("", 5, alias("b.net")), ("b.net", 5, alias(NAME))];
        assert_eq!(addresses(&response(NAME, 0, &records)), [0_u8; 0]);
    }

    #[test]
    fn what_does_not_answer_the_question_is_no_answer() {
        let good = response(NAME, 0, &[("", 1, a(1))]);
        let mut other_id = good.clone();
        other_id[0] ^= 1;
        let mut a_question = good.clone();
        a_question[2] &= 0x7f;
        let other_name = response("vpn.example.org", 0, &[("", 1, a(1))]);
        for bytes in [
            other_id,
            a_question,
            other_name,
            good[..11].to_vec(),
            vec![],
        ] {
            assert_eq!(parsed(&bytes), None);
        }
    }

    #[test]
    fn a_cut_answer_is_worth_the_addresses_that_fitted() {
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 53);
        let mut bytes = response(NAME, 0x200, &[("", 1, a(1)), ("", 1, a(2))]);
        bytes.truncate(bytes.len() - 3);
        let some = conclude(parsed(&bytes).unwrap(), server, NAME);
        assert_eq!(some.unwrap().len(), 1);
        let none = conclude(parsed(&response(NAME, 0x200, &[])).unwrap(), server, NAME);
        assert!(matches!(none, Err(DnsError::Truncated(_))));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let good = response(NAME, 0, &[("", 1, a(1)), ("", 5, vec![0xc0, 12])]);
        for at in 0..good.len() {
            for value in [0, 1, 0x3f, 0xc0, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                parsed(&bytes);
                parsed(&bytes[..at]);
            }
        }
    }

    #[test]
    fn a_name_is_labels_of_letters_digits_and_hyphens() {
        assert_eq!(encode_name("A.b.").unwrap(), b"\x01a\x01b\0");
        let long = "a".repeat(64);
        for bad in ["", ".", "a..b", "a b", long.as_str(), &"a.".repeat(130)] {
            assert!(encode_name(bad).is_none(), "{bad:?}");
        }
    }

    async fn asked(
        answer: impl Fn(usize, &[u8]) -> Option<Vec<u8>>,
    ) -> Result<Vec<Ipv4Addr>, DnsError> {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let SocketAddr::V4(address) = server.local_addr().unwrap() else {
            unreachable!("bound to IPv4");
        };
        let serve = async {
            let mut buffer = [0; 512];
            for attempt in 0.. {
                let (length, from) = server.recv_from(&mut buffer).await.unwrap();
                let Some(mut bytes) = answer(attempt, &buffer[..length]) else {
                    continue;
                };
                bytes[..2].copy_from_slice(&buffer[..2]);
                server.send_to(&bytes, from).await.unwrap();
            }
        };
        let patience = Patience {
            each: Duration::from_millis(200),
            attempts: 3,
        };
        tokio::select! {
            () = serve => unreachable!("serves for ever"),
            outcome = lookup(&client, address, NAME, patience) => outcome,
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn a_lost_question_is_asked_again() {
        let answer = |attempt, query: &[u8]| {
            assert_eq!(
                query[12..],
                [encode_name(NAME).unwrap(), vec![0, 1, 0, 1]].concat()
            );
            (attempt == 1).then(|| response(NAME, 0, &[("", 1, a(5))]))
        };
        assert_eq!(run(asked(answer)).unwrap(), [Ipv4Addr::new(192, 0, 2, 5)]);
    }

    #[test]
    fn each_way_to_have_no_address_is_told_apart() {
        let with = |flags| move |_, _: &[u8]| Some(response(NAME, flags, &[]));
        assert!(matches!(
            run(asked(|_, _| None)),
            Err(DnsError::Silent { .. })
        ));
        assert!(matches!(run(asked(with(0))), Err(DnsError::NoAddress(_))));
        assert!(matches!(run(asked(with(3))), Err(DnsError::NoName(_))));
        assert!(matches!(run(asked(with(5))), Err(DnsError::Refused { .. })));
    }
}
