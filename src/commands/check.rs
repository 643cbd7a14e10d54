//! `vpngw check`: is the configuration good, and where does each value come from?

use std::io;
use std::path::Path;

use super::exit::Code;
use super::load;
use crate::config::{Errors, Loaded, Origin};

/// Widest column of values, in characters; a longer value pushes only its own source aside.
const WIDEST: usize = 48;

/// What the configuration is to be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// `vpngw run`.
    Run,
    /// `vpngw engine`, the half of the sealed topology that has the tunnel.
    Engine,
}

/// Reads the configuration as that command would.
///
/// # Errors
///
/// Everything that is wrong with it, at once.
pub fn load(config: Option<&Path>, wanted: For) -> Result<Loaded, Errors> {
    match wanted {
        For::Run => load::load(config),
        For::Engine => load::load_sealed(config),
    }
}

/// Prints where each value came from and what was left out, and returns 0; or prints all that is
/// wrong, and returns 2.
///
/// # Errors
///
/// Those of writing.
pub fn run(loaded: Result<Loaded, Errors>, out: &mut impl io::Write) -> io::Result<Code> {
    match loaded {
        Ok(loaded) => {
            table(&loaded.origins, out)?;
            for notice in &loaded.notices {
                write!(out, "\nnote: {notice}")?;
            }
            for warning in &loaded.warnings {
                write!(out, "\nwarning: {warning}")?;
            }
            writeln!(out, "\nThe configuration is valid.")?;
            Ok(Code::Ok)
        }
        Err(errors) => {
            for error in errors.diagnostics() {
                writeln!(out, "error: {error}")?;
            }
            let count = errors.diagnostics().len();
            let noun = if count == 1 { "error" } else { "errors" };
            writeln!(out, "The configuration has {count} {noun}.")?;
            Ok(Code::Usage)
        }
    }
}

fn table(origins: &[Origin], out: &mut impl io::Write) -> io::Result<()> {
    let width = |text: fn(&Origin) -> &str| origins.iter().map(move |o| text(o).chars().count());
    let key = width(|origin| &origin.key)
        .max()
        .unwrap_or_default()
        .max("KEY".len());
    let values = width(|origin| &origin.value).filter(|width| *width <= WIDEST);
    let value = values.max().unwrap_or_default().max("VALUE".len());
    writeln!(out, "{:key$}  {:value$}  SOURCE", "KEY", "VALUE")?;
    for origin in origins {
        writeln!(
            out,
            "{:key$}  {:value$}  {}",
            origin.key, origin.value, origin.source
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    const WG: &str = "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n\
        Address = 10.64.0.2/32, fd00::2/128\nPostUp = iptables -F\n[Peer]\n\
        PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n\
        AllowedIPs = 0.0.0.0/0\nEndpoint = 203.0.113.7:51820\n";

    fn check(text: &'static str) -> (u8, String) {
        let file = Some("/etc/wg0.conf".into());
        let sources = Sources {
            file,
            ..Sources::default()
        };
        let mut out = Vec::new();
        let code = run(load(&sources, &|_| Ok(text.to_owned())), &mut out).unwrap();
        (code as u8, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_good_configuration_prints_its_origins_and_warnings() {
        let (code, text) = check(WG);
        assert_eq!(code, 0);
        insta::assert_snapshot!(text, @r"
        KEY                                      VALUE                                         SOURCE
        wireguard.private_key                    (secret)                                      /etc/wg0.conf:2
        wireguard.address                        10.64.0.2/32                                  /etc/wg0.conf:3
        wireguard.dns                            9.9.9.9, 1.1.1.1                              default
        wireguard.listen_port                    (any)                                         default
        wireguard.fwmark                         (any)                                         default
        wireguard.peers[0].public_key            xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=  /etc/wg0.conf:6
        wireguard.peers[0].endpoint              203.0.113.7:51820                             /etc/wg0.conf:8
        wireguard.peers[0].persistent_keepalive  off                                           default
        wireguard.peers[0].allowed_ips           0.0.0.0/0                                     /etc/wg0.conf:7
        tunnel.device                            tun0                                          default
        tunnel.mtu                               1420                                          default
        tunnel.offload                           auto                                          default
        tunnel.private                           (none)                                        default
        uplink.device                            (of the default route)                        default
        uplink.resolver                          (first of resolv.conf)                        default
        lan.inbound                              (none)                                        default
        lan.outbound                             (none)                                        default
        forward.ports                            (none)                                        default
        metrics.listen                           (off)                                         default
        control.socket                           /run/vpngw/vpngw.sock                         default
        sealed.socket                            /run/vpngw/warden.sock                        default
        sealed.engine_user                       65534                                         default
        sealed.without_rules                     false                                         default
        log.level                                info                                          default
        log.format                               text                                          default

        note: names are looked up by 9.9.9.9 and 1.1.1.1 through the tunnel, since no resolver is named
          = name the provider's own, and nobody else sees them: `DNS = …` in its file, DNS_ADDRESS or VPNGW_WIREGUARD_DNS

        warning: /etc/wg0.conf:3:25: Address: the IPv6 address is left out: IPv6 is off
          |
        3 | Address = 10.64.0.2/32, fd00::2/128
          |                         ^^^^^^^^^^^

        warning: /etc/wg0.conf:4:10: PostUp: it is ignored: vpngw runs no command from a configuration
          |
        4 | PostUp = iptables -F
          |          ^^^^^^^^^^^
          = remove the line, or run the command beside vpngw

        The configuration is valid.
        ");
    }

    #[test]
    fn a_bad_one_prints_every_error_with_its_line() {
        let (code, text) =
            check("[Interface]\nPrivateKey = short\nMTU = 100\n[Peer]\nEndpont = x\n");
        assert_eq!(code, 2);
        insta::assert_snapshot!(text, @r#"
        error: /etc/wg0.conf:1:1: the tunnel has no IPv4 address
          |
        1 | [Interface]
          | ^^^^^^^^^^^
          = write `Address = 10.64.0.2/32` with the address that the provider gave you

        error: /etc/wg0.conf:2:14: PrivateKey: the key has 5 characters, and a key has 44
          |
        2 | PrivateKey = *****
          |              ^^^^^
          = write the whole key as `wg genkey`, `wg pubkey` or `wg genpsk` print it

        error: /etc/wg0.conf:3:7: MTU: `100` is not an MTU
          |
        3 | MTU = 100
          |       ^^^
          = write a number from 576 to 65535 bytes; 1420 suits most links

        error: /etc/wg0.conf:4:1: the peer has no public key
          |
        4 | [Peer]
          | ^^^^^^
          = write `PublicKey = …` with the server's public key

        error: /etc/wg0.conf:4:1: the peer has no endpoint
          |
        4 | [Peer]
          | ^^^^^^
          = write `Endpoint = 203.0.113.7:51820` with the server's address and port

        error: /etc/wg0.conf:4:1: the peer has no IPv4 AllowedIPs
          |
        4 | [Peer]
          | ^^^^^^
          = write `AllowedIPs = 0.0.0.0/0`

        error: /etc/wg0.conf:5:1: `Endpont` is not a key of wg-quick
          |
        5 | Endpont = *
          | ^^^^^^^
          = did you mean `Endpoint`?

        The configuration has 7 errors.
        "#);
    }
}
