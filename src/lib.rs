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
//! | 6 | [`sys`] | the kernel: netlink, ioctl, /proc |
//! | 6 | [`wireguard`] | the data plane |
//! | 6 | [`dns`] | looks up the endpoint's name |
//! | 6 | [`leak`] | what left by the uplink |
//! | 7 | [`link`] | the protocol between warden and engine |
//! | 7 | [`control`] | the API on the control socket |
//! | 8 | [`metrics`] | what Prometheus reads |
//! | 9 | [`warden`] | the privileged half |
//! | 9 | [`engine`] | the unprivileged half |
//! | 10 | [`commands`] | one file for each subcommand |
//! | 11 | [`cli`] | the command line |

pub mod net;

pub mod config;

pub mod policy;

pub mod gateway;
pub mod ruleset;

pub mod plan;

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
