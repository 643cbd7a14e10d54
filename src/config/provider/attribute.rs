//! What servers are chosen by.

use super::list::Server;

/// What a server has one of, or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::config) enum Attribute {
    Country,
    Region,
    City,
    Hostname,
    Name,
    Number,
    Category,
    Isp,
}

/// What a server has or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::config) enum Only {
    Owned,
    Free,
    Premium,
    Stream,
    MultiHop,
    PortForward,
    SecureCore,
    Tor,
}

impl Attribute {
    /// Its key below `[provider]`.
    pub(in crate::config) fn path(self) -> &'static str {
        match self {
            Self::Country => "provider.countries",
            Self::Region => "provider.regions",
            Self::City => "provider.cities",
            Self::Hostname => "provider.hostnames",
            Self::Name => "provider.names",
            Self::Number => "provider.numbers",
            Self::Category => "provider.categories",
            Self::Isp => "provider.isps",
        }
    }

    /// Several of them, in words.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Country => "countries",
            Self::Region => "regions",
            Self::City => "cities",
            Self::Hostname => "hostnames",
            Self::Name => "server names",
            Self::Number => "server numbers",
            Self::Category => "categories",
            Self::Isp => "ISPs",
        }
    }

    /// What a server has of it.
    pub(super) fn of(self, server: &Server) -> Vec<&str> {
        let texts: Vec<&str> = match self {
            Self::Country => vec![&server.country],
            Self::Region => vec![&server.region],
            Self::City => vec![&server.city],
            Self::Hostname => vec![&server.hostname],
            Self::Name => vec![&server.name],
            Self::Number => vec![&server.number],
            Self::Category => server.categories.iter().map(String::as_str).collect(),
            Self::Isp => vec![&server.isp],
        };
        texts.into_iter().filter(|text| !text.is_empty()).collect()
    }
}

impl Only {
    /// Its key below `[provider]`.
    pub(in crate::config) fn path(self) -> &'static str {
        match self {
            Self::Owned => "provider.owned_only",
            Self::Free => "provider.free_only",
            Self::Premium => "provider.premium_only",
            Self::Stream => "provider.stream_only",
            Self::MultiHop => "provider.multihop_only",
            Self::PortForward => "provider.port_forward_only",
            Self::SecureCore => "provider.secure_core_only",
            Self::Tor => "provider.tor_only",
        }
    }

    /// What such a server is or does.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Owned => "is owned by the provider",
            Self::Free => "is free",
            Self::Premium => "is for premium accounts",
            Self::Stream => "is for streaming",
            Self::MultiHop => "has several hops",
            Self::PortForward => "forwards ports",
            Self::SecureCore => "has a secure core",
            Self::Tor => "leads to Tor",
        }
    }

    /// Whether a server has it.
    pub(super) fn of(self, server: &Server) -> bool {
        match self {
            Self::Owned => server.owned,
            Self::Free => server.free,
            Self::Premium => server.premium,
            Self::Stream => server.stream,
            Self::MultiHop => server.multihop,
            Self::PortForward => server.port_forward,
            Self::SecureCore => server.secure_core,
            Self::Tor => server.tor,
        }
    }
}
