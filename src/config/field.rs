//! The names in a wg-quick file, an inline table, and the variables of a tunnel.

/// The keys of wg(8) and wg-quick(8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    PrivateKey,
    Address,
    Dns,
    Mtu,
    ListenPort,
    FwMark,
    Table,
    PreUp,
    PostUp,
    PreDown,
    PostDown,
    SaveConfig,
    PublicKey,
    PresharedKey,
    Endpoint,
    PersistentKeepalive,
    AllowedIps,
}

impl Field {
    /// All of them: those of `[Interface]`, then those of `[Peer]`.
    pub(super) const ALL: [Self; 17] = [
        Self::PrivateKey,
        Self::Address,
        Self::Dns,
        Self::Mtu,
        Self::ListenPort,
        Self::FwMark,
        Self::Table,
        Self::PreUp,
        Self::PostUp,
        Self::PreDown,
        Self::PostDown,
        Self::SaveConfig,
        Self::PublicKey,
        Self::PresharedKey,
        Self::Endpoint,
        Self::PersistentKeepalive,
        Self::AllowedIps,
    ];

    /// The one of this name, in any letter case.
    pub(super) fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|field| field.name().eq_ignore_ascii_case(name))
    }

    /// Whether wg(8) reads it; the others are wg-quick(8)'s.
    pub(super) fn is_of_wg(self) -> bool {
        match self {
            Self::PrivateKey
            | Self::ListenPort
            | Self::FwMark
            | Self::PublicKey
            | Self::PresharedKey
            | Self::Endpoint
            | Self::PersistentKeepalive
            | Self::AllowedIps => true,
            Self::Address
            | Self::Dns
            | Self::Mtu
            | Self::Table
            | Self::PreUp
            | Self::PostUp
            | Self::PreDown
            | Self::PostDown
            | Self::SaveConfig => false,
        }
    }

    /// As wg-quick(8) writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PrivateKey => "PrivateKey",
            Self::Address => "Address",
            Self::Dns => "DNS",
            Self::Mtu => "MTU",
            Self::ListenPort => "ListenPort",
            Self::FwMark => "FwMark",
            Self::Table => "Table",
            Self::PreUp => "PreUp",
            Self::PostUp => "PostUp",
            Self::PreDown => "PreDown",
            Self::PostDown => "PostDown",
            Self::SaveConfig => "SaveConfig",
            Self::PublicKey => "PublicKey",
            Self::PresharedKey => "PresharedKey",
            Self::Endpoint => "Endpoint",
            Self::PersistentKeepalive => "PersistentKeepalive",
            Self::AllowedIps => "AllowedIPs",
        }
    }

    /// As vpngw.toml writes it.
    pub(super) fn snake(self) -> &'static str {
        match self {
            Self::PrivateKey => "private_key",
            Self::Address => "address",
            Self::Dns => "dns",
            Self::Mtu => "mtu",
            Self::ListenPort => "listen_port",
            Self::FwMark => "fwmark",
            Self::Table => "table",
            Self::PreUp => "pre_up",
            Self::PostUp => "post_up",
            Self::PreDown => "pre_down",
            Self::PostDown => "post_down",
            Self::SaveConfig => "save_config",
            Self::PublicKey => "public_key",
            Self::PresharedKey => "preshared_key",
            Self::Endpoint => "endpoint",
            Self::PersistentKeepalive => "persistent_keepalive",
            Self::AllowedIps => "allowed_ips",
        }
    }

    pub(super) fn of_peer(self) -> bool {
        self >= Self::PublicKey
    }

    /// Whether it may be repeated, and holds a list.
    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::Address | Self::Dns | Self::AllowedIps)
    }

    /// Whether its text is never shown. A public key may be a private key in the wrong place.
    pub(super) fn is_secret(self) -> bool {
        matches!(
            self,
            Self::PrivateKey | Self::PresharedKey | Self::PublicKey
        )
    }

    pub(super) fn is_hook(self) -> bool {
        matches!(
            self,
            Self::PreUp | Self::PostUp | Self::PreDown | Self::PostDown
        )
    }
}
