//! Small values that everything else is made of: device names, ports, marks.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

pub mod mtu;
pub mod networks;

/// The name of a network device: 1 to 15 bytes, no slash, no white space (`IFNAMSIZ`, linux/if.h;
/// `dev_valid_name`, net/core/dev.c).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(String);

impl IfName {
    /// The name as the kernel writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IfName {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let valid = !text.is_empty()
            && text.len() <= 15
            && text != "."
            && text != ".."
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'"');
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(NetError::IfName(text.to_owned()))
        }
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
    #[error("`{0}` is not a device name: 1 to 15 printable characters without `/`, `:` or quotes")]
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
            "a\"b",
            "a:b",
        ] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?}");
        }
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
