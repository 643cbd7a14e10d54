//! A joined program that tries every way out it is asked to try: one implementation of each, for all
//! namespace tests. See `serve.rs` for how it is talked to.

#![allow(
    unreachable_pub,
    reason = "`pub` marks what one file offers to the others"
)]

#[path = "../lab/addresses.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod addresses;
#[path = "../lab/canary.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod canary;
#[path = "../lab/forge.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod forge;
#[path = "../lab/raw.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod raw;

mod admin;
mod calls;
mod device;
mod dns;
mod endpoint;
mod flood;
mod forged;
mod ip;
mod ipv6;
mod memory;
mod message;
mod multicast;
mod packet;
mod persona;
mod ring;
mod serve;
mod socket;
mod xdp;

use std::process::ExitCode;

use socket::Probe;

/// Every family, by the first part of the names of its probes.
const FAMILIES: &[(&str, &[Probe])] = &[
    ("ip", ip::PROBES),
    ("device", device::PROBES),
    ("endpoint", endpoint::PROBES),
    ("dns", dns::PROBES),
    ("multicast", multicast::PROBES),
    ("ipv6", ipv6::PROBES),
    ("packet", packet::PROBES),
    ("ring", ring::PROBES),
    ("forged", forged::PROBES),
    ("xdp", xdp::PROBES),
    ("admin", admin::PROBES),
];

/// `vpngw-probe list` names every probe; `vpngw-probe PERSONA` serves as that persona; `vpngw-probe calls TEXT` says what
/// comes of a few system calls.
fn main() -> ExitCode {
    let word = std::env::args().nth(1).unwrap_or_default();
    if word == "list" {
        for (family, probes) in FAMILIES {
            for probe in *probes {
                println!("{family}/{}", probe.name);
            }
        }
        return ExitCode::SUCCESS;
    }
    if word == "calls" {
        calls::say(&std::env::args().nth(2).unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    if let Err(why) = persona::become_persona(&word) {
        eprintln!("vpngw-probe: this process cannot become `{word}`: {why}");
        return ExitCode::FAILURE;
    }
    match serve::serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("vpngw-probe: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The probe of a name.
fn find(name: &str) -> Option<&'static Probe> {
    let (family, own) = name.split_once('/')?;
    let (_, probes) = FAMILIES.iter().find(|(f, _)| *f == family)?;
    probes.iter().find(|probe| probe.name == own)
}
