//! What cuts the network of joined programs: seen once a second, said once, and undone where that is ours to do.

use tracing::{info, warn};

use super::record::Record;
use crate::net::{IfName, Uplink};
use crate::plan::departed::{FarEnd, Heard, is_taken};
use crate::plan::interference::{Guarded, Judged, Memory, Role, Seen};
use crate::sys::interference::{look, undo, whereabouts};
use crate::sys::link;

/// What there was at first, and the uplink as it was seen last.
#[derive(Default)]
pub(super) struct Interference {
    memory: Memory,
    uplink: Option<Known>,
    /// Whether notifications were lost since the last look.
    lost: bool,
    /// Why the last look saw nothing.
    blind: Option<String>,
}

/// An uplink that was there.
struct Known {
    name: IfName,
    index: u32,
    far_end: Option<FarEnd>,
}

impl Interference {
    /// Notifications were lost: a move may have been among them.
    pub(super) fn lost(&mut self) {
        self.lost = true;
    }

    /// The kernel told of a move itself.
    pub(super) fn told(&mut self) {
        self.uplink = None;
    }

    /// Looks, and undoes what cuts. Returns a way out that was taken to another namespace without a word of it.
    pub(super) fn look(
        &mut self,
        uplink: Option<&Uplink>,
        tunnel: &IfName,
        record: &mut Record,
    ) -> Option<IfName> {
        let seen = match look(uplink, tunnel) {
            Ok(seen) => seen,
            Err(error) => {
                let why = error.to_string();
                if self.blind.as_ref() != Some(&why) {
                    warn!(why, "whether somebody cuts the network cannot be seen");
                }
                self.blind = Some(why);
                return None;
            }
        };
        self.blind = None;
        for judged in self.memory.judge(&seen) {
            mend(&judged, record);
        }
        self.taken(&seen)
    }

    fn taken(&mut self, seen: &Seen) -> Option<IfName> {
        let heard = if std::mem::take(&mut self.lost) {
            Heard::NotAll
        } else {
            Heard::All
        };
        let uplink = |it: &&Guarded| it.role == Role::Uplink;
        let now = seen.devices.iter().find(uplink).map(|it| Known {
            name: it.name.clone(),
            index: it.index,
            far_end: it.far_end,
        });
        let before = match now {
            Some(now) => {
                let same = |before: &Known| before.index == now.index;
                let before = self.uplink.take_if(|before| !same(before));
                self.uplink = Some(now);
                before?
            }
            None => self.uplink.take()?,
        };
        match link::devices() {
            // It is down, or no uplink any more; it may still be taken.
            Ok(devices) if devices.iter().any(|it| it.index == before.index) => {
                self.uplink.get_or_insert(before);
                None
            }
            Ok(_) => is_taken(whereabouts(before.far_end), heard).then_some(before.name),
            // It could not be told: the next look tries again, with as little that was heard.
            Err(_) => {
                self.uplink.get_or_insert(before);
                self.lost |= heard == Heard::NotAll;
                None
            }
        }
    }
}

fn mend(Judged { finding, is_new }: &Judged, record: &mut Record) {
    let undone = undo(&finding.undo);
    // What could not be undone is tried again each time, and said once.
    if !is_new {
        return;
    }
    let (what, step) = (&finding.what, &finding.undo);
    record.undone(finding.kind, what);
    match undone {
        Ok(()) => {
            warn!(what, "another program cut the network; it is undone");
            info!(%step, "undone by");
        }
        Err(error) => {
            warn!(what, %error, "another program cuts the network, and it could not be undone")
        }
    }
}
