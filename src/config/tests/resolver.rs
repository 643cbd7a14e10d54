//! Every tunnel has a resolver that it reaches.

use super::*;

#[test]
fn a_single_peer_may_take_less_but_not_so_that_no_name_is_looked_up() {
    let some = WG.replace("0.0.0.0/0", "10.0.0.0/8");
    assert_eq!(
        load_from(&[("/wg0.conf", &some)], &[]).unwrap().warnings,
        []
    );
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
