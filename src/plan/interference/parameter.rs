//! Kernel parameters by which traffic is cut, and from which value on it is.
//!
//! Root of a joined container needs no capability to write those of its network namespace
//! (`net_ctl_permissions`, net/sysctl_net.c), where /proc/sys is mounted so that it can be written to.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use crate::net::IfName;

/// The fewest ports that programs and the gateway may be left with for connections of their own.
const PORTS: usize = 1024;

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parameter {
    folder: Folder,
    name: &'static str,
}

/// Where it is, below `/proc/sys/net`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Folder {
    Ipv4,
    Conntrack,
    /// Of ARP and addresses, of all devices together.
    All,
    Conf(IfName),
    Neighbours(IfName),
}

/// Which values cut.
#[derive(Clone, Copy)]
enum Cut {
    /// Less than this.
    Below(u64),
    /// More than this.
    Above(u64),
    /// The second of three numbers is less than this.
    MiddleBelow(u64),
    /// See [`ports_left`].
    Ports,
}

/// Name, what cuts, and the value that the kernel has by itself.
type Entry = (&'static str, Cut, &'static str);

/// Of the namespace (Documentation/networking/ip-sysctl.rst). Each was seen to cut, by writing it and trying TCP and
/// UDP. Defaults: `ipv4_sysctl_init_net`, `inet_init_net` and `tcp_sk_init` in net/ipv4.
const IPV4: &[Entry] = &[
    // Paths across the Internet are up to 30 routers long, and what is sent with less dies on them.
    ("ip_default_ttl", Cut::Below(32), "64"),
    ("ip_local_port_range", Cut::Ports, "32768 60999"),
    ("ip_local_reserved_ports", Cut::Ports, ""),
    // A segment of 1,024 bytes fits the smallest MTU that paths of today have (RFC 8200: 1,280).
    ("tcp_min_snd_mss", Cut::Above(1024), "48"),
    ("tcp_notsent_lowat", Cut::Below(4096), "4294967295"),
    // One page: less than that is no window.
    ("tcp_rmem", Cut::MiddleBelow(4096), "4096 131072 6291456"),
    ("tcp_wmem", Cut::MiddleBelow(4096), "4096 16384 4194304"),
];

/// Of connection tracking, in seconds (Documentation/networking/nf_conntrack-sysctl.rst). An answer that comes after the
/// entry has ended is no answer to the rules, and is dropped.
const CONNTRACK: &[Entry] = &[
    // Our own flow: a handshake is retried each 5 s (WireGuard paper, section 6.4).
    ("nf_conntrack_udp_timeout", Cut::Below(10), "30"),
    // The same: the usual keepalive is 25 s (wg(8), PersistentKeepalive).
    ("nf_conntrack_udp_timeout_stream", Cut::Below(30), "120"),
    ("nf_conntrack_icmp_timeout", Cut::Below(5), "30"),
    ("nf_conntrack_generic_timeout", Cut::Below(10), "600"),
    // A connection that is idle for some minutes is usual; torrent clients send a keepalive each 2 minutes (BEP 3).
    (
        "nf_conntrack_tcp_timeout_established",
        Cut::Below(150),
        "432000",
    ),
    (
        "nf_conntrack_tcp_timeout_unacknowledged",
        Cut::Below(10),
        "300",
    ),
    (
        "nf_conntrack_tcp_timeout_max_retrans",
        Cut::Below(10),
        "300",
    ),
    ("nf_conntrack_tcp_timeout_syn_sent", Cut::Below(5), "120"),
    ("nf_conntrack_tcp_timeout_syn_recv", Cut::Below(5), "60"),
    ("nf_conntrack_tcp_timeout_fin_wait", Cut::Below(5), "120"),
    ("nf_conntrack_tcp_timeout_close_wait", Cut::Below(5), "60"),
    ("nf_conntrack_tcp_timeout_last_ack", Cut::Below(5), "30"),
];

/// Of the uplink, and of all devices. 2 and less answer the router; 8 nobody, and 4 to 7 are reserved.
const CONF: &[Entry] = &[("arp_ignore", Cut::Above(2), "1")];

/// How often the router is asked for by ARP (net/ipv4/arp.c, `arp_tbl`). With `app_solicit` a program is asked
/// first, and there is none.
const NEIGHBOURS: &[Entry] = &[
    ("mcast_solicit", Cut::Below(1), "3"),
    ("ucast_solicit", Cut::Below(1), "3"),
    ("app_solicit", Cut::Above(0), "0"),
];

impl Parameter {
    /// All that are looked at, where `uplink` is the device of the uplink.
    pub fn all(uplink: Option<&IfName>) -> Vec<Self> {
        let mut folders = vec![Folder::Ipv4, Folder::Conntrack, Folder::All];
        if let Some(uplink) = uplink {
            folders.push(Folder::Conf(uplink.clone()));
            folders.push(Folder::Neighbours(uplink.clone()));
        }
        let of = |folder: Folder| {
            let of = |entry: &Entry| Self {
                folder: folder.clone(),
                name: entry.0,
            };
            folder.entries().iter().map(of).collect::<Vec<_>>()
        };
        folders.into_iter().flat_map(of).collect()
    }

    /// The file below `/proc/sys`.
    pub fn path(&self) -> PathBuf {
        let of = |folder: &str, device: &IfName| {
            let device = OsString::from_vec(device.bytes());
            PathBuf::from(folder).join(device)
        };
        let folder = match &self.folder {
            Folder::Ipv4 => PathBuf::from("net/ipv4"),
            Folder::Conntrack => PathBuf::from("net/netfilter"),
            Folder::All => PathBuf::from("net/ipv4/conf/all"),
            Folder::Conf(device) => of("net/ipv4/conf", device),
            Folder::Neighbours(device) => of("net/ipv4/neigh", device),
        };
        folder.join(self.name)
    }

    /// The device that it is of, if it is of one.
    pub(super) fn device(&self) -> Option<&IfName> {
        match &self.folder {
            Folder::Ipv4 | Folder::Conntrack | Folder::All => None,
            Folder::Conf(device) | Folder::Neighbours(device) => Some(device),
        }
    }

    fn entry(&self) -> Option<&'static Entry> {
        let mut entries = self.folder.entries().iter();
        entries.find(|entry| entry.0 == self.name)
    }
}

impl fmt::Display for Parameter {
    /// As sysctl(8) takes it: a dot inside a device's name is written as a slash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        let device = |device: &IfName| device.as_str().replace('.', "/");
        match &self.folder {
            Folder::Ipv4 => write!(f, "net.ipv4.{name}"),
            Folder::Conntrack => write!(f, "net.netfilter.{name}"),
            Folder::All => write!(f, "net.ipv4.conf.all.{name}"),
            Folder::Conf(it) => write!(f, "net.ipv4.conf.{}.{name}", device(it)),
            Folder::Neighbours(it) => write!(f, "net.ipv4.neigh.{}.{name}", device(it)),
        }
    }
}

impl Folder {
    fn entries(&self) -> &'static [Entry] {
        match self {
            Self::Ipv4 => IPV4,
            Self::Conntrack => CONNTRACK,
            Self::All | Self::Conf(_) => CONF,
            Self::Neighbours(_) => NEIGHBOURS,
        }
    }
}

/// The values that parameters have, as the kernel prints them. One that the kernel lacks is not among them.
pub type Values = BTreeMap<Parameter, String>;

/// Each parameter by which traffic is cut now, and the value that it had at first. One that cut already at first gets
/// the kernel's own value: nobody wants it to cut.
pub(super) fn cuts(seen: &Values, first: &Values) -> Vec<(Parameter, String)> {
    let mut found = Vec::new();
    for (parameter, value) in seen {
        let Some((_, cut, default)) = parameter.entry() else {
            continue;
        };
        if !is_cut(*cut, value, seen) {
            continue;
        }
        let before = first.get(parameter).filter(|it| !is_cut(*cut, it, first));
        let before = before.map_or(*default, String::as_str);
        // Of two that cut together, the one that is as it was is not to blame.
        if !same(value, before) {
            found.push((parameter.clone(), before.to_owned()));
        }
    }
    found
}

fn same(one: &str, other: &str) -> bool {
    one.split_ascii_whitespace()
        .eq(other.split_ascii_whitespace())
}

/// What is no number, or below zero, cuts: it is not what the kernel has by itself.
fn is_cut(cut: Cut, value: &str, all: &Values) -> bool {
    let numbers: Vec<Option<u64>> = value
        .split_ascii_whitespace()
        .map(|number| number.parse().ok())
        .collect();
    let number = |at: usize| numbers.get(at).copied().flatten();
    match cut {
        Cut::Below(least) => number(0).is_none_or(|it| it < least),
        Cut::Above(most) => number(0).is_none_or(|it| it > most),
        Cut::MiddleBelow(least) => number(1).is_none_or(|it| it < least),
        Cut::Ports => ports_left(all).is_some_and(|left| left < PORTS),
    }
}

/// How many ports are left for connections: those of the range, without the reserved ones, which are written
/// `1-1023,8080`. `None` where the two cannot be read.
fn ports_left(all: &Values) -> Option<usize> {
    let value = |name| {
        let folder = Folder::Ipv4;
        all.get(&Parameter { folder, name })
    };
    let mut range = value("ip_local_port_range")?
        .split_ascii_whitespace()
        .map(str::parse::<u16>);
    let (first, last) = (range.next()?.ok()?, range.next()?.ok()?);
    let reserved = value("ip_local_reserved_ports").map_or("", String::as_str);
    let pieces = reserved.trim().split(',').filter(|it| !it.is_empty());
    let piece = |text: &str| -> Option<(u16, u16)> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        Some((from.trim().parse().ok()?, to.trim().parse().ok()?))
    };
    // The kernel prints them in order and without overlap (`proc_do_large_bitmap`, kernel/sysctl.c).
    let mut taken = 0;
    for (from, to) in pieces.map(piece).collect::<Option<Vec<_>>>()? {
        let (from, to) = (from.max(first), to.min(last));
        taken += usize::from(to.saturating_add(1).saturating_sub(from));
    }
    Some((usize::from(last.saturating_sub(first)) + 1).saturating_sub(taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(text: &str) -> Parameter {
        let uplink: IfName = "eth0.7".parse().unwrap();
        let mut all = Parameter::all(Some(&uplink)).into_iter();
        all.find(|it| it.to_string() == text).unwrap()
    }

    fn values(all: &[(&str, &str)]) -> Values {
        let value = |(name, value): &(&str, &str)| (parameter(name), (*value).to_owned());
        all.iter().map(value).collect()
    }

    fn text(found: Vec<(Parameter, String)>) -> Vec<String> {
        let text = |(parameter, value)| format!("{parameter}={value}");
        found.into_iter().map(text).collect()
    }

    #[test]
    fn a_dot_in_a_device_name_is_no_separator() {
        let parameter = parameter("net.ipv4.neigh.eth0/7.mcast_solicit");
        let path = parameter.path();
        assert_eq!(path.to_str(), Some("net/ipv4/neigh/eth0.7/mcast_solicit"));
    }

    #[test]
    fn what_the_kernel_has_by_itself_cuts_nothing() {
        let uplink: IfName = "eth0".parse().unwrap();
        let own = |it: Parameter| {
            let default = it.entry().unwrap().2.to_owned();
            (it, default)
        };
        let values: Values = Parameter::all(Some(&uplink)).into_iter().map(own).collect();
        assert_eq!(cuts(&values, &Values::new()), []);
        assert_eq!(cuts(&values, &values), []);
    }

    #[test]
    fn a_value_that_cuts_is_given_back_and_one_that_does_not_stays() {
        let name = "net.netfilter.nf_conntrack_udp_timeout";
        for (at_first, now, expected) in [
            ("60", "0", Some("60")),
            ("60", "-1", Some("60")),
            ("60", "", Some("60")),
            // An operator's wish.
            ("60", "20", None),
            // It cut before the gateway was there.
            ("0", "0", Some("30")),
        ] {
            let found = cuts(&values(&[(name, now)]), &values(&[(name, at_first)]));
            let expected: Vec<_> = expected
                .map(|it| format!("{name}={it}"))
                .into_iter()
                .collect();
            assert_eq!(text(found), expected, "{at_first} {now}");
        }
    }

    #[test]
    fn a_kind_of_its_own_has_its_own_bound() {
        for (name, cut, well) in [
            ("net.ipv4.ip_default_ttl", "1", "128"),
            ("net.ipv4.tcp_rmem", "1\t1\t1", "4096\t87380\t6291456"),
            ("net.ipv4.tcp_min_snd_mss", "4096", "536"),
            ("net.ipv4.conf.all.arp_ignore", "8", "0"),
            ("net.ipv4.neigh.eth0/7.app_solicit", "1", "0"),
        ] {
            let first = Values::new();
            assert_eq!(cuts(&values(&[(name, cut)]), &first).len(), 1, "{name}");
            assert_eq!(cuts(&values(&[(name, well)]), &first), [], "{name}");
        }
    }

    /// Neither is little by itself, but together they leave nothing.
    #[test]
    fn ports_are_cut_by_the_range_and_by_what_is_reserved_together() {
        let both = |range, reserved| {
            values(&[
                ("net.ipv4.ip_local_port_range", range),
                ("net.ipv4.ip_local_reserved_ports", reserved),
            ])
        };
        let first = both("32768\t60999", "8080,9000-9100");
        for (range, reserved, expected) in [
            ("32768\t60999", "", &[][..]),
            ("40000\t41100", "8080", &[]),
            ("40000\t40100", "8080,9000-9100", &["range=32768\t60999"]),
            ("32768\t60999", "1-65535", &["reserved=8080,9000-9100"]),
            (
                "40000\t42000",
                "40100-41999",
                &["range=32768\t60999", "reserved=8080,9000-9100"],
            ),
        ] {
            let found = text(cuts(&both(range, reserved), &first));
            let short = |it: &String| {
                it.replace("net.ipv4.ip_local_port_", "")
                    .replace("net.ipv4.ip_local_reserved_ports", "reserved")
            };
            let found: Vec<_> = found.iter().map(short).collect();
            assert_eq!(found, expected, "{range} {reserved}");
        }
    }
}
