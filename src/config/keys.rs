//! The keys of vpngw.toml, each of which is also a variable.

use super::provider::{Attribute, Only};

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text.
    Text,
    /// A whole number.
    Number,
    /// Yes or no.
    Flag,
    /// A list of texts.
    Texts,
    /// A list of whole numbers.
    Numbers,
    /// A list of tables with these two keys.
    Pairs(&'static str, &'static str),
}

/// A key of vpngw.toml besides those of an inline tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Wireguard,
    TunnelDevice,
    TunnelMtu,
    TunnelOffload,
    TunnelPrivate,
    UplinkDevice,
    UplinkResolver,
    LanInbound,
    LanOutbound,
    ForwardPorts,
    MetricsListen,
    ControlSocket,
    SealedSocket,
    SealedEngineUser,
    SealedWithoutRules,
    LogLevel,
    LogFormat,
    ProviderName,
    ProviderWhere(Attribute),
    ProviderOnly(Only),
    ProviderEndpointIp,
    ProviderEndpointPort,
    ProviderOrder,
    ProviderList,
}

impl Key {
    pub(super) const ALL: [Self; 38] = [
        Self::Wireguard,
        Self::TunnelDevice,
        Self::TunnelMtu,
        Self::TunnelOffload,
        Self::TunnelPrivate,
        Self::UplinkDevice,
        Self::UplinkResolver,
        Self::LanInbound,
        Self::LanOutbound,
        Self::ForwardPorts,
        Self::MetricsListen,
        Self::ControlSocket,
        Self::SealedSocket,
        Self::SealedEngineUser,
        Self::SealedWithoutRules,
        Self::LogLevel,
        Self::LogFormat,
        Self::ProviderName,
        Self::ProviderWhere(Attribute::Country),
        Self::ProviderWhere(Attribute::Region),
        Self::ProviderWhere(Attribute::City),
        Self::ProviderWhere(Attribute::Hostname),
        Self::ProviderWhere(Attribute::Name),
        Self::ProviderWhere(Attribute::Number),
        Self::ProviderWhere(Attribute::Category),
        Self::ProviderWhere(Attribute::Isp),
        Self::ProviderOnly(Only::Owned),
        Self::ProviderOnly(Only::Free),
        Self::ProviderOnly(Only::Premium),
        Self::ProviderOnly(Only::Stream),
        Self::ProviderOnly(Only::MultiHop),
        Self::ProviderOnly(Only::PortForward),
        Self::ProviderOnly(Only::SecureCore),
        Self::ProviderOnly(Only::Tor),
        Self::ProviderEndpointIp,
        Self::ProviderEndpointPort,
        Self::ProviderOrder,
        Self::ProviderList,
    ];

    /// `section.key`, as in vpngw.toml.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Wireguard => "wireguard",
            Self::TunnelDevice => "tunnel.device",
            Self::TunnelMtu => "tunnel.mtu",
            Self::TunnelOffload => "tunnel.offload",
            Self::TunnelPrivate => "tunnel.private",
            Self::UplinkDevice => "uplink.device",
            Self::UplinkResolver => "uplink.resolver",
            Self::LanInbound => "lan.inbound",
            Self::LanOutbound => "lan.outbound",
            Self::ForwardPorts => "forward.ports",
            Self::MetricsListen => "metrics.listen",
            Self::ControlSocket => "control.socket",
            Self::SealedSocket => "sealed.socket",
            Self::SealedEngineUser => "sealed.engine_user",
            Self::SealedWithoutRules => "sealed.without_rules",
            Self::LogLevel => "log.level",
            Self::LogFormat => "log.format",
            Self::ProviderName => "provider.name",
            Self::ProviderWhere(attribute) => attribute.path(),
            Self::ProviderOnly(only) => only.path(),
            Self::ProviderEndpointIp => "provider.endpoint_ip",
            Self::ProviderEndpointPort => "provider.endpoint_port",
            Self::ProviderOrder => "provider.order",
            Self::ProviderList => "provider.list",
        }
    }

    /// `VPNGW_SECTION_KEY`.
    pub(super) fn variable(self) -> String {
        format!(
            "VPNGW_{}",
            self.path().replace('.', "_").to_ascii_uppercase()
        )
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Self::TunnelMtu | Self::SealedEngineUser | Self::ProviderEndpointPort => Kind::Number,
            Self::SealedWithoutRules | Self::ProviderOnly(_) => Kind::Flag,
            Self::ForwardPorts | Self::ProviderWhere(Attribute::Number) => Kind::Numbers,
            Self::TunnelPrivate | Self::ProviderWhere(_) => Kind::Texts,
            Self::LanInbound => Kind::Pairs("from", "to"),
            Self::LanOutbound => Kind::Pairs("to", "port"),
            Self::Wireguard
            | Self::TunnelDevice
            | Self::TunnelOffload
            | Self::UplinkDevice
            | Self::UplinkResolver
            | Self::MetricsListen
            | Self::ControlSocket
            | Self::SealedSocket
            | Self::LogLevel
            | Self::LogFormat
            | Self::ProviderName
            | Self::ProviderEndpointIp
            | Self::ProviderOrder
            | Self::ProviderList => Kind::Text,
        }
    }
}

/// The name most like `given`, unless none is like it: at most half its letters differ, and three.
pub(super) fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_ascii_lowercase();
    if given.len() > 64 {
        return None;
    }
    let distance = |name: &str| edits(given.as_bytes(), name.to_ascii_lowercase().as_bytes());
    let (best, name) = names
        .map(|name| (distance(name), name))
        .min_by_key(|(d, _)| *d)?;
    (best <= (given.len() / 2).min(3)).then_some(name)
}

/// Insertions, deletions and replacements between two texts (Levenshtein), a row at a time.
fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_finds_its_neighbour() {
        let names = || Key::ALL.iter().map(|key| key.path());
        assert_eq!(nearest("tunel.mtu", names()), Some("tunnel.mtu"));
        assert_eq!(nearest("log.levle", names()), Some("log.level"));
        assert_eq!(nearest("zzzzzzzzzz", names()), None);
        assert_eq!(nearest("", names()), None);
    }

    #[test]
    fn edits_count_letters() {
        assert_eq!(edits(b"kitten", b"sitting"), 3);
        assert_eq!(edits(b"", b"abc"), 3);
        assert_eq!(edits(b"same", b"same"), 0);
    }
}
