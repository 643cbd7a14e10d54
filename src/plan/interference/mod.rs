//! What cuts the network of joined programs without opening a way past the tunnel, and what undoes it.
//!
//! Whoever has NET_ADMIN in the namespace can do all of this, and root without a capability can write the parameters.
//! Nothing leaks by it, and none of it makes the handshake fail at once, so without a look of its own nobody would say
//! that it was done. Only what came after the first look is undone: what an operator had set before the gateway
//! started stays.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use super::departed::FarEnd;
use crate::net::IfName;

mod parameter;
#[cfg(test)]
mod tests;

pub use parameter::{Parameter, Values};

/// `TC_H_ROOT` and `TC_H_INGRESS` (linux/pkt_sched.h). `clsact` has the second one too.
const ROOT: u32 = 0xffff_ffff;
const INGRESS: u32 = 0xffff_fff1;

/// The part of a handle that names the queueing discipline (`TC_H_MAJ_MASK`, linux/pkt_sched.h).
const MAJOR: u32 = 0xffff_0000;

/// Devices that are remembered. An uplink that is made anew again and again must not fill the memory.
const REMEMBERED: usize = 64;

/// What one look saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The uplink and the tunnel device, as far as they are there.
    pub devices: Vec<Guarded>,
    /// Kernel parameters that can cut.
    pub values: Values,
}

/// A device that joined programs depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// Its number in this namespace: a device that is made anew has another one.
    pub index: u32,
    /// Its name.
    pub name: IfName,
    /// Which of the two it is.
    pub role: Role,
    /// Whether it asks by ARP for the addresses of its neighbours.
    pub arp: bool,
    /// Whether it has a carrier.
    pub carrier: bool,
    /// Packets that it queues.
    pub queue: u32,
    /// The bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// Its other end, if that is in another namespace.
    pub far_end: Option<FarEnd>,
    /// Its queueing disciplines.
    pub disciplines: Vec<Discipline>,
    /// Neighbours of it that somebody has set for good.
    pub fixed: Vec<Fixed>,
}

/// The two devices that traffic of joined programs passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads out.
    Uplink,
    /// It leads to our engine.
    Tunnel,
}

/// A queueing discipline, as tc(8) has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discipline {
    /// `tbf`, `netem`, `clsact`.
    pub kind: String,
    /// Its own number; 0 for one that the kernel put there by itself.
    pub handle: u32,
    /// What it hangs on.
    pub parent: u32,
}

/// A neighbour whose Ethernet address is not asked for (`NUD_PERMANENT`, `NUD_NOARP`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Its address.
    pub address: Ipv4Addr,
    /// The Ethernet address that was set for it; empty if none was.
    pub link_address: Vec<u8>,
}

/// Something that cuts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// One word for metrics and tables.
    pub kind: &'static str,
    /// What somebody did, in words.
    pub what: String,
    /// What undoes it.
    pub undo: Undo,
}

/// A step that gives the network back. Prints as the command that does the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Undo {
    /// Writes a kernel parameter.
    Write(Parameter, String),
    /// Takes a device out of its bridge, bond or VRF.
    Release(Of),
    /// Lets a device ask by ARP again.
    Ask(Of),
    /// Gives a device its carrier back.
    Carrier(Of),
    /// Gives a device its queue back, of so many packets.
    Queue(Of, u32),
    /// Removes the queueing discipline that hangs there; the kernel puts its own in its place.
    Unshape(Of, u32),
    /// Forgets a neighbour, so that it is asked for.
    Forget(Of, Ipv4Addr),
}

/// The device that a step is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Of {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name.
    pub name: IfName,
}

/// What there was at first, and what was said of since.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    first: Seen,
    standing: BTreeSet<Finding>,
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What it is.
    pub finding: Finding,
    /// Whether the look before did not have it. What could not be undone is tried again each time, and said once.
    pub is_new: bool,
}

impl Memory {
    /// Judges a look, and remembers of it what was not there before: a device that came since is at first as it is
    /// seen first.
    pub fn judge(&mut self, seen: &Seen) -> Vec<Judged> {
        self.remember(seen);
        let found = interference(seen, &self.first);
        let before = std::mem::replace(&mut self.standing, found.iter().cloned().collect());
        let judged = |finding: Finding| Judged {
            is_new: !before.contains(&finding),
            finding,
        };
        found.into_iter().map(judged).collect()
    }

    /// A device is known by its number, which the kernel gives to no other one for long; so it stays known while it is
    /// down or no uplink. A parameter of a device goes with it, and the next one of that name begins anew.
    fn remember(&mut self, seen: &Seen) {
        let first = &mut self.first;
        let known: BTreeSet<u32> = first.devices.iter().map(|it| it.index).collect();
        for device in seen.devices.iter().filter(|it| !known.contains(&it.index)) {
            first
                .values
                .retain(|it, _| it.device() != Some(&device.name));
            first.devices.push(device.clone());
        }
        let excess = first.devices.len().saturating_sub(REMEMBERED);
        first.devices.drain(..excess);
        for (parameter, value) in &seen.values {
            let values = &mut first.values;
            values
                .entry(parameter.clone())
                .or_insert_with(|| value.clone());
        }
    }
}

/// What cuts now and did not at first, each with what undoes it.
pub fn interference(seen: &Seen, first: &Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    for device in &seen.devices {
        let before = first.devices.iter().find(|it| it.index == device.index);
        let before = before.unwrap_or(device);
        found.extend(device.state(before));
        found.extend(device.shaped(before));
        found.extend(device.misled(before));
    }
    let value = |parameter: &Parameter| seen.values.get(parameter).map_or("", String::as_str);
    for (parameter, before) in parameter::cuts(&seen.values, &first.values) {
        let now = value(&parameter)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        found.push(Finding {
            kind: "parameter",
            what: format!("{parameter} was set to `{now}`, which cuts traffic"),
            undo: Undo::Write(parameter, before),
        });
    }
    found
}

impl Guarded {
    fn of(&self) -> Of {
        Of {
            index: self.index,
            name: self.name.clone(),
        }
    }

    /// What was done to the device itself. A carrier that the uplink lacks is a cable that was pulled; the tunnel has
    /// one as long as the gateway holds it.
    fn state(&self, first: &Self) -> Vec<Finding> {
        let name = &self.name;
        let no_carrier = self.role == Role::Tunnel && !self.carrier && first.carrier;
        let steps = [
            (
                self.master.is_some() && self.master != first.master,
                "was made a port of a bridge, bond or VRF, so it receives nothing here",
                Undo::Release(self.of()),
            ),
            (
                !self.arp && first.arp,
                "was told not to ask for its neighbours (ARP off)",
                Undo::Ask(self.of()),
            ),
            (
                no_carrier,
                "was told that it has no carrier",
                Undo::Carrier(self.of()),
            ),
            (
                self.queue == 0 && first.queue > 0,
                "was told to queue no packet",
                Undo::Queue(self.of(), first.queue),
            ),
        ];
        let finding = |(_, words, undo): (bool, &str, Undo)| Finding {
            kind: "device",
            what: format!("{name} {words}"),
            undo,
        };
        steps.into_iter().filter(|it| it.0).map(finding).collect()
    }

    /// Queueing disciplines that somebody put there. Those that hang on another one of them go with it.
    fn shaped(&self, first: &Self) -> Vec<Finding> {
        // One that the kernel puts there by itself has no number, but for the two that only somebody can put there.
        let foreign = |it: &&Discipline| {
            (it.handle != 0 || it.parent == INGRESS) && !first.disciplines.contains(it)
        };
        let foreign: Vec<_> = self.disciplines.iter().filter(foreign).collect();
        let top = |it: &&&Discipline| {
            let below = |other: &&Discipline| other.handle & MAJOR == it.parent & MAJOR;
            matches!(it.parent, ROOT | INGRESS) || !foreign.iter().any(below)
        };
        let finding = |it: &&Discipline| Finding {
            kind: "queue",
            what: format!(
                "{} got a queueing discipline, {}, that was not there at first",
                self.name,
                it.kind.escape_default()
            ),
            undo: Undo::Unshape(self.of(), it.parent),
        };
        foreign.iter().filter(top).map(finding).collect()
    }

    /// Neighbours that somebody set for good. The list is of the router alone.
    fn misled(&self, first: &Self) -> Vec<Finding> {
        let new = self.fixed.iter().filter(|it| !first.fixed.contains(it));
        let finding = |it: &Fixed| Finding {
            kind: "neighbour",
            what: format!(
                "the Ethernet address of {} by {} was set for good, to {}",
                it.address,
                self.name,
                hardware(&it.link_address)
            ),
            undo: Undo::Forget(self.of(), it.address),
        };
        new.map(finding).collect()
    }
}

/// An Ethernet address as `ip` prints it.
fn hardware(address: &[u8]) -> String {
    if address.is_empty() {
        return "nothing".to_owned();
    }
    let bytes: Vec<_> = address.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(parameter, value) => {
                let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
                write!(f, "sysctl -w {parameter}=\"{value}\"")
            }
            Self::Release(of) => write!(f, "ip link set dev {} nomaster", of.name),
            Self::Ask(of) => write!(f, "ip link set dev {} arp on", of.name),
            Self::Carrier(of) => write!(f, "ip link set dev {} carrier on", of.name),
            Self::Queue(of, length) => {
                write!(f, "ip link set dev {} txqueuelen {length}", of.name)
            }
            Self::Unshape(of, ROOT) => write!(f, "tc qdisc del dev {} root", of.name),
            Self::Unshape(of, INGRESS) => write!(f, "tc qdisc del dev {} ingress", of.name),
            Self::Unshape(of, parent) => write!(
                f,
                "tc qdisc del dev {} parent {:x}:{:x}",
                of.name,
                parent >> 16,
                parent & !MAJOR
            ),
            Self::Forget(of, address) => write!(f, "ip neigh del {address} dev {}", of.name),
        }
    }
}
