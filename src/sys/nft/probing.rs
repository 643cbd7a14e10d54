//! What this kernel has, asked of the kernel itself: a version number says little of one that somebody built.

use super::{ApplyError, Armed, NETFILTER, VANISHED, commit, devices};
use crate::net::IfName;
use crate::ruleset::{self, Family, Kernel, Ruleset};
use crate::sys::link;
use crate::sys::netlink::Netlink;

/// Loads a ruleset, or tries whether it could be loaded.
type Load<'a> = dyn FnMut(&Ruleset) -> Result<(), ApplyError> + 'a;

/// What this kernel has, found out by loading deny-all with all that is used.
///
/// # Errors
///
/// Deny-all cannot be loaded at all; what was in force is in force still.
pub fn probe(armed: &mut Armed) -> Result<Kernel, ApplyError> {
    if !armed.has_rules() {
        return Ok(Kernel::NONE);
    }
    let most = Kernel {
        egress_hook: armed.egress_hook,
        absent_devices: armed.egress_hook,
        ..Kernel::FULL
    };
    let mut devices = armed.devices.clone();
    let kernel = find(most, &mut devices, &mut |ruleset| armed.apply(ruleset))?;
    armed.devices = devices;
    armed.egress_hook = kernel.egress_hook;
    armed.kernel = kernel;
    if !kernel.egress_hook {
        armed.clear_netdev()?;
    }
    Ok(kernel)
}

/// What this kernel would take, by transactions that are given up before they are in force: nothing changes, and a
/// gateway that runs here does not notice. Names of devices that are not there yet are not asked for.
///
/// # Errors
///
/// It does not take the rules at all, or not from us: that needs CAP_NET_ADMIN.
pub fn ask(found: &[IfName]) -> Result<Kernel, ApplyError> {
    let mut nft = Netlink::open(NETFILTER)?;
    let most = Kernel {
        absent_devices: false,
        ..Kernel::FULL
    };
    let mut try_it = |ruleset: &Ruleset| commit(&mut nft, &ruleset.encode_trial());
    find(most, &mut found.to_vec(), &mut try_it)
}

/// Takes away from `kernel` what is refused until the rest is taken.
fn find(
    mut kernel: Kernel,
    found: &mut Vec<IfName>,
    load: &mut Load<'_>,
) -> Result<Kernel, ApplyError> {
    // Without a device no egress chain is loaded, so its absence would go unnoticed until one comes.
    if kernel.egress_hook && found.is_empty() && !has_egress_hook(load)? {
        (kernel.egress_hook, kernel.absent_devices) = (false, false);
    }
    let mut gone = 0;
    loop {
        match load(&Ruleset::deny_all(found, kernel)) {
            Ok(()) => return Ok(kernel),
            Err(error) => match without(kernel, &error) {
                Some(less) => kernel = less,
                None if error.device_gone() && gone < VANISHED => {
                    gone += 1;
                    *found = devices()?;
                }
                None => return Err(error),
            },
        }
    }
}

/// The kernel without what this refusal says that it lacks; `None` if it says nothing of the kind. Which of the two
/// modules is missing the kernel does not say, so each is tried alone.
fn without(kernel: Kernel, error: &ApplyError) -> Option<Kernel> {
    if error.device_gone() && kernel.absent_devices {
        return Some(Kernel {
            absent_devices: false,
            ..kernel
        });
    }
    if error.no_egress_hook() && kernel.egress_hook {
        return Some(Kernel {
            egress_hook: false,
            absent_devices: false,
            ..kernel
        });
    }
    if !error.lacks_expression() {
        return None;
    }
    let (log, reject) = match (kernel.log, kernel.reject) {
        (true, true) => (false, true),
        (false, true) => (true, false),
        (true, false) => (false, false),
        (false, false) => return None,
    };
    Some(Kernel {
        log,
        reject,
        ..kernel
    })
}

/// Whether the kernel has the netdev egress hook, by a chain on loopback.
pub(super) fn has_egress_hook(load: &mut Load<'_>) -> Result<bool, ApplyError> {
    match load(&Ruleset::asking_for_egress()) {
        Ok(()) => Ok(true),
        Err(error) if error.no_egress_hook() => Ok(false),
        // The kernel knows no chain of this family, unless loopback has another name.
        Err(error) if error.device_gone() => {
            let lo = |it: &link::Device| it.loopback && it.name.as_str() == "lo";
            Ok(!link::devices().is_ok_and(|all| all.iter().any(lo)))
        }
        Err(error) => Err(error),
    }
}

impl Armed {
    /// Takes away the table of a layer that this kernel does not have. One that has no such tables has none to take.
    fn clear_netdev(&mut self) -> Result<(), ApplyError> {
        let hold = self.hold;
        let Some(socket) = &mut self.socket else {
            return Ok(());
        };
        match commit(socket, &ruleset::clear(&[Family::Netdev], hold)) {
            Err(error) if error.no_egress_hook() => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::policy::Reason;
    use crate::ruleset::{Hook, Match, Part};

    const ENOENT: i32 = 2;
    const EOPNOTSUPP: i32 = 95;

    fn refused(part: Part, errno: i32) -> Result<(), ApplyError> {
        Err(ApplyError::Refused {
            part,
            reason: None,
            source: io::Error::from_raw_os_error(errno),
        })
    }

    /// What a kernel that has this says to a ruleset.
    fn says(has: Kernel, ruleset: &Ruleset) -> Result<(), ApplyError> {
        let mut chains = ruleset.tables.iter().flat_map(|table| &table.chains);
        let egress = chains.find(|chain| chain.hook == Hook::Egress);
        let chain = Part::Chain(Family::Netdev, Hook::Egress);
        if let Some(egress) = egress {
            if !has.egress_hook {
                return refused(chain, EOPNOTSUPP);
            }
            let absent = |name: &IfName| name.as_str().starts_with("eth");
            if egress.devices.iter().any(absent) && !has.absent_devices {
                return refused(chain, ENOENT);
            }
        }
        let rejects = |text: &str| text.contains(" reject ");
        for (family, hook, rule) in ruleset.rules() {
            let lacks = rule.log.is_some() && !has.log || rejects(&rule.to_string()) && !has.reject;
            if lacks {
                return refused(Part::Rule(family, hook, 1, rule.reason), ENOENT);
            }
        }
        Ok(())
    }

    #[test]
    fn whatever_a_kernel_has_is_found_with_a_device_and_without_one() {
        let flags = [false, true];
        for devices in [&["dsl7"][..], &[]] {
            let devices: Vec<IfName> = devices.iter().map(|it| it.parse().unwrap()).collect();
            for (hook, absent) in [(false, false), (true, false), (true, true)] {
                for (log, reject) in flags.iter().flat_map(|a| flags.map(|b| (*a, b))) {
                    let has = Kernel {
                        rules: true,
                        egress_hook: hook,
                        absent_devices: absent,
                        log,
                        reject,
                    };
                    let mut load = |ruleset: &Ruleset| says(has, ruleset);
                    let found = find(Kernel::FULL, &mut devices.clone(), &mut load);
                    assert_eq!(found.unwrap(), has, "{devices:?}");
                }
            }
        }
    }

    /// Three devices vanish, one after the other, each between being listed and being held.
    #[test]
    fn a_device_that_vanishes_does_not_cost_the_second_layer() {
        let mut vanishing = 3;
        let mut load = |ruleset: &Ruleset| {
            let egress = |rule: &(Family, Hook, &ruleset::Rule)| rule.1 == Hook::Egress;
            if ruleset.rules().any(|rule| egress(&rule)) && vanishing > 0 {
                vanishing -= 1;
                return refused(Part::Chain(Family::Netdev, Hook::Egress), ENOENT);
            }
            Ok(())
        };
        let found = find(Kernel::FULL, &mut vec!["dsl7".parse().unwrap()], &mut load).unwrap();
        assert!(found.egress_hook);
    }

    #[test]
    fn what_says_nothing_of_the_kernel_stays_an_error() {
        let rule = Part::Rule(Family::Inet, Hook::Output, 1, Reason::Dns);
        let (eperm, enomem) = (1, 12);
        for (part, errno) in [(rule, enomem), (Part::Whole, eperm), (Part::Whole, ENOENT)] {
            let mut load = |_: &Ruleset| refused(part, errno);
            let device = "dsl7".parse().unwrap();
            find(Kernel::FULL, &mut vec![device], &mut load).unwrap_err();
        }
    }

    #[test]
    fn asking_for_the_hook_denies_all_the_same() {
        let asking = Ruleset::asking_for_egress();
        let named = |rule: &ruleset::Rule| rule.matches.contains(&Match::Ipv6);
        assert!(asking.rules().any(|(_, _, rule)| named(rule)));
        let accepting = asking.tables.iter().flat_map(|table| &table.chains);
        let accepting: Vec<_> = accepting.filter(|chain| chain.accept).collect();
        assert_eq!(accepting.len(), 1);
        assert_eq!(accepting[0].devices, ["lo".parse().unwrap()]);
    }
}
