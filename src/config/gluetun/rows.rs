//! gluetun's variables for the tunnel, the choice of a server, the firewall and DNS (v3.41 and what came to its master branch
//! up to 2026-09: Dockerfile and `internal/configuration`), and what becomes of each.

use super::fate::Fate::{Answered, Followed, Needless, NotDone, PartOf};
use super::fate::Idle::{Off, On};
use super::fate::{Row, row};

/// By subject.
pub(super) const TUNNEL: &[Row] = &[
    // The VPN.
    row(
        &["VPN_SERVICE_PROVIDER", "VPNSP"],
        Answered(
            "followed: `provider.name`, unless it is `custom`; a provider whose servers are not known here is an error",
        ),
    ),
    row(
        &["VPN_TYPE"],
        Answered("`wireguard` is what vpngw speaks; anything else is an error"),
    ),
    row(&["VPN_INTERFACE"], Followed("`tunnel.device`")),
    row(
        &["VPN_UP_COMMAND"],
        NotDone(
            Off(&[]),
            "vpngw runs no command",
            "run it in a container that joins this one and waits for `service_healthy`",
        ),
    ),
    row(
        &["VPN_DOWN_COMMAND"],
        NotDone(
            Off(&[]),
            "vpngw runs no command",
            "watch `vpngw status --json` in a container that joins this one",
        ),
    ),
    // WireGuard.
    row(
        &["WIREGUARD_ENDPOINT_IP", "VPN_ENDPOINT_IP"],
        Answered(
            "followed: the endpoint's address, which may be a name; beside a provider `provider.endpoint_ip`",
        ),
    ),
    row(
        &["WIREGUARD_ENDPOINT_PORT", "VPN_ENDPOINT_PORT"],
        Answered("followed: the endpoint's port; beside a provider `provider.endpoint_port`"),
    ),
    row(
        &["WIREGUARD_PUBLIC_KEY"],
        Answered(
            "followed: `PublicKey`; beside a provider only where there is no list of its servers",
        ),
    ),
    row(
        &["WIREGUARD_PRIVATE_KEY", "WIREGUARD_PRIVATE_KEY_SECRETFILE"],
        Followed("`PrivateKey`"),
    ),
    row(
        &[
            "WIREGUARD_PRESHARED_KEY",
            "WIREGUARD_PRESHARED_KEY_SECRETFILE",
        ],
        Followed("`PresharedKey`"),
    ),
    row(
        &[
            "WIREGUARD_ADDRESSES",
            "WIREGUARD_ADDRESSES_SECRETFILE",
            "WIREGUARD_ADDRESS",
        ],
        Followed("`Address`; IPv6 addresses are left out"),
    ),
    row(&["WIREGUARD_ALLOWED_IPS"], Followed("`AllowedIPs`")),
    row(
        &["WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL"],
        Followed("`PersistentKeepalive`, in whole seconds"),
    ),
    row(&["WIREGUARD_MTU"], Followed("`tunnel.mtu`")),
    row(
        &["WIREGUARD_IMPLEMENTATION"],
        NotDone(
            Off(&["auto", "userspace"]),
            "vpngw speaks WireGuard itself and does not use the kernel's",
            "unset it",
        ),
    ),
    row(
        &["WIREGUARD_GSO"],
        Followed("`tunnel.offload`, where it is off"),
    ),
    row(&["WIREGUARD_CONF_SECRETFILE"], Followed("`wireguard`")),
    row(
        &[
            "AMNEZIAWG_ENDPOINT_IP",
            "AMNEZIAWG_ENDPOINT_PORT",
            "AMNEZIAWG_PUBLIC_KEY",
            "AMNEZIAWG_PRIVATE_KEY",
            "AMNEZIAWG_PRESHARED_KEY",
            "AMNEZIAWG_ADDRESSES",
            "AMNEZIAWG_ALLOWED_IPS",
            "AMNEZIAWG_PERSISTENT_KEEPALIVE_INTERVAL",
            "AMNEZIAWG_MTU",
            "AMNEZIAWG_IMPLEMENTATION",
            "AMNEZIAWG_GSO",
            "AMNEZIAWG_PRIVATE_KEY_SECRETFILE",
            "AMNEZIAWG_PRESHARED_KEY_SECRETFILE",
            "AMNEZIAWG_ADDRESSES_SECRETFILE",
            "AMNEZIAWG_CONF_SECRETFILE",
            "AMNEZIAWG_JC",
            "AMNEZIAWG_JMIN",
            "AMNEZIAWG_JMAX",
            "AMNEZIAWG_S1",
            "AMNEZIAWG_S2",
            "AMNEZIAWG_S3",
            "AMNEZIAWG_S4",
            "AMNEZIAWG_H1",
            "AMNEZIAWG_H2",
            "AMNEZIAWG_H3",
            "AMNEZIAWG_H4",
            "AMNEZIAWG_I1",
            "AMNEZIAWG_I2",
            "AMNEZIAWG_I3",
            "AMNEZIAWG_I4",
            "AMNEZIAWG_I5",
        ],
        PartOf("VPN_TYPE=amneziawg"),
    ),
    // Which server.
    row(
        &["SERVER_COUNTRIES", "COUNTRY"],
        Followed("`provider.countries`"),
    ),
    row(
        &["SERVER_REGIONS", "REGION"],
        Followed("`provider.regions`"),
    ),
    row(&["SERVER_CITIES", "CITY"], Followed("`provider.cities`")),
    row(
        &["SERVER_HOSTNAMES", "SERVER_HOSTNAME"],
        Followed("`provider.hostnames`"),
    ),
    row(
        &["SERVER_NAMES", "SERVER_NAME"],
        Followed("`provider.names`"),
    ),
    row(&["SERVER_NUMBER"], Followed("`provider.numbers`")),
    row(&["SERVER_CATEGORIES"], Followed("`provider.categories`")),
    row(&["ISP"], Followed("`provider.isps`")),
    row(&["OWNED_ONLY", "OWNED"], Followed("`provider.owned_only`")),
    row(&["FREE_ONLY"], Followed("`provider.free_only`")),
    row(&["PREMIUM_ONLY"], Followed("`provider.premium_only`")),
    row(&["STREAM_ONLY"], Followed("`provider.stream_only`")),
    row(&["MULTIHOP_ONLY"], Followed("`provider.multihop_only`")),
    row(
        &["PORT_FORWARD_ONLY"],
        Followed("`provider.port_forward_only`"),
    ),
    row(
        &["SECURE_CORE_ONLY"],
        Followed("`provider.secure_core_only`"),
    ),
    row(&["TOR_ONLY"], Followed("`provider.tor_only`")),
    row(&["SERVER_SELECTION_MODE"], Followed("`provider.order`")),
    row(
        &["STORAGE_SERVERS_DIRECTORY_PATH", "STORAGE_FILEPATH"],
        Followed("`provider.list`"),
    ),
    row(
        &["STORAGE_SERVERS_ENABLED"],
        Needless("vpngw never writes the list"),
    ),
    // Firewall.
    row(
        &[
            "FIREWALL_ENABLED_DISABLING_IT_SHOOTS_YOU_IN_YOUR_FOOT",
            "FIREWALL",
        ],
        NotDone(
            On(&[]),
            "the kill switch cannot be switched off",
            "unset it; `vpngw blocked` shows what it stops, and the line that would let it through",
        ),
    ),
    row(&["FIREWALL_VPN_INPUT_PORTS"], Followed("`forward.ports`")),
    row(
        &["FIREWALL_INPUT_PORTS"],
        Answered(
            "opens nothing, because it does not say who may come: a warning has the line for `lan.inbound`",
        ),
    ),
    row(
        &["FIREWALL_OUTBOUND_SUBNETS", "EXTRA_SUBNETS"],
        Answered(
            "opens nothing, because it names no host and no port: a warning has the lines for `lan.outbound` and `lan.inbound`",
        ),
    ),
    row(
        &["FIREWALL_IPTABLES_LOG_LEVEL", "FIREWALL_DEBUG"],
        NotDone(
            Off(&["info", "warn", "warning", "error"]),
            "vpngw runs no iptables",
            "unset it; `vpngw plan` prints the rules, and VPNGW_LOG_LEVEL=debug logs what is decided",
        ),
    ),
    row(
        &["FIREWALL_IMPLEMENTATION"],
        Needless("the rules are always those of nftables"),
    ),
    row(&["IPV6_CHECK_ADDRESSES"], Needless("IPv6 is off")),
    // DNS.
    row(
        &[
            "DNS_UPSTREAM_PLAIN_ADDRESSES",
            "DNS_PLAINTEXT_ADDRESS",
            "DNS_ADDRESS",
        ],
        Followed("`DNS`: resolvers that are asked through the tunnel"),
    ),
    row(
        &["DNS_UPSTREAM_RESOLVERS", "DOT_PROVIDERS"],
        Followed("`DNS`, with the addresses of these resolvers; in plain DNS through the tunnel"),
    ),
    row(
        &["DNS_SERVER", "DOT"],
        Needless(
            "vpngw is no resolver: programs ask one through the tunnel, and nobody before the VPN's exit sees it",
        ),
    ),
    row(
        &["DNS_UPSTREAM_RESOLVER_TYPE"],
        NotDone(
            Off(&["plain", "dot"]),
            "names are looked up in plain DNS through the tunnel, not over HTTPS",
            "unset it, or let programs use DNS over HTTPS themselves; only the VPN's exit sees plain DNS",
        ),
    ),
    row(&["DNS_UPSTREAM_IPV6", "DOT_IPV6"], Needless("IPv6 is off")),
    row(
        &["DNS_CACHING", "DOT_CACHING"],
        Needless("the resolver in the tunnel has a cache"),
    ),
    row(
        &["BLOCK_MALICIOUS"],
        NotDone(
            On(&["off", "no", "false", "0", "disabled"]),
            "vpngw is no resolver, so it filters no names",
            "unset it, and choose a resolver that filters, such as DNS_UPSTREAM_RESOLVERS=\"cloudflare security\"",
        ),
    ),
    row(
        &["BLOCK_ADS"],
        NotDone(
            Off(&[]),
            "vpngw is no resolver, so it filters no names",
            "unset it, and choose a resolver that filters, such as DNS_UPSTREAM_RESOLVERS=\"cloudflare security\"",
        ),
    ),
    row(
        &["BLOCK_SURVEILLANCE", "BLOCK_NSA"],
        NotDone(
            Off(&[]),
            "vpngw is no resolver, so it filters no names",
            "unset it, and choose a resolver that filters, such as DNS_UPSTREAM_RESOLVERS=\"cloudflare security\"",
        ),
    ),
    row(
        &["DNS_UNBLOCK_HOSTNAMES", "UNBLOCK"],
        Needless("no name is blocked"),
    ),
    row(
        &["DNS_BLOCK_IPS"],
        NotDone(
            Off(&[]),
            "vpngw is no resolver, so it filters no answers",
            "unset it; private addresses are refused to programs anyway, unless `lan` or `tunnel.private` names them",
        ),
    ),
    row(
        &["DNS_BLOCK_IP_PREFIXES", "DOT_PRIVATE_ADDRESS"],
        NotDone(
            Off(&[]),
            "vpngw is no resolver, so it filters no answers",
            "unset it; private addresses are refused to programs anyway, unless `lan` or `tunnel.private` names them",
        ),
    ),
    row(
        &["DNS_REBINDING_PROTECTION_EXEMPT_HOSTNAMES"],
        Needless("no answer is filtered"),
    ),
    row(
        &["DNS_UPDATE_PERIOD"],
        Needless("there are no lists of blocked names to renew"),
    ),
    row(
        &[
            "DOT_VERBOSITY",
            "DOT_VERBOSITY_DETAILS",
            "DOT_VALIDATION_LOGLEVEL",
        ],
        Needless("vpngw is no resolver"),
    ),
    row(
        &["DNS_PUBLIC_NAMES_AS_LOCAL"],
        NotDone(
            Off(&[]),
            "names are looked up through the tunnel only, so none is asked of a resolver on the LAN",
            "unset it, and write such names into `extra_hosts` of the programs",
        ),
    ),
    row(
        &["DNS_PUBLIC_NAMESERVER_CIDRS_AS_LOCAL"],
        NotDone(
            Off(&[]),
            "names are looked up through the tunnel only, so none is asked of a resolver on the LAN",
            "unset it, and write such names into `extra_hosts` of the programs",
        ),
    ),
    row(
        &["DNS_KEEP_NAMESERVER"],
        NotDone(
            Off(&[]),
            "names are never looked up past the tunnel",
            "unset it; DNS_ADDRESS names a resolver that is asked through the tunnel",
        ),
    ),
];
