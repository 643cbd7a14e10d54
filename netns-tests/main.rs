//! Tests of the whole gateway in network namespaces.
//!
//! They need root, or `unshare -Urnm`, and iproute2, nftables, tcpdump, wireguard-tools and wireguard-go. Where they cannot run
//! they fail. Most of their time is spent waiting: run them with `--test-threads=16`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    unreachable_pub,
    reason = "`pub` marks what the lab offers to the tests"
)]

mod lab;
mod probes;
mod rules;
mod selftest;
mod sys;

mod blocked;
mod capture;
mod clock;
mod confirmed;
mod connect;
mod death;
mod detect;
mod devices;
mod dns;
mod doctor;
mod ecn;
mod endpoint;
mod exec;
mod faults;
mod findings;
mod hostile;
mod inner;
mod into_tunnel;
mod ipv6;
mod kernels;
mod lan;
mod leak;
mod leaktest;
mod many;
mod matrix;
mod mtu;
mod networks;
mod ports;
mod provider;
mod raw;
mod reconnect;
mod refused;
mod rekey;
mod reload;
mod sealed;
mod sensors;
mod sleepless;
mod start;
mod status;
mod storm;
mod tamper;
mod tracking;
mod typo;
mod uplink;
