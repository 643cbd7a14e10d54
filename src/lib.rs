//! vpngw: a userspace VPN gateway that fails closed.
//!
//! The modules in reading order, inside first: rows 1 to 5 are values and pure functions, rows 6 and
//! up touch the kernel, sockets and the clock. A module uses lower rows only.
//!
//! | row | module | what it is |
//! |---|---|---|
//! | 1 | [`net`] | small values |
//! | 2 | [`config`] | what the operator asked for |
//! | 3 | [`policy`] | what may flow, as a value |
//! | 4 | [`ruleset`] | the policy in nftables terms |
//! | 4 | [`gateway`] | the state machine |
//! | 5 | [`plan`] | every change of the kernel, as a value |
//! | 6 | [`guard`] | the kill switch's decisions: events in, things to do out |
//! | 7 | [`sys`] | the kernel: netlink, ioctl, /proc |
//! | 7 | [`wireguard`] | the data plane |
//! | 7 | [`dns`] | looks up the endpoint's name |
//! | 7 | [`leak`] | what left by the uplink |
//! | 8 | [`link`] | the protocol between warden and engine |
//! | 8 | [`control`] | the API on the control socket |
//! | 9 | [`metrics`] | what Prometheus reads |
//! | 10 | [`warden`] | the privileged half |
//! | 10 | [`engine`] | the unprivileged half |
//! | 11 | [`commands`] | one file for each subcommand |
//! | 12 | [`cli`] | the command line |

pub mod net;

pub mod config;

pub mod policy;

pub mod gateway;
pub mod ruleset;

pub mod plan;

pub mod guard;

pub mod dns;
pub mod leak;
pub mod sys;
pub mod wireguard;

pub mod control;
pub mod link;

pub mod metrics;

pub mod engine;
pub mod warden;

pub mod commands;

pub mod cli;

#[cfg(test)]
mod tidy;
