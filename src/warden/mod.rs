//! The privileged half: owns TUN, firewall, addresses, `resolv.conf`. Parses nothing hostile.
