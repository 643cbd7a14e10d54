//! gluetun's variables for everything beside the tunnel, as in [`rows`](super::rows), and what becomes of each.

use super::fate::Fate::{Followed, Needless, NotDone, PartOf};
use super::fate::Idle::Off;
use super::fate::{Row, row};

const PROXY: &str = "unset it; a program that joins the namespace needs no proxy, and a proxy for others can join it as a program";

/// By subject.
pub(super) const SERVICES: &[Row] = &[
    // Health.
    row(
        &["HEALTH_SERVER_ADDRESS"],
        NotDone(
            Off(&["127.0.0.1:9999"]),
            "vpngw has no health server of its own",
            "unset it, and let the health check run `vpngw healthcheck`",
        ),
    ),
    row(
        &[
            "HEALTH_TARGET_ADDRESSES",
            "HEALTH_TARGET_ADDRESS",
            "HEALTH_ADDRESS_TO_PING",
        ],
        Needless("the gateway is healthy when the server has answered it: `vpngw healthcheck`"),
    ),
    row(
        &["HEALTH_ICMP_TARGET_IPS", "HEALTH_ICMP_TARGET_IP"],
        Needless("the gateway is healthy when the server has answered it: `vpngw healthcheck`"),
    ),
    row(
        &["HEALTH_SMALL_CHECK_TYPE"],
        Needless("the gateway is healthy when the server has answered it: `vpngw healthcheck`"),
    ),
    row(
        &["HEALTH_RESTART_VPN"],
        Needless("the next server is tried when one has been silent for 15 seconds"),
    ),
    row(
        &[
            "HEALTH_VPN_DURATION_INITIAL",
            "HEALTH_OPENVPN_DURATION_INITIAL",
            "HEALTH_VPN_DURATION_ADDITION",
            "HEALTH_OPENVPN_DURATION_ADDITION",
            "HEALTH_SUCCESS_WAIT_DURATION",
        ],
        Needless("the next server is tried when one has been silent for 15 seconds"),
    ),
    // Control server.
    row(
        &["HTTP_CONTROL_SERVER_ADDRESS", "HTTP_CONTROL_SERVER_PORT"],
        NotDone(
            Off(&[":8000", "8000"]),
            "vpngw has no control server on a port",
            "unset it; `vpngw status --json`, `vpngw connect` and `vpngw disconnect` do the same",
        ),
    ),
    row(
        &["HTTP_CONTROL_SERVER_LOG"],
        PartOf("HTTP_CONTROL_SERVER_ADDRESS"),
    ),
    row(
        &["HTTP_CONTROL_SERVER_AUTH_CONFIG_FILEPATH"],
        NotDone(
            Off(&["/gluetun/auth/config.toml"]),
            "vpngw has no control server on a port",
            "unset it; whoever may open the control socket may use it",
        ),
    ),
    row(
        &["HTTP_CONTROL_SERVER_AUTH_DEFAULT_ROLE"],
        NotDone(
            Off(&["{}"]),
            "vpngw has no control server on a port",
            "unset it; whoever may open the control socket may use it",
        ),
    ),
    // Port forwarding.
    row(
        &[
            "VPN_PORT_FORWARDING",
            "PORT_FORWARDING",
            "PRIVATE_INTERNET_ACCESS_VPN_PORT_FORWARDING",
        ],
        NotDone(
            Off(&[]),
            "vpngw asks no provider for a port",
            "unset it, and name a port that the provider gave you in VPNGW_FORWARD_PORTS",
        ),
    ),
    row(
        &["VPN_PORT_FORWARDING_PROVIDER"],
        PartOf("VPN_PORT_FORWARDING"),
    ),
    row(
        &[
            "VPN_PORT_FORWARDING_LISTENING_PORTS",
            "VPN_PORT_FORWARDING_LISTENING_PORT",
        ],
        PartOf("VPN_PORT_FORWARDING"),
    ),
    row(
        &["VPN_PORT_FORWARDING_PORTS_COUNT"],
        PartOf("VPN_PORT_FORWARDING"),
    ),
    row(
        &["VPN_PORT_FORWARDING_USERNAME"],
        PartOf("VPN_PORT_FORWARDING"),
    ),
    row(
        &["VPN_PORT_FORWARDING_PASSWORD"],
        PartOf("VPN_PORT_FORWARDING"),
    ),
    row(
        &[
            "VPN_PORT_FORWARDING_STATUS_FILE",
            "PORT_FORWARDING_STATUS_FILE",
            "PRIVATE_INTERNET_ACCESS_VPN_PORT_FORWARDING_STATUS_FILE",
        ],
        PartOf("VPN_PORT_FORWARDING"),
    ),
    row(
        &["VPN_PORT_FORWARDING_UP_COMMAND"],
        NotDone(
            Off(&[]),
            "vpngw runs no command",
            "set the port of VPNGW_FORWARD_PORTS once in the program that listens",
        ),
    ),
    row(
        &["VPN_PORT_FORWARDING_DOWN_COMMAND"],
        NotDone(
            Off(&[]),
            "vpngw runs no command",
            "unset it: programs keep `tun0` and their listeners while the tunnel reconnects",
        ),
    ),
    // Path MTU.
    row(
        &["PMTUD_ICMP_ADDRESSES"],
        Needless("the kernel finds out the path MTU of the tunnel's own flow"),
    ),
    row(
        &["PMTUD_TCP_ADDRESSES"],
        Needless("the kernel finds out the path MTU of the tunnel's own flow"),
    ),
    // Metrics.
    row(
        &["METRICS_TYPE"],
        NotDone(
            Off(&["noop"]),
            "the metrics of vpngw have a switch of their own",
            "set VPNGW_METRICS_LISTEN=127.0.0.1:9586",
        ),
    ),
    row(
        &["METRICS_PROMETHEUS_LISTENING_ADDRESS"],
        PartOf("METRICS_TYPE"),
    ),
    // Public address.
    row(
        &["PUBLICIP_ENABLED"],
        Needless("vpngw asks nobody for the public address"),
    ),
    row(
        &["PUBLICIP_API"],
        Needless("vpngw asks nobody for the public address"),
    ),
    row(
        &["PUBLICIP_API_TOKEN", "PUBLICIP_API_TOKEN_SECRETFILE"],
        Needless("vpngw asks nobody for the public address"),
    ),
    row(
        &["PUBLICIP_FILE", "IP_STATUS_FILE"],
        Needless("vpngw asks nobody for the public address"),
    ),
    row(
        &["PUBLICIP_PERIOD"],
        Needless("vpngw asks nobody for the public address"),
    ),
    // Proxies.
    row(
        &["HTTPPROXY", "PROXY", "TINYPROXY"],
        NotDone(Off(&[]), "vpngw has no HTTP proxy", PROXY),
    ),
    row(&["HTTPPROXY_LISTENING_ADDRESS"], PartOf("HTTPPROXY")),
    row(&["HTTPPROXY_STEALTH"], PartOf("HTTPPROXY")),
    row(&["HTTPPROXY_LOG"], PartOf("HTTPPROXY")),
    row(&["HTTPPROXY_USER"], PartOf("HTTPPROXY")),
    row(&["HTTPPROXY_PASSWORD"], PartOf("HTTPPROXY")),
    row(&["HTTPPROXY_USER_SECRETFILE"], PartOf("HTTPPROXY")),
    row(&["HTTPPROXY_PASSWORD_SECRETFILE"], PartOf("HTTPPROXY")),
    row(&["HTTPPROXY_PORT"], PartOf("HTTPPROXY")),
    row(
        &["SHADOWSOCKS"],
        NotDone(Off(&[]), "vpngw has no Shadowsocks proxy", PROXY),
    ),
    row(&["SHADOWSOCKS_LISTENING_ADDRESS"], PartOf("SHADOWSOCKS")),
    row(&["SHADOWSOCKS_CIPHER"], PartOf("SHADOWSOCKS")),
    row(&["SHADOWSOCKS_PASSWORD"], PartOf("SHADOWSOCKS")),
    row(&["SHADOWSOCKS_LOG"], PartOf("SHADOWSOCKS")),
    row(&["SHADOWSOCKS_PASSWORD_SECRETFILE"], PartOf("SHADOWSOCKS")),
    row(&["SHADOWSOCKS_PORT"], PartOf("SHADOWSOCKS")),
    row(&["SHADOWSOCKS_METHOD"], PartOf("SHADOWSOCKS")),
    row(
        &["SOCKS5_ENABLED"],
        NotDone(Off(&[]), "vpngw has no SOCKS proxy", PROXY),
    ),
    row(&["SOCKS5_LISTENING_ADDRESS"], PartOf("SOCKS5_ENABLED")),
    row(&["SOCKS5_USER"], PartOf("SOCKS5_ENABLED")),
    row(&["SOCKS5_PASSWORD"], PartOf("SOCKS5_ENABLED")),
    row(&["SOCKS5_ALLOWED_CIDRS"], PartOf("SOCKS5_ENABLED")),
    // OpenVPN.
    row(
        &[
            "OPENVPN_USER",
            "OPENVPN_USER_SECRETFILE",
            "OPENVPN_PASSWORD",
            "OPENVPN_PASSWORD_SECRETFILE",
            "OPENVPN_ENDPOINT_IP",
            "OPENVPN_TARGET_IP",
            "OPENVPN_ENDPOINT_PORT",
            "OPENVPN_PORT",
            "OPENVPN_PROTOCOL",
            "OPENVPN_VERSION",
            "OPENVPN_VERBOSITY",
            "OPENVPN_FLAGS",
            "OPENVPN_CIPHERS",
            "OPENVPN_CIPHER",
            "OPENVPN_AUTH",
            "OPENVPN_PROCESS_USER",
            "OPENVPN_ROOT",
            "OPENVPN_MSSFIX",
            "OPENVPN_INTERFACE",
            "OPENVPN_IPV6",
            "OPENVPN_CERT",
            "OPENVPN_CLIENTCRT_SECRETFILE",
            "OPENVPN_KEY",
            "OPENVPN_CLIENTKEY_SECRETFILE",
            "OPENVPN_ENCRYPTED_KEY",
            "OPENVPN_ENCRYPTED_KEY_SECRETFILE",
            "OPENVPN_KEY_PASSPHRASE",
            "OPENVPN_KEY_PASSPHRASE_SECRETFILE",
            "PRIVATE_INTERNET_ACCESS_OPENVPN_ENCRYPTION_PRESET",
        ],
        Needless("WireGuard has no such setting"),
    ),
    row(
        &["OPENVPN_CUSTOM_CONFIG"],
        NotDone(
            Off(&[]),
            "vpngw speaks WireGuard only",
            "unset it, and put a WireGuard file of the provider at /gluetun/wireguard/wg0.conf",
        ),
    ),
    // Everything else.
    row(
        &["UPDATER_PERIOD"],
        NotDone(
            Off(&["0s", "0h"]),
            "vpngw renews no list of servers: it reads the one that gluetun left",
            "unset it, and let gluetun write the list anew now and then; vpngw warns when it is older than 60 days",
        ),
    ),
    row(&["UPDATER_MIN_RATIO"], PartOf("UPDATER_PERIOD")),
    row(&["UPDATER_VPN_SERVICE_PROVIDERS"], PartOf("UPDATER_PERIOD")),
    row(
        &["UPDATER_PREFER_DIRECT_DOWNLOAD"],
        PartOf("UPDATER_PERIOD"),
    ),
    row(&["UPDATER_DNS_ADDRESS"], PartOf("UPDATER_PERIOD")),
    row(&["UPDATER_PROTONVPN_EMAIL"], PartOf("UPDATER_PERIOD")),
    row(&["UPDATER_PROTONVPN_PASSWORD"], PartOf("UPDATER_PERIOD")),
    row(&["UPDATER_PROTONVPN_TOTP_SECRET"], PartOf("UPDATER_PERIOD")),
    row(
        &["VERSION_INFORMATION"],
        Needless("vpngw asks nobody for its version"),
    ),
    row(
        &[
            "PPROF_ENABLED",
            "PPROF_BLOCK_PROFILE_RATE",
            "PPROF_MUTEX_PROFILE_RATE",
            "PPROF_HTTP_SERVER_ADDRESS",
        ],
        Needless("it is for those who develop gluetun"),
    ),
    row(
        &["BORINGPOLL_GLUETUNCOM"],
        Needless("vpngw contacts nobody but the resolver and the servers that are configured"),
    ),
    row(&["LOG_LEVEL"], Followed("`log.level`")),
    row(&["TZ"], Needless("times are logged in UTC")),
    row(&["PUID", "UID"], Needless("vpngw writes no file of yours")),
    row(&["PGID", "GID"], Needless("vpngw writes no file of yours")),
];
