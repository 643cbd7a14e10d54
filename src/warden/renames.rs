//! Hears of devices that were renamed, whose frames the rules may have missed for a moment.
//!
//! A chain of the egress hook leaves a device with its name (`nft_netdev_event`, net/netfilter/nft_chain_filter.c, seen
//! with Linux 6.18), and is put on again after the rules of the `inet` table match that name again: what those let pass
//! meanwhile is sent, and not counted.

use tracing::warn;

use crate::net::IfName;
use crate::sys::link::Traffic;
use crate::sys::watch::{Change, Watch};

/// What devices were called, and what is heard of them.
#[derive(Default)]
pub(super) struct Renames {
    watch: Option<Watch>,
    names: Vec<IfName>,
}

impl Renames {
    /// Whether a name was heard of since the last call that nobody had then: a device was called so, for however short a
    /// time, or is new. `now`: all devices. The first call only begins to listen.
    pub(super) fn heard(&mut self, now: &[Traffic]) -> bool {
        let heard = match &self.watch {
            Some(watch) => match watch.read() {
                Ok(changes) => changes.iter().any(|change| is_new(&self.names, change)),
                Err(error) => {
                    warn!(%error, "a kernel notification could not be read");
                    true
                }
            },
            None => {
                self.listen();
                false
            }
        };
        self.names = now.iter().map(|it| it.name.clone()).collect();
        heard
    }

    fn listen(&mut self) {
        match Watch::links() {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => warn!(%error, "names of devices cannot be watched"),
        }
    }
}

/// Whether a change tells of a name that nobody had.
fn is_new(names: &[IfName], change: &Change) -> bool {
    match change {
        Change::Link(name) | Change::LinkGone(name) | Change::LinkMoved { device: name, .. } => {
            !names.contains(name)
        }
        Change::Lost => true,
        Change::Address | Change::Route | Change::Rule | Change::Ruleset { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_that_nobody_had_is_heard_of() {
        let name = |name: &str| name.parse::<IfName>().unwrap();
        let names = [name("lo"), name("eth0")];
        assert!(is_new(&names, &Change::Link(name("gone0"))));
        assert!(is_new(&names, &Change::LinkGone(name("gone0"))));
        assert!(is_new(&names, &Change::Lost));
        assert!(!is_new(&names, &Change::Link(name("eth0"))));
        assert!(!is_new(&names, &Change::Route));
    }
}
