//! Who waits at which port: /proc/net/tcp and its kin.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::facts::Bound;
use crate::net::{Port, Transport};

/// Sockets of this network namespace that wait for connections or datagrams; `None` if one of the files
/// cannot be read.
pub(super) fn bound() -> Option<BTreeSet<Bound>> {
    let mut found = BTreeSet::new();
    for (name, transport) in [
        ("tcp", Transport::Tcp),
        ("tcp6", Transport::Tcp),
        ("udp", Transport::Udp),
        ("udp6", Transport::Udp),
    ] {
        match fs::read_to_string(format!("/proc/self/net/{name}")) {
            Ok(text) => found.extend(
                text.lines()
                    .skip(1)
                    .filter_map(|line| socket(line, transport)),
            ),
            // A kernel without IPv6.
            Err(error) if name.ends_with('6') && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    Some(found)
}

/// `TCP_LISTEN` and, for UDP sockets that are not connected, `TCP_CLOSE` (include/net/tcp_states.h).
const LISTENING: u8 = 10;
const UNCONNECTED: u8 = 7;

/// One line: number, local address, remote address, state, all in hexadecimal (proc(5)); addresses in words of
/// four bytes as they lie in memory.
fn socket(line: &str, transport: Transport) -> Option<Bound> {
    let mut fields = line.split_ascii_whitespace();
    let (address, number) = fields.nth(1)?.split_once(':')?;
    let state = u8::from_str_radix(fields.nth(1)?, 16).ok()?;
    let waits = match transport {
        Transport::Tcp => LISTENING,
        Transport::Udp => UNCONNECTED,
    };
    let number = u16::from_str_radix(number, 16).ok()?;
    (state == waits && number != 0).then_some(Bound {
        port: Port { transport, number },
        address: ipv4(address)?,
    })
}

/// The address, or the one of IPv4 that it stands for; the inner `None` for one of IPv6 alone. A wildcard of
/// IPv6 takes IPv4 too, unless its program said otherwise, which is not told here.
fn ipv4(text: &str) -> Option<Option<Ipv4Addr>> {
    let words = (0..text.len()).step_by(8).map(|at| {
        let word = u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let bytes = words.collect::<Option<Vec<_>>>()?.concat();
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Some(bytes.into()));
    }
    let address = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
    Some(if address.is_unspecified() {
        Some(Ipv4Addr::UNSPECIFIED)
    } else {
        address.to_ipv4_mapped()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_a_socket() {
        let line =
            "   0: 0B00007F:A35D 00000000:0000 07 00000000:00000000 00:00000000 00000000     0 0 1";
        let docker = socket(line, Transport::Udp).unwrap();
        assert_eq!(docker.port.to_string(), "udp/41821");
        assert_eq!(docker.address, Some([127, 0, 0, 11].into()));
        assert_eq!(socket(line, Transport::Tcp), None);
    }

    #[test]
    fn a_wildcard_of_ipv6_takes_ipv4() {
        let any = "0: 00000000000000000000000000000000:1F90 0:0 0A";
        let any = socket(any, Transport::Tcp).unwrap();
        assert_eq!(
            (any.port.number, any.address),
            (8080, Some(Ipv4Addr::UNSPECIFIED))
        );
        let own = "0: 00000000000000000000000001000000:1F90 0:0 0A";
        assert_eq!(socket(own, Transport::Tcp).unwrap().address, None);
    }

    #[test]
    fn what_is_no_socket_is_none() {
        for line in [
            "",
            "0:",
            "0: zz:1 0:0 0A",
            "0: 0100007F:0050",
            "0: 0100007F 0:0 0A",
        ] {
            assert_eq!(socket(line, Transport::Tcp), None, "{line}");
        }
    }
}
