//! What the servers of a provider have in common.

use std::net::Ipv4Addr;

use serde::Serialize;

/// A provider of WireGuard that gluetun knows by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// AirVPN
    Airvpn,
    /// FastestVPN
    Fastestvpn,
    /// IVPN
    Ivpn,
    /// Mullvad
    Mullvad,
    /// NordVPN
    Nordvpn,
    /// Proton VPN
    Protonvpn,
    /// Surfshark
    Surfshark,
    /// Windscribe
    Windscribe,
}

/// Which ports of its servers a provider lets one choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Ports {
    /// None but the usual one.
    Fixed,
    /// These.
    Among(&'static [u16]),
    /// Any.
    Any,
}

/// What a provider gives to each customer beside the private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Preshared {
    /// No preshared key.
    None,
    /// A preshared key, without which no server answers.
    Needed,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Airvpn,
        Self::Fastestvpn,
        Self::Ivpn,
        Self::Mullvad,
        Self::Nordvpn,
        Self::Protonvpn,
        Self::Surfshark,
        Self::Windscribe,
    ];

    /// As gluetun writes it, in its list of servers too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Airvpn => "airvpn",
            Self::Fastestvpn => "fastestvpn",
            Self::Ivpn => "ivpn",
            Self::Mullvad => "mullvad",
            Self::Nordvpn => "nordvpn",
            Self::Protonvpn => "protonvpn",
            Self::Surfshark => "surfshark",
            Self::Windscribe => "windscribe",
        }
    }

    /// The UDP port of its servers (the default of gluetun's `internal/provider/<name>/connection.go`).
    pub(in crate::config) fn port(self) -> u16 {
        match self {
            Self::Airvpn => 1637,
            Self::Ivpn => 58237,
            Self::Windscribe => 1194,
            Self::Fastestvpn
            | Self::Mullvad
            | Self::Nordvpn
            | Self::Protonvpn
            | Self::Surfshark => 51820,
        }
    }

    /// Which other ports there are (gluetun's `internal/configuration/settings/wireguardselection.go`).
    pub(in crate::config) fn ports(self) -> Ports {
        match self {
            Self::Airvpn => Ports::Among(&[1637, 47107]),
            Self::Ivpn => Ports::Among(&[53, 2049, 2050, 30587, 41893, 48574, 58237]),
            Self::Windscribe => Ports::Among(&[53, 80, 123, 443, 1194, 65142]),
            Self::Mullvad => Ports::Any,
            Self::Fastestvpn | Self::Nordvpn | Self::Protonvpn | Self::Surfshark => Ports::Fixed,
        }
    }

    /// Our address in the tunnel, where it is the same for every customer (gluetun's `internal/provider/<name>`).
    pub(in crate::config) fn address(self) -> Option<Ipv4Addr> {
        match self {
            Self::Nordvpn => Some(Ipv4Addr::new(10, 5, 0, 2)),
            Self::Protonvpn => Some(Ipv4Addr::new(10, 2, 0, 2)),
            Self::Airvpn
            | Self::Fastestvpn
            | Self::Ivpn
            | Self::Mullvad
            | Self::Surfshark
            | Self::Windscribe => None,
        }
    }

    /// Its resolvers in the tunnel, as its own files write them; none where they differ between customers (Windscribe) or
    /// are not known (FastestVPN).
    pub(in crate::config) fn resolvers(self) -> &'static [Ipv4Addr] {
        const AIRVPN: [Ipv4Addr; 1] = [Ipv4Addr::new(10, 128, 0, 1)];
        const IVPN: [Ipv4Addr; 1] = [Ipv4Addr::new(172, 16, 0, 1)];
        const MULLVAD: [Ipv4Addr; 1] = [Ipv4Addr::new(10, 64, 0, 1)];
        const NORDVPN: [Ipv4Addr; 2] = [
            Ipv4Addr::new(103, 86, 96, 100),
            Ipv4Addr::new(103, 86, 99, 100),
        ];
        const PROTONVPN: [Ipv4Addr; 1] = [Ipv4Addr::new(10, 2, 0, 1)];
        const SURFSHARK: [Ipv4Addr; 2] = [
            Ipv4Addr::new(162, 252, 172, 57),
            Ipv4Addr::new(149, 154, 159, 92),
        ];
        match self {
            Self::Airvpn => &AIRVPN,
            Self::Ivpn => &IVPN,
            Self::Mullvad => &MULLVAD,
            Self::Nordvpn => &NORDVPN,
            Self::Protonvpn => &PROTONVPN,
            Self::Surfshark => &SURFSHARK,
            Self::Fastestvpn | Self::Windscribe => &[],
        }
    }

    /// Whether its customers have a preshared key.
    pub(in crate::config) fn preshared(self) -> Preshared {
        match self {
            Self::Airvpn | Self::Windscribe => Preshared::Needed,
            Self::Fastestvpn
            | Self::Ivpn
            | Self::Mullvad
            | Self::Nordvpn
            | Self::Protonvpn
            | Self::Surfshark => Preshared::None,
        }
    }
}

impl std::fmt::Display for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The provider of this name.
pub(in crate::config) fn named(name: &str) -> Option<Provider> {
    let mut all = Provider::ALL.into_iter();
    all.find(|provider| provider.name().eq_ignore_ascii_case(name))
}
