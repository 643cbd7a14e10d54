//! Every tunnel has a resolver that it reaches.

use super::*;

#[test]
fn a_single_peer_may_take_less_but_not_so_that_no_name_is_looked_up() {
    let some = WG.replace("0.0.0.0/0", "10.0.0.0/8");
    let warnings = load_from(&[("/wg0.conf", &some)], &[]).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    let left_out = "a part of the Internet is left out";
    assert!(warnings[0].to_string().contains(left_out));
    let other = WG.replace("0.0.0.0/0", "172.16.0.0/12");
    insta::assert_snapshot!(errors(load_from(&[("/wg0.conf", &other)], &[])), @r"
    /wg0.conf:4:7: DNS: the peer's AllowedIPs hold no resolver (10.64.0.1), so no name would be looked up
      |
    4 | DNS = 10.64.0.1
      |       ^^^^^^^^^
      = name a resolver that they hold, or add the address of one to them
    ");
    let nameless = some.replace("DNS = 10.64.0.1\n", "");
    insta::assert_snapshot!(errors(load_from(&[("/wg0.conf", &nameless)], &[])), @r"
    /wg0.conf:7:14: AllowedIPs: the peer's AllowedIPs hold no resolver (9.9.9.9 and 1.1.1.1), so no name would be looked up
      |
    7 | AllowedIPs = 10.0.0.0/8
      |              ^^^^^^^^^^
      = name a resolver that they hold, or add the address of one to them
    ");
    let one = some.replace("DNS = 10.64.0.1\n", "DNS = 10.64.0.1, 9.9.9.9\n");
    let warnings = load_from(&[("/wg0.conf", &one)], &[]).unwrap().warnings;
    assert_eq!(
        warnings[0].wrong,
        "the peer's AllowedIPs do not hold `9.9.9.9`"
    );
}

#[test]
fn a_resolver_of_the_lan_is_a_warning_unless_it_is_said_to_be_inside() {
    let home = WG.replace("DNS = 10.64.0.1", "DNS = 192.168.1.53");
    let said = |toml: &str| {
        let files = [("/c/vpngw.toml", toml), ("/c/wg0.conf", home.as_str())];
        let warnings = load_from(&files, &[]).unwrap().warnings;
        warnings
            .iter()
            .map(Diagnostic::to_string)
            .collect::<String>()
    };
    insta::assert_snapshot!(said(""), @r"
    /c/wg0.conf:4:7: DNS: `192.168.1.53` is asked through the tunnel: a resolver on this LAN is never asked
      |
    4 | DNS = 192.168.1.53
      |       ^^^^^^^^^^^^
      = name the provider's resolver; or, if this one is behind the VPN server, set VPNGW_TUNNEL_PRIVATE=192.168.1.53/32
    ");
    assert_eq!(said("[tunnel]\nprivate = [\"192.168.1.53/32\"]\n"), "");
}

#[test]
fn the_file_comes_before_the_provider_and_the_provider_before_a_public_one() {
    let resolvers = |wg: &str, variables: &[(&str, &str)]| {
        let loaded = load_from(&[("/c/wg0.conf", wg)], variables).unwrap();
        let all = loaded.config.tunnel.resolvers().iter();
        all.map(ToString::to_string).collect::<Vec<_>>()
    };
    let without = WG.replace("DNS = 10.64.0.1\n", "");
    let ivpn = [("VPN_SERVICE_PROVIDER", "ivpn")];
    assert_eq!(resolvers(WG, &ivpn), ["10.64.0.1"]);
    assert_eq!(resolvers(&without, &ivpn), ["172.16.0.1"]);
    assert_eq!(resolvers(&without, &[]), ["9.9.9.9", "1.1.1.1"]);
    let named = [ivpn[0], ("DNS_ADDRESS", "10.9.9.9")];
    assert_eq!(resolvers(WG, &named), ["10.9.9.9"]);
    // What is left out is no resolver.
    let six = WG.replace("DNS = 10.64.0.1", "DNS = fd00::1, example.com");
    assert_eq!(resolvers(&six, &[]), ["9.9.9.9", "1.1.1.1"]);
}

#[test]
fn the_warden_of_the_sealed_topology_has_none_until_its_engine_names_them() {
    let loaded = load_without_tunnel(
        &Sources::default(),
        &|_| Err(io::ErrorKind::NotFound.into()),
    );
    assert_eq!(loaded.unwrap().config.tunnel.dns, None);
}
