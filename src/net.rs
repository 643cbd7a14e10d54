//! Small values that everything else is made of: device names, ports, marks.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

pub mod beside;
pub mod inside;
pub mod lan;
pub mod mtu;
pub mod networks;
pub mod ports;
mod stamp;

pub use stamp::{Stamp, Stamps};

/// The name of a network device as the kernel takes it: 1 to 15 bytes, no slash, colon or white space
/// (`IFNAMSIZ`, linux/if.h; `dev_valid_name`, net/core/dev.c). Held as text that is safe in a log, in
/// nft and in a path: what is not a printable character of ASCII, and `"`, `*` and `\`, is written `\x22`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(String);

impl IfName {
    /// The name as text, which for all but odd names is the name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as the kernel has it.
    pub fn bytes(&self) -> Vec<u8> {
        unescape(&self.0)
    }

    /// Reads a name of the kernel, without its end mark.
    ///
    /// # Errors
    ///
    /// [`NetError::IfName`] where no device can have it.
    pub fn from_bytes(name: &[u8]) -> Result<Self, NetError> {
        let text: String = name.iter().map(|byte| escape(*byte)).collect();
        // `isspace` of the kernel takes 0xa0 for one (lib/ctype.c).
        let bad = |byte: &u8| matches!(byte, 0 | b'/' | b':' | 9..=13 | b' ' | 0xa0);
        let valid = (1..=15).contains(&name.len())
            && name != b"."
            && name != b".."
            && !name.iter().any(bad);
        if valid {
            Ok(Self(text))
        } else {
            Err(NetError::IfName(text))
        }
    }

    /// Whether the name reads as it is: what a person can be expected to write.
    pub fn is_plain(&self) -> bool {
        !self.0.contains('\\')
    }
}

fn escape(byte: u8) -> String {
    if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'*' | b'\\') {
        char::from(byte).to_string()
    } else {
        format!("\\x{byte:02x}")
    }
}

/// The bytes that [`escape`] wrote; whatever else begins with a backslash stands for itself.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = rest.strip_prefix(b"\\x").and_then(|rest| rest.get(..2));
        let digits = digits.and_then(|digits| str::from_utf8(digits).ok());
        let byte = digits
            .filter(|digits| !digits.starts_with('+'))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = match byte {
            Some(_) => rest.get(4..).unwrap_or_default(),
            None => after,
        };
        bytes.push(byte.unwrap_or(*first));
    }
    bytes
}

impl FromStr for IfName {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        Self::from_bytes(&unescape(text))
    }
}

impl TryFrom<String> for IfName {
    type Error = NetError;

    fn try_from(text: String) -> Result<Self, NetError> {
        text.parse()
    }
}

impl From<IfName> for String {
    fn from(name: IfName) -> Self {
        name.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP, IP protocol 6.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
}

impl Transport {
    /// The protocol number in the IP header (IANA protocol numbers).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of one transport, written `tcp/8080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Port {
    /// TCP or UDP.
    pub transport: Transport,
    /// 1 to 65535.
    pub number: u16,
}

impl FromStr for Port {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let bad = || NetError::Port(text.to_owned());
        let (transport, number) = text.split_once('/').ok_or_else(bad)?;
        let transport = match transport.to_ascii_lowercase().as_str() {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            _ => return Err(bad()),
        };
        match number.parse() {
            Ok(number) if number > 0 && !text.contains('+') => Ok(Self { transport, number }),
            _ => Err(bad()),
        }
    }
}

impl TryFrom<String> for Port {
    type Error = NetError;

    fn try_from(text: String) -> Result<Self, NetError> {
        text.parse()
    }
}

impl From<Port> for String {
    fn from(port: Port) -> Self {
        port.to_string()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.transport, self.number)
    }
}

/// The firewall mark our own UDP socket carries. A label, not a secret: it is matched together with
/// address, ports and the first payload bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fwmark(pub u32);

impl Fwmark {
    /// The mark unless the configuration names one. It has to differ from those of other programs in the
    /// namespace; there is no registry. These are the letters `vp`, twice.
    pub const DEFAULT: Self = Self(0x7670_7670);
}

impl fmt::Display for Fwmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The uplink as observed: its device, our address on it, and the router it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// The device with the route to the Internet.
    pub device: IfName,
    /// Our address on it, with the prefix of the link.
    pub address: Ipv4Network,
    /// The router; `None` on a link where every destination is a neighbour.
    pub gateway: Option<Ipv4Addr>,
}

/// Text that is not the value it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// Not a device name.
    #[error("`{0}` is not a device name: 1 to 15 characters without `/`, `:` or white space")]
    IfName(String),
    /// Not a port.
    #[error("`{0}` is not a port: write `tcp/8080` or `udp/53`, 1 to 65535")]
    Port(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_name_is_what_the_kernel_takes() {
        assert_eq!("eth0".parse::<IfName>().unwrap().as_str(), "eth0");
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "sixteen-letters!",
            "a b",
            "a:b",
            "a\u{a0}b",
        ] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_odd_name_is_shown_in_plain_characters_and_reads_as_it_is_shown() {
        for odd in [
            &b"o\"dd"[..],
            b"a\\x41",
            b"\xff\xfe",
            "\u{fc}ber".as_bytes(),
            b"\x1b[2J",
            b"{,}",
        ] {
            let name = IfName::from_bytes(odd).unwrap();
            assert_eq!(name.bytes(), odd);
            assert!(
                name.as_str()
                    .bytes()
                    .all(|b| b.is_ascii_graphic() && b != b'"'),
                "{name}"
            );
            assert_eq!(name.as_str().parse::<IfName>().unwrap(), name);
        }
        assert_eq!(IfName::from_bytes(b"o\"dd").unwrap().as_str(), "o\\x22dd");
        assert!(IfName::from_bytes(b"\0").is_err());
    }

    #[test]
    fn a_port_reads_as_it_prints() {
        for text in ["tcp/1", "udp/65535"] {
            assert_eq!(text.parse::<Port>().unwrap().to_string(), text);
        }
        for bad in [
            "8080",
            "tcp/0",
            "tcp/65536",
            "sctp/1",
            "tcp/+1",
            "tcp/",
            "tcp/ 1",
        ] {
            assert!(bad.parse::<Port>().is_err(), "{bad:?}");
        }
    }
}
