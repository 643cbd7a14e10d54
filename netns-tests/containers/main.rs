//! Tests of what `profiles/` has, with real containers and a real systemd.
//!
//! Each starts a Docker daemon, or boots systemd, of its own inside a namespace of the lab, so that none of its rules,
//! bridges and mounts is the machine's, and everything ends with the test. They need root, `docker.io`,
//! `docker-compose`, `qbittorrent-nox`, `opentracker`, `transmission-cli`, `systemd`, what `scripts/test` puts into
//! `target/tools`, and what the namespace tests need.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    unreachable_pub,
    reason = "`pub` marks what the lab offers to the tests"
)]

#[allow(dead_code, reason = "the namespace tests use the rest")]
#[path = "../lab/mod.rs"]
mod lab;
#[allow(dead_code, reason = "the namespace tests use the rest")]
#[path = "../probes/mod.rs"]
mod probes;

mod docker;
mod joined;
mod stage;
mod swarm;
mod systemd;

mod host;
mod inside;
mod networks;
mod profiles;
mod rejoin;
mod sealed;
mod shared;
mod stranded;
mod torrent;
mod wrong;
