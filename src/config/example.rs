//! A configuration for the tests of other modules: one server known by address, one LAN exception in
//! each direction, a resolver in the tunnel.

use super::{
    Config, Endpoint, Host, Inbound, Lan, Log, LogFormat, LogLevel, Offload, Outbound, Peer,
    PublicKey, Resolvers, Sealed, Secret, Tunnel,
};

pub(crate) fn config() -> Config {
    Config {
        tunnel: Tunnel {
            device: "tun0".parse().unwrap(),
            addresses: vec!["10.64.0.2/32".parse().unwrap()],
            mtu: 1420,
            dns: Resolvers::new(vec!["10.64.0.1".parse().unwrap()]),
            private: Vec::new(),
            offload: Offload::Auto,
            private_key: Secret::new([1; 32]),
            listen_port: None,
            fwmark: None,
        },
        peers: vec![Peer {
            name: Some("home".to_owned()),
            public_key: PublicKey([2; 32]),
            preshared_key: None,
            endpoint: Endpoint {
                host: Host::Address([198, 51, 100, 10].into()),
                port: 51820,
            },
            keepalive: None,
            allowed_ips: vec!["0.0.0.0/0".parse().unwrap()],
        }],
        uplink: None,
        resolver: None,
        lan: Lan {
            inbound: vec![inbound("192.168.1.0/24", "tcp/8080")],
            outbound: vec![outbound("172.30.0.20", "tcp/445")],
        },
        forward: Vec::new(),
        metrics: None,
        control: "/run/vpngw/vpngw.sock".into(),
        sealed: Sealed {
            socket: "/run/vpngw/warden.sock".into(),
            engine_user: 65534,
            without_rules: false,
        },
        log: Log {
            level: LogLevel::Info,
            format: LogFormat::Text,
        },
    }
}

pub(crate) fn inbound(from: &str, to: &str) -> Inbound {
    Inbound::new(from.parse().unwrap(), to.parse().unwrap()).unwrap()
}

pub(crate) fn outbound(to: &str, port: &str) -> Outbound {
    Outbound::new(to.parse().unwrap(), port.parse().unwrap()).unwrap()
}
