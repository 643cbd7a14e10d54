//! What the control API says: the schema of `vpngw status --json`, both sides of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

use crate::config::{Inbound, Offload, Outbound, PublicKey};
use crate::gateway::BlockReason;
use crate::leak::evidence::Found;
use crate::net::IfName;
use crate::ruleset::Lack;

pub use crate::leak::stopped::{Line, Report};

/// The state of the gateway. Fields are only ever added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Release of the engine.
    pub version: String,
    /// How the namespaces are laid out.
    pub topology: Topology,
    /// What the gateway is doing.
    pub state: State,
    /// Why, in words; empty when connected and of use.
    pub reason: String,
    /// Why everything but loopback is blocked, as a value; `None` unless `state` is `blocked`.
    #[serde(default)]
    pub blocked_by: Option<BlockReason>,
    /// Whether nothing comes back from beyond the server, though it answers.
    #[serde(default)]
    pub nothing_returns: bool,
    /// When this state began, RFC 3339, UTC.
    pub since: String,
    /// Seconds since this state began.
    pub since_seconds: f64,
    /// The VPN server in use.
    pub endpoint: Option<SocketAddrV4>,
    /// `# name` of the peer, or its host name.
    pub peer: Option<String>,
    /// The server's key, base64.
    #[serde(default, with = "key")]
    pub public_key: Option<PublicKey>,
    /// Seconds since the last handshake.
    pub handshake_age_seconds: Option<f64>,
    /// Inner bytes received since start.
    pub rx_bytes: u64,
    /// Inner bytes sent since start.
    pub tx_bytes: u64,
    /// Inner bits per second received, over the last seconds.
    pub rx_bits_per_second: f64,
    /// Inner bits per second sent, over the last seconds.
    pub tx_bits_per_second: f64,
    /// The kill switch.
    pub kill_switch: KillSwitch,
    /// Leaks.
    pub leaks: Leaks,
    /// LAN exceptions in force.
    pub lan: Lan,
    /// IPv6.
    pub ipv6: Ipv6,
    /// Name resolution.
    pub dns: Dns,
    /// The tunnel device.
    pub tunnel: Tunnel,
    /// What should answer and does not. It is tried again each second.
    #[serde(default)]
    pub unheard: Vec<Unheard>,
}

impl Status {
    /// Whether a joined program has its network and the rules that guard it: what health is.
    pub fn ready(&self) -> bool {
        self.state == State::Connected && self.kill_switch.armed && !self.nothing_returns
    }

    /// One line for a health check: the state, and what a person would ask next.
    pub fn summary(&self) -> String {
        let state = self.state;
        let mut line = match (&self.peer, self.endpoint) {
            (Some(peer), _) => format!("{state}, server {peer}"),
            (None, Some(endpoint)) => format!("{state}, server {endpoint}"),
            (None, None) => state.to_string(),
        };
        if let Some(age) = self.handshake_age_seconds {
            line += &format!(", last handshake {age:.0} s ago");
        }
        if let Some(age) = self.kill_switch.unconfirmed_seconds {
            line +=
                &format!(", kill switch not confirmed: the warden has been silent for {age:.0} s");
        } else if !self.kill_switch.armed {
            line += ", kill switch not confirmed";
        }
        if !self.reason.is_empty() {
            line += &format!(": {}", self.reason);
        }
        printable(&line)
    }
}

/// Names and reasons come from files, from programs and from the network: none of them may steer a terminal.
pub fn printable(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(visible).collect()
}

/// How the namespaces are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topology {
    /// Uplink and joined programs in one namespace.
    Shared,
    /// Joined programs in a namespace without an uplink, the engine in another one.
    Sealed,
}

/// What the gateway is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The kernel has not confirmed the rules.
    Arming,
    /// Rules in force, no handshake yet.
    Connecting,
    /// The server answers.
    Connected,
    /// Loopback only, until an operator says otherwise.
    Blocked,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 4] = [
        Self::Arming,
        Self::Connecting,
        Self::Connected,
        Self::Blocked,
    ];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Arming => "arming",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Blocked => "blocked",
        })
    }
}

/// The kill switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KillSwitch {
    /// Whether the rules are in the kernel, as the warden confirmed within the last 3 s.
    pub armed: bool,
    /// Seconds since the warden last said anything, where that is so long ago that nothing is confirmed.
    #[serde(default)]
    pub unconfirmed_seconds: Option<f64>,
    /// Microseconds from exec to the commit of deny-all.
    pub armed_in_microseconds: u64,
    /// Whether raw frames are stopped too (netdev egress hook).
    pub raw_frames: bool,
    /// What the rules have to do without in this kernel: `rules`, `egress_hook`, `log`, `reject`.
    #[serde(default)]
    pub lacks: Vec<Lack>,
    /// Packets stopped since start.
    pub blocked_packets: u64,
    /// The same by reason.
    pub blocked_by_reason: BTreeMap<String, u64>,
}

/// Leaks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leaks {
    /// Whether every frame that leaves is looked at. Without, `detected` says nothing.
    #[serde(default)]
    pub watched: bool,
    /// Leaks seen since start.
    pub detected: u64,
    /// The last one, in words.
    pub last: Option<String>,
    /// Whether what the uplink sent is held against what the rules let leave, once a second: the only
    /// sensor that sees AF_XDP.
    #[serde(default)]
    pub accounted: bool,
    /// Why it is not.
    #[serde(default)]
    pub not_accounted: Option<String>,
    /// Seconds since a probe out of each device was last refused by the rules.
    #[serde(default)]
    pub proof_age_seconds: Option<f64>,
    /// What the sensors found since start, by kind; with `leaked: false`, changes by others that were undone.
    #[serde(default)]
    pub found: Vec<Found>,
}

/// LAN exceptions in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lan {
    /// Who may reach which port here.
    pub inbound: Vec<Inbound>,
    /// Which host and port may be reached from here.
    pub outbound: Vec<Outbound>,
}

/// IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ipv6 {
    /// Off by sysctl, and dropped by the rules.
    Off,
    /// The sysctl could not be written; dropped by the rules.
    Dropped,
    /// Not known; the rules drop it all the same.
    Unknown,
}

/// Name resolution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Resolvers reached through the tunnel.
    pub servers: Vec<Ipv4Addr>,
    /// Whether `/etc/resolv.conf` names them and nothing else.
    pub resolv_conf: bool,
    /// What keeps it from doing so.
    pub problem: Option<String>,
}

/// The tunnel device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Its name.
    pub device: IfName,
    /// Our addresses inside the tunnel.
    pub address: Vec<Ipv4Network>,
    /// Bytes of the largest inner packet.
    pub mtu: u16,
    /// Whether segmentation offloads may be used.
    pub offload: Offload,
    /// Ports accepted from the tunnel.
    pub forward: Vec<u16>,
}

/// A server that has no socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unheard {
    /// Which.
    pub what: Served,
    /// Why, and what would help.
    pub why: String,
}

/// What is served to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Served {
    /// The control API.
    Control,
    /// `wg show`.
    Wg,
    /// Metrics.
    Metrics,
}

/// What went wrong, as the body of every answer that is not 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// One line for the operator.
    pub error: String,
}

/// A key as wg(8) writes it.
mod key {
    use super::{Deserialize, PublicKey};
    use serde::de::Error;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        key: &Option<PublicKey>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        match key {
            Some(key) => out.collect_str(key),
            None => out.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<PublicKey>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        let key = PublicKey::from_base64(&text);
        key.map(Some)
            .ok_or_else(|| D::Error::custom("`public_key` is not 44 characters of base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::example;

    #[test]
    fn a_status_reads_as_it_is_written() {
        for status in example::all() {
            let json = serde_json::to_string(&status).unwrap();
            assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
        }
    }

    #[test]
    fn the_schema_has_the_names_that_scripts_rely_on() {
        let json = serde_json::to_value(example::connected()).unwrap();
        assert_eq!(json["state"], "connected");
        assert_eq!(json["endpoint"], "198.51.100.10:51820");
        assert_eq!(json["kill_switch"]["armed_in_microseconds"], 3184);
        assert_eq!(json["leaks"]["detected"], 0);
        assert_eq!(json["lan"]["inbound"][0]["to"], "tcp/8080");
        assert_eq!(json["ipv6"], "off");
        assert_eq!(json["tunnel"]["address"][0], "10.64.0.2/32");
        assert_eq!(json["public_key"].as_str().unwrap().len(), 44);
    }

    #[test]
    fn a_field_added_later_does_not_break_a_reader() {
        let mut json = serde_json::to_value(example::connected()).unwrap();
        json["later"] = true.into();
        assert_eq!(
            serde_json::from_value::<Status>(json).unwrap(),
            example::connected()
        );
    }

    #[test]
    fn ready_is_connected_behind_confirmed_rules() {
        assert!(example::connected().ready());
        let mut unarmed = example::connected();
        unarmed.kill_switch.armed = false;
        assert!(!unarmed.ready());
        assert!(!example::connecting().ready());
        assert!(!example::blocked_by_leak().ready());
    }

    #[test]
    fn a_summary_is_one_line() {
        assert_eq!(
            example::connected().summary(),
            "connected, server se-sto-wg-001, last handshake 48 s ago"
        );
        assert!(
            example::blocked_by_leak()
                .summary()
                .starts_with("blocked, server se-sto-wg-001: leak:")
        );
        let mut hostile = example::connecting();
        hostile.reason = "a\n\x1b[2J".to_owned();
        assert!(!hostile.summary().contains(char::is_control));
    }
}
