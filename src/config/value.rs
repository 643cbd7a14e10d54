//! Single values: from text to what it means, or what is wrong with it and what would be right.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnetwork::Ipv4Network;
use x25519_dalek::StaticSecret;

use super::diagnostic::Problem;
use super::place::quiet;
use super::{Endpoint, Host, LogFormat, LogLevel, Offload, PublicKey, Secret};
use crate::net::networks::{NoHost, host as host_of};
use crate::net::{IfName, NetError, Port};

pub(super) type Parsed<T> = Result<T, Problem>;

/// A value of one IP family or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family<T> {
    V4(T),
    /// Left out: IPv6 is off.
    V6,
}

/// An IPv4 address.
pub(super) fn address(text: &str) -> Parsed<Ipv4Addr> {
    match either_address(text)? {
        Family::V4(address) => Ok(address),
        Family::V6 => Err(Problem::new(
            format!("`{}` is an IPv6 address, and IPv6 is off", quiet(text)),
            "write an IPv4 address, such as `192.168.1.20`",
        )),
    }
}

/// An address of either family.
pub(super) fn either_address(text: &str) -> Parsed<Family<Ipv4Addr>> {
    match text.parse() {
        Ok(IpAddr::V4(address)) => Ok(Family::V4(address)),
        Ok(IpAddr::V6(_)) => Ok(Family::V6),
        Err(_) if text.contains('/') => Err(Problem::new(
            format!("`{}` is a network, and one address is wanted", quiet(text)),
            "write one IPv4 address without a prefix, such as `192.168.1.20`",
        )),
        Err(_) => Err(Problem::new(
            format!("`{}` is not an address", quiet(text)),
            "write an IPv4 address, such as `192.168.1.20`",
        )),
    }
}

/// An address with the prefix of its network, host bits kept; without a prefix, one host.
pub(super) fn either_network(text: &str) -> Parsed<Family<Ipv4Network>> {
    let bad = || {
        Problem::new(
            format!("`{}` is not an address with a prefix", quiet(text)),
            "write an IPv4 address and a prefix of 0 to 32, such as `10.64.0.2/32`",
        )
    };
    let (host, prefix) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = host.trim().parse().map_err(|_| bad())?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix.trim() {
        "" if !text.contains('/') => bits,
        digits => number(digits)
            .and_then(|n| u8::try_from(n).ok())
            .ok_or_else(bad)?,
    };
    match address {
        IpAddr::V4(address) => Ipv4Network::new(address, prefix)
            .map(Family::V4)
            .map_err(|_| bad()),
        IpAddr::V6(_) if prefix <= bits => Ok(Family::V6),
        IpAddr::V6(_) => Err(bad()),
    }
}

/// An IPv4 network without host bits.
pub(super) fn network(text: &str) -> Parsed<Ipv4Network> {
    let network = match either_network(text)? {
        Family::V4(network) => network,
        Family::V6 => {
            return Err(Problem::new(
                format!("`{}` is an IPv6 network, and IPv6 is off", quiet(text)),
                "write an IPv4 network, such as `192.168.1.0/24`",
            ));
        }
    };
    if network.ip() == network.network() {
        return Ok(network);
    }
    let (first, prefix) = (network.network(), network.prefix());
    Err(Problem::new(
        format!("`{network}` is a host in a network, not the network"),
        format!(
            "write `{first}/{prefix}` for the network, `{}/32` for the host",
            network.ip()
        ),
    ))
}

/// `host:port` of a VPN server.
pub(super) fn endpoint(text: &str) -> Parsed<Endpoint> {
    let right = "write `203.0.113.7:51820` or `vpn.example.com:51820`";
    let v6 = |host: &str| {
        let inner = host.trim_start_matches('[').trim_end_matches(']');
        inner
            .split('%')
            .next()
            .unwrap_or_default()
            .parse::<Ipv6Addr>()
            .is_ok()
    };
    let six = || {
        Problem::new(
            format!("`{}` is an IPv6 endpoint, and IPv6 is off", quiet(text)),
            "write the server's IPv4 address, such as `203.0.113.7:51820`, or a name that has one",
        )
    };
    if v6(text) {
        return Err(six());
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(Problem::new(
            format!("`{}` has no port", quiet(text)),
            right,
        ));
    };
    if v6(host) {
        return Err(six());
    }
    let port = port_number(port)?;
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(Endpoint {
            host: Host::Address(reachable(address)?),
            port,
        });
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Err(unreachable(host, NoHost::Loopback));
    }
    if !is_host_name(host) {
        let wrong = format!(
            "`{}` is neither an IPv4 address nor a host name",
            quiet(host)
        );
        return Err(Problem::new(wrong, right));
    }
    Ok(Endpoint {
        host: Host::Name(host.to_owned()),
        port,
    })
}

/// An address that a packet can be sent to and answered from.
pub(super) fn reachable(address: Ipv4Addr) -> Parsed<Ipv4Addr> {
    host_of(address).map_err(|why| unreachable(&address.to_string(), why))
}

fn unreachable(host: &str, why: NoHost) -> Problem {
    Problem::new(
        format!("`{host}` {why}"),
        "write the address of one other host",
    )
}

/// RFC 1123, section 2.1, and underscores, which are common; a last label of digits is an address
/// gone wrong.
fn is_host_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let good = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253 && host.split('.').all(good) && last.bytes().any(|b| !b.is_ascii_digit())
}

/// A domain that a resolver would append, as in wg-quick's `DNS`.
pub(super) fn is_search_domain(text: &str) -> bool {
    is_host_name(text)
}

/// A private or preshared key. The text never appears in the problem.
pub(super) fn secret(text: &str) -> Parsed<Secret> {
    let key = Secret::from_base64(text).ok_or_else(|| not_a_key(text))?;
    if key.expose().iter().all(|byte| *byte == 0) {
        return Err(zero_key());
    }
    Ok(key)
}

/// A public key. The text never appears in the problem: it may be a private key in the wrong place.
pub(super) fn public_key(text: &str) -> Parsed<PublicKey> {
    let key = PublicKey::from_base64(text).ok_or_else(|| not_a_key(text))?;
    if key.0 == [0; 32] {
        return Err(zero_key());
    }
    // A few more agree with everybody on zero (RFC 7748, section 6.1): no handshake would ever begin.
    let shared = StaticSecret::from([1; 32]).diffie_hellman(&x25519_dalek::PublicKey::from(key.0));
    if !shared.was_contributory() {
        return Err(Problem::new(
            "no private key belongs to this key",
            "write the peer's public key as `wg pubkey` prints it",
        ));
    }
    Ok(key)
}

fn not_a_key(text: &str) -> Problem {
    let wrong = match text.chars().count() {
        0 => "the key is empty".to_owned(),
        44 => "the key has 44 characters, but is not base64 of 32 bytes".to_owned(),
        length => format!("the key has {length} characters, and a key has 44"),
    };
    Problem::new(
        wrong,
        "write the whole key as `wg genkey`, `wg pubkey` or `wg genpsk` print it",
    )
}

fn zero_key() -> Problem {
    Problem::new(
        "the key is all zeros",
        "write a real key, or leave an unused preshared key out",
    )
}

/// A port number, 1 to 65535.
pub(super) fn port_number(text: &str) -> Parsed<u16> {
    ranged(text, 1, 65535, "a port", "")
}

/// A source port; 0 means any.
pub(super) fn listen_port(text: &str) -> Parsed<Option<u16>> {
    ranged(text, 0, 65535, "a port", "; 0 picks one").map(|n| (n > 0).then_some(n))
}

/// Bytes of the largest inner packet. RFC 791 guarantees 576; an IP packet has at most 65535.
pub(super) fn mtu(text: &str) -> Parsed<u16> {
    ranged(text, 576, 65535, "an MTU", " bytes; 1420 suits most links")
}

/// Seconds between keepalives, `off` or 0 for none (wg(8)).
pub(super) fn keepalive(text: &str) -> Parsed<Option<u16>> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let seconds = ranged(text, 0, 65535, "a keepalive interval", " seconds, or `off`")?;
    Ok((seconds > 0).then_some(seconds))
}

/// A mark: decimal, `0x` hexadecimal, `off` or 0 for none (wg(8)).
pub(super) fn fwmark(text: &str) -> Parsed<Option<u32>> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let mark = match digits {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
            u32::from_str_radix(digits, 16).ok()
        }
        Some(_) => None,
        None => number(text).and_then(|n| u32::try_from(n).ok()),
    };
    let problem = || {
        Problem::new(
            format!("`{}` is not a mark", quiet(text)),
            "write a number of 32 bits, such as `51820` or `0xca6c`, or `off`",
        )
    };
    mark.map(|n| (n > 0).then_some(n)).ok_or_else(problem)
}

fn ranged(text: &str, least: u16, most: u16, what: &str, hint: &str) -> Parsed<u16> {
    let value = number(text).and_then(|n| u16::try_from(n).ok());
    value.filter(|n| (least..=most).contains(n)).ok_or_else(|| {
        Problem::new(
            format!("`{}` is not {what}", quiet(text)),
            format!("write a number from {least} to {most}{hint}"),
        )
    })
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// A port of one transport, `tcp/8080`.
pub(super) fn port(text: &str) -> Parsed<Port> {
    text.parse().map_err(|_: NetError| {
        Problem::new(
            format!("`{}` is not a port of TCP or UDP", quiet(text)),
            "write `tcp/8080` or `udp/27015`, 1 to 65535",
        )
    })
}

/// A device name.
pub(super) fn device(text: &str) -> Parsed<IfName> {
    let name = text.parse().ok();
    name.filter(IfName::is_plain).ok_or_else(|| {
        Problem::new(
            format!("`{}` is not a device name", quiet(text)),
            "write 1 to 15 printable characters without `/`, `:` or quotes, such as `eth0`",
        )
    })
}

/// An address and port to listen on.
pub(super) fn listen(text: &str) -> Parsed<SocketAddr> {
    let right = "write an IPv4 address and a port, such as `127.0.0.1:9586` or `0.0.0.0:9586`";
    match text.parse() {
        Ok(SocketAddr::V6(_)) => {
            let wrong = format!("`{}` is an IPv6 address, and IPv6 is off", quiet(text));
            Err(Problem::new(wrong, right))
        }
        Ok(address) if address.port() > 0 && !address.ip().is_multicast() => Ok(address),
        Ok(_) | Err(_) => {
            let wrong = format!("`{}` is not an address to listen on", quiet(text));
            Err(Problem::new(wrong, right))
        }
    }
}

/// A path of a UNIX socket: absolute, at most 107 bytes (`sun_path`, unix(7)).
pub(super) fn socket(text: &str) -> Parsed<PathBuf> {
    let good = text.starts_with('/') && !text.ends_with('/') && text.len() <= 107;
    if good && !text.contains('\0') {
        return Ok(PathBuf::from(text));
    }
    Err(Problem::new(
        format!("`{}` is not a path of a socket", quiet(text)),
        "write an absolute path of at most 107 bytes, such as `/run/vpngw/vpngw.sock`",
    ))
}

/// A user by number. 2^32 - 1 means "no user" to the kernel (include/linux/uidgid.h, `INVALID_UID`).
pub(super) fn user(text: &str) -> Parsed<u32> {
    let number = number(text).and_then(|n| u32::try_from(n).ok());
    number.filter(|n| *n != u32::MAX).ok_or_else(|| {
        Problem::new(
            format!("`{}` is not the number of a user", quiet(text)),
            "write a number, such as `65534`, which is `nobody`",
        )
    })
}

/// A path of a file.
pub(super) fn path(text: &str) -> Parsed<PathBuf> {
    if text.is_empty() || text.contains('\0') {
        return Err(Problem::new(
            "the path is empty",
            "write the path of a wg-quick file",
        ));
    }
    Ok(PathBuf::from(text))
}

/// `auto` or `off`.
pub(super) fn offload(text: &str) -> Parsed<Offload> {
    choice(text, &[("auto", Offload::Auto), ("off", Offload::Off)])
}

/// `true` or `false`.
pub(super) fn flag(text: &str) -> Parsed<bool> {
    choice(text, &[("true", true), ("false", false)])
}

/// A log level.
pub(super) fn level(text: &str) -> Parsed<LogLevel> {
    use LogLevel::{Debug, Error, Info, Trace, Warn};
    choice(
        text,
        &[
            ("error", Error),
            ("warn", Warn),
            ("info", Info),
            ("debug", Debug),
            ("trace", Trace),
        ],
    )
}

/// A log format.
pub(super) fn format(text: &str) -> Parsed<LogFormat> {
    choice(
        text,
        &[("text", LogFormat::Text), ("json", LogFormat::Json)],
    )
}

/// One of these words.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Parsed<T> {
    let found = choices.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = choices
            .iter()
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        let wrong = format!("`{}` is none of the choices", quiet(text));
        Problem::new(wrong, format!("write {}", names.join(" or ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_with_host_bits_is_answered_with_the_right_one() {
        let problem = network("192.168.1.5/24").unwrap_err();
        assert!(
            problem.right.contains("`192.168.1.0/24`"),
            "{}",
            problem.right
        );
        assert_eq!(
            network("192.168.1.5").unwrap().to_string(),
            "192.168.1.5/32"
        );
        for bad in [
            "",
            "/",
            "1.2.3.4/",
            "1.2.3.4/33",
            "1.2.3/8",
            "fd00::/8",
            "1.2.3.4/+8",
        ] {
            assert!(network(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_endpoint_is_an_ipv4_address_or_a_name_with_a_port() {
        for good in [
            "203.0.113.7:51820",
            "vpn.example.com:1",
            "a_b.example.com:65535",
        ] {
            assert!(endpoint(good).is_ok(), "{good:?}");
        }
        for six in ["[2001:db8::1]:51820", "2001:db8::1", "[fe80::1%eth0]:1"] {
            assert!(endpoint(six).unwrap_err().wrong.contains("IPv6"), "{six:?}");
        }
        for bad in [
            "",
            ":",
            "a",
            "a:",
            "a:0",
            "a:65536",
            "127.0.0.1:1",
            "224.0.0.1:1",
            "0.0.0.0:1",
            "255.255.255.255:1",
            "localhost:1",
            "1.2.3:1",
            "300.1.1.1:1",
            "-a:1",
            "a b:1",
            "a..b:1",
        ] {
            assert!(endpoint(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_mark_and_a_keepalive_may_be_off() {
        assert_eq!(fwmark("0xCA6C").unwrap(), Some(0xca6c));
        assert_eq!(fwmark("51820").unwrap(), Some(51820));
        assert_eq!(fwmark("OFF").unwrap(), None);
        assert!(fwmark("0x1ffffffff").is_err() && fwmark("0x").is_err() && fwmark("0x+1").is_err());
        assert_eq!(keepalive("25").unwrap(), Some(25));
        assert_eq!(keepalive("off").unwrap(), None);
        assert!(keepalive("65536").is_err() && keepalive("-1").is_err());
    }

    #[test]
    fn a_key_of_zeros_is_no_key() {
        let zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        assert!(secret(zeros).is_err() && public_key(zeros).is_err());
        assert!(public_key(&zeros.replacen("AA", "AQ", 1)).is_err());
    }
}
